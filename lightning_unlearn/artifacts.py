"""What one stage leaves for later ones."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from torch import Tensor

from lightning_unlearn.exceptions import ChainError

__all__ = ["Artifacts", "Tensors"]

Tensors: TypeAlias = Mapping[str, Tensor]


class Artifacts:
    """Named groups of tensors: a mask by parameter, a Fisher diagonal, targets by sample.

    They live as long as the run; the runner keeps them beside a finished stage only until the chain has ended.

    Args:
        groups: What is there at the beginning.
    """

    def __init__(self, groups: Mapping[str, Tensors] | None = None) -> None:
        self._groups: dict[str, dict[str, Tensor]] = {name: dict(group) for name, group in (groups or {}).items()}

    def __contains__(self, name: str) -> bool:
        return name in self._groups

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        if name not in self._groups:
            raise ChainError(
                f"The artifact {name!r} is needed and only {sorted(self._groups)} are there; put a stage that provides it "
                "before this one, and name it in `requires`, so that the chain is checked before it runs."
            )
        return self._groups[name]

    def __setitem__(self, name: str, tensors: Tensors) -> None:
        self._groups[name] = {key: value.detach().cpu() for key, value in tensors.items()}

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """All groups, as plain dicts.

        Returns:
            Group name to tensors.
        """
        return {name: dict(group) for name, group in self._groups.items()}
