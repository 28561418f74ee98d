"""The Trainer that also unlearns and evaluates."""

import logging
from pathlib import Path
from typing import Literal, TypeAlias

from lightning.pytorch import LightningModule
from torch import nn

from lightning_unlearn.audit.given import audit_given, check_lists
from lightning_unlearn.audit.run import audit, check_audit
from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.benchmark.comparison import Comparison, check_preparation
from lightning_unlearn.benchmark.run import benchmark
from lightning_unlearn.cautions import of_copies, of_ensemble, of_original, of_split
from lightning_unlearn.chain.run import check_chain, run_chain
from lightning_unlearn.classifier import untrained_copy
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.earlier import only_withdraws
from lightning_unlearn.data.forget import ForgetRule
from lightning_unlearn.data.views import cut
from lightning_unlearn.detection.scoring import ScoringTrainer
from lightning_unlearn.evaluation.collecting import check_relearning, collect_outputs
from lightning_unlearn.evaluation.new_report import new_report, request_of
from lightning_unlearn.evaluation.panel import Panel
from lightning_unlearn.evaluation.without_forgotten import judge_the_rest, none_is_there
from lightning_unlearn.exceptions import ConfigError, DataError
from lightning_unlearn.loading import check_model, load_copy, load_references, save_unlearned
from lightning_unlearn.metrics.screen import Goal
from lightning_unlearn.random import run_seed
from lightning_unlearn.ranks import lock_on_first
from lightning_unlearn.report.schema import Report
from lightning_unlearn.report.writing import save_report
from lightning_unlearn.requests.history import add_history, check_newest, history_of, made_by
from lightning_unlearn.requests.record import RequestRecord, settle
from lightning_unlearn.requests.withdrawing import withdraw
from lightning_unlearn.requests.without_data import unlearn_without_data
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["Tier", "UnlearningTrainer"]

log = logging.getLogger(__name__)

Tier: TypeAlias = Literal["screen", "audit", "benchmark"]


