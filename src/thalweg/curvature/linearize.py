"""Linear maps of a batch, evaluated so that no product repeats what does not depend on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from thalweg.curvature.graph_nodes import tensor_of
from thalweg.curvature.passes import add_products, multiply_small_first, write_in_place
from thalweg.curvature.simplify import simplify
from thalweg.errors import NotDefined

Tensors = tuple[Tensor, ...]
_MASKS = {torch.bool, torch.uint8}


@dataclass(frozen=True)
class TracedMap:
    """
    A function linear in a direction, split into what depends on the direction and what does not.

    Like ``torch.func.linearize``, yet traced once for all points and all batches of a shape: the
    network of 135,306 weights of benchmarks/spectrum.py takes 0.7 H instead of 3.7 to 11 H to set
    up, and its intermediate results a seventh of the memory.

    Attributes
    ----------
    prepare : callable
        ``prepare(*constants)`` gives the intermediate results that products need.
    apply : callable
        ``apply(*direction, *intermediate)`` gives the product.
    """

    prepare: Callable[..., Tensors]
    apply: Callable[..., Tensors]


def trace_linear(
    function: Callable[[Tensors, Tensors], Tensors], direction: Tensors, constants: Tensors
) -> TracedMap:
    """
    Trace ``function(direction, constants)``, linear in ``direction``, and split it.

    Parameters
    ----------
    function : callable
        May use the transforms of ``torch.func``. Its control flow must depend on shapes only.
    direction, constants : tuple of Tensor
        Examples of the arguments; shapes and dtypes are built in, values are not.

    Returns
    -------
    TracedMap
        Valid for all arguments of these shapes and dtypes.

    Raises
    ------
    NotDefined
        If a shape depends on values, such as that of the entries that a condition picks.
    """
    count = len(direction)

    def flat(*tensors: Tensor) -> Tensors:
        return function(tensors[:count], tensors[count:])

    with _one_fake_mode():
        whole = make_fx(flat)(*direction, *constants)
    _refuse_shapes_of_values(whole.graph)
    simplify(whole.graph)
    multiply_small_first(whole.graph)
    return _split(whole, count)


def _one_fake_mode() -> AbstractContextManager[object]:
    """Have all steps note shapes in one mode: one made for each doubles what a trace takes."""
    return tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True)))


def _refuse_shapes_of_values(graph: fx.Graph) -> None:
    """Refuse what counts entries by their values: the count is built into a trace."""
    for node in graph.nodes:
        if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
            continue
        if node.target is torch.ops.aten.index.Tensor:
            places = [tensor_of(place) for place in node.args[1]]
            if not any(each is not None and each.dtype in _MASKS for each in places):
                continue
        raise NotDefined(f"the shape of {node.target} depends on values")


def _split(whole: fx.GraphModule, count: int) -> TracedMap:
    nodes = list(whole.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    moving = set(inputs[:count])
    for node in nodes:
        if any(source in moving for source in node.all_input_nodes):
            moving.add(node)
    end = nodes[-1]
    outputs = list(end.args[0])  # of which two may be one
    users = [node for node in nodes if node in moving or node is end]
    needed = dict.fromkeys(
        source for node in users for source in node.all_input_nodes if source not in moving
    )
    fixed = [node for node in nodes if node not in moving and node is not end]
    prepare = _graph(whole, inputs[count:], fixed, list(needed))
    moved = [node for node in nodes if node in moving and node is not end]
    apply = _graph(whole, [*inputs[:count], *needed], moved, outputs)
    return TracedMap(prepare, apply)


def _graph(
    whole: fx.GraphModule, inputs: Sequence[fx.Node], body: list[fx.Node], outputs: list[fx.Node]
) -> Callable[..., Tensors]:
    """Compile part of a graph into a function of ``inputs`` that returns ``outputs``."""
    graph = fx.Graph()
    twins = {node: graph.placeholder(f"input_{i}") for i, node in enumerate(inputs)}
    for node, twin in twins.items():
        twin.meta = dict(node.meta)
    for node in body:
        if node not in twins:
            twins[node] = graph.node_copy(node, twins.__getitem__)
    graph.output(tuple(twins[node] for node in outputs))
    graph.eliminate_dead_code()
    add_products(graph)
    write_in_place(graph)
    module = fx.GraphModule(whole, graph)
    return torch.no_grad()(module.forward)


def stored_bytes(tensors: Sequence[Tensor], shared: Collection[int] = ()) -> int:
    """Count the bytes of tensors, those of one place once and those of ``shared`` storages not."""
    sizes: dict[int, int] = {}
    for tensor in tensors:
        # Sparse tensors are given in the data, and kept there; of zeros torch stores nothing.
        if tensor.layout != torch.strided or tensor._is_zerotensor():
            continue
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in shared:
            size = min(storage.nbytes(), tensor.numel() * tensor.element_size())
            sizes[tensor.data_ptr()] = max(size, sizes.get(tensor.data_ptr(), 0))
    return sum(sizes.values())
