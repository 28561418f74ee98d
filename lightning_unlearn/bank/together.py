"""Training many classifiers of one kind at once, each as it would be trained alone."""

import copy
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerConfig, OptimizerLRSchedulerConfig
from torch import Tensor, nn

from lightning_unlearn.classifier import Classifier
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.views import View
from lightning_unlearn.functional.ensemble import ELEMENTWISE, LARGEST_GROUP, How, seconds_per_step, stack, valid_ways
from lightning_unlearn.schedule import build_optimizer, with_schedule
from lightning_unlearn.training import describe, fit_quietly

__all__ = ["TrainingTogether", "Way", "find_way", "fit_together"]

# Arguments of a Trainer that do the same to a sum of losses as to each of them; a clipped norm, say, does not.
_HARMLESS = {"accelerator", "devices", "num_nodes", "precision", "deterministic", "benchmark", "accumulate_grad_batches"}
_PRECISIONS = {"None", "32", "32-true", "64", "64-true", "bf16", "bf16-mixed", "bf16-true"}


@dataclass(frozen=True)
class Way:
    """How models of one kind are best trained.

    Attributes:
        how: Form of the ensemble; `loop`: one after another.
        size: Models at once.
        seconds: Of one step of one model, on an idle machine; 0 where nobody knows.
        reason: Why one after another; empty otherwise.
    """

    how: How
    size: int
    seconds: float
    reason: str = ""


