"""What a network is made of: its weight layers, head, blocks, last stage and second half.

Everything is read from the module tree in the order of registration, which for nearly all networks is the order of the forward
pass. Nothing runs, so it works for networks on any device, of any input size. What `in_use.look_at_calls` noted of a network
goes before: layers without part in its output are not there, and single layers stand in the order in which they run.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable

import torch
from torch import nn

__all__ = [
    "CALLED_AT",
    "NEVER",
    "WEIGHT_LAYERS",
    "blocks",
    "has_normalisation",
    "head_name",
    "last_half",
    "last_hidden",
    "last_stage",
    "layer_weights",
    "left_by",
    "own_reset",
    "parameter_name",
    "unused_layers",
    "weight_layers",
]

# Where `look_at_calls` leaves the place of a layer in the order of calls: -1 where it is without part in the output.
CALLED_AT, NEVER = "_called_at", -1
WEIGHT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Names of layers that normalise, in torch and timm; not those that normalise weights.
_NORM = re.compile(r"(?<!weight)(?<!spectral)norm(act)?(\dd)?$", re.IGNORECASE)
# Children of a block that run beside its other layers: they are registered last, and are not the deepest.
_BESIDE = {"downsample", "shortcut", "skip", "se"}
_HEAD_NAMES = {"fc", "head", "heads", "classifier", "linear", "last_linear", "logits", "output"}


def parameter_name(layer: str, parameter: str = "weight") -> str:
    """The full name of a layer's parameter.

    Args:
        layer: Name of the module, as in `named_modules`; empty for the network itself.
        parameter: Its name within the module.

    Returns:
        The name, as in `named_parameters` of the network.
    """
    return f"{layer}.{parameter}" if layer else parameter


def own_reset(module: nn.Module) -> Callable[[], object] | None:
    """How a module draws its own parameters anew.

    Args:
        module: The module.

    Returns:
        Its `reset_parameters`, which torch's attention has with an underscore; None where it has none.
    """
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)


def left_by(reset: Callable[[], object], module: nn.Module) -> list[str]:
    """Reset a module, and see what stays, such as the factors from which `weight_norm` makes a weight.

    Args:
        reset: What `own_reset` gave.
        module: The module; changed in place.

    Returns:
        Names of its own matrices and kernels that are what they were; constant ones are not looked at.
    """
    before = {
        name: p.detach().clone()
        for name, p in module.named_parameters(recurse=False)
        if p.dim() > 1 and p.numel() and bool((p != p.flatten()[0]).any())
    }
    reset()
    return [name for name, p in module.named_parameters(recurse=False) if name in before and torch.equal(p, before[name])]


def has_normalisation(network: nn.Module) -> bool:
    """Whether a network has layers that normalise what passes through them; what `forward` does without a module is not seen.

    Args:
        network: Any network.

    Returns:
        True for BatchNorm, LayerNorm, GroupNorm, InstanceNorm, RMSNorm and what is made of them.
    """
    return any(_NORM.search(kind.__name__) for module in network.modules() for kind in type(module).__mro__)


def weight_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name.

    Args:
        network: Any network.

    Returns:
        Name -> module, in the order in which they are called where all of it is known, else in that of `named_modules`; a
        module that is registered twice appears once.
    """
    found = {name: m for name, m in network.named_modules() if _is_weight_layer(m)}
    places = {name: m.__dict__.get(CALLED_AT) for name, m in found.items()}
    if any(place is None for place in places.values()):
        return found
    return {name: found[name] for name in sorted(found, key=lambda name: places[name] or 0)}


def unused_layers(network: nn.Module) -> list[str]:
    """Convolutions and linear layers without part in the output.

    Args:
        network: Any network.

    Returns:
        Module names; empty where nothing was noted.
    """
    return [name for name, m in network.named_modules() if isinstance(m, WEIGHT_LAYERS) and not _is_weight_layer(m)]


def layer_weights(network: nn.Module, names: Collection[str], head: bool = True) -> list[str]:
    """The weights of convolutions and linear layers among some parameters: no bias, nothing of a normalisation.

    Args:
        network: Any network; a classifier where the head is left out.
        names: Names of parameters to choose among.
        head: Whether the layer that gives the logits counts.

    Returns:
        Names of parameters, at least one.

    Raises:
        ValueError: There is none among them.
    """
    left_out = None if head else head_name(network)
    weights = [name for layer in weight_layers(network) if layer != left_out and (name := parameter_name(layer)) in names]
    if not weights:
        kind = "a convolution or linear layer" if head else "a convolution or hidden linear layer"
        raise ValueError(f"the selection holds no weight of {kind}. Select some.")
    return weights


