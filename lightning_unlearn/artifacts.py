"""What one stage leaves for later ones."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from torch import Tensor

from lightning_unlearn.data.sample_table import SampleTable
from lightning_unlearn.exceptions import ChainError

__all__ = ["Artifacts", "Tensors"]

Tensors: TypeAlias = Mapping[str, Tensor]


class Artifacts:
    """Named groups of tensors: a mask by parameter, a Fisher diagonal, targets by sample.

    They live as long as the run; the runner keeps them beside a finished stage only until the chain has ended.

    Besides, features that a stage computed of samples are there for the next stage that needs them; they are not saved.

    Args:
        groups: What is there at the beginning.
    """

    def __init__(self, groups: Mapping[str, Tensors] | None = None) -> None:
        self._groups: dict[str, dict[str, Tensor]] = {name: dict(group) for name, group in (groups or {}).items()}
        self._features: tuple[str, SampleTable] | None = None

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

    def features(self, known_by: str, samples: int) -> SampleTable:
        """The table of features that an earlier stage left, or an empty one in its place.

        Args:
            known_by: What the features are known by: those of another network, or of other weights, are let go.
            samples: Number of samples of the training set.

        Returns:
            The table; what is added to it is there for later stages.
        """
        if self._features is None or self._features[0] != known_by:
            self._features = (known_by, SampleTable(samples))
        return self._features[1]

    def drop_features(self) -> None:
        """Let the features go: the chain has ended, or the next stage is no use to them."""
        self._features = None

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """All groups, as plain dicts.

        Returns:
            Group name to tensors.
        """
        return {name: dict(group) for name, group in self._groups.items()}
