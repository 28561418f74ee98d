"""Trained originals and references, kept by content, so that every method, seed and attack shares them."""

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, seed_everything
from torch import Tensor

from lightning_unlearn.callbacks.recipe import RecipeCallback
from lightning_unlearn.callbacks.record_margins import RecordMargins
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.views import View
from lightning_unlearn.exceptions import CheckpointError
from lightning_unlearn.files import hash_of_file, write_atomic, write_text_atomic
from lightning_unlearn.ranks import barrier, first_says, is_first, lock_on_first
from lightning_unlearn.training import describe, fit_quietly, stable_repr
from lightning_unlearn.weights.checkpoint import read_saved, read_weights, save_weights
from lightning_unlearn.weights.fingerprint import hash_of_weights
from lightning_unlearn.weights.mnemonic import codes_of, give_codes
from lightning_unlearn.weights.trained_on import Kept, record_in_bank

__all__ = ["Bank", "Recipe"]

log = logging.getLogger(__name__)

# Arguments of a Trainer that say where a model is trained, not what it becomes; precision is compared by its own name.
_WITHOUT_EFFECT = ("accelerator", "devices", "strategy", "num_nodes", "precision")


@dataclass(frozen=True)
class Recipe:
    """How originals and references are trained.

    Attributes:
        model: Builds an untrained model; called after the seed was set.
        max_epochs: Epochs of training.
        trainer: Further arguments of the Trainer, plain values (precision, accelerator, ...).
        callbacks: What takes part in the training; copies of them do.
    """

    model: Callable[[], LightningModule]
    max_epochs: int
    trainer: Mapping[str, str | int | float | bool | list[int] | None]
    callbacks: Sequence[RecipeCallback] = ()

    def build(self, seed: int) -> LightningModule:
        """An untrained model.

        Args:
            seed: Seed of its weights.

        Returns:
            The model on the CPU.
        """
        seed_everything(seed, verbose=False)
        return self.model()


