"""Sums of squared per-sample gradients of a whole network, without per-sample gradients of the whole network.

One forward and one backward pass for a batch; hooks keep each layer's input and output gradient, and formulas
turn them into sums of squares (`layer_squares`). What no formula covers is served by the first of these that fits:

1. a copy of the parameter for each sample in the same pass, where its first dimension is 1 (position embeddings);
2. `vmap` of the owning module's own vector-Jacobian product, at the kept input and output gradient;
3. `vmap` of the whole network's, for a weight that is used in several places or through functions;
4. a loop over samples, for a forward that `vmap` refuses.

Which one serves which parameter is not guessed: two samples of the first batch are also done one by one by plain
autograd, and what differs moves down the list. A formula that does not fit costs time, not correctness, as long as these
two give the layer a gradient.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_unlearn.functional.layer_squares import rule_for
from lightning_unlearn.functional.per_sample_plan import GradientPlan
from lightning_unlearn.functional.residuals import label_residual

Cotangents = Callable[[Tensor, slice], Sequence[Tensor]]

__all__ = ["Cotangents", "SquaredGradients"]

_BYTES = 256 * 2**20  # of per-sample gradients in vmap, or of output gradients of several losses in hooks
_CPU_BYTES = 16 * 2**20  # of the outputs of layers: more samples at once leave the cache, up to 1.4 times slower
_AGREEMENT = 1e-3  # of formulas with autograd, relative: float32 gives about 1e-5, a formula that does not fit 1


class SquaredGradients:
    """Adds up squared per-sample gradients over batches.

    For sample n with output f(x_n) and cotangents v_n1 ... v_nK (gradients of K losses at the output), it sums
    sum_n sum_k (J_n^T v_nk)^2, J_n the Jacobian of the output in the parameters. Use it in `differentiable_in`.

    Memory: the sums, one layer's per-sample gradients for a few samples, and 256 MiB for what has no formula.

    Args:
        network: A network of one tensor, in eval mode: no sample's output may depend on another's.
        names: Names of the wanted parameters.

    Attributes:
        sums: Name -> sum of squares so far, of the parameter's shape, float32 (float64 for float64 parameters).

    Raises:
        ValueError: If a BatchNorm has no running statistics, so that samples cannot be told apart.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        chosen = set(names)
        for name, module in network.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
                raise ValueError(
                    f"{name} normalises by the statistics of the batch, so samples have no gradients of their own; "
                    "needed: track_running_stats=True."
                )
        self.network = network
        self.parameters = {name: p for name, p in network.named_parameters() if name in chosen}
        self.sums = {name: torch.zeros_like(p, dtype=_wide(p)) for name, p in self.parameters.items()}
        self._plan: GradientPlan | None = None

    def add(self, x: Tensor, cotangents: Cotangents) -> None:
        """Add a batch.

        Args:
            x: Input (N, ...), N at least 1.
            cotangents: Called with the output (n, C) of some of the samples, detached, and the slice of `x` that
                they are; gives K tensors (n, C). Each sample is asked for once, in order.

        Raises:
            RuntimeError: If the forward pass calls a module once in one batch and twice in another.
        """
        if self._plan is None:
            self._plan = self._choose(x)
        for start in range(0, len(x), self._plan.at_once):
            rows = slice(start, start + self._plan.at_once)
            found, vs = self._in_one_pass(self._plan, x, cotangents, rows)
            if found.keys() != self._plan.in_one_pass():
                raise RuntimeError(
                    f"{type(self.network).__name__} called a module once in one batch and twice in another, so its "
                    "per-sample gradients cannot be collected; needed: a forward that takes the same way every time."
                )
            if self._plan.whole:
                found |= (self._by_loop if self._plan.loop else self._by_network)(self._plan.whole, x[rows], vs)
            for name, value in found.items():
                self.sums[name] += value

    def _choose(self, x: Tensor) -> GradientPlan:
        """For each parameter the first way that agrees with autograd on two samples."""
        two = x[:2] if len(x) > 1 else torch.cat([x, x.flip(-1)])
        plan = GradientPlan.first(self.network, self.parameters)
        with torch.no_grad():
            probe = _cross_entropy_gradient(self.network(two))
        expected = self._by_loop(list(self.parameters), two, probe)
        noise = 1e-9 * max(float(value.norm()) for value in expected.values())

        def agrees(name: str, value: Tensor | None) -> bool:
            allowed = _AGREEMENT * float(expected[name].norm()) + noise
            return value is not None and float((value - expected[name]).norm()) <= allowed

        while names := plan.in_one_pass():
            try:
                found = self._in_one_pass(plan, two, lambda *_: probe, trying=True)[0]
                wrong = {name for name in names if not agrees(name, found.get(name))}
            except RuntimeError:
                if not plan.copied:
                    raise
                wrong = set(plan.copied)  # the forward pass refused a parameter of another shape
            if not wrong:
                break
            plan.demote(wrong)
        if plan.whole:
            try:
                self._by_network(plan.whole, two, probe)
            except _REFUSALS:
                plan.loop = True
        return plan

    def _in_one_pass(
        self,
        plan: GradientPlan,
        x: Tensor,
        cotangents: Cotangents,
        rows: slice = slice(None),
        trying: bool = False,
    ) -> tuple[dict[str, Tensor], Sequence[Tensor]]:
        """Squares of copied parameters and of modules that were called once; and the cotangents."""
        x = x[rows]
        calls: dict[str, list[_Call | None]] = {name: [] for name in plan.modules}
        copies = {
            name: self.parameters[name].detach().expand(len(x), *self.parameters[name].shape[1:]).requires_grad_()
            for name in plan.copied
        }
        handles = [
            self.network.get_submodule(name).register_forward_hook(_keeper(made, len(x))) for name, made in calls.items()
        ]
        try:
            with torch.set_grad_enabled(bool(calls or copies)):
                out = functional_call(self.network, copies, (x,)) if copies else self.network(x)
        finally:
            for handle in handles:
                handle.remove()
        vs = cotangents(out.detach(), rows)
        # What these samples do not use adds nothing.
        unused = [name for name, made in calls.items() if not made]
        found = {full: torch.zeros_like(self.sums[full]) for name in unused for full in plan.modules[name].values()}
        found |= {name: torch.zeros_like(self.sums[name]) for name in copies}
        kept = {name: made[0] for name, made in calls.items() if len(made) == 1 and made[0] is not None}
        if not out.requires_grad:
            return found, vs
        size = sum(call.bytes for call in kept.values())
        if trying and x.device.type == "cpu":
            plan.at_once = max(16, _CPU_BYTES * len(x) // max(1, size))
        sources = [
            *(get_gradient_edge(copy) for copy in copies.values()),
            *(call.edge for call in kept.values()),
        ]
        together = max(1, _BYTES // max(1, size))
        for start in range(0, len(vs), together):
            grads: list[list[Tensor]] = [[] for _ in sources]
            for k, v in enumerate(vs[start : start + together], start):
                more = k + 1 < len(vs)
                ended = torch.autograd.grad(out, sources, v.to(out.dtype), retain_graph=more, allow_unused=True)
                for of, grad in zip(grads, ended, strict=True):
                    of += [] if grad is None else [grad]
            for name, of in zip(copies, grads, strict=False):
                for grad in of:
                    found[name] += grad.to(found[name].dtype).square().sum(0, keepdim=True)
            for (name, call), of in zip(kept.items(), grads[len(copies) :], strict=True):
                try:
                    squares = self._of_module(plan, name, call.input, of)
                except Exception:  # the formula of a base class may fail in any way
                    if not trying:
                        raise
                    continue
                for full, value in squares.items():
                    found[full] = found[full] + value if full in found else value
        return found, vs

    @torch.no_grad()
    def _of_module(self, plan: GradientPlan, name: str, x: Tensor, grads: list[Tensor]) -> dict[str, Tensor]:
        module, own = self.network.get_submodule(name), plan.modules[name]
        rule = None if name in plan.by_vmap else rule_for(module)
        if not grads:
            return {full: torch.zeros_like(self.sums[full]) for full in own.values()}
        if rule is not None:
            wide = _wide(x)
            if len(grads[0]) != len(x):
                grads = [g.reshape(*x.shape[:2], *g.shape[1:]) for g in grads]
            found = rule(module, x.to(wide), [g.to(wide) for g in grads], own)
        else:
            found = _by_vmap(module, {local: self.parameters[full] for local, full in own.items()}, x, grads)
        return {own[local]: value for local, value in found.items()}

    def _by_network(self, names: Sequence[str], x: Tensor, vs: Sequence[Tensor]) -> dict[str, Tensor]:
        return _by_vmap(self.network, {name: self.parameters[name] for name in names}, x, vs)

    def _by_loop(self, names: Sequence[str], x: Tensor, vs: Sequence[Tensor]) -> dict[str, Tensor]:
        total = {name: torch.zeros_like(self.sums[name]) for name in names}
        own = [self.parameters[name] for name in names]
        for n in range(len(x)):
            out = self.network(x[n : n + 1])
            for k, v in enumerate(vs):
                grads = torch.autograd.grad(
                    out, own, v[n : n + 1].to(out.dtype), retain_graph=k + 1 < len(vs), materialize_grads=True
                )
                for name, grad in zip(names, grads, strict=True):
                    total[name] += grad.to(total[name].dtype).square()
        return total


_REFUSALS = (RuntimeError, NotImplementedError)  # what vmap raises for a forward that it cannot batch


@dataclass
class _Call:
    """What a hook keeps of a call; `edge` is the output as it left the module, whatever happens to it in place."""

    input: Tensor
    edge: GradientEdge
    bytes: int


def _keeper(calls: list[_Call | None], count: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """A hook that keeps calls from one tensor to another with the samples first, and marks others by None."""

    def keep(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        call = None
        if len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor) and output.requires_grad:
            x = args[0].detach()
            if isinstance(module, (nn.Linear, nn.LayerNorm)) and len(x) % count == 0 and len(x) > count:
                # Windows of images, flattened into the batch: each sample's are taken to lie together.
                x = x.reshape(count, -1, *x.shape[1:])
            if len(x) == count and len(output) == len(args[0]):
                call = _Call(x, get_gradient_edge(output), output.numel() * output.element_size())
        calls.append(call)

    return keep


def _by_vmap(module: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, grads: Sequence[Tensor]) -> dict[str, Tensor]:
    """Sum over samples and `grads` of the squared gradients, by `vmap` over as many samples as fit."""
    own = {name: p.detach() for name, p in parameters.items()}
    each = sum(p.numel() * p.element_size() for p in own.values())
    size = max(1, _BYTES // max(1, each))

    def gradient(x: Tensor, g: Tensor) -> dict[str, Tensor]:
        def call(values: dict[str, Tensor]) -> Tensor:
            out: Tensor = functional_call(module, values, (x.unsqueeze(0),)).squeeze(0)
            return out

        out, pull, *_ = vjp(call, own)
        result: dict[str, Tensor] = pull(g.to(out.dtype))[0]
        return result

    total = {name: torch.zeros_like(p, dtype=_wide(p)) for name, p in own.items()}
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no batching rule: vmap would loop, and warn
            for g in grads:
                for name, grad in vmap(gradient)(x[part], g[part]).items():
                    total[name] += grad.to(total[name].dtype).square().sum(0)
    return total


def _cross_entropy_gradient(out: Tensor) -> list[Tensor]:
    """At the least likely labels: at one that a network is sure of there is hardly a gradient, and nothing could differ."""
    flat = out.flatten(1)
    return [label_residual(flat, flat.argmin(1)).view_as(out)]


def _wide(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)
