"""A classifier for any timm name or `nn.Module`."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torchmetrics.aggregation import MeanMetric

from lightning_unlearn.checkpoint import load_into, read_weights
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.exceptions import CheckpointError, ConfigError
from lightning_unlearn.schedule import Schedule, with_schedule

__all__ = ["Classifier", "build_network", "default_optimizer"]

Plain: TypeAlias = str | int | float | bool | list[int] | list[str] | None


def default_optimizer(params: list[nn.Parameter]) -> Optimizer:
    """SGD with momentum 0.9, learning rate 0.1 and weight decay 5e-4."""
    return SGD(params, lr=0.1, momentum=0.9, weight_decay=5e-4)


class Classifier(LightningModule):
    """An image classifier: a network that gives logits, cross-entropy, an optimiser and a schedule.

    It is a convenience: any LightningModule (or `nn.Module`) whose `forward(x)` gives logits can be unlearned.

    Args:
        network: Name of a timm architecture, class path of an `nn.Module`, or a module.
        num_classes: Number of classes; from the command line it follows the data.
        in_chans: Channels of the images; from the command line it follows the data.
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
                "network", "num_classes", "in_chans", "small_image_stem", "network_args", "schedule", "label_smoothing"
            )
            network = build_network(network, num_classes, in_chans, network_args or {}, small_image_stem)
        # Convolutions on the CPU are up to 1.6 times as fast with channels last, and never much slower.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.num_classes = num_classes
        self.optimizer = optimizer
        self.schedule = schedule
        self.label_smoothing = label_smoothing
        self.validation_accuracy = MeanMetric()
        self.test_accuracy = MeanMetric()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, C, H, W)."""
        return self.network(x)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of a batch, weighted so that uneven ranks count every sample alike.

        Args:
            batch: Training batch.
            batch_idx: Its number in the epoch.

        Returns:
            The loss, a scalar.
        """
        loss = F.cross_entropy(self(batch.input), batch.target, label_smoothing=self.label_smoothing)
        if batch_idx % self.trainer.log_every_n_steps == 0:
            self.log("train/loss", loss, prog_bar=True)
        return loss * (len(batch.target) * self.trainer.world_size / (batch.total or len(batch.target)))

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
        return self(batch.input)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser over all parameters, with its schedule.

        Returns:
            Lightning's configuration.
        """
        return with_schedule(self, self.optimizer(self.parameters()), self.schedule)

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
        state, hyper = read_weights(path)
        if "network" not in hyper:
            raise CheckpointError(
                f"{path} holds weights but does not name their network; needed: a checkpoint of `fit` or `unlearn` whose "
                "network was given by name. Build the model yourself and pass it with checkpoint=..."
            )
        model = cls(**hyper)
        load_into(model, state, str(path))
        return model.eval()


def build_network(
    name: str, num_classes: int, in_chans: int, arguments: Mapping[str, Plain], small_image_stem: bool = False
) -> nn.Module:
    """A network by timm name or class path, untrained.

    Args:
        name: `resnet18`, or `package.module.Class` whose constructor takes `num_classes` and `in_chans`.
        num_classes: Number of classes.
        in_chans: Channels of the images.
        arguments: Further arguments of the architecture.
        small_image_stem: See `Classifier`.

    Returns:
        The network.

    Raises:
        ConfigError: The name is unknown, or the architecture refuses an argument.
    """
    import timm  # takes seconds; not needed for class paths' users until here

    module, _, attribute = name.rpartition(".")
    try:
        if module and not timm.is_model(name):
            network = getattr(importlib.import_module(module), attribute)(
                num_classes=num_classes, in_chans=in_chans, **arguments
            )
        else:
            network = timm.create_model(name, num_classes=num_classes, in_chans=in_chans, **arguments)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"No network {name!r}: {error}. Give a timm name or the class path of an nn.Module.") from None
    except RuntimeError as error:
        import difflib

        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f" Nearest: {near[0]!r}." if near else ""
        raise ConfigError(f"timm cannot build {name!r}: {error}.{hint}") from None
    except TypeError as error:
        raise ConfigError(f"{name} refuses its arguments {dict(arguments)}: {error}.") from None
    if small_image_stem:
        _shrink_stem(network, name, in_chans)
    return network


def _shrink_stem(network: nn.Module, name: str, in_chans: int) -> None:
    """Replace a ResNet's 7x7 stride-2 stem and pooling by one 3x3 convolution."""
    conv, pool = getattr(network, "conv1", None), getattr(network, "maxpool", None)
    if not isinstance(conv, nn.Conv2d) or pool is None:
        raise ConfigError(f"small_image_stem knows ResNets with `conv1` and `maxpool`; {name} has none. Set it to false.")
    network.conv1 = nn.Conv2d(in_chans, conv.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
