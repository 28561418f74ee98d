"""Which way the per-sample gradients of each parameter are computed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from lightning_unlearn.functional.layer_squares import rule_for

__all__ = ["GradientPlan"]


@dataclass
class GradientPlan:
    """Who serves which parameter.

    Attributes:
        modules: Module -> its parameter -> full name: by formula or by the module's vmap, in one pass.
        by_vmap: Those of `modules` that are not served by formula.
        copied: Served by a copy for each sample, in the same pass.
        whole: Served by the network's vmap or, with `loop`, sample by sample.
        loop: See `whole`.
        at_once: Samples in one pass.
    """

    modules: dict[str, dict[str, str]] = field(default_factory=dict)
    by_vmap: set[str] = field(default_factory=set)
    copied: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    loop: bool = False
    at_once: int = 2**31

    @classmethod
    def first(cls, network: nn.Module, parameters: Mapping[str, Tensor]) -> "GradientPlan":
        """The best that may be hoped for; the first batch shows what holds.

        Args:
            network: The network.
            parameters: Its wanted parameters by name.

        Returns:
            A plan in which formulas serve all that they may know.
        """
        plan = cls()
        for full, parameter in parameters.items():
            owner = full.rpartition(".")[0]
            if rule_for(network.get_submodule(owner)) is not None:
                plan._add(full)
            elif parameter.dim() > 1 and len(parameter) == 1:
                plan.copied.append(full)
            else:
                plan._add(full)
        return plan

    def _add(self, full: str) -> None:
        owner, _, local = full.rpartition(".")
        if owner:
            self.modules.setdefault(owner, {})[local] = full
        else:  # the network's own: its vmap is the module's
            self.whole.append(full)

    def in_one_pass(self) -> set[str]:
        """Names of the parameters that one forward and one backward pass serve."""
        return {full for own in self.modules.values() for full in own.values()} | set(self.copied)

    def demote(self, wrong: set[str]) -> None:
        """Move parameters one way down: from a copy to a module's vmap, from a formula to vmap, from there to the network's.

        Args:
            wrong: Names of parameters whose gradients did not agree with autograd.
        """
        for full in [full for full in self.copied if full in wrong]:
            self.copied.remove(full)
            self._add(full)
        for module, own in list(self.modules.items()):
            if wrong.isdisjoint(own.values()):
                continue
            if module in self.by_vmap:
                self.whole += self.modules.pop(module).values()
            self.by_vmap ^= {module}
