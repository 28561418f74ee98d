"""A Trainer that makes others from its own arguments."""

import copy
import inspect
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Self

from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    Callback,
    Checkpoint,
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
)
from lightning.pytorch.plugins import CheckpointIO, Precision
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lightning_unlearn.callbacks.recipe import RecipeCallback
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO

__all__ = ["FreshTrainer"]

_HALF = ("16-true", "bf16-true")
# Arguments of the Trainer that originals and references are trained with too.
_RECIPE = (
    *("accelerator", "devices", "strategy", "precision", "num_nodes", "sync_batchnorm", "deterministic"),
    *("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches"),
)
# Arguments that change nothing in what the fit of a stage becomes, but for rounding.
_WITHOUT_EFFECT = (
    # Where it runs, and what is watched and written.
    *("accelerator", "devices", "strategy", "num_nodes", "deterministic", "benchmark", "use_distributed_sampler"),
    *("log_every_n_steps", "profiler", "detect_anomaly", "default_root_dir", "enable_autolog_hparams", "model_registry"),
    *("barebones", "inference_mode", "limit_test_batches", "limit_predict_batches"),
    *("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"),
    # What `fresh` sets, and what is described by itself.
    *("max_epochs", "max_steps", "min_epochs", "limit_val_batches", "logger"),
    *("enable_checkpointing", "enable_model_summary", "enable_progress_bar", "callbacks", "plugins"),
)
# Callbacks that only look.
_WATCHING = (Checkpoint, ProgressBar, ModelSummary, DeviceStatsMonitor, LearningRateMonitor)


class _Signals(_SignalConnector):
    """Lightning's signals, but that SIGTERM is told to the other ranks' processes by the signal alone.

    Lightning 2.6 also broadcasts it, which waits for ever where the ranks stand in another collective.
    """

    def _sigterm_notifier_fn(self, signum: int, _: FrameType | None) -> None:
        launcher = self.trainer.strategy.launcher
        if not self.received_sigterm and launcher is not None:
            launcher.kill(signum)
        self.received_sigterm = True


