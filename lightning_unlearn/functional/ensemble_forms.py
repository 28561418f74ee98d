"""The forms that an ensemble can have; see `functional.ensemble`."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_unlearn.functional.ensemble_layers import merge

__all__ = ["FORMS", "HOWS", "Ensemble", "How"]

How = Literal["layers", "layers_last", "vmap", "loop"]
HOWS: tuple[How, ...] = get_args(How)


class Ensemble(nn.Module, ABC):
    """K networks of one architecture; see `stack`.

    Attributes:
        count: K.
        how: The form that it has.
        input_dims: Dimensions of one network's input.
    """

    def __init__(self, networks: Sequence[nn.Module], how: How, input_dims: int = 4) -> None:
        super().__init__()
        self.count = len(networks)
        self.how = how
        self.input_dims = input_dims
        # In a tuple, so that it is no part of this module: its parameters are not trained.
        self._template = (copy.deepcopy(networks[0]),)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each network.

        Args:
            x: (K, B, C, H, W), a batch for each network, or (B, C, H, W), one for all; (K, B, ...) or (B, ...) where the
                example had other dimensions.

        Returns:
            (K, B, classes).
        """
        return self._run(x, x.dim() > self.input_dims)

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """Parameters and buffers by the names that they have in one network.

        Returns:
            Name to values, (K, ...); what all networks share is expanded.
        """

    @abstractmethod
    def _run(self, x: Tensor, own: bool) -> Tensor:
        """Logits (K, B, classes); `own`: whether each network has a batch of its own."""

    def unstack(self) -> list[nn.Module]:
        """The networks one by one, with the weights and buffers that they have now.

        Returns:
            K new modules of the class that was stacked, on this module's device.
        """
        tensors = self.tensors()
        networks = []
        for k in range(self.count):
            network = copy.deepcopy(self._template[0])
            for name, value in [*network.named_parameters(), *network.named_buffers()]:
                value.data = tensors[name][k].detach().clone(memory_format=torch.preserve_format)
                if value.dim() == 4 and not value.is_contiguous():
                    value.data = value.data.contiguous(memory_format=torch.channels_last)
            networks.append(network)
        return networks


class _Merged(Ensemble):
    """K networks in the channels of one."""

    def __init__(self, networks: Sequence[nn.Module], how: How, input_dims: int = 4) -> None:
        super().__init__(networks, how, input_dims)
        self.network = merge(networks, how == "layers_last")

    def _run(self, x: Tensor, own: bool) -> Tensor:
        x = x.transpose(0, 1).flatten(1, 2) if own else x.repeat(1, self.count, *[1] * (x.dim() - 2))
        if self.how == "layers_last" and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        # Not called as a module: that of torch.fx prints a traceback before it raises.
        logits: Tensor = self.network.forward(x)
        return logits.view(len(logits), self.count, -1).transpose(0, 1)

    def tensors(self) -> Mapping[str, Tensor]:
        single = {**dict(self._template[0].named_parameters()), **dict(self._template[0].named_buffers())}
        merged = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        return {
            name: merged[name].reshape(self.count, *value.shape) if value.dim() else merged[name].expand(self.count)
            for name, value in single.items()
        }


class _Mapped(Ensemble):
    """K networks as one function of stacked parameters, vectorised over its first dimension."""

    def __init__(self, networks: Sequence[nn.Module], how: How, input_dims: int = 4) -> None:
        super().__init__(networks, how, input_dims)
        parameters, buffers = stack_module_state(list(networks))
        self.stacked = nn.Module()
        trained = {name for name, p in networks[0].named_parameters() if p.requires_grad}
        for name, value in parameters.items():
            self.stacked.register_parameter(_key(name), nn.Parameter(value.detach(), requires_grad=name in trained))
        for name, value in buffers.items():
            self.stacked.register_buffer(_key(name), value)

    def _run(self, x: Tensor, own: bool) -> Tensor:
        def run(tensors: dict[str, Tensor], images: Tensor) -> Tensor:
            logits: Tensor = functional_call(self._template[0], tensors, (images,))
            return logits

        # Of the ways to compute attention, the one that vmap knows.
        with sdpa_kernel(SDPBackend.MATH):
            logits: Tensor = vmap(run, in_dims=(0, 0 if own else None))(dict(self.tensors()), x)
        return logits

    def tensors(self) -> Mapping[str, Tensor]:
        values = [*self.stacked.named_parameters(), *self.stacked.named_buffers()]
        return {name.replace("/", "."): value for name, value in values}

    def train(self, mode: bool = True) -> "_Mapped":
        self._template[0].train(mode)
        return super().train(mode)


class _Looped(Ensemble):
    """K networks one after another."""

    def __init__(self, networks: Sequence[nn.Module], how: How, input_dims: int = 4) -> None:
        super().__init__(networks, how, input_dims)
        self.networks = nn.ModuleList(copy.deepcopy(network) for network in networks)

    def _run(self, x: Tensor, own: bool) -> Tensor:
        return torch.stack([network(x[k] if own else x) for k, network in enumerate(self.networks)])

    def tensors(self) -> Mapping[str, Tensor]:
        states = [{**dict(n.named_parameters()), **dict(n.named_buffers())} for n in self.networks]
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}


FORMS: dict[How, type[Ensemble]] = {"layers": _Merged, "layers_last": _Merged, "vmap": _Mapped, "loop": _Looped}


def _key(name: str) -> str:
    return name.replace(".", "/")
