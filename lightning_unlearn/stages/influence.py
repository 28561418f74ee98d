"""One Newton-like step away from what the forgotten samples taught."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_unlearn.callbacks.looking import check_budget
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.collect import collect
from lightning_unlearn.data.split_data import Part
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.curvature import inverse_curvature_product
from lightning_unlearn.functional.cut import cut
from lightning_unlearn.functional.inverse_products import inverse_fisher_product
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import run_seed
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.gradient_passes import mean_gradient
from lightning_unlearn.stages.step_within import step_within

__all__ = ["Influence"]

_SOLVED = {("fisher", "exact"), ("ggn", "exact"), ("ggn", "cg"), ("hessian", "exact"), ("hessian", "cg")}


class Influence(UnlearningStage):
    """Influence functions (Koh and Liang 2017, ICML): `theta <- theta + alpha * (H + damping)^-1 v`.

    The loss on the forgotten samples rises: v points along their gradients. (Sugiura et al., DEIM 2024, end with the opposite
    sign; a test against refitting decides.) In eval mode, on un-augmented images; where only the end of a network is changed,
    its beginning runs once per sample.

    Where the original knows its samples by heart, gradients and H are nearly zero, and the damping decides how long the step
    is. For a convex loss with an L2 penalty, the damping is that penalty.

    Args:
        alpha: Length of the step; 1 is the step of the theory.
        damping: Added to the diagonal of H; 1e-2 is our choice: on digits 1e-3 wrecked the network.
        samples: Samples of H, a random part; 1,000 in Jia et al. The exact inverse of `fisher` grows with its square.
        parameters: What is changed; None: all parameters. The last layer alone is quick in any network.
        form: `reweighted`: v = (1/n) sum over D_f of g - n_f / (n n_r) sum over D_r of g and H on D_r, for weights of what
            remains that sum to 1 (IU: Jia et al. 2023, NeurIPS, Proposition 1). `removal`: v = (1/n) sum over D_f of g and H on
            all samples (Koh and Liang). `newton`: v = (1/n_r) sum over D_f of g and H on D_r (single-step sample erasure:
            Peste et al. 2021).
        curvature: H: `fisher`, empirical; `ggn`, generalised Gauss-Newton, for the last layer the Hessian; or `hessian`, which
            outside of convex models needs damping above its lowest eigenvalue.
        solver: `exact`: for `fisher` in sample space (Woodbury), else with the dense matrix of at most 4,096 parameters; `cg`:
            conjugate gradients, for `ggn` and `hessian` of any size.
        iterations: Of conjugate gradients, at most.
        max_retain_drop: Points of retain accuracy that the step may cost; it is halved until it keeps to that. 100: any.
    """

    view = "none"
    train_mode = False

    def __init__(
        self,
        alpha: float = 1.0,
        damping: float = 1e-2,
        samples: int = 1000,
        parameters: ParameterSelector | None = None,
        form: Literal["reweighted", "removal", "newton"] = "reweighted",
        curvature: Literal["fisher", "ggn", "hessian"] = "fisher",
        solver: Literal["exact", "cg"] = "exact",
        iterations: int = 50,
        max_retain_drop: float = 5.0,
    ) -> None:
        if not (alpha > 0 and damping > 0 and samples > 0 and iterations > 0):
            given = f"alpha is {alpha}, damping {damping}, samples {samples}, iterations {iterations}"
            raise ChainError(f"Influence: {given}; needed: all above 0.")
        if form not in ("reweighted", "removal", "newton") or (curvature, solver) not in _SOLVED:
            raise ChainError(
                f"Influence: form is {form!r}, curvature {curvature!r} and solver {solver!r}; needed: reweighted, removal or "
                "newton; and fisher with the solver exact, or ggn or hessian with exact or cg."
            )
        check_budget("Influence", max_retain_drop)
        super().__init__(max_epochs=0, parameters=parameters)
        self.alpha = alpha
        self.damping = damping
        self.samples = samples
        self.form = form
        self.curvature = curvature
        self.solver = solver
        self.iterations = iterations
        self.max_retain_drop = max_retain_drop
        self._summary: dict[str, float] = {}

    def on_fit_start(self) -> None:
        """Compute v and the inverse product, and take the step."""
        network: nn.Module = self.classifier
        end = None
        if len(self.selected) < len(list(network.parameters())):
            end = cut(network, self.selected, self.example_image())
            self.work.backward_share = 1.0 if end is None else end.share
        vector = self._vector()
        # Every rank solves the same small system, with all samples.
        part: Part = "train" if self.form == "removal" else "retain"
        chosen = self.data.random_part(part, self.samples, "influence", run_seed())
        before, network = (nn.Identity(), network) if end is None else (end.prefix, end.tail)
        watched = None if end is None else self.work.watch(before, 1 - end.share)

        def features(batch: Batch) -> Tensor:
            # The curvature is that of the network in full precision, and so is what enters its end.
            with torch.autocast(self.device.type, enabled=False):
                rows: Tensor = before(batch.input)
            return rows

        x = collect(features, self.data.evaluation_loader(part, chosen), chosen, self.trainer)
        if watched is not None:
            watched.remove()
        labels = self.data.samples.targets[chosen].to(x.device)
        # The step may pass over the samples in ways that the counter of images does not see: it is told.
        spent = (self.work.forward, self.work.backward)
        step, forward, backward = self._solve(network, x, labels, vector)
        share = len(x) * self.work.backward_share
        self.work.forward, self.work.backward = spent[0] + forward * share, spent[1] + backward * share
        self._summary["alpha"] = step_within(self, step, self.alpha, self.max_retain_drop)

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """Products with H that the solver took, and the length of the step."""
        return {"solver": self._summary}

    def _vector(self) -> dict[str, Tensor]:
        """The direction v, by name."""
        forgotten, retained = (len(self.data.part(part)[1]) for part in ("forget", "retain"))
        forget = mean_gradient(self, "forget")
        if self.form == "reweighted":
            share, retain = forgotten / (forgotten + retained), mean_gradient(self, "retain")
            return {name: share * (forget[name] - retain[name]) for name in self.selected}
        share = forgotten / (retained + (forgotten if self.form == "removal" else 0))
        return {name: share * forget[name] for name in self.selected}

    def _solve(
        self, network: nn.Module, x: Tensor, labels: Tensor, vector: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], float, float]:
        """The inverse product, and how often the samples went forward and backward for it."""
        if self.curvature == "fisher":
            found, runs = inverse_fisher_product(network, x, labels, vector, self.damping)
            return found, runs, runs
        iterations = self.iterations if self.solver == "cg" else None
        try:
            found, products = inverse_curvature_product(network, x, labels, vector, self.damping, self.curvature, iterations)
        except ValueError as error:
            raise ChainError(f"Influence: {error}") from None
        self._summary["products"] = products
        # Forward, backward, and the derivative of both.
        return found, 2 * products, 2 * products