class Bank:
    """A folder of trained models, one sub-folder each, named by a hash of everything that made them what they are.

    Args:
        folder: Where they lie; made when the first one is kept.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def trained(
        self, recipe: Recipe, data: UnlearningDataModule, view: View, seed: int, recorder: RecordMargins | None = None
    ) -> LightningModule:
        """A model trained by a recipe on a view of the data: from the bank, or trained now and kept.

        Args:
            recipe: How it is trained.
            data: The data, with its forget rule.
            view: `train` for an original, `retain` for a reference.
            seed: Seed of weights, order and augmentation.
            recorder: Gets the course of the training, which is kept too; a model that was trained without one is trained again.

        Returns:
            The trained model on the CPU, in eval mode.
        """
        model = recipe.build(seed)
        content = self.content(recipe, model, data, view, seed)
        entry = self.entry(content)
        with lock_on_first(entry, wait=True):
            state = self.verified(entry, content)
            course = entry / "course.ckpt"
            if first_says(state is None or (recorder is not None and not course.is_file())):
                log.info("training %s (seed %d) for the bank", "an original" if view == "train" else "a reference", seed)
                callbacks: list[Callback] = [*copy.deepcopy(list(recipe.callbacks)), *([] if recorder is None else [recorder])]
                fit_quietly(model, data, view, recipe.max_epochs, recipe.trainer, callbacks)
                model.cpu()
                if is_first():
                    self.record(data, view)
                    if recorder is not None:
                        entry.mkdir(parents=True, exist_ok=True)
                        write_atomic(course, partial(torch.save, recorder.state_dict()))
                    self.keep(entry, content, model)
                barrier()
            else:
                if recorder is not None:
                    recorder.load_state_dict(torch.load(course, weights_only=True))
                self.load(entry, state, model, recipe)
        return model.eval()

    @staticmethod
    def load(entry: Path, state: dict[str, Tensor] | None, model: LightningModule, recipe: Recipe) -> None:
        """Give a model the weights of an entry, and its codes where it was trained with some.

        Args:
            entry: See `entry`.
            state: What `verified` gave; None where another rank looked before another run had finished the entry.
            model: The model, changed in place.
            recipe: How it was trained.
        """
        model.load_state_dict(state or read_weights(entry / "weights.ckpt")[0])
        if recipe.callbacks:
            give_codes(model, read_saved(entry / "weights.ckpt")[2])

    def entry(self, content: str) -> Path:
        """The folder of an entry.

        Args:
            content: See `content`.

        Returns:
            Its path; it need not exist.
        """
        return self.folder / hashlib.sha256(content.encode()).hexdigest()[:24]

    def record(self, data: UnlearningDataModule, view: View) -> None:
        """Write down which samples models of a view are trained on, for `purge`; before the first of them is kept.

        Args:
            data: The data.
            view: Part of them.
        """
        samples, index = data.part(view)  # type: ignore[arg-type]  # models of the bank are trained on one part
        record_in_bank(self.folder, data.fingerprint(view), Kept.of(samples, index, data.dataset))

    @staticmethod
    def keep(entry: Path, content: str, model: LightningModule) -> None:
        """Write a trained model; the caller holds the lock of the folder.

        Args:
            entry: See `entry`.
            content: See `content`.
            model: The trained model.
        """
        save_weights(entry / "weights.ckpt", model.state_dict(), dict(model.hparams), codes_of(model))
        # Written last: an entry without it is unfinished and is trained again.
        record = {"content": json.loads(content), "sha256": hash_of_file(entry / "weights.ckpt")}
        write_text_atomic(entry / "entry.json", json.dumps(record, indent=1))

    @staticmethod
    def content(recipe: Recipe, untrained: LightningModule, data: UnlearningDataModule, view: View, seed: int) -> str:
        """Everything that a trained model depends on, as canonical JSON.

        Args:
            recipe: How it is trained.
            untrained: The model before training.
            data: The data, with its forget rule.
            view: Part of the data it is trained on.
            seed: Seed of weights, order and augmentation.

        Returns:
            JSON with sorted keys.
        """
        content = {
            "data": data.fingerprint(view),
            "image_shape": list(data.samples.images[0].shape),
            "normalisation": [list(data.dataset.mean), list(data.dataset.std)],
            "batch_size": data.batch_size,
            "augmentation": stable_repr(data.augmentation),
            "model": describe(untrained),
            "weights": hash_of_weights(untrained),
            "max_epochs": recipe.max_epochs,
            "precision": str(recipe.trainer.get("precision") or "32-true"),
            "trainer": {name: value for name, value in recipe.trainer.items() if name not in _WITHOUT_EFFECT},
            # The order is drawn for the view by name, so that two views of the same samples differ.
            "view": view,
            "seed": seed,
            "order_seed": data.seed,
            "versions": {name: version(name) for name in ("torch", "lightning")},
        }
        if recipe.callbacks:
            # Only then, so that entries of trainings without any keep their names.
            content["callbacks"] = [repr(callback) for callback in recipe.callbacks]
        return json.dumps(content, sort_keys=True, default=stable_repr)

    @staticmethod
    def verified(entry: Path, content: str) -> dict[str, Tensor] | None:
        """The weights of an entry; a damaged one is named in the log, and trained again.

        Args:
            entry: See `entry`.
            content: See `content`.

        Returns:
            The weights by name; None where there is none, or a damaged one.
        """
        try:
            return _read_entry(entry, content)
        except FileNotFoundError:
            return None
        except (CheckpointError, ValueError, KeyError, TypeError) as error:
            log.warning("The bank's entry %s cannot be used (%s); it is trained again.", entry, error)
            return None


def _read_entry(entry: Path, content: str) -> dict[str, Tensor]:
    record = json.loads((entry / "entry.json").read_text())
    if record["content"] != json.loads(content):
        raise CheckpointError("its content differs from what its name stands for")
    if record["sha256"] != hash_of_file(entry / "weights.ckpt"):
        raise CheckpointError("its weights differ from those that were kept")
    return read_weights(entry / "weights.ckpt")[0]