class UnlearningTrainer(ScoringTrainer):
    """Lightning's Trainer with further verbs: `unlearn`, `evaluate`, `benchmark`, `scores` and `detect`.

    Args:
        *args: See Lightning's Trainer.
        **kwargs: See Lightning's Trainer.

    Raises:
        ConfigError: The precision is a pure half.
    """

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
        from_older: bool = False,
    ) -> Report:
        """Make a trained classifier forget, save the result and report on it.

        Where it was never trained on anything that a list of samples names, its weights stay as they are; those that are
        unseen are withdrawn, and the run is recorded as any other.

        Args:
            model: Gives logits of images; is changed in place.
            datamodule: The data with its forget rule.
            stages: The method: stages in order.
            checkpoint: Weights to start from; None (`none` on the command line): those that the model has.
            references: Checkpoints of models retrained without the forgotten samples, to compare with.
            goal: `untrain`, `remove-class` or `repair`; chooses what the report judges by.
            output: Folder of the result; None: nothing is written.
            name: Name of the method in the report; None: the names of its stages.
            relearn_epochs: Epochs of retain-only fine-tuning that show whether memories come back; 0: left out.
            retrain_epochs: Epochs that retraining would take, for the cost as a share of it.
            keep_artifacts: Whether masks, Fisher and targets stay in the folder after the run.
            from_older: Whether to start from a result that a newer run beside it has gone on from: what that one forgot is
                retained again, for a second result beside it.

        Returns:
            The report.

        Raises:
            DataError: There is nothing to forget; an `AlreadyForgottenError` where earlier requests have removed it.
            ConfigError: The folder holds a finished or another run.
        """
        check_relearning(relearn_epochs)
        check_chain(stages, self.strategy_name, self.accumulate_grad_batches)
        if datamodule.forget_rule is None:
            raise DataError(
                "There is no forget rule, so nothing to forget. Give one: --data.forget RandomFraction "
                "--data.forget.fraction 0.04, or ListedSamples with a file."
            )
        if checkpoint is not None and history_of(checkpoint) and not from_older:
            check_newest(checkpoint, None if output is None else Path(output))
        datamodule.use_split_of(checkpoint)
        withdraws = only_withdraws(datamodule)
        stages = [stage for stage in stages if stage.brings_files or not withdraws]
        for stage in stages:
            stage.place(self.fresh, checkpoint, output)
        check_model(model, datamodule, checkpoint, stages)
        if not datamodule.dataset.has_images:
            given = (goal, checkpoint, output, name, self.configuration)
            return unlearn_without_data(self.fresh, model, datamodule, stages, *given)
        if withdraws:
            return withdraw(self.fresh, model, datamodule, stages, goal, checkpoint, output, self.configuration)
        panel = self._panel(datamodule, goal, relearn_epochs, retrain_epochs)
        others, cautions = load_references(model, references or [], datamodule)
        panel.cautions = self._said([*of_ensemble(model, stages), *cautions])
        self._said([*of_split(datamodule), *of_copies(datamodule)])
        folder = None if output is None else Path(output)
        if folder is None:
            return self._unlearn(model, datamodule, stages, panel, others, None, name)
        if (folder / "unlearned.ckpt").exists():
            if self.is_global_zero:
                settle(folder, keep_artifacts)
            raise ConfigError(f"{folder} holds a finished run, and nothing is written over. Choose another output folder.")
        if not self.is_global_zero:
            return self._unlearn(model, datamodule, stages, panel, others, folder, name)
        with lock_on_first(folder, again=True):
            named = name or " + ".join(type(stage).__name__ for stage in stages)
            record = RequestRecord.begin(folder, datamodule, checkpoint, named, stages)
            report = self._unlearn(model, datamodule, stages, panel, others, folder, named)
            add_history(report, checkpoint)
            record.finish(report, lambda path, request: save_unlearned(path, model, datamodule, request))
            settle(folder, keep_artifacts)
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
        report.warnings += self._said(of_original(report.rows[-1].metrics, data, model))
        results = run_chain(self.fresh, model, data, stages, folder)
        report.warnings += self._said([result.warning for result in results if result.warning])
        method = name or " + ".join(type(stage).__name__ for stage in stages)
        report.rows.append(panel.score(method, run_seed(), model, results))
        # Too grave to stand among the notes alone.
        self._said([f"{text} Keep the original and try another method." for text in panel.losses])
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
        relearn_steps: int = 0,
        tier: Tier = "screen",
        unlearned: list[str] | None = None,
        originals: list[str] | None = None,
        held_out: list[str] | None = None,
    ) -> Report:
        """Judge a model: against retrained references where there are any, and by what can be said without one.

        Or judge many: the tiers `audit` and `benchmark` take lists of checkpoints, or patterns such as
        `runs/mine/*/unlearned.ckpt`.

        Args:
            model: Gives logits of images.
            datamodule: The data; its forget rule, or the split saved beside the checkpoint, says what was forgotten.
            checkpoint: Weights of the model; None (`none` on the command line): those that it has.
            original: Checkpoint of the model before unlearning.
            references: Checkpoints of models retrained without the forgotten samples.
            goal: `untrain`, `remove-class` or `repair`; chooses what the report judges by.
            output: Folder of the report; None: nothing is written.
            relearn_epochs: Epochs of retain-only fine-tuning that show whether memories come back; 0: left out.
            svc: Whether the published SVC attack is run too (slow).
            relearn_steps: Steps on the forgotten samples within which the relearn time is looked for: until their accuracy is
                back at the original's, which must be given (100 steps are plenty); 0: left out.
            tier: `screen` judges one model, `audit` attacks every sample over many models, `benchmark` adds KLoM and the
                forgetting score.
            unlearned: Checkpoints of unlearned models, for an audit; `references` are then as many retrained ones.
            originals: Checkpoints from before unlearning, which show whether the audit can see anything.
            held_out: Further retrained models, which must not be told from the references.

        Returns:
            The report.

        Raises:
            DataError: Nothing says what was forgotten; or the relearn time is asked for, and fewer samples than ranks are.
            ConfigError: The relearn time is asked for without an original.
        """
        check_relearning(relearn_epochs)
        check_lists(
            tier,
            {"checkpoint": checkpoint, "original": original},
            {"unlearned": unlearned, "originals": originals, "held_out": held_out},
        )
        if tier != "screen":
            assert isinstance(model, LightningModule)
            lists = (unlearned or [], references or [], originals, held_out)
            report = audit_given(self.fresh, model, datamodule, *lists, tier, goal, relearn_epochs)
            report.config = self.configuration
            if output is not None and self.is_global_zero:
                save_report(report, output)
            return report
        if relearn_steps < 0 or (relearn_steps and original is None):
            raise ConfigError(
                f"relearn_steps is {relearn_steps} and the original {original}; needed: 0 or more steps, and --original, whose "
                "forget accuracy is to be reached."
            )
        datamodule.use_split_of(checkpoint, forgotten_is_removed=False)
        if none_is_there(datamodule):
            check_model(model, datamodule, checkpoint)
            given = (checkpoint, original, references or [])
            report = judge_the_rest(self.fresh, model, datamodule, goal, *given)
            add_history(report, original)
            self._said(report.warnings)
            report.config = self.configuration
            if output is not None and self.is_global_zero:
                save_report(report, output)
            return report
        if len(datamodule.part("forget")[1]) == 0:
            raise DataError(
                "Nothing says what was forgotten: no forget rule was given and no split.json lies beside the checkpoint. "
                "Give --data.forget."
            )
        check_model(model, datamodule, checkpoint)
        panel = self._panel(datamodule, goal, relearn_epochs, None, svc)
        before = None if original is None else load_copy(model, original, datamodule)
        if before is not None and relearn_steps:
            # Fewer forgotten samples than ranks would end the fine-tuning on them when the first model was judged.
            cut(datamodule.part("forget")[1], datamodule.batch_size, self.world_size)
            known = collect_outputs(self.fresh, before, datamodule, ["forget"])["forget"]
            panel.relearn_steps, panel.relearn_target = relearn_steps, known.accuracy
        report = new_report("evaluate", panel)
        report.config = self.configuration
        others, cautions = load_references(model, references or [], datamodule, before)
        report.warnings += self._said(cautions)
        self._said([*of_split(datamodule), *of_copies(datamodule)])
        report.rows += panel.add_references(others, range(len(others)))
        if before is not None:
            report.rows.append(panel.add_original(before))
            report.warnings += self._said(of_original(report.rows[-1].metrics, datamodule, before))
        made = made_by(checkpoint)
        report.rows.append(panel.score(made.method, made.seed, model, exact=made.exact, cautions=made.cautions))
        self._finish(report, panel)
        add_history(report, original)
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
        tier: Tier = "screen",
        models: int = 16,
        int8: bool = True,
        processes: int | None = None,
        keep_outputs: bool = False,
        tune: int = 0,
        noise_fractions: list[float] | None = None,
        epochs: list[int] | None = None,
        prepare: str | None = None,
    ) -> Report:
        """Compare methods on originals and forget sets, beside retrained references; finished cells are not run again.

        Originals and references are trained for the Trainer's `max_epochs`, once, and kept in the bank.

        Args:
            model: The untrained classifier, with its optimiser and schedule.
            datamodule: The data; its forget rule counts where `rules` is not given.
            methods: Names of shipped methods, or paths of YAML files with `stages`.
            seeds: Seeds of originals; None: 0. In the tier `screen` alone: an audit numbers its models.
            draws: Seeds of the rules' draws; None: 0.
            rules: Forget rules.
            references: Retrained references per forget set, at most 9; with fewer than two there is no level to compare with.
                In the tier `screen` alone.
            goal: `untrain`, `remove-class` or `repair`; chooses what the report judges by.
            output: Folder of cells and report.
            bank: Folder of trained originals and references.
            relearn_epochs: Epochs of retain-only fine-tuning that show whether memories come back; 0: left out.
            tier: `screen` compares single models, `audit` attacks every sample over many models, `benchmark` adds KLoM and
                the forgetting score.
            models: Originals, references and held-out references of an audit, of each as many, per forget set.
            int8: Whether an audit looks at the models again with weights rounded to 8 bits.
            processes: Cells of an audit that run at once; None: one per core on a CPU.
            keep_outputs: Whether the answers to single samples that an audit rests on stay in the folder; they do
                until no method fails.
            tune: Settings of each method that are tried on a development forget set and original, of other seeds than those
                reported, and chosen by unseen samples: further rows, and files in `tuned/` of the folder. Not for audits.
            noise_fractions: Shares of wrong labels to compare, in place of that of the data's label noise. Not for audits.
            epochs: Epochs of originals and references to compare, in place of the Trainer's `max_epochs`. Not for audits.
            prepare: Stages that originals and references go through after their training: `prune_95`, another file of
                `configs/prepare`, or a path. What they prune stays zero in every
                method; relearning fills it again, of references too. Costs stay shares of the training alone. Not for
                audits.

        Returns:
            The report.

        Raises:
            ConfigError: An audit was asked to compare shares of wrong labels or epochs.
        """
        check_relearning(relearn_epochs)
        max_epochs, arguments = self._training()
        every = [*rules] if rules else [datamodule.forget_rule]
        what = Comparison(
            self.fresh,
            Recipe(lambda: untrained_copy(model), max_epochs, arguments, self.recipe_callbacks),
            datamodule,
            methods,
            Path(output),
            Bank(bank),
            [0] if draws is None else draws,
            rules or [],
            goal,
            relearn_epochs,
            self.configuration,
            check_preparation(prepare, every, goal, tier, tune),
        )
        if tier == "screen":
            return benchmark(what, [0] if seeds is None else seeds, references, tune, noise_fractions or [], epochs or [])
        if noise_fractions or epochs:
            raise ConfigError("noise_fractions and epochs compare single models. Leave them out of an audit (--tier screen).")
        check_audit(self.fresh, models, processes, seeds, tune, every)
        return audit(what, models, tier, int8, processes, keep_outputs)

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
    def _said(cautions: list[str]) -> list[str]:
        """What a report warns of at its end, said at once: hours may lie between."""
        for caution in cautions:
            log.warning("%s", caution)
        return cautions

    @staticmethod
    def _finish(report: Report, panel: Panel) -> Report:
        levels = panel.levels()
        if levels:
            report.levels[panel.request.name] = levels
        return report
