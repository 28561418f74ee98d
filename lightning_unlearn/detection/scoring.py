"""The verbs of the Trainer that score training samples."""

import logging
from pathlib import Path

from lightning.pytorch import LightningModule

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.classifier import untrained_copy
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.detection.folds import Folds
from lightning_unlearn.detection.record import MarginRecord
from lightning_unlearn.detection.report import report_of
from lightning_unlearn.detection.result import Detection
from lightning_unlearn.detection.run import SCORES, detect
from lightning_unlearn.detection.scores import SampleScores, sample_scores
from lightning_unlearn.detection.threshold import Threshold
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.loading import check_model
from lightning_unlearn.report.writing import save_report
from lightning_unlearn.sisa.trainer import SlicedTrainer

__all__ = ["ScoringTrainer"]

log = logging.getLogger(__name__)


class ScoringTrainer(SlicedTrainer):
    """A Trainer with the verbs `scores` and `detect`.

    Args:
        *args: See Lightning's Trainer.
        **kwargs: See Lightning's Trainer.

    Raises:
        ConfigError: The precision is a pure half.
    """

    # The exact configuration, YAML, shown in reports; the command line sets it.
    configuration: str = ""

    def scores(
        self,
        model: LightningModule,
        datamodule: UnlearningDataModule,
        folds: int = 2,
        repeats: int = 4,
        method: str | None = None,
        output: str | None = None,
        bank: str = "runs/bank",
    ) -> SampleScores:
        """Score every training sample, for the forget rule `ByScore`: how memorised it is, and what a method leaves of it.

        Models are trained for the Trainer's `max_epochs`, once, and kept in the bank.

        Args:
            model: The untrained classifier, with its optimiser and schedule.
            datamodule: The data; no forget rule is needed.
            folds: Parts of the training set; each model is trained on all but one. 2 gives most models without a sample for
                the money, 10 keeps the set at its usual size.
            repeats: Random partitions: models that were trained without a sample.
            method: Name of a shipped method, or a YAML file with `stages`: each fold is unlearned by it too, and the leak of
                every sample written. None: memorisation alone.
            output: Folder of `scores.csv`; None: nothing is written.
            bank: Folder of trained models.

        Returns:
            The scores.
        """
        build = None if method is None else load_method(method)
        found = sample_scores(self.fresh, self._recipe(model), datamodule, Bank(bank), folds, repeats, build)
        if output is not None and self.is_global_zero:
            found.save(Path(output) / "scores.csv")
        return found

    def detect(
        self,
        model: LightningModule,
        datamodule: UnlearningDataModule,
        checkpoint: str | None = None,
        score: list[str] | None = None,
        count: int | None = None,
        quantile: float | None = None,
        early_epoch: int | None = None,
        folds: int = 5,
        contact_sheet: int = 0,
        output: str | None = None,
        bank: str = "runs/bank",
    ) -> Detection:
        """Find training samples whose label is likely wrong, and write them down for `SuspectedMislabels` and `Relabel`.

        Args:
            model: The trained classifier; with scores that need folds, with its optimiser and schedule.
            datamodule: The data; no forget rule is needed.
            checkpoint: Weights of the model; None (`none` on the command line): those that it has.
            score: Scores, the first of which decides: mean_loss, aum and early_loss need a training with -c
                trainer/record_margins, self_influence, loss, margin and total_influence the checkpoint alone, out_of_fold and
                cleanlab a model for each fold. None: those that need no training.
            count: So many samples are suspected, those with the highest score. None: as `quantile` says, or a mixture of two
                normal distributions.
            quantile: Those above this quantile of the score are suspected: 0.9 gives the highest tenth.
            early_epoch: Epoch of early_loss, counted from 1; None: after a quarter of the training.
            folds: Parts of the training set for out_of_fold and cleanlab; each model is trained on all but one, for the
                Trainer's `max_epochs`.
            contact_sheet: Of so many of the most suspicious samples the image stands in the report.
            output: Folder of `scores.csv` and of the report; None: nothing is written.
            bank: Folder of trained models.

        Returns:
            Scores, suspects and suggested labels.

        Raises:
            ConfigError: `contact_sheet` is below 0, or folds are needed and there is no length of training.
        """
        if contact_sheet < 0:
            raise ConfigError(f"contact_sheet is {contact_sheet}; needed: 0 (no pictures), or how many.")
        datamodule.use_split_of(checkpoint)
        folded = None
        if any(name in SCORES and SCORES[name].needs == "folds" for name in score or []):
            if self._keywords.get("max_epochs") is None:
                raise ConfigError(
                    "out_of_fold and cleanlab train a model for each fold. Give --trainer.max_epochs, as for fit."
                )
            folded = Folds(self._recipe(model), Bank(bank), folds)
        check_model(model, datamodule, checkpoint)
        record = None if checkpoint is None else MarginRecord.load(checkpoint, datamodule)
        found = detect(self.fresh, model, datamodule, score, Threshold(count, quantile), record, folded, early_epoch)
        if output is not None and self.is_global_zero:
            report = report_of(found, datamodule, contact_sheet)
            report.config = self.configuration
            found.save(Path(output) / "scores.csv")
            save_report(report, output)
        return found

    def _recipe(self, model: LightningModule) -> Recipe:
        max_epochs, arguments = self._training()
        return Recipe(lambda: untrained_copy(model), max_epochs, arguments, self.recipe_callbacks)

    def _training(self) -> tuple[int, dict[str, str | int | float | bool | list[int] | None]]:
        """Epochs and further arguments that models of the bank are trained with."""
        if not self.max_epochs or self.max_epochs < 1:
            raise ConfigError(
                f"max_epochs is {self.max_epochs}; needed: the epochs that originals and references are trained for. "
                "Give --trainer.max_epochs."
            )
        return self.max_epochs, self.recipe_arguments
