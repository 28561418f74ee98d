"""Trained originals and references, kept by content, so that every method, seed and attack shares them."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, seed_everything
from torch import Tensor, nn

from lightning_unlearn.checkpoint import read_weights, save_weights
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.views import View
from lightning_unlearn.exceptions import CheckpointError
from lightning_unlearn.files import write_text_atomic
from lightning_unlearn.ranks import barrier, first_says, is_first, lock_on_first
from lightning_unlearn.training import describe, fit_quietly, stable_repr

__all__ = ["Bank", "Recipe", "hash_of_file", "hash_of_weights"]

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
    """

    model: Callable[[], LightningModule]
    max_epochs: int
    trainer: Mapping[str, str | int | float | bool | list[int] | None]

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

    def trained(self, recipe: Recipe, data: UnlearningDataModule, view: View, seed: int) -> LightningModule:
        """A model trained by a recipe on a view of the data: from the bank, or trained now and kept.

        Args:
            recipe: How it is trained.
            data: The data, with its forget rule.
            view: `train` for an original, `retain` for a reference.
            seed: Seed of weights, order and augmentation.

        Returns:
            The trained model on the CPU, in eval mode.
        """
        model = recipe.build(seed)
        content = self.content(recipe, model, data, view, seed)
        entry = self.folder / hashlib.sha256(content.encode()).hexdigest()[:24]
        with lock_on_first(entry, wait=True):
            state = self._verified(entry, content)
            if first_says(state is None):
                log.info("training %s (seed %d) for the bank", "an original" if view == "train" else "a reference", seed)
                fit_quietly(model, data, view, recipe.max_epochs, recipe.trainer)
                model.cpu()
                if is_first():
                    save_weights(entry / "weights.ckpt", model.state_dict(), dict(model.hparams))
                    # Written last: an entry without it is unfinished and is trained again.
                    record = {"content": json.loads(content), "sha256": hash_of_file(entry / "weights.ckpt")}
                    write_text_atomic(entry / "entry.json", json.dumps(record, indent=1))
                barrier()
            else:
                # Another rank may have looked before another run had finished the entry.
                model.load_state_dict(state or read_weights(entry / "weights.ckpt")[0])
        return model.eval()

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
        return json.dumps(content, sort_keys=True, default=stable_repr)

    @staticmethod
    def _verified(entry: Path, content: str) -> dict[str, Tensor] | None:
        """The weights of an entry, or None where there is none; a damaged one is named and trained again."""
        try:
            record = json.loads((entry / "entry.json").read_text())
            if record["content"] != json.loads(content):
                raise CheckpointError("its content differs from what its name stands for")
            if record["sha256"] != hash_of_file(entry / "weights.ckpt"):
                raise CheckpointError("its weights differ from those that were kept")
            return read_weights(entry / "weights.ckpt")[0]
        except FileNotFoundError:
            return None
        except (CheckpointError, ValueError, KeyError, TypeError) as error:
            log.warning("The bank's entry %s cannot be used (%s); it is trained again.", entry, error)
            return None


def hash_of_weights(model: nn.Module) -> str:
    """A hash of all weights and buffers.

    Args:
        model: The model.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + str((value.dtype, tuple(value.shape))).encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_of_file(path: Path) -> str:
    """A hash of a file's content.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