class TrainingTogether(LightningModule):
    """Trains K classifiers on batches of their own (`ManyLoader`): the sum of their losses, one optimiser, one schedule.

    Args:
        models: Classifiers of one architecture and one configuration.
        how: Form of the ensemble.
    """

    def __init__(self, models: Sequence[Classifier], how: How) -> None:
        super().__init__()
        self.ensemble = stack([model.network for model in models], how=how)
        # Not a part of this module: only its settings are used.
        self._model = (models[0],)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum over models of the mean cross-entropy of their batches.

        Args:
            batch: Batches of all models.
            batch_idx: Its number in the epoch.

        Returns:
            A scalar.
        """
        logits: Tensor = self.ensemble(batch.input).flatten(0, 1)
        smoothing = self._model[0].label_smoothing
        losses = F.cross_entropy(logits, batch.target.flatten(), reduction="none", label_smoothing=smoothing)
        return losses.view(self.ensemble.count, -1).mean(1).sum()

    def configure_optimizers(self) -> OptimizerConfig | OptimizerLRSchedulerConfig:
        """The optimiser and the schedule of the classifiers.

        Returns:
            Lightning's configuration.
        """
        model = self._model[0]
        return with_schedule(self, build_optimizer(model.optimizer, self.ensemble.parameters()), model.schedule)

    def hand_over(self, models: Sequence[Classifier]) -> None:
        """Give the classifiers what they have learnt.

        Args:
            models: Those that were given, in the same order.
        """
        for model, network in zip(models, self.ensemble.unstack(), strict=True):
            dtype = next(network.parameters()).dtype
            # As Lightning leaves a model that it has trained alone in this precision.
            model.to(dtype).network.load_state_dict(network.state_dict())


def fit_together(
    models: Sequence[LightningModule],
    data: UnlearningDataModule,
    view: View,
    seeds: Sequence[int],
    max_epochs: int,
    arguments: Mapping[str, object],
    how: How,
) -> None:
    """Train classifiers at once, in place; each becomes what `fit_quietly` makes of it after `seed_everything(seed)`.

    Equal up to rounding: the order of batches, the augmentation, the optimiser and its schedule are those of the single
    training. Ask `find_way` first whether it is possible.

    Args:
        models: K untrained classifiers, each built with its seed.
        data: The data; with a seed of its own (`data.seed`) all models get the same order, as they would alone.
        view: What is served.
        seeds: K seeds of order and augmentation.
        max_epochs: Epochs.
        arguments: Further arguments of the Trainer.
        how: Form of the ensemble.
    """
    classifiers = [model for model in models if isinstance(model, Classifier)]
    together = TrainingTogether(classifiers, how)
    fit_quietly(together, data, view, max_epochs, arguments, seeds=seeds)
    together.cpu().hand_over(classifiers)


def find_way(models: Sequence[LightningModule], data: UnlearningDataModule, arguments: Mapping[str, object]) -> Way:
    """Find out whether models can be trained together, in which form, and how long a step takes, by a short timing.

    Args:
        models: Untrained models that are to be trained alike; at most `LARGEST_GROUP` of them are looked at.
        data: The data.
        arguments: Further arguments of the Trainer.

    Returns:
        The fastest way; one after another where nothing else is right or faster.
    """
    models = models[:LARGEST_GROUP]
    reason = _why_not(models, arguments)
    if reason:
        return Way("loop", 1, 0.0, reason)
    networks = [model.network for model in models if isinstance(model, Classifier)]
    cuda = torch.cuda.is_available() and arguments.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    device = torch.device("cuda" if cuda else "cpu")
    example = data.example(data.batch_size).to(device)
    try:
        networks = [network.to(device) for network in networks]
        ways = valid_ways(networks, example)
        optimizer = next(model.optimizer for model in models if isinstance(model, Classifier))
        alone = seconds_per_step(networks[:4], example, "loop", optimizer) / len(networks[:4])
        size = min(len(networks), _fitting(networks[0], example))
        if size < 2:
            return Way("loop", 1, alone, "two of them need more memory than there is")
        seconds = {way: seconds_per_step(networks[:size], example, way, optimizer) / size for way in ways if way != "loop"}
    except ValueError as error:
        return Way("loop", 1, 0.0, str(error))
    finally:
        for network in networks:
            network.cpu()
    how = min(seconds, key=lambda way: seconds[way], default=None)
    if how is None or seconds[how] >= alone:
        return Way("loop", 1, alone, "that is as fast for this network")
    return Way(how, size, seconds[how])


def _why_not(models: Sequence[LightningModule], arguments: Mapping[str, object]) -> str:
    """Why models cannot be trained together, as far as it can be said without running them; empty where they can."""
    first = models[0]
    other = [name for name in arguments if name not in _HARMLESS]
    if len(models) < 2:
        return "there is only one"
    if type(first) is not Classifier:
        return f"a {type(first).__name__} may do anything in its training step; only a plain Classifier is known"
    if any(describe(model) != describe(first) for model in models):
        return "they differ in their settings"
    optimizer = type(build_optimizer(first.optimizer, [nn.Parameter(torch.zeros(1))]))
    if optimizer not in ELEMENTWISE:
        return f"{optimizer.__name__} is not known to treat every weight by itself"
    if other:
        return f"the Trainer's {other[0]} may couple them"
    if str(arguments.get("precision")) not in _PRECISIONS:
        return f"precision {arguments['precision']} scales all their gradients by one factor"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or _devices(arguments) > 1:
        return "there are several devices"
    return ""


def _devices(arguments: Mapping[str, object]) -> int:
    devices = arguments.get("devices", "auto")
    if isinstance(devices, list):
        return len(devices)
    if str(devices) in ("auto", "-1"):
        return 1 if arguments.get("accelerator") == "cpu" else torch.cuda.device_count()
    return int(str(devices))


def _fitting(network: nn.Module, example: Tensor) -> int:
    """How many models fit into half of the free memory: what a step keeps for the backward pass, and weights five times."""
    kept = 0

    def count(value: Tensor) -> Tensor:
        nonlocal kept
        kept += value.numel() * value.element_size()
        return value

    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        copy.deepcopy(network)(example)  # a copy: BatchNorm would count this batch
    kept = 2 * kept + 5 * sum(p.numel() * p.element_size() for p in network.parameters())
    if example.is_cuda:
        free = torch.cuda.mem_get_info(example.device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // max(1, multiprocessing.cpu_count())
    return free // 2 // max(1, kept)
