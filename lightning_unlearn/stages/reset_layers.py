"""Give layers new weights."""

from collections.abc import Iterable

import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_unlearn.callbacks.weight_edit import EditedStage, WeightEdit
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.anatomy import left_by, own_reset, parameter_name
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.random import drawn_from, generator
from lightning_unlearn.stages.base import UnlearningStage

__all__ = ["Reset", "ResetLayers", "reset_modules"]


def reset_modules(network: nn.Module, names: set[str], source: torch.Generator, redraw: bool = False) -> int:
    """Re-initialise, by its own `reset_parameters`, every module that owns one of the named parameters, but what is frozen.

    Args:
        network: The network.
        names: Names of parameters. A frozen one is reset where it is named, and stays where only another one of its module is.
        source: Where the new weights' seed is drawn.
        redraw: What happens to a module without `reset_parameters`. False: an error. True: its named matrices and kernels are
            drawn anew from a normal distribution with their own mean and deviation, vectors stay, such as a layer's scale.

    Returns:
        How many modules were reset.

    Raises:
        ChainError: A module that owns a named parameter has no `reset_parameters`, or one that keeps it, or shares another
            parameter with a module that is not reset.
    """
    names_of = {id(p): name for name, p in network.named_parameters()}
    seed = int(torch.randint(2**62, (), generator=source))
    count = 0
    with drawn_from(seed):
        for prefix, module in network.named_modules():
            own = {
                parameter_name(prefix, n): p
                for n, p in module.named_parameters(recurse=False)
                if parameter_name(prefix, n) in names
            }
            if not own:
                continue
            shared = {names_of[id(p)] for p in module.parameters(recurse=False)} - names
            shared = {name for name in shared if name.rpartition(".")[0] != prefix}
            if shared:
                raise ChainError(
                    f"{prefix or type(network).__name__} ({type(module).__name__}) shares {sorted(shared)} with a module that "
                    "is not reset. Select that one too, or leave this one out."
                )
            reset = own_reset(module)
            if reset is None and not redraw:
                raise ChainError(
                    f"{prefix or type(network).__name__} ({type(module).__name__}) has no reset_parameters, so its "
                    f"parameters {sorted(own)} cannot be reset. Leave it out of the selection."
                )
            frozen = {p: p.detach().clone() for n, p in module.named_parameters(recurse=False) if not p.requires_grad}
            # Drawn on the CPU, so that every device gets the same weights.
            device = next(module.parameters(recurse=False)).device
            module.cpu()
            if reset is None:
                _redraw(own.values())
            elif left := [name for name in left_by(reset, module) if parameter_name(prefix, name) in own]:
                raise ChainError(
                    f"{prefix or type(network).__name__} ({type(module).__name__}) keeps {left} in its reset_parameters, so "
                    "they cannot be reset. Leave it out of the selection."
                )
            module.to(device)
            with torch.no_grad():
                for p, before in frozen.items():
                    if names_of[id(p)] not in names:
                        p.copy_(before)
            count += 1
    for prefix, module in network.named_modules():
        # A norm without parameters has no name to select; what it knows of the old weights of its block goes with them.
        if isinstance(module, nn.modules.batchnorm._NormBase) and not list(module.parameters()):
            block = network.get_submodule(prefix.rpartition(".")[0])
            around = [names_of[id(p)] for p in block.parameters()]
            if around and names.issuperset(around):
                module.reset_running_stats()
    return count


@torch.no_grad()
def _redraw(parameters: Iterable[nn.Parameter]) -> None:
    for p in parameters:
        if p.numel() > max(p.shape, default=1):
            p.normal_(float(p.mean()), float(p.std()))


class Reset(WeightEdit):
    """Re-initialises the selected layers. Runs on `on_fit_start`."""

    def edit(self, stage: EditedStage) -> None:
        """See `WeightEdit.edit`."""
        reset_modules(stage.classifier, set(stage.selected), generator("reset layers"))


class ResetLayers(UnlearningStage):
    """Re-initialises the first or last layers, an idea of the NeurIPS 2023 challenge (Triantafillou et al. 2024).

    What was there is lost for retained samples too: fine-tuning has to follow. Blocks are reset as far as they are not frozen,
    since what follows does not train what is.

    Args:
        first_blocks: How many blocks at the beginning; the stem is the first.
        last_blocks: How many blocks at the end; the head is the first of them.
        parameters: What else is reset.
    """

    view = "none"
    train_mode = False
    prepares = True

    def __init__(self, first_blocks: int = 0, last_blocks: int = 0, parameters: ParameterSelector | None = None) -> None:
        if not (first_blocks or last_blocks or parameters):
            raise ChainError("ResetLayers: nothing is selected; give first_blocks, last_blocks or parameters.")
        selector = parameters or ParameterSelector(first_blocks=first_blocks, last_blocks=last_blocks)
        super().__init__(max_epochs=0, parameters=selector)
        self._by_name = parameters is not None

    def choose(self, classifier: nn.Module) -> list[str]:
        """See `UnlearningStage.choose`; of blocks what is not frozen.

        Args:
            classifier: The network.

        Returns:
            Names of parameters, at least one.

        Raises:
            ValueError: All of it is frozen.
        """
        names = super().choose(classifier)
        chosen = names if self._by_name else [name for name in names if classifier.get_parameter(name).requires_grad]
        if not chosen:
            raise ValueError(f"all of {names} is frozen. Unfreeze it, or name it by `parameters`.")
        return chosen

    def configure_callbacks(self) -> list[Callback]:
        """The chain: one weight edit."""
        return [Reset()]
