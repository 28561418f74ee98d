"""Lightning's command line with the verbs of unlearning, layered configs and run folders."""

import inspect
import logging
import sys
from pathlib import Path

from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lightning_unlearn.callbacks.guard_finite import GuardFinite
from lightning_unlearn.callbacks.rank_statistics import RankStatistics
from lightning_unlearn.callbacks.seed_each_step import SeedEachStep
from lightning_unlearn.cli.arguments import Call
from lightning_unlearn.cli.commands import COMMANDS, NUMBERED, PLAIN, RESUMABLE, WITH_LENGTH
from lightning_unlearn.cli.configs import Tree, parse_config, tree_without
from lightning_unlearn.cli.fitting import EpochLines, KeepLast, LogLoss, RunLogger
from lightning_unlearn.cli.from_run import name_beside
from lightning_unlearn.cli.help import command_help
from lightning_unlearn.cli.job import Job, newest_checkpoint
from lightning_unlearn.cli.known_classes import import_known_classes
from lightning_unlearn.cli.layers import OF_THE_DATA, layered
from lightning_unlearn.cli.own_code import refuse_broken
from lightning_unlearn.cli.run_folder import RunFolder
from lightning_unlearn.cli.typed import sources
from lightning_unlearn.cli.verbs import VERBS
from lightning_unlearn.config.explain import core_of, explain
from lightning_unlearn.config.introspection import arguments_of
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.detection.run import check_names
from lightning_unlearn.detection.threshold import Threshold
from lightning_unlearn.exceptions import ConfigError, UnlearnError
from lightning_unlearn.trainer import UnlearningTrainer
from lightning_unlearn.weights.checkpoint import AtomicCheckpointIO

__all__ = ["UnlearningCLI", "trainer_commands"]

log = logging.getLogger(__name__)

# Filled in by the command line, or by Lightning's loaders and checkpoints, which here are data and --checkpoint.
_SKIPPED = {
    "model",
    "datamodule",
    "dataloaders",
    "train_dataloaders",
    "val_dataloaders",
    "ckpt_path",
    "weights_only",
    "verbose",
    "return_predictions",
}
_DEFAULT_MODEL = "lightning_unlearn.classifier.Classifier"


def trainer_commands() -> dict[str, frozenset[str]]:
    """The verbs of the Trainer, each with the top-level arguments that its configs may have.

    Returns:
        Names by command.
    """
    commands = {}
    for name in COMMANDS:
        if name not in PLAIN:
            own = set(inspect.signature(getattr(UnlearningTrainer, name)).parameters) - _SKIPPED - {"self"}
            if name in NUMBERED:
                own.discard("output")
            if name in _LOADING:
                own.add("checkpoint")
            commands[name] = frozenset({"seed_everything", "trainer", "model", "data", *own})
    return commands


# What constructors raise on arguments that they do not take.
_REFUSALS = (TypeError, ValueError, ImportError, FileNotFoundError, MisconfigurationException)
_STOPPED = "stopped before there was anything to keep: nothing is left of this run. The same command begins anew."
# Lightning's own verbs get --checkpoint from here; those of unlearning have it in their signature.
_LOADING = ("fit", "validate", "test", "predict")