class FreshTrainer(Trainer):
    """Lightning's Trainer, which can make another one from the arguments that it was made from.

    Each stage of unlearning runs in a fresh Trainer, because it has its own optimiser, loader, length and DDP wrapping.

    Args:
        *args: See Lightning's Trainer.
        **kwargs: See Lightning's Trainer.

    Raises:
        ConfigError: The precision is a pure half.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        given = kwargs.get("plugins") or []
        plugins = [*given] if isinstance(given, list) else [given]
        if not any(isinstance(plugin, AtomicCheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        kwargs["plugins"] = plugins
        if str(kwargs.get("precision")) in _HALF:
            raise ConfigError(
                f"precision is {kwargs['precision']}: weights of half precision answer in half precision, while outputs are "
                "float32 by definition, and rounding swallows small steps and edits. Needed: 32-true, 64-true, 16-mixed or "
                "bf16-mixed."
            )
        self._positional, self._keywords = args, dict(kwargs)
        callbacks = kwargs.get("callbacks")
        if isinstance(callbacks, list):
            # Lightning adds its own callbacks to this very list; stages must not inherit its ModelCheckpoint.
            self._keywords["callbacks"] = [*callbacks]
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # typed by Lightning's signature
        self._signal_connector = _Signals(self)

    @property
    def strategy_name(self) -> str:
        """The strategy as it was asked for, `auto` where none was; and how processes start: `fork` in notebooks."""
        asked, start = str(self._keywords.get("strategy") or "auto"), getattr(self.strategy, "_start_method", None)
        return f"{asked} ({start})" if start not in (None, "popen") and start not in asked else asked

    @property
    def recipe_arguments(self) -> dict[str, str | int | float | bool | list[int] | None]:
        """The arguments that change what a model is trained to, without its length, where they were given."""
        return {
            name: value
            for name, value in self._changed().items()
            if name in _RECIPE and isinstance(value, str | int | float | bool | list)
        }

    @property
    def recipe_callbacks(self) -> list[RecipeCallback]:
        """The given callbacks that change what a model is trained to."""
        return [callback for callback in self._given_callbacks() if isinstance(callback, RecipeCallback)]

    @property
    def stage_arguments(self) -> dict[str, object]:
        """The arguments that change what the fit of a stage becomes, where they were given; float32 is as good as none."""
        changed = {name: value for name, value in self._changed().items() if name not in _WITHOUT_EFFECT}
        if str(changed.get("precision")) in ("32", "32-true"):
            del changed["precision"]
        return changed

    @property
    def stage_links(self) -> list[object]:
        """The given callbacks and plugins that take part in the fit of a stage; a cluster only says where it runs."""
        callbacks = [c for c in self._given_callbacks() if not isinstance(c, (RecipeCallback, *_WATCHING))]
        return [*callbacks, *(p for p in self._kept_plugins(precision=True) if not isinstance(p, ClusterEnvironment))]

    def _changed(self) -> dict[str, object]:
        """What is not as Lightning has it: the command line gives every argument, a script only some."""
        defaults = {name: p.default for name, p in inspect.signature(Trainer.__init__).parameters.items()}
        return {name: value for name, value in self._keywords.items() if value != defaults.get(name)}

    def _given_callbacks(self) -> list[Callback]:
        given = self._keywords.get("callbacks") or []
        return list(given) if isinstance(given, list) else [given]  # type: ignore[list-item]  # one callback

    def _kept_plugins(self, precision: bool) -> list[object]:
        """The given plugins but for the writer of checkpoints; of the precision a copy, for a gradient scaler has a state."""
        given = self._keywords["plugins"]
        assert isinstance(given, list)
        kept = [p for p in given if not isinstance(p, CheckpointIO) and (precision or not isinstance(p, Precision))]
        return [copy.deepcopy(p) if isinstance(p, Precision) else p for p in kept]

    def fresh(
        self,
        max_epochs: int = 0,
        max_steps: int = -1,
        callbacks: Sequence[Callback] = (),
        evaluation: bool = False,
        measuring: bool = False,
    ) -> Self:
        """A new Trainer from the same arguments.

        Args:
            max_epochs: Epochs of its fit.
            max_steps: Steps of its fit, -1: no limit.
            callbacks: Callbacks besides copies of the user's.
            evaluation: For `predict`: all samples, without loggers, callbacks and mixed precision, since outputs are float32.
            measuring: For a fit that only measures: without loggers and the user's callbacks.

        Returns:
            The Trainer.
        """
        own: list[Callback] = []
        measuring = measuring or evaluation
        if not measuring:
            # Copies: a ModelCheckpoint, for one, would keep the best score of the stage before.
            own = copy.deepcopy([c for c in self._given_callbacks() if not isinstance(c, RecipeCallback)])
        # A bar for every one of many short fits would only flicker where nobody looks.
        bar = not measuring and self._keywords.get("enable_progress_bar") is not False and sys.stderr.isatty()
        if not bar:
            own = [callback for callback in own if not isinstance(callback, ProgressBar)]
        changes: dict[str, object] = {
            "max_epochs": max_epochs,
            "max_steps": max_steps,
            "min_epochs": None,
            "callbacks": [*own, *callbacks],
            "logger": False if measuring else (self.loggers or False),
            "limit_val_batches": 0,
            "enable_checkpointing": None if any(isinstance(c, Checkpoint) for c in own) else False,
            "enable_model_summary": False,
            "enable_progress_bar": bar,
            "plugins": [*self._kept_plugins(precision=not evaluation), AtomicCheckpointIO()],
        }
        if evaluation:
            changes |= {"limit_predict_batches": 1.0, "fast_dev_run": False, "overfit_batches": 0.0}
        if evaluation and "mixed" in str(self._keywords.get("precision") or ""):
            changes["precision"] = "32-true"
        return type(self)(*self._positional, **{**self._keywords, **changes})
