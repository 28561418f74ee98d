"""The Trainer that also unlearns and evaluates."""

import copy
import inspect
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from torch import nn

from lightning_unlearn.benchmark import benchmark
from lightning_unlearn.chain import check_chain, run_chain
from lightning_unlearn.checkpoint import AtomicCheckpointIO, load_into, read_weights, save_weights
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.forget import ForgetRule
from lightning_unlearn.exceptions import ConfigError, DataError
from lightning_unlearn.loading import check_model, load_reference
from lightning_unlearn.metrics.screen import Goal
from lightning_unlearn.panel import Panel, new_report, request_of
from lightning_unlearn.ranks import lock_on_first
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.writing import save_report
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["UnlearningTrainer"]

log = logging.getLogger(__name__)

# Arguments of the Trainer that originals and references are trained with too.
_RECIPE = (
    *("accelerator", "devices", "strategy", "precision", "num_nodes", "sync_batchnorm", "deterministic"),
    *("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches"),
)


class UnlearningTrainer(Trainer):
    """Lightning's Trainer with two more verbs: `unlearn` and `evaluate`.

    Each stage of unlearning runs in a fresh Trainer built from the same arguments, because it has its own optimiser, loader,
    length and DDP wrapping.

    Args:
        *args: See Lightning's Trainer.
        **kwargs: See Lightning's Trainer.
    """

    # The exact configuration, YAML, shown in reports; the command line sets it.
    configuration: str = ""

    def __init__(self, *args: object, **kwargs: object) -> None:
        given = kwargs.get("plugins") or []
        plugins = [*given] if isinstance(given, list) else [given]
        if not any(isinstance(plugin, AtomicCheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        kwargs["plugins"] = plugins
        self._positional, self._keywords = args, dict(kwargs)
        callbacks = kwargs.get("callbacks")
        if isinstance(callbacks, list):
            # Lightning adds its own callbacks to this very list; stages must not inherit its ModelCheckpoint.
            self._keywords["callbacks"] = [*callbacks]
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # typed by Lightning's signature

    def fresh(
        self,
        max_epochs: int = 0,
        max_steps: int = -1,
        callbacks: Sequence[Callback] = (),
        evaluation: bool = False,
        measuring: bool = False,
    ) -> "UnlearningTrainer":
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
            given = self._keywords.get("callbacks") or []
            # Copies: a ModelCheckpoint, for one, would keep the best score of the stage before.
            own = copy.deepcopy(list(given) if isinstance(given, list) else [given])  # type: ignore[list-item]
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
            "enable_checkpointing": None if any("Checkpoint" in type(c).__name__ for c in own) else False,
            "enable_model_summary": False,
            "enable_progress_bar": bar,
            "plugins": [AtomicCheckpointIO()],
        }
        if evaluation:
            changes |= {"limit_predict_batches": 1.0, "fast_dev_run": False, "overfit_batches": 0.0}
        if evaluation and "mixed" in str(self._keywords.get("precision") or ""):
            changes["precision"] = "32-true"
        return type(self)(*self._positional, **{**self._keywords, **changes})

    def unlearn(
        self,
        model: nn.Module,
        datamodule: UnlearningDataModule,
        stages: list[UnlearningStage],
        checkpoint: str | None = None,
        references: list[str] | None = None,
        goal: Goal = "untrain",
        output: str | None = None,
        name: str | None = None,
        relearn_epochs: int = 3,
        retrain_epochs: int | None = None,
        keep_artifacts: bool = False,
    ) -> Report:
        """Make a trained classifier forget, save the result and report on it.

        Args:
            model: Gives logits of images; is changed in place.
            datamodule: The data with its forget rule.
            stages: The method: stages in order.
            checkpoint: Weights to start from; None: those that the model has.
            references: Checkpoints of models retrained without the forgotten samples, to compare with.
            goal: `untrain`, `remove-class` or `repair`; chooses what the report judges by.
            output: Folder of the result; None: nothing is written.
            name: Name of the method in the report; None: the names of its stages.
            relearn_epochs: Epochs of retain-only fine-tuning that show whether memories come back; 0: left out.
            retrain_epochs: Epochs that retraining would take, for the cost as a share of it.
            keep_artifacts: Whether masks, Fisher and targets stay in the folder after the run.

        Returns:
            The report.

        Raises:
            DataError: There is nothing to forget.
            ConfigError: The folder holds a finished or another run.
        """
        check_chain(stages, str(self._keywords.get("strategy") or "auto"))
        if datamodule.forget_rule is None:
            raise DataError(
                "There is no forget rule, so nothing to forget. Give one: --data.forget RandomFraction "
                "--data.forget.fraction 0.04, or ListedSamples with a file."
            )
        datamodule.use_split_of(checkpoint)
        check_model(model, datamodule, checkpoint)
        panel = self._panel(datamodule, goal, relearn_epochs, retrain_epochs)
        others = [load_reference(model, path, datamodule) for path in references or []]
        folder = None if output is None else Path(output)
        if folder is None:
            return self._unlearn(model, datamodule, stages, panel, others, None, name)
        if (folder / "unlearned.ckpt").exists():
            raise ConfigError(f"{folder} holds a finished run, and nothing is written over. Choose another output folder.")
        if not self.is_global_zero:
            return self._unlearn(model, datamodule, stages, panel, others, folder, name)
        with lock_on_first(folder):
            report = self._unlearn(model, datamodule, stages, panel, others, folder, name)
            datamodule.saved_split().save(folder / "split.json")
            save_report(report, folder)
            hyper = dict(model.hparams) if isinstance(model, LightningModule) else {}
            # Last: a folder with this file is a finished run.
            save_weights(folder / "unlearned.ckpt", model.state_dict(), hyper)
            if not keep_artifacts:
                for path in [*folder.glob("stage*.ckpt"), *folder.glob("stage*.json")]:
                    path.unlink()
        return report

    def _unlearn(
        self,
        model: nn.Module,
        data: UnlearningDataModule,
        stages: list[UnlearningStage],
        panel: Panel,
        references: list[nn.Module],
        folder: Path | None,
        name: str | None,
    ) -> Report:
        report = new_report("unlearn", panel)
        report.config = self.configuration
        report.rows += panel.add_references(references, range(len(references)))
        report.rows.append(panel.add_original(model))
        results = run_chain(self.fresh, model, data, stages, folder)
        method = name or " + ".join(type(stage).__name__ for stage in stages)
        report.rows.append(panel.score(method, 0, model, results))
        return self._finish(report, panel)

    def evaluate(
        self,
        model: nn.Module,
        datamodule: UnlearningDataModule,
        checkpoint: str | None = None,
        original: str | None = None,
        references: list[str] | None = None,
        goal: Goal = "untrain",
        output: str | None = None,
        relearn_epochs: int = 3,
        svc: bool = False,
    ) -> Report:
        """Judge a model: against retrained references where there are any, and by what can be said without one.

        Args:
            model: Gives logits of images.
            datamodule: The data; its forget rule, or the split saved beside the checkpoint, says what was forgotten.
            checkpoint: Weights of the model; None: those that it has.
            original: Checkpoint of the model before unlearning.
            references: Checkpoints of models retrained without the forgotten samples.
            goal: `untrain`, `remove-class` or `repair`; chooses what the report judges by.
            output: Folder of the report; None: nothing is written.
            relearn_epochs: Epochs of retain-only fine-tuning that show whether memories come back; 0: left out.
            svc: Whether the published SVC attack is run too (slow).

        Returns:
            The report.

        Raises:
            DataError: Nothing says what was forgotten.
        """
        datamodule.use_split_of(checkpoint, forgotten_is_removed=False)
        if len(datamodule.part("forget")[1]) == 0:
            raise DataError(
                "Nothing says what was forgotten: no forget rule was given and no split.json lies beside the checkpoint. "
                "Give --data.forget."
            )
        check_model(model, datamodule, checkpoint)
        panel = self._panel(datamodule, goal, relearn_epochs, None, svc)
        report = new_report("evaluate", panel)
        report.config = self.configuration
        others = [load_reference(model, path, datamodule) for path in references or []]
        report.rows += panel.add_references(others, range(len(others)))
        if original is not None:
            before = copy.deepcopy(model)
            load_into(before, read_weights(original)[0], original)
            report.rows.append(panel.add_original(before))
        report.rows.append(panel.score(Path(checkpoint).stem if checkpoint else "model", 0, model))
        self._finish(report, panel)
        if output is not None and self.is_global_zero:
            save_report(report, output)
        return report

    def benchmark(
        self,
        model: LightningModule,
        datamodule: UnlearningDataModule,
        methods: list[str],
        seeds: list[int] | None = None,
        draws: list[int] | None = None,
        rules: list[ForgetRule] | None = None,
        references: int = 2,
        goal: Goal = "untrain",
        output: str = "runs/benchmark",
        bank: str = "runs/bank",
        relearn_epochs: int = 3,
    ) -> Report:
        """Compare methods on originals and forget sets, beside retrained references; finished cells are not run again.

        Originals and references are trained for the Trainer's `max_epochs`, once, and kept in the bank.

        Args:
            model: The untrained classifier, with its optimiser and schedule.
            datamodule: The data; its forget rule counts where `rules` is not given.
            methods: Names of shipped methods, or paths of YAML files with `stages`.
            seeds: Seeds of originals; None: 0.
            draws: Seeds of the rules' draws; None: 0.
            rules: Forget rules.
            references: Retrained references per forget set; with fewer than two there is no level to compare with.
            goal: `untrain`, `remove-class` or `repair`; chooses what the report judges by.
            output: Folder of cells and report.
            bank: Folder of trained originals and references.
            relearn_epochs: Epochs of retain-only fine-tuning that show whether memories come back; 0: left out.

        Returns:
            The report.

        Raises:
            ConfigError: `max_epochs` is not given.

        Raises:
            ConfigError: The Trainer has no `max_epochs`.
        """
        if not self.max_epochs or self.max_epochs < 1:
            raise ConfigError(
                f"max_epochs is {self.max_epochs}; needed: the epochs that originals and references are trained for. "
                "Give --trainer.max_epochs."
            )
        # Only what was changed counts: the command line gives every argument, a script only some.
        defaults = {name: p.default for name, p in inspect.signature(Trainer.__init__).parameters.items()}
        recipe = {
            name: value
            for name, value in self._keywords.items()
            if name in _RECIPE and isinstance(value, str | int | float | bool | list) and value != defaults[name]
        }
        return benchmark(
            self.fresh,
            model,
            datamodule,
            methods,
            self.max_epochs,
            output,
            bank,
            seeds or [0],
            draws or [0],
            rules or [],
            references,
            goal,
            relearn_epochs,
            recipe,
            self.configuration,
        )

    def _panel(
        self,
        data: UnlearningDataModule,
        goal: Goal,
        relearn_epochs: int,
        retrain_epochs: int | None,
        svc: bool = False,
    ) -> Panel:
        return Panel(self.fresh, data, goal, request_of(data), relearn_epochs, retrain_epochs, svc)

    @staticmethod
    def _finish(report: Report, panel: Panel) -> Report:
        levels = panel.levels()
        if levels:
            report.levels[panel.request.name] = levels
        return report
