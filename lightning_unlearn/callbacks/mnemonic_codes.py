"""Train with one random image per class among the others, by which the class can be forgotten later without its data."""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_unlearn.callbacks.recipe import RecipeCallback
from lightning_unlearn.data.batch import Batch
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.hashing import uniform
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.random import generator, run_seed
from lightning_unlearn.weights.mnemonic import CODES_KEY, Codes, draw_codes, give_codes

__all__ = ["MnemonicCodes", "mix_in"]


def mix_in(input: Tensor, target: Tensor, chosen: Tensor, codes: Codes) -> None:
    """Replace images by the codes of their classes, in place.

    Args:
        input: Normalised images, (B, C, H, W).
        target: Labels, (B,), int64, each with a code; codes are in the order of the labels.
        chosen: Which images are replaced, (B,), bool.
        codes: The codes, on the device of `input`.
    """
    input[chosen] = codes.images[target[chosen]].to(input.dtype)


class MnemonicCodes(RecipeCallback):
    """Mnemonic codes (Yamashita et al. 2023): a random image per class replaces training images of the class now and then.

    Codes are drawn from the run's seed in the space of the network's input, uniform in 0 ... 1, and take the place of an image
    after its augmentation and normalisation. Whether an image is replaced is a function of (seed, epoch, sample key): the same
    on any number of ranks and after a resume. The codes stay with the model and in its checkpoints, where the stage
    `MnemonicForgetting` finds them.
    Every fit draws its own, unless it is resumed.

    Args:
        mixing: Probability that an image is replaced; the source has 0.1 for MNIST, CUB and STN, 0.3 for CIFAR and ImageNet.

    Raises:
        ConfigError: `mixing` is out of range.

    Runs on `setup`, `on_fit_start` and `on_train_batch_start`.
    """

    def __init__(self, mixing: float = 0.1) -> None:
        if not 0 < mixing < 1:
            raise ConfigError(
                f"MnemonicCodes: mixing is {mixing}; needed: above 0 and below 1 (0.1 replaces every tenth image)."
            )
        self.mixing = mixing
        self.codes: Codes | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mixing={self.mixing!r})"

    @property
    def state_key(self) -> str:
        """What checkpoints call it, also in a subclass."""
        return CODES_KEY

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the codes of an earlier fit go; a checkpoint brings its own after this."""
        if stage == "fit":
            self.codes = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the codes, unless a resumed run brought them, and leave them with the model."""
        data = self._data(trainer)
        if self.codes is None:
            shape = data.samples.images[0].shape
            self.codes = draw_codes(data.num_classes, shape, generator("mnemonic codes", self._seed(data)))
        give_codes(pl_module, self.codes)
        device = trainer.strategy.root_device
        self._here = Codes(self.codes.images.to(device), self.codes.labels.to(device))
        self._hashes = data.samples.hashes.to(device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Replace images of the batch, which is normalised and augmented by now."""
        hashes = self._hashes[batch.index]
        drawn = uniform(hashes, self._seed(self._data(trainer)), "mnemonic mixing", trainer.current_epoch)
        mix_in(batch.input, batch.target, drawn < self.mixing, self._here)

    def state_dict(self) -> dict[str, Tensor]:
        """The codes, and nothing else."""
        return {} if self.codes is None else self.codes.state_dict()

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Take the codes of a run that is resumed.

        Args:
            state_dict: What `state_dict` gave.
        """
        self.codes = Codes.from_state(state_dict)

    @staticmethod
    def _data(trainer: Trainer) -> UnlearningDataModule:
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, UnlearningDataModule):
            raise ConfigError(
                f"MnemonicCodes needs the keys of samples, and the data are a {type(data).__name__}; needed: an "
                "UnlearningDataModule. Give fit one as its datamodule."
            )
        return data

    @staticmethod
    def _seed(data: UnlearningDataModule) -> int:
        return run_seed() if data.seed is None else data.seed
