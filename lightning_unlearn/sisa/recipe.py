"""What the weights of every slice depend on beside its samples."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.vision import hash_of_key
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.fresh import FreshTrainer
from lightning_unlearn.sisa.model import Sisa
from lightning_unlearn.training import describe, stable_repr

__all__ = ["SliceRecipe", "epochs_of_slices"]

# Of the model: these change what its members become only through what is recorded by itself, or not at all.
_OWN = ("shards", "slices", "aggregation")
# Lightning's short names. Early fits recorded what was given.
_PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}


@dataclass(frozen=True)
class SliceRecipe:
    """How all slices are trained. With the keys, content and labels of the samples it decides every weight.

    Attributes:
        shards: Number of shards.
        slices: Slices of a shard.
        seed: Seed of the run: of shards and slices, weights, order, augmentation and dropout.
        epochs: Epochs of each slice's training.
        batch_size: Samples of a batch over all ranks.
        settings: Everything else by name, as text.
    """

    shards: int
    slices: int
    seed: int
    epochs: int
    batch_size: int
    settings: Mapping[str, str]

    @classmethod
    def of(
        cls, model: Sisa, data: UnlearningDataModule, trainer: FreshTrainer, seed: int, epochs: int, batch_size: int
    ) -> "SliceRecipe":
        """The recipe of a model, its data and its Trainer.

        Args:
            model: The model.
            data: The data.
            trainer: Its arguments, ranks and kind of device count, not its length.
            seed: Seed of the run.
            epochs: Epochs of each slice's training.
            batch_size: Samples of a batch over all ranks.

        Returns:
            The recipe.
        """
        described = describe(model)
        hyper = described.pop("hyper_parameters", {})
        assert isinstance(hyper, dict)
        given = trainer.stage_arguments
        precision = str(given.pop("precision", "32-true"))
        settings = {
            **{f"model.{name}": str(value) for name, value in described.items()},
            **{f"model.{name}": str(value) for name, value in hyper.items() if name not in _OWN},
            **{f"trainer.{name}": stable_repr(value) for name, value in given.items()},
            "trainer.precision": _PRECISIONS.get(precision, precision),
            # BatchNorm takes its statistics on each rank, and sums are rounded otherwise elsewhere.
            "trainer.ranks": str(trainer.world_size),
            "trainer.device": trainer.strategy.root_device.type,
            "data.augmentation": stable_repr(data.augmentation),
            "data.seed": str(data.seed),
            "image_shape": str(list(data.samples.images[0].shape)),
            "normalisation": str([list(data.dataset.mean), list(data.dataset.std)]),
        }
        return cls(model.shards, model.slices, seed, epochs, batch_size, settings)

    def seed_of(self, shard: int) -> int:
        """Seed of a shard's weights, order, augmentation and dropout.

        Args:
            shard: Number of the shard.

        Returns:
            0 to 2**32 - 1.
        """
        return hash_of_key(f"{self.seed}/sisa/shard {shard}") % 2**32

    def plain(self) -> dict[str, object]:
        """The recipe as JSON holds it."""
        return asdict(self)

    def check_same(self, now: "SliceRecipe", where: object) -> None:
        """Refuse to go on with another recipe: slices that were trained otherwise do not fit together.

        Args:
            now: The recipe of this run.
            where: What holds the slices of this one, for the message.

        Raises:
            ConfigError: They differ; the first difference is named.
        """
        before, after = ({**r.plain(), **r.settings, "settings": None} for r in (self, now))
        for settings in (before, after):
            precision = str(settings.get("trainer.precision"))
            settings["trainer.precision"] = _PRECISIONS.get(precision, precision)
        for name in [*before, *(name for name in after if name not in before)]:
            if before.get(name) != after.get(name):
                remedy = (
                    "These were measured on the data, which have changed: give the data set mean and std."
                    if name == "normalisation"
                    else "Run with what it was, or train anew in another folder."
                )
                raise ConfigError(
                    f"{where} holds slices that were trained otherwise: {name} was {before.get(name)} and is now "
                    f"{after.get(name)}. {remedy}"
                )


def epochs_of_slices(max_epochs: int, slices: int) -> int:
    """Epochs of each slice's training such that all of them cost as much as one training without slices.

    A slice's training runs over all slices up to it, so R of them cost (R + 1) / 2 passes over the shard for each epoch
    (Bourtoule et al. 2021, section V).

    Args:
        max_epochs: Epochs without slices.
        slices: Slices of a shard (R).

    Returns:
        2 max_epochs / (R + 1), to the nearest whole number, at least 1.
    """
    return max(1, round(2 * max_epochs / (slices + 1)))
