"""Cut a network in two before its first selected parameter, so that what comes before runs once per sample.

With everything before the trained layers frozen and in eval mode, `prefix(x)` is a constant of each sample:
computed once and kept, it saves all but `share` of the forward cost of every later step, and all of the
backward cost.

The forward pass is recorded by `torch.fx.symbolic_trace`'s tracer, but only as deep as needed: a module that
holds no selected parameter is one node, whatever Python it runs. Where recording fails inside a block (a
branch on values), the block is one node too.
"""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_unlearn.functional.anatomy import blocks

__all__ = ["Cut", "cut", "cut_cost"]


@dataclass(frozen=True)
class Cut:
    """A network as two: `tail(prefix(x))` is `network(x)`, the same operations in the same order: bit-equal.

    Both halves hold the very modules and parameters of the network: training the tail trains the network, and
    `tail.named_parameters()` has the network's names. `prefix.eval()` and `tail.train()` act on these shared
    modules; what the recorded modules themselves decide in Python by `self.training` stays as it was when the
    cut was made.

    Attributes:
        prefix: Input (B, ...) -> the one tensor that crosses the cut, (B, ...). Holds no selected parameter.
        tail: That tensor -> the network's output. Does not change its input in place.
        share: Forward cost of the tail over that of the network, in (0, 1]; nan where no example was given.
    """

    prefix: fx.GraphModule
    tail: fx.GraphModule
    share: float = math.nan


def cut(network: nn.Module, parameter_names: Sequence[str], example: Tensor | None = None) -> Cut | None:
    """Cut a network as late as possible before the first use of any of the named parameters.

    The network is recorded in the mode in which it is given: call `network.eval()` first for cached features.

    Args:
        network: Its forward takes one tensor (further arguments keep their defaults).
        parameter_names: Names of the selected parameters, as in `named_parameters`; at least one.
        example: An input (B, ...) to measure `share` on; see `cut_cost`.

    Returns:
        The cut; None where the forward pass cannot be recorded, where no single tensor crosses, or where the
        prefix would hold no parameter (nothing worth keeping).

    Raises:
        ValueError: If `parameter_names` is empty or names what the network does not have.
    """
    known = dict(network.named_parameters())
    unknown = [name for name in parameter_names if name not in known]
    if unknown or not parameter_names:
        raise ValueError(
            f"parameter_names holds {unknown[0]!r}, which {type(network).__name__} does not have."
            if unknown
            else "parameter_names is empty; needed: at least one parameter to cut before."
        )
    selected = {id(known[name]) for name in parameter_names}
    graph = _record(network, selected)
    if graph is None:
        return None
    nodes = list(graph.nodes)
    first = next((i for i, node in enumerate(nodes) if _uses(network, node, selected)), None)
    if first is None:
        return None
    for at in range(first, 0, -1):
        crossing = _crossing(nodes, at)
        if crossing is not None:
            prefix = _part(network, nodes[:at], None, crossing)
            if not any(True for _ in prefix.parameters()):
                return None
            found = Cut(prefix, _part(network, nodes[at:], crossing, None, nodes[:at]))
            return found if example is None else Cut(found.prefix, found.tail, cut_cost(found, example))
    return None


def cut_cost(cut: Cut, example: Tensor) -> float:
    """Forward cost of the tail over that of the whole network, counted in operations of matrix products.

    Runs both halves once, in eval mode and without gradients, so that no running statistics change.

    Args:
        cut: The cut network.
        example: An input (B, ...), on the network's device; a batch of one is enough.

    Returns:
        A number in [0, 1]: caching speeds a forward pass up by at most its inverse.
    """
    modes = {m: m.training for half in (cut.prefix, cut.tail) for m in half.modules()}
    costs: list[int] = []
    try:
        cut.prefix.eval()
        cut.tail.eval()
        value = example
        with torch.no_grad():
            for half in (cut.prefix, cut.tail):
                with FlopCounterMode(display=False) as counter:
                    value = half(value)
                costs.append(counter.get_total_flops())
    finally:
        for module, training in modes.items():
            module.training = training
    return costs[1] / max(1, sum(costs))


