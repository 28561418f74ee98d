"""One Newton-like step away from what the forgotten samples taught."""

import torch

from lightning_unlearn.collect import collect
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.inverse_products import inverse_fisher_product, passes
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import run_seed
from lightning_unlearn.stages.base import UnlearningStage
from lightning_unlearn.stages.gradient_passes import mean_gradient

__all__ = ["Influence"]


class Influence(UnlearningStage):
    """Influence unlearning, IU (Koh and Liang 2017, ICML; for unlearning, with WoodFisher: Jia et al. 2023, NeurIPS).

    `theta <- theta + alpha * H^-1 v` with v = (1/n) sum over D_f of g - n_f / (n n_r) sum over D_r of g, for weights of what
    remains that sum to 1 (Proposition 1 of Jia et al.): the loss on the forgotten samples rises. H is the damped empirical
    Fisher matrix of some retained samples, inverted exactly in sample space. In eval mode, on un-augmented images.

    Where the original knows its samples by heart, gradients and H are nearly zero, and the step says little: the damping
    then decides how long it is.

    Args:
        alpha: Length of the step; 1 is the step of the theory.
        damping: Added to the diagonal of H; 1e-2 is our choice: on digits 1e-3 wrecked the network.
        samples: Retained samples of H, a random part; 1,000 in the paper. Memory and time of the solver grow with its square.
        parameters: What is changed; None: all parameters. The last layer alone is quick in any network.
    """

    view = "none"
    train_mode = False

    def __init__(
        self,
        alpha: float = 1.0,
        damping: float = 1e-2,
        samples: int = 1000,
        parameters: ParameterSelector | None = None,
    ) -> None:
        if not (alpha > 0 and damping > 0 and samples > 0):
            raise ChainError(f"Influence: alpha is {alpha}, damping {damping}, samples {samples}; needed: all above 0.")
        super().__init__(max_epochs=0, parameters=parameters)
        self.alpha = alpha
        self.damping = damping
        self.samples = samples

    def on_fit_start(self) -> None:
        """Compute v and the inverse product, and take the step."""
        forgotten, retained = (len(self.data.part(part)[1]) for part in ("forget", "retain"))
        forget, retain = mean_gradient(self, "forget"), mean_gradient(self, "retain")
        share = forgotten / (forgotten + retained)
        vector = {name: share * (forget[name] - retain[name]) for name in self.selected}
        # Every rank solves the same small system, with all samples.
        chosen = self.data.random_part("retain", self.samples, "influence", run_seed())
        loader = self.data.evaluation_loader("retain", chosen)
        x = collect(lambda batch: batch.input, loader, chosen, self.trainer)
        labels = self.data.samples.targets[chosen].to(x.device)
        step = inverse_fisher_product(self.classifier, x, labels, vector, self.damping)
        # Under `vmap` the counter sees one sample for many.
        runs = passes(sum(v.numel() for v in vector.values()), len(x), x.element_size())
        self.work.forward, self.work.backward = self.work.forward + runs * len(x), self.work.backward + runs * len(x)
        parameters = dict(self.classifier.named_parameters())
        with torch.no_grad():
            for name in self.selected:
                parameters[name].add_(step[name], alpha=self.alpha)
