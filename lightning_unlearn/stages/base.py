"""What every stage of unlearning shares."""

import math
from abc import ABC
from collections.abc import Callable, Iterable, Mapping

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.data.batch import Batch, parts_of
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.views import View
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import has_normalisation
from lightning_unlearn.functional.modes import set_modes
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.schedule import Schedule, build_optimizer, logs_at, with_schedule
from lightning_unlearn.stages.tools import StageTools
from lightning_unlearn.work import Work

__all__ = ["UnlearningStage", "default_stage_optimizer"]


def default_stage_optimizer(params: Iterable[nn.Parameter]) -> Optimizer:
    """SGD with momentum 0.9 and learning rate 0.01, no weight decay."""
    return SGD(params, lr=0.01, momentum=0.9)


class UnlearningStage(StageTools, ABC):
    """One step of unlearning: an objective over batches of a view, and a chain of callbacks that edit weights.

    Most stages set `view` and define `loss_of`, or `objective` where it looks at more than one forward pass over the batch. A
    stage that needs neither gradients nor data sets `view = "none"` and returns its weight edits from `configure_callbacks`.

    Class attributes (an instance may narrow them in its constructor):
        view: The part of the data that the stage trains on.
        requires: Artifacts of earlier stages; the chain is checked before any stage runs.
        provides: Artifacts that it leaves.
        whole_classes: Whether it can forget whole classes only; another split is refused before anything runs.
        exact: Whether nothing of the forgotten samples is left after it, whatever ran before.
        note: What a reader of the report must know about figures that the stage aims at.
        warning: What the report must warn of: that by its own measure the stage failed.
        train_mode: Whether the trained modules run in train mode (BatchNorm uses and updates batch statistics).
        prepares: Whether it makes sense before anything is forgotten: it treats no sample as forgotten, and looks at no unseen
            one. A reference is prepared on data without the forgotten samples, so its view `train` holds none either.
        only_looks: Whether it changes no weight, so that a network that is frozen as a whole will do.
        brings_files: Whether it takes files along that a later request needs: it runs also where nothing is forgotten.
        steps_each_batch: Whether its length or its passes count batches, so that the Trainer may not accumulate gradients.

    Args:
        max_epochs: Epochs over the view; 0 for a pure weight edit.
        max_steps: Steps after which the stage ends even inside an epoch; None: no such limit.
        batch_size: Samples of a batch over all ranks; None: the DataModule's.
        forget_batch_size: The same for the forgotten part of two-part views; None: the DataModule's.
        optimizer: Makes the optimiser from the trained parameters.
        unnormalised_rate: Factor of learning rates on networks without normalisation, which stand less of them, above 0.
        schedule: Course of the learning rate over all steps.
        parameters: Which parameters are trained; None: all. The rest is frozen, statistics of BatchNorm included.
        callbacks: Further links of this stage's fit, such as `SelectByUnseen`.
    """

    view: View
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    train_mode: bool = True
    whole_classes: bool = False
    exact: bool = False
    prepares: bool = False
    only_looks: bool = False
    brings_files: bool = False
    steps_each_batch: bool = False
    note: str = ""
    warning: str = ""

    artifacts: Artifacts

    def __init__(
        self,
        max_epochs: int = 1,
        max_steps: int | None = None,
        batch_size: int | None = None,
        forget_batch_size: int | None = None,
        optimizer: OptimizerCallable = default_stage_optimizer,
        schedule: Schedule = "constant",
        parameters: ParameterSelector | None = None,
        callbacks: list[Callback] | None = None,
        unnormalised_rate: float = 1.0,
    ) -> None:
        super().__init__()
        if max_epochs < 0 or (max_steps is not None and max_steps < 1):
            raise ChainError(
                f"{type(self).__name__}: max_epochs is {max_epochs} and max_steps is {max_steps}; "
                "needed: 0 or more epochs, and at least 1 step or none given."
            )
        for name, size in (("batch_size", batch_size), ("forget_batch_size", forget_batch_size)):
            if size is not None and size < 1:
                raise ChainError(f"{type(self).__name__}: {name} is {size}; needed: at least 1, or none for the data's.")
        if not 0 < unnormalised_rate < math.inf:
            raise ChainError(
                f"{type(self).__name__}: unnormalised_rate is {unnormalised_rate}; needed: a finite number above 0."
            )
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.forget_batch_size = forget_batch_size
        self.optimizer = optimizer
        self.unnormalised_rate = unnormalised_rate
        self.schedule = schedule
        self.selector = parameters
        self.callbacks = tuple(callbacks or ())
        self.selected: list[str] = []
        self.work = Work()
        self._was_trainable: dict[str, bool] = {}

    @property
    def trains_on_unseen(self) -> bool:
        """Whether unseen samples are unseen no more after it, which later requests and comparisons must know."""
        return self.view == "unseen" and self.max_epochs > 0

    @property
    def compares_with_unseen(self) -> bool:
        """Whether it, or one of its callbacks, takes unseen samples for such as the network was never trained on."""
        return any(getattr(link, "compares_with_unseen", False) for link in self.callbacks)

    def looks_at_unseen(self, data: UnlearningDataModule) -> bool:
        """Whether it compares with unseen samples on these data: then figures against them are what it aimed at.

        Args:
            data: The data, split.

        Returns:
            `compares_with_unseen`, unless a stage compares only for some requests and says so here.
        """
        return self.compares_with_unseen

    # Before and after the fit; called by the runner.

    def place(self, fresh: Callable[..., Trainer], checkpoint: str | None, output: str | None) -> None:
        """Learn where the run starts from and where its result goes; `UnlearningTrainer.unlearn` calls it before `check`.

        Args:
            fresh: Makes a Trainer.
            checkpoint: What the run starts from; None: a model without a file.
            output: Folder of the result; None: nothing is written.
        """

    def check(self, classifier: nn.Module, data: UnlearningDataModule) -> None:
        """Refuse what the stage cannot do with this network or this split; called before any stage of the chain runs.

        Args:
            classifier: The network.
            data: The data, split.

        Raises:
            ChainError: The stage forgets whole classes, and the split is not by class.
        """
        if self.whole_classes and not data.forgotten_classes:
            what = "the saved split" if data.forget_rule is None else data.forget_rule.describe()
            raise ChainError(
                f"{type(self).__name__} forgets whole classes, and what is to be forgotten is not: {what}. Needed: "
                "--data.forget WholeClasses --data.forget.classes [3], or another method."
            )

    def bind(self, classifier: nn.Module, artifacts: Artifacts) -> None:
        """Attach the trained classifier and freeze what is not trained. DDP needs this before the fit.

        Args:
            classifier: Gives logits (B, K) of images (B, C, H, W).
            artifacts: What earlier stages left.

        Raises:
            ChainError: The selection of parameters fits nothing in this network.
        """
        self.classifier = classifier
        self.artifacts = artifacts
        # Before anything is changed: a selection that fits nothing leaves the network as it was.
        try:
            self.selected = self.choose(classifier)
        except ValueError as error:
            raise ChainError(f"{type(self).__name__}: {error}") from None
        self._was_trainable = {name: p.requires_grad for name, p in classifier.named_parameters()}
        chosen = set(self.selected)
        for name, parameter in classifier.named_parameters():
            parameter.requires_grad_(name in chosen)
        set_modes(classifier, chosen if self.train_mode else set())
        # Anew: the same object may have run before.
        self.__dict__.pop("warning", None)
        self.work = Work(backward_share=self.work.backward_share)
        self._watched = self.work.watch(classifier)

    def uncounted(self) -> nn.Module:
        """What a step calls, whose work is no longer counted from now on: for those who run copies of it and count themselves.

        Returns:
            The classifier, or what stands in its place.
        """
        self._watched.remove()
        return self.classifier

    def before_fit(self, fresh: Callable[..., Trainer], data: UnlearningDataModule) -> None:
        """Work in fits of other Trainers before the stage's own.

        Args:
            fresh: Makes a Trainer.
            data: The data.
        """

    def attach(self, trainer: Trainer) -> None:
        """Look at the Trainer of the coming fit; a stage that optimises by itself takes over what Lightning then refuses.

        Args:
            trainer: The Trainer, before its fit.
        """

    def length(self, data: UnlearningDataModule) -> tuple[int, int]:
        """How long the fit is.

        Args:
            data: The data; a stage may let its length grow with the forget set.

        Returns:
            Epochs and steps, -1 where only the other one counts.
        """
        return self.max_epochs, -1 if self.max_steps is None else self.max_steps

    def sizes(self, data: UnlearningDataModule) -> tuple[int, int]:
        """How large its batches are.

        Args:
            data: The data; a stage may let its batches follow from the forget set.

        Returns:
            Samples of a batch, and of the forgotten part of one in two-part views, over all ranks.
        """
        return self.batch_size or data.serving.batch_size, self.forget_batch_size or data.serving.forget_batch_size

    def release(self) -> None:
        """Detach the classifier as it was found: trainable where it was, in eval mode, on the CPU."""
        self._watched.remove()
        for name, parameter in self.classifier.named_parameters():
            parameter.requires_grad_(self._was_trainable.get(name, True))
        self.classifier.eval().cpu()
        self.zero_grad(set_to_none=True)
        del self.classifier

    def summary(self) -> Mapping[str, Mapping[str, float]]:
        """What the report shows of this stage beyond time and work.

        Returns:
            Named groups of figures, such as the share of ones in the mask per layer.
        """
        return {}

    # What a method overrides.

    def choose(self, classifier: nn.Module) -> list[str]:
        """Names of the parameters that the stage trains or edits.

        Args:
            classifier: The network.

        Returns:
            What the selector chose; a stage that can use only some of it overrides this.

        Raises:
            ValueError: Everything is frozen.
        """
        if self.selector is None:
            # What the user froze stays frozen, unless it is asked for by name or part.
            names = [name for name, p in classifier.named_parameters() if p.requires_grad]
            if not names and not self.only_looks:
                raise ValueError("every parameter of the network is frozen. Unfreeze some, or name them by `parameters`.")
            return names
        return self.selector.names(classifier)

    def objective(self, batch: Batch | dict[str, Batch]) -> Tensor:
        """The loss of a batch, a scalar; minimised. Unless a stage overrides it, `loss_of` its `logits`.

        Args:
            batch: A `Batch`, or a dict of them in two-part views.

        Returns:
            The mean over this rank's samples. In two-part views take means with `mean`, which weights uneven ranks.
        """
        return self.loss_of(self.logits(*parts_of(batch)), batch)

    def loss_of(self, logits: Tensor, batch: Batch | dict[str, Batch]) -> Tensor:
        """The loss of a batch from its logits: what `objective` minimises unless it is overridden.

        A stage that looks at nothing but one forward pass over its batch defines it alone, and then `run_chain_many` can train
        many models at once.

        Args:
            logits: (B, K) of the batch; in two-part views of the forgotten part and then of the retained one.
            batch: See `objective`.

        Returns:
            What `objective` gives.
        """
        # Abstract on demand.
        raise NotImplementedError(f"{type(self).__name__} trains, so it must define `objective`, or `loss_of`.")

    def configure_callbacks(self) -> list[Callback]:
        """The chain of callbacks of this stage, in order.

        Returns:
            Callbacks.
        """
        return []

    # What Lightning calls.

    def training_step(self, batch: Batch | dict[str, Batch], batch_idx: int) -> Tensor | None:
        """One step of the objective.

        Args:
            batch: Batch of the view.
            batch_idx: Its number in the epoch.

        Returns:
            The loss; None where a stage that optimises by itself has taken the step.
        """
        return self.checked_loss(batch, batch_idx)

    def checked_loss(self, batch: Batch | dict[str, Batch], batch_idx: int, name: str = "loss") -> Tensor:
        """The objective, checked and logged; DDP's average over ranks is the mean over the whole batch.

        Args:
            batch: Batch of the view.
            batch_idx: Its number in the epoch.
            name: What the log calls it.

        Returns:
            A scalar.

        Raises:
            ChainError: `objective` returned something else than one number, or one without a gradient.
        """
        loss = self.objective(batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise ChainError(f"{type(self).__name__}: objective returned {found}; needed: a tensor with one number, the loss.")
        if not loss.requires_grad:
            raise ChainError(
                f"{type(self).__name__}: objective returned a loss without a gradient; needed: one that comes from parameters "
                "that are trained, without detach(), no_grad() or requires_grad_(False) on its way."
            )
        if logs_at(self.trainer, batch_idx):
            self.log(f"{type(self).__name__}/{name}", loss.detach(), prog_bar=True)
        if isinstance(batch, Batch):
            loss = loss * self.rank_weight(batch)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser over the trained parameters, with its schedule.

        Returns:
            Lightning's configuration.
        """
        trained = [p for p in self.parameters() if p.requires_grad]
        if not trained:
            return []
        return with_schedule(self, self.make_optimizer(self.optimizer, trained), self.schedule)

    def make_optimizer(self, factory: OptimizerCallable, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Make an optimiser, at the learning rate that the network stands; see `unnormalised_rate`.

        Args:
            factory: Makes it from parameters.
            parameters: What it steps.

        Returns:
            The optimiser.
        """
        optimizer = build_optimizer(factory, parameters)
        if not has_normalisation(self.classifier):
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * self.unnormalised_rate
        return optimizer
