"""Swap the axes of convolution kernels."""

from lightning.pytorch import Callback
from torch import nn

from lightning_unlearn.callbacks.weight_edit import EditedStage, WeightEdit
from lightning_unlearn.functional.anatomy import parameter_name
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["Transpose", "TransposeKernels"]


class Transpose(WeightEdit):
    """Swaps height and width of the selected kernels. Runs on `on_fit_start`."""

    def edit(self, stage: EditedStage) -> None:
        """See `WeightEdit.edit`."""
        weights = dict(stage.classifier.named_parameters())
        for name in stage.selected:
            weights[name].copy_(weights[name].transpose(-1, -2).clone())


class TransposeKernels(UnlearningStage):
    """Transposes the kernels of 2-D convolutions: W[o, i, h, w] <- W[o, i, w, h].

    From the 5th place of the NeurIPS 2023 unlearning challenge (Triantafillou et al. 2024). What a kernel found in rows it
    then finds in columns: fine-tuning has to follow. Square kernels alone; 1x1 stay as they are.

    Args:
        parameters: Of which parameters kernels are taken; None: all.
    """

    view = "none"
    train_mode = False

    def __init__(self, parameters: ParameterSelector | None = None) -> None:
        super().__init__(max_epochs=0, parameters=parameters)

    def choose(self, classifier: nn.Module) -> list[str]:
        """See `UnlearningStage.choose`: square kernels of 2-D convolutions, larger than 1x1.

        Args:
            classifier: The network.

        Returns:
            Names of kernels, at least one.

        Raises:
            ValueError: There is none among the selected parameters.
        """
        square = {
            parameter_name(name)
            for name, m in classifier.named_modules()
            if isinstance(m, nn.Conv2d) and m.kernel_size[0] == m.kernel_size[1] > 1
        }
        names = [name for name in super().choose(classifier) if name in square]
        if not names:
            raise ValueError("no square kernel of a 2-D convolution is selected; needed: at least one, larger than 1x1.")
        return names

    def configure_callbacks(self) -> list[Callback]:
        """The chain: one weight edit."""
        return [Transpose()]
