"""Many networks of one architecture as one module, which gives what each of them would."""

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from lightning_unlearn.functional.ensemble_forms import FORMS, HOWS, Ensemble, How

__all__ = [
    "ELEMENTWISE",
    "HOWS",
    "LARGEST_GROUP",
    "Ensemble",
    "How",
    "fastest",
    "seconds_per_step",
    "stack",
    "valid_ways",
]

# Optimisers that treat every weight alike, so that weights of several networks can lie in one tensor.
ELEMENTWISE = (SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad, Adadelta)
# More than these at once gain nothing more, and a killed run loses the group that it was at.
LARGEST_GROUP = 32


def stack(networks: Sequence[nn.Module], example: Tensor | None = None, how: How | None = None) -> Ensemble:
    """K networks of one architecture as one module, in the form that is fastest on an example.

    Its outputs, gradients and BatchNorm statistics are those of the networks one by one, up to rounding; so are the weights
    after steps of an optimiser that treats every weight alike, on the *sum* of the K losses.

    Four forms: `layers` replaces Linear by a batched matrix product, Conv2d by a grouped convolution and BatchNorm by one of
    K * C channels (`layers_last`: with channels last); `vmap` vectorises the call of a network over stacked parameters;
    `loop` calls one after another. A form that does not give what the networks give is not considered.

    Args:
        networks: K networks that differ in their weights only; they are copied. The modes in which they are (train, eval, or
            each module its own) are those in which the ensemble runs.
        example: Images like those that will come, (B, C, H, W): on them the forms are compared and timed. Only with `how` it
            may be missing.
        how: The form; None: the fastest one.

    Returns:
        The ensemble, on the device of the networks.

    Raises:
        ValueError: There is no network, they differ in more than weights, or the form is impossible.
    """
    _check(networks)
    if how is None:
        if example is None:
            raise ValueError("stack() needs an example to find the fastest form, or `how`.")
        form = fastest(networks, example)
    else:
        form = how
    return FORMS[form](networks, form, 4 if example is None else example.dim())


def fastest(networks: Sequence[nn.Module], example: Tensor) -> How:
    """The form that `stack` chooses.

    Args:
        networks: K networks of one architecture.
        example: See `stack`.

    Returns:
        One of `HOWS`.
    """
    seconds: dict[How, float] = {how: seconds_per_step(networks, example, how) for how in valid_ways(networks, example)}
    return min(seconds, key=lambda how: seconds[how])


def valid_ways(networks: Sequence[nn.Module], example: Tensor) -> list[How]:
    """The forms that give what the networks give.

    Two networks with their weights shifted at random (so that none is zero) are compared in float64, in the modes in which
    they are and in eval mode, buffers included.

    Args:
        networks: At least one network.
        example: (B, C, H, W).

    Returns:
        Some of `HOWS`; `loop` is always among them.

    Raises:
        ValueError: The forward pass draws random numbers (dropout), so that no form can be compared.
    """
    generator = torch.Generator().manual_seed(0)
    pair = [_shifted(networks[0], generator) for _ in range(2)]
    device = example.device
    images = torch.randn(2, min(8, len(example)), *example.shape[1:], generator=generator, dtype=torch.float64).to(device)
    found: list[How] = []
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else None), torch.no_grad():
        for how in HOWS:
            try:
                ensembles = [FORMS[how](pair, how, example.dim()) for _ in range(2)]
                ensembles[1].eval()
                if all(_gives_the_same(ensemble, pair, images) for ensemble in ensembles):
                    found.append(how)
            except (ValueError, RuntimeError, TypeError, IndexError):
                continue  # a form that cannot run is no candidate
    if "loop" not in found:
        raise ValueError("its forward pass draws random numbers, or depends on other modules than its own.")
    return found


def seconds_per_step(
    networks: Sequence[nn.Module],
    example: Tensor,
    how: How,
    optimizer: Callable[..., Optimizer] | None = None,
    repeats: int = 3,
) -> float:
    """Seconds of a training step of all networks: the least of some.

    On a CPU the time of this thread, which the load of other processes disturbs little.

    Args:
        networks: K networks.
        example: (B, C, H, W), what each of them gets.
        how: The form. A loop is timed over at most four networks, and the result scaled.
        optimizer: Makes the optimiser; None: SGD with momentum.
        repeats: Timed steps.

    Returns:
        Seconds.
    """
    timed = networks[:4] if how == "loop" else networks
    # Copies: their weights change.
    ensemble = FORMS[how](timed, how, example.dim())
    groups: list[nn.Module] = [ensemble]
    if how == "loop":
        groups = list(ensemble.get_submodule("networks").children())
    make = optimizer or partial(SGD, lr=1e-6, momentum=0.9)
    optimizers = [make(list(group.parameters())) for group in groups]
    images = example.expand(len(timed), *example.shape)
    least = float("inf")
    for i in range(repeats + 1):
        begin = _now(example.device)
        for group, step in zip(groups, optimizers, strict=True):
            step.zero_grad()
            group(images[0] if how == "loop" else images).square().mean().backward()
            step.step()
        if i:
            least = min(least, _now(example.device) - begin)
    return least * len(networks) / len(timed)


def _gives_the_same(ensemble: Ensemble, pair: Sequence[nn.Module], images: Tensor) -> bool:
    """Whether outputs and buffers are those of the networks, whose modes are set to the ensemble's."""
    networks = [copy.deepcopy(network) for network in pair]
    if not ensemble.training:
        for network in networks:
            network.eval()
    torch.manual_seed(1)
    expected = torch.stack([network(x) for network, x in zip(networks, images, strict=True)])
    torch.manual_seed(2)
    if not torch.allclose(ensemble(images), expected, rtol=1e-8, atol=1e-8):
        return False
    return all(
        torch.allclose(value.double(), other.double(), rtol=1e-8, atol=1e-8)
        for network, found in zip(networks, ensemble.unstack(), strict=True)
        for value, other in zip(network.buffers(), found.buffers(), strict=True)
    )


def _shifted(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy in float64 whose weights and buffers are all different, and variances still positive."""
    copied = copy.deepcopy(network).double()
    for value in copied.parameters():
        value.data += 0.05 * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.device)
    for buffer in copied.buffers():
        if buffer.is_floating_point():
            buffer.data += 0.1 * torch.rand(buffer.shape, generator=generator, dtype=torch.float64).to(buffer.device)
    return copied


def _check(networks: Sequence[nn.Module]) -> None:
    if not networks:
        raise ValueError("stack() got no network; needed: at least one.")

    def shape(network: nn.Module) -> list[object]:
        parameters = [(n, tuple(p.shape), p.dtype, p.requires_grad) for n, p in network.named_parameters()]
        modes = [(n, m.code if isinstance(m, fx.GraphModule) else type(m), m.training) for n, m in network.named_modules()]
        return [*parameters, *((n, tuple(b.shape), b.dtype) for n, b in network.named_buffers()), *modes]

    first = shape(networks[0])
    for k, network in enumerate(networks):
        if shape(network) != first:
            raise ValueError(f"Network {k} differs from network 0 in its layers, shapes or modes; needed: one architecture.")


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.thread_time()