def head_name(network: nn.Module) -> str:
    """Name of the layer that gives the logits: a linear layer or a 1x1 convolution.

    In this order: what the network itself says (`get_classifier()`, as in timm); the last such layer under
    a top-level child called fc, head, heads, classifier, linear, last_linear, logits or output; the last
    linear layer; the last 1x1 convolution.

    Args:
        network: Any classifier.

    Returns:
        The name of the module, as in `named_modules`.

    Raises:
        ValueError: If the network has no linear layer and no 1x1 convolution.
    """
    for name, child in network.named_children():
        # A wrapper (a LightningModule around its network) owns nothing itself: the child knows its head.
        if sum(1 for _ in child.parameters()) == sum(1 for _ in network.parameters()) > 0:
            return f"{name}.{head_name(child)}"
    layers = {name: m for name, m in weight_layers(network).items() if _is_pointwise(m)}
    own = getattr(network, "get_classifier", None)
    if callable(own):
        said = own()
        for name, module in layers.items():
            if module is said:
                return name
    named = [name for name in layers if name.split(".")[0].lower() in _HEAD_NAMES]
    linear = [name for name, m in layers.items() if isinstance(m, nn.Linear)]
    for names in (named, linear, list(layers)):
        if names:
            return names[-1]
    raise ValueError(
        f"{type(network).__name__} has no linear layer and no 1x1 convolution that could give the logits; "
        "needed: a classifier with such a head."
    )


def blocks(network: nn.Module) -> list[str]:
    """Names of residual, transformer or similar blocks, in order.

    A block is a module with a forward of its own (a plain Sequential, ModuleList or ModuleDict is not one:
    a shortcut, a stage), child of such a container, that holds at least two weight layers. A module most of
    whose weight layers lie in blocks inside it is a stage, and its inner blocks count; a block that merely
    contains a smaller one (squeeze and excitation) counts as a whole.

    Args:
        network: Any network.

    Returns:
        Module names; empty for plain chains of layers.
    """
    candidates = {
        name: sum(map(_is_weight_layer, module.modules()))
        for name, module in network.named_modules()
        if name and not _is_container(module) and _is_container(network.get_submodule(_parent(name)))
    }
    candidates = {name: count for name, count in candidates.items() if count >= 2}
    found: list[str] = []
    for name, count in candidates.items():  # parents come before their children
        inside = _outermost(other for other in candidates if other.startswith(f"{name}."))
        is_stage = 2 * sum(candidates[other] for other in inside) > count
        if not is_stage and not any(name.startswith(f"{block}.") for block in found):
            found.append(name)
    return found


def last_stage(network: nn.Module) -> list[str]:
    """Names of the modules that make up the last stage, without the head.

    * Blocks in two or more containers (ResNet, ConvNeXt): the blocks of the last container.
    * Blocks in one container (ViT): the last sixth of them, rounded up (2 of 12).
    * No blocks, convolutions (plain CNN): the last third of the convolutions, rounded up, and the hidden
      linear layers registered after them.
    * Linear layers only (MLP): the last hidden one; the head itself where there is no other.

    Args:
        network: Any classifier.

    Returns:
        Module names, in order.
    """
    found = blocks(network)
    if found:
        containers = list(dict.fromkeys(_parent(name) for name in found))
        if len(containers) > 1:
            return [name for name in found if _parent(name) == containers[-1]]
        return found[-math.ceil(len(found) / 6) :]
    head = head_name(network)
    hidden = {name: m for name, m in weight_layers(network).items() if name != head}
    convolutions = [name for name, m in hidden.items() if isinstance(m, _CONVOLUTIONS)]
    if convolutions:
        chosen = convolutions[-math.ceil(len(convolutions) / 3) :]
        names = list(hidden)
        return names[names.index(chosen[0]) :]
    return list(hidden)[-1:] or [head]


def last_hidden(network: nn.Module) -> str:
    """Name of the last layer of weights before the head, without those that run beside others.

    Inside a block, what is called downsample, shortcut, skip or se (squeeze and excitation) does not count.

    Args:
        network: Any classifier.

    Returns:
        The name of the module, as in `named_modules`; that of the head where there is no other.
    """
    head, found = head_name(network), blocks(network)

    def beside(name: str) -> bool:
        inside = next((name.removeprefix(f"{block}.") for block in found if name.startswith(f"{block}.")), "")
        return not _BESIDE.isdisjoint(inside.split("."))

    return [head, *(name for name in weight_layers(network) if name != head and not beside(name))][-1]


def last_half(network: nn.Module) -> list[str]:
    """Names of the modules that make up the second half of the network, without the head.

    The last half of the blocks, rounded up (layers 3 and 4 of a ResNet-18); where there are no blocks, of the weight layers
    before the head; the head itself where there is no other.

    Args:
        network: Any classifier.

    Returns:
        Module names, in order.
    """
    head = head_name(network)
    found = blocks(network) or [name for name in weight_layers(network) if name != head]
    return found[len(found) // 2 :] or [head]


def _is_container(module: nn.Module) -> bool:
    """Whether the module only holds others; a Sequential with its own forward may be a residual block."""
    plain: Callable[..., object] = nn.Sequential.forward
    if isinstance(module, nn.Sequential):
        return type(module).forward is plain
    return isinstance(module, (nn.ModuleList, nn.ModuleDict))


def _is_weight_layer(module: nn.Module) -> bool:
    return isinstance(module, WEIGHT_LAYERS) and module.__dict__.get(CALLED_AT) != NEVER


def _is_pointwise(module: nn.Module) -> bool:
    if isinstance(module, _CONVOLUTIONS):
        return all(k == 1 for k in module.kernel_size) and module.groups == 1
    return isinstance(module, nn.Linear)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _outermost(names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        if not any(name.startswith(f"{other}.") for other in found):
            found.append(name)
    return found
