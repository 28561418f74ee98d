"""A classifier for any timm name or `nn.Module`."""

import copy
import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerConfig, OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torchmetrics.aggregation import MeanMetric

from lightning_unlearn import networks
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.functional.anatomy import left_by, own_reset
from lightning_unlearn.schedule import Schedule, build_optimizer, logs_at, with_schedule
from lightning_unlearn.weights.checkpoint import load_into, read_saved, refuse_lazy
from lightning_unlearn.weights.mnemonic import give_codes

__all__ = ["Classifier", "build_network", "default_optimizer", "untrained_copy"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)
# Numbers before texts: the command line takes the first that fits.
Plain: TypeAlias = int | float | bool | list[int] | list[str] | str | None


def default_optimizer(params: Iterable[nn.Parameter]) -> Optimizer:
    """SGD with momentum 0.9, learning rate 0.1 and weight decay 5e-4."""
    return SGD(params, lr=0.1, momentum=0.9, weight_decay=5e-4)


class Classifier(LightningModule):
    """An image classifier: a network that gives logits, cross-entropy, an optimiser and a schedule.

    It is a convenience: any LightningModule (or `nn.Module`) whose `forward(x)` gives logits can be unlearned.

    Args:
        network: Name of a timm architecture, class path of an `nn.Module` (short for those of `lightning_unlearn.networks`:
            `ResNet`, `SmallCNN`, `MLP`), or a module.
        num_classes: Number of classes; from the command line it follows the data.
        in_chans: Channels of the images; from the command line it follows the data.
        image_size: Height and width of the images, for networks of a class path whose constructor takes it; from the command
            line it follows the data.
        small_image_stem: Give a timm ResNet a 3x3 stem without stride and pooling, as is usual for images of 32 or 64 pixels.
        network_args: Further plain arguments of the architecture.
        optimizer: Makes the optimiser from the parameters.
        schedule: Course of the learning rate over all steps.
        label_smoothing: Share of the label's probability that is spread over all classes, in 0 ... 1.
    """

    def __init__(
        self,
        network: str | nn.Module = "resnet18",
        num_classes: int = 10,
        in_chans: int = 3,
        image_size: int | None = None,
        small_image_stem: bool = False,
        network_args: dict[str, Plain] | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Schedule = "one_cycle",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(network, str):
            # Plain values only: the checkpoint must load with `weights_only=True`.
            self.save_hyperparameters(
                "network",
                "num_classes",
                "in_chans",
                "image_size",
                "small_image_stem",
                "network_args",
                "schedule",
                "label_smoothing",
            )
            network = build_network(network, num_classes, in_chans, network_args or {}, small_image_stem, image_size)
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing is {label_smoothing}; needed: 0 to 1.")
        refuse_lazy(network)
        # Convolutions on the CPU are up to 1.6 times as fast with channels last, and never much slower.
        self.network = network.to(memory_format=torch.channels_last)
        self.num_classes = num_classes
        self.optimizer = optimizer
        self.schedule = schedule
        self.label_smoothing = label_smoothing
        self.validation_accuracy = MeanMetric()
        self.test_accuracy = MeanMetric()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, C, H, W)."""
        logits: Tensor = self.network(x)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of a batch, weighted so that uneven ranks count every sample alike.

        Args:
            batch: Training batch.
            batch_idx: Its number in the epoch.

        Returns:
            The loss, a scalar.
        """
        loss = F.cross_entropy(self(batch.input), batch.target, label_smoothing=self.label_smoothing)
        if logs_at(self.trainer, batch_idx):
            self.log("train/loss", loss, prog_bar=True)
        return loss * batch.weight(self.trainer.world_size)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the accuracy on unseen samples."""
        self.validation_accuracy.update((self(batch.input).argmax(1) == batch.target).float() * 100)
        self.log("unseen/acc", self.validation_accuracy, prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the accuracy on test samples."""
        self.test_accuracy.update((self(batch.input).argmax(1) == batch.target).float() * 100)
        self.log("test/acc", self.test_accuracy)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits of a batch.

        Args:
            batch: Evaluation batch.
            batch_idx: Its number.

        Returns:
            (B, K).
        """
        logits: Tensor = self(batch.input)
        return logits

    def configure_optimizers(self) -> OptimizerConfig | OptimizerLRSchedulerConfig:
        """The optimiser over all parameters, with its schedule.

        Returns:
            Lightning's configuration.
        """
        return with_schedule(self, build_optimizer(self.optimizer, self.parameters()), self.schedule)

    @classmethod
    def load(cls, path: str | Path) -> "Classifier":
        """Rebuild a classifier from a checkpoint that `fit` or `unlearn` wrote.

        Args:
            path: The checkpoint.

        Returns:
            The classifier on the CPU, in eval mode.

        Raises:
            CheckpointError: The file does not say which network it holds.
        """
        state, hyper, codes = read_saved(path)
        if "network" not in hyper:
            raise CheckpointError(
                f"{path} holds weights but does not name their network; needed: a checkpoint of `fit` or `unlearn` whose "
                "network was given by name. Build the model yourself and pass it with checkpoint=..."
            )
        others = sorted(set(hyper) - set(inspect.signature(cls).parameters))
        if others:
            raise CheckpointError(
                f"{path} was not written by a {cls.__name__}, which has no {others[0]}. Load it with its own class: "
                "Sisa.load where it names shards."
            )
        model = cls(**hyper)
        load_into(model, state, str(path))
        give_codes(model, codes)
        return model.eval()


def build_network(
    name: str,
    num_classes: int,
    in_chans: int,
    arguments: Mapping[str, Plain],
    small_image_stem: bool = False,
    image_size: int | None = None,
) -> nn.Module:
    """A network by timm name or class path, untrained.

    Args:
        name: `resnet18`, `ResNet`, or `package.module.Class` whose constructor takes `num_classes` and `in_chans`.
        num_classes: Number of classes.
        in_chans: Channels of the images.
        arguments: Further arguments of the architecture.
        small_image_stem: See `Classifier`.
        image_size: See `Classifier`.

    Returns:
        The network.

    Raises:
        ConfigError: The name is unknown, or the architecture refuses an argument.
    """
    given: dict[str, Plain] = {"num_classes": num_classes, "in_chans": in_chans, **arguments}
    path = f"{networks.__name__}.{name}" if name in networks.__all__ else name
    try:
        network = _from_class(path, given, image_size) if "." in path else None
        if network is None:
            import timm  # takes seconds, and class paths do without

            network = timm.create_model(name, **given)  # type: ignore[arg-type]  # the architecture knows its arguments
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"No network {name!r}: {error}. Give a timm name or the class path of an nn.Module.") from None
    except RuntimeError as error:
        import timm

        if "." in path and not timm.is_model(path):
            raise ConfigError(f"{name} cannot be built from {given}: {error}. Change network_args.") from None
        near = difflib.get_close_matches(name, [*timm.list_models(), *networks.__all__], n=1)
        hint = f" Nearest: {near[0]!r}." if near else ""
        raise ConfigError(f"timm cannot build {name!r}: {error}.{hint}") from None
    except TypeError as error:
        raise ConfigError(f"{name} refuses its arguments {given}: {error}.") from None
    if small_image_stem:
        _shrink_stem(network, name, in_chans)
    return network


def _from_class(path: str, given: dict[str, Plain], image_size: int | None) -> nn.Module | None:
    """The network of a class path; None where the name is one of timm's, which may hold a dot (`resnet50.a1_in1k`)."""
    module, _, attribute = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError:
        import timm

        if timm.is_model(path):
            return None
        raise
    if image_size is not None and "image_size" in inspect.signature(found).parameters:
        given = {"image_size": image_size, **given}
    network: nn.Module = found(**given)
    return network