class UnlearningCLI(LightningCLI):
    """Parses one call, builds its objects, and runs it in its folder.

    Args:
        call: The call.
    """

    def __init__(self, call: Call) -> None:
        assert call.command is not None
        self.call = call
        self.command: str = call.command
        import_known_classes()
        self.folder: RunFolder | None = None
        self._given: dict[str, object] = {}
        self._unnamed: str | None = None
        super().__init__(
            LightningModule,
            UnlearningDataModule,
            save_config_callback=None,
            trainer_class=UnlearningTrainer,
            trainer_defaults={"num_sanity_val_steps": 0},
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            # Else checkpoints would name code to run when they are loaded.
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in Lightning, which calls it on self
        """The one command of this call: parsers of the others would take time and stay unused.

        Returns:
            The arguments that its parser leaves out.
        """
        return {self.command: _SKIPPED | ({"output"} if self.command in NUMBERED else set())}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Defaults, links, and the starting weights of Lightning's own verbs.

        Args:
            parser: The command's parser.
        """
        parser.set_defaults({"model": {"class_path": _DEFAULT_MODEL}})
        for name in OF_THE_DATA:
            # A model class without the argument is left alone; whether its head fits is checked before anything runs.
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        if self.command in _LOADING:
            parser.add_argument("--checkpoint", type=str | None, default=None, help="Weights to start from.")

    def parse_arguments(self, parser: LightningArgumentParser, args: object) -> None:
        """Parse the call.

        Args:
            parser: The whole parser.
            args: Not used.

        Raises:
            ConfigError: Something is unknown, missing, or of the wrong type.
            SystemExit: Help was asked for and printed.
        """
        own = self._parser(self.command)
        if self.call.help is not None:
            print(command_help(self.command, own, self.call))
            raise SystemExit(0)
        arguments, self._given, self._unnamed = layered(self.call, trainer_commands())
        program = sys.argv[0]
        try:
            # The help of a class (--data.dataset.help ImageFolder) calls the program by it.
            sys.argv[0] = "lightning-unlearn"
            self.config = parser.parse_args([self.command, *arguments])
        except Exception as error:
            where = sources(self.call)
            refuse_broken(error, *where)
            if not isinstance(error, ArgumentError):
                raise
            raise ConfigError(explain(str(error), arguments_of(own), self.command, *where)) from error
        finally:
            sys.argv[0] = program
        if self.command == "detect":
            # Now: data take longer to read than these to refuse.
            own = self.config["detect"]
            check_names(own.score or [])
            Threshold(own.count, own.quantile)

    def _parse_ckpt_path(self) -> None:
        """Nothing: a checkpoint's stored class and settings must not beat the command line, nor import what it names."""

    def instantiate_classes(self) -> None:
        """Build data, model and Trainer.

        Raises:
            ConfigError: A constructor refuses its arguments.
        """
        try:
            super().instantiate_classes()
        except BaseException as error:
            if self.folder is not None:
                self.folder.discard_if_empty()
            if isinstance(error, KeyboardInterrupt | SystemExit):
                self._say_stopped()
                raise
            refuse_broken(error, *sources(self.call))
            if not isinstance(error, _REFUSALS) or isinstance(error, UnlearnError):
                raise
            text = core_of(str(error))
            if "backend found" in text:
                text = f"The accelerator that was asked for is not there: {text} Give --trainer.accelerator cpu, or auto."
            raise ConfigError(text) from error
        self._check_linked()

    def _check_linked(self) -> None:
        """Refuse values that the data decide and that were given otherwise: they would silently not count."""
        for name, value in self._given.items():
            ours = getattr(self.datamodule, name)
            if str(value) != str(ours):
                assert self.folder is not None
                self.folder.discard_if_empty()
                raise ConfigError(f"model.{name} is {value} and the data have {ours}. It follows the data; leave it out.")

    def _set_seed(self) -> None:
        """Seed everything.

        Raises:
            ConfigError: The seed is out of range.
        """
        seed = self._get(self.config, "seed_everything")
        if not isinstance(seed, bool) and isinstance(seed, int) and not 0 <= seed < 2**32:
            raise ConfigError(f"seed_everything is {seed}; needed: 0 to {2**32 - 1}.")
        super()._set_seed()

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
        """Build the Trainer for the run's folder.

        Args:
            **kwargs: Further arguments.

        Returns:
            The Trainer.

        Raises:
            ConfigError: Its length is not given.
        """
        given = self._get(self.config_init, "trainer")
        if self.command in WITH_LENGTH and given["max_epochs"] is None and given["max_steps"] == -1:
            raise ConfigError(f"{self.command} needs its length. Give --trainer.max_epochs 40, for instance.")
        if self.command in WITH_LENGTH and 0 in (given["max_epochs"], given["max_steps"]):
            raise ConfigError(f"{self.command} would train nothing: its length is 0. Give --trainer.max_epochs 40.")
        self.folder = folder = self._take_folder()
        terminal = sys.stderr.isatty()
        changes: dict[str, object] = {"default_root_dir": given["default_root_dir"] or str(folder.path)}
        for name in ("enable_progress_bar", "enable_model_summary"):
            if given[name] is None:
                changes[name] = terminal
        if given["logger"] in (None, True):
            changes["logger"] = RunLogger(folder.path, self._kept_steps(folder))
        if self.command == "fit":
            callbacks = given["callbacks"] or []
            callbacks = [*(callbacks if isinstance(callbacks, list) else [callbacks]), SeedEachStep(), RankStatistics()]
            callbacks += [GuardFinite(of_stage=False), LogLoss()]
            if given["enable_checkpointing"] is not False:
                callbacks.append(KeepLast(folder.path / "checkpoints"))
            if not (terminal or given["enable_progress_bar"]):
                callbacks.append(EpochLines())
            changes["callbacks"] = callbacks
        return super().instantiate_trainer(**changes, **kwargs)

    def _kept_steps(self, folder: RunFolder) -> int | None:
        """Of an interrupted run's metrics, those before this step stay."""
        if not folder.resumed:
            return None
        checkpoint = newest_checkpoint(folder.path) if self.command == "fit" else None
        if checkpoint is None:
            return 0 if self.command == "fit" else sys.maxsize
        return int(AtomicCheckpointIO().load_checkpoint(checkpoint)["global_step"])

    def _take_folder(self) -> RunFolder:
        if self.command == "benchmark":
            # Always the same one: what is finished in it is known by content and not run again.
            chosen = self.call.output or (f"runs/{self.call.name}" if self.call.name else self._get(self.config_init, "output"))
            return RunFolder(Path(chosen), shared=True)
        beside = name_beside(self.call.run) if self.command == "unlearn" and self.call.output is None else None
        return RunFolder.take(self.command, self.call.name or beside, self.call.output, self.call.resume)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the command in its folder; where it fails before there is anything to keep, the folder goes again."""
        assert self.folder is not None
        assert isinstance(self.trainer, UnlearningTrainer)
        try:
            self.folder.announce()
            arguments = {
                name: value
                for name, value in self.config_init[subcommand].items()
                if name in self._subcommand_method_arguments[subcommand] or name == "checkpoint"
            }
            parts = (self.trainer, self.model, self.datamodule, arguments, self._plain_config())
            job = Job(self.call, self.folder, *parts, unnamed_rule=self._unnamed)
            VERBS[subcommand](job)
        except (KeyboardInterrupt, SystemExit):
            self.folder.discard_if_empty()
            self._say_stopped()
            raise
        finally:
            self.folder.discard_if_empty()

    def _say_stopped(self) -> None:
        """What is left of a run that was stopped, and how to go on."""
        if self.command == "benchmark":
            log.warning("stopped; what is finished is kept, and the same command goes on with it.")
        elif self.folder is None or not self.folder.begun:
            log.warning(_STOPPED)
        elif self.command in RESUMABLE:
            log.warning("stopped; go on with: lightning-unlearn %s --resume %s", self.command, self.folder.path)

    def _plain_config(self) -> Tree:
        """The full configuration in plain values: given to the command again, it gives the same run."""
        config: Namespace = self.config[self.command]
        return tree_without(parse_config(self._parser(self.command).dump(config, format="yaml"), "the configuration"), "output")
