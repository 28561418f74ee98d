"""What the objective of a running stage calls: its data, logits of one forward pass, means that hold on uneven ranks."""

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_unlearn.data.batch import Batch, halves, joined
from lightning_unlearn.data.datamodule import UnlearningDataModule

__all__ = ["StageTools"]


class StageTools(LightningModule):
    """A LightningModule around a classifier, with what objectives are written with; a stage is an `UnlearningStage`."""

    classifier: nn.Module

    @property
    def data(self) -> UnlearningDataModule:
        """The DataModule of the running fit."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, absent in its annotations
        assert isinstance(data, UnlearningDataModule)
        return data

    @property
    def num_classes(self) -> int:
        """Number of classes of the data."""
        return self.data.num_classes

    def example_image(self) -> Tensor:
        """One training image as the network gets it, (1, C, H, W); not from a loader: a rank may have none of a small part."""
        example: Tensor = self.trainer.precision_plugin.convert_input(self.data.example(1).to(self.device))
        return example

    def rank_weight(self, batch: Batch) -> float:
        """See `Batch.weight`, with the ranks of the running fit."""
        return batch.weight(self.trainer.world_size)

    def mean(self, values: Tensor, batch: Batch) -> Tensor:
        """The mean over samples, such that uneven ranks count every sample alike.

        Args:
            values: One value per sample of `batch`, (B,).
            batch: The part of the batch that they belong to.

        Returns:
            A scalar.
        """
        return values.mean() * self.rank_weight(batch)

    def mean_of_both(self, forget: Tensor, retain: Tensor, batch: dict[str, Batch]) -> Tensor:
        """The mean over the samples of both parts together; see `mean`.

        Args:
            forget: One value per forgotten sample, (F,).
            retain: One value per retained sample, (R,).
            batch: The parts that they belong to.

        Returns:
            A scalar.
        """
        b_f, b_r = batch["forget"].count, batch["retain"].count
        return (b_f * self.mean(forget, batch["forget"]) + b_r * self.mean(retain, batch["retain"])) / (b_f + b_r)

    def one_forward(self, batch: dict[str, Batch]) -> tuple[Tensor, Tensor]:
        """Logits of the forgotten and of the retained part from one forward pass; see `logits`.

        Args:
            batch: A batch of the view `both`.

        Returns:
            Logits of the forgotten part (F, K) and of the retained part (R, K).
        """
        return halves(self.logits(batch["forget"], batch["retain"]), batch)

    def logits(self, *batches: Batch) -> Tensor:
        """Logits of batches from *one* forward pass, so that BatchNorm sees one distribution.

        Args:
            *batches: One or more batches.

        Returns:
            (B, K), the batches one after the other.
        """
        logits: Tensor = self.classifier(joined([batch.input for batch in batches]))
        return logits