def _shrink_stem(network: nn.Module, name: str, in_chans: int) -> None:
    """Replace a ResNet's 7x7 stride-2 stem and pooling by one 3x3 convolution."""
    conv, pool = getattr(network, "conv1", None), getattr(network, "maxpool", None)
    if not isinstance(conv, nn.Conv2d) or pool is None:
        raise ConfigError(f"small_image_stem knows ResNets with `conv1` and `maxpool`; {name} has none. Set it to false.")
    network.conv1 = nn.Conv2d(in_chans, conv.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def untrained_copy(model: ModuleT) -> ModuleT:
    """A model of the same architecture with weights drawn anew, from torch's global random numbers.

    A `Classifier` whose network was named is built again; of any other, every module's `reset_parameters` is called. Either is
    on the CPU.

    Args:
        model: The model; it is not changed.

    Returns:
        The new model.

    Raises:
        ConfigError: A module that owns parameters has no `reset_parameters`, or one that leaves some of them as they were.
    """
    if isinstance(model, Classifier) and "network" in model.hparams:
        return type(model)(**model.hparams, optimizer=model.optimizer)
    # On the CPU, so that every device and rank gets the same weights.
    new = copy.deepcopy(model).cpu()
    for name, module in new.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
        if not list(module.parameters(recurse=False)):
            continue
        reset = own_reset(module)
        if reset is None:
            raise ConfigError(
                f"{name or type(module).__name__} ({type(module).__name__}) has no reset_parameters, so the model cannot be "
                "drawn anew. Give it one, or name the network in a Classifier."
            )
        left = left_by(reset, module)
        if left:
            raise ConfigError(
                f"{name or type(module).__name__} ({type(module).__name__}) keeps {left[0]} in its reset_parameters, so the "
                "model cannot be drawn anew. Give it one that draws it, or name the network in a Classifier."
            )
    return new