class _OneInput(nn.Module):
    """Gives a forward of several arguments one: the others keep their defaults instead of being recorded."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return out


class _Recorder(fx.Tracer):
    """Goes into a module only where `enter` says so."""

    def __init__(self, enter: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self._enter = enter

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not self._enter(m)


def _record(network: nn.Module, selected: set[int]) -> fx.Graph | None:
    """The forward pass, targets named as in the network; tries fine recordings first, then coarser ones."""

    def holds(module: nn.Module) -> bool:
        return any(id(p) in selected for p in module.parameters())

    def is_torch(module: nn.Module) -> bool:
        return type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)

    whole = {id(network.get_submodule(name)) for name in blocks(network)}
    entries: list[Callable[[nn.Module], bool]] = [
        lambda m: holds(m) and not is_torch(m),
        lambda m: holds(m) and not is_torch(m) and id(m) not in whole,
        lambda m: holds(m) and (m is network or isinstance(m, nn.Sequential)),
    ]
    for enter in entries:
        try:
            graph = _Recorder(enter).trace(_OneInput(network))
        except Exception:  # a forward may fail on recorded values in any way
            continue
        for node in graph.nodes:
            if node.op in {"call_module", "get_attr"}:
                node.target = str(node.target).removeprefix("network").removeprefix(".")
        if all(node.target != "" for node in graph.nodes):
            return graph
    return None


def _uses(network: nn.Module, node: fx.Node, selected: set[int]) -> bool:
    if node.op == "get_attr":
        return id(operator.attrgetter(str(node.target))(network)) in selected
    if node.op == "call_module":
        return any(id(p) in selected for p in network.get_submodule(str(node.target)).parameters())
    return False


def _crossing(nodes: list[fx.Node], at: int) -> fx.Node | None:
    """The one node before `at` that is used from there on; None if there are more, or it is no tensor."""
    before = set(nodes[:at])
    used = {arg for node in nodes[at:] for arg in node.all_input_nodes if arg in before}
    values = [node for node in used if node.op != "get_attr"]  # parameters and buffers are read on both sides
    if len(values) != 1 or _is_not_a_tensor(values[0]):
        return None
    return values[0]


def _is_not_a_tensor(node: fx.Node) -> bool:
    """Sizes and tuples, as far as the recording tells."""
    if node.op == "call_method":
        return node.target in {"size", "dim", "numel", "chunk", "split", "unbind", "stride"}
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return True
    if node.target in {torch.chunk, torch.split, torch.unbind}:
        return True
    arithmetic = {operator.getitem, operator.mul, operator.floordiv, operator.add, operator.sub}
    first = next(iter(node.all_input_nodes), None)
    is_size = node.target in arithmetic and first is not None and _is_not_a_tensor(first)
    return is_size and not (first is not None and first.target in {"chunk", "split", "unbind", torch.chunk})


def _part(
    network: nn.Module,
    nodes: Iterable[fx.Node],
    enters: fx.Node | None,
    leaves: fx.Node | None,
    earlier: Iterable[fx.Node] = (),
) -> fx.GraphModule:
    """The given nodes as a module with input `enters` and output `leaves`; reads constants from `earlier`."""
    nodes = list(nodes)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if enters is not None:
        copies[enters] = graph.placeholder("features")
        if _may_change(network, nodes, enters):
            copies[enters] = graph.call_method("clone", (copies[enters],))
        used = {arg for node in nodes for arg in node.all_input_nodes}
        for node in earlier:
            if node in used and node.op == "get_attr":
                copies[node] = graph.node_copy(node, lambda n: copies[n])
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
    if leaves is not None:
        graph.output(copies[leaves])
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op != "get_attr")
    graph.lint()
    return fx.GraphModule(network, graph, type(network).__name__)


def _may_change(network: nn.Module, nodes: Iterable[fx.Node], value: fx.Node) -> bool:
    """Whether a node may change `value`, or a view of it, in place: kept features must survive the tail."""
    views = {value}
    for node in nodes:
        if not views.intersection(node.all_input_nodes):
            continue
        target = node.target
        if node.op == "call_module":
            module = network.get_submodule(str(target))
            if any(getattr(m, "inplace", False) for m in module.modules()):
                return True
            # Layers with parameters give new tensors; Identity, Flatten and Dropout may hand on their input.
            if any(True for _ in module.parameters()):
                continue
        elif node.op in {"call_method", "call_function"}:
            name = target if isinstance(target, str) else getattr(target, "__name__", "")
            changes = name.endswith("_") and not name.endswith("__")
            if changes or name in _IN_PLACE or node.kwargs.get("inplace", False):
                return True
        views.add(node)
    return False


_IN_PLACE = {"iadd", "isub", "imul", "itruediv", "setitem"}
