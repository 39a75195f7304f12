"""Multiplications and sums of a traced graph in fewer passes over memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import fx

from thalweg.curvature.graph_nodes import Node, alike, is_item, tensor_of, written_later

_aten = torch.ops.aten
# What can be done in the place of one of its arguments, and in whose: of the first so many.
_IN_PLACE = {
    _aten.add.Tensor: (_aten.add_.Tensor, 2),
    _aten.mul.Tensor: (_aten.mul_.Tensor, 2),
    _aten.addcmul.default: (_aten.addcmul_.default, 1),
    _aten.threshold_backward.default: (_aten.threshold_backward.grad_input, 1),
}
# What gives a new tensor that is nobody else's.
_NEW = {
    *_IN_PLACE,
    _aten.convolution.default,
    _aten.convolution_backward.default,
    _aten.mm.default,
    _aten.bmm.default,
}


def multiply_small_first(graph: fx.Graph) -> None:
    """
    Multiply a large tensor by two small ones as by their product, in place.

    Batch norm multiplies activations by a number a channel, and then by another.

    Parameters
    ----------
    graph : fx.Graph
        Made by ``make_fx``, with examples of the tensors in ``meta["val"]``. Values change by
        rounding.
    """
    written = written_later(graph)
    for node in list(graph.nodes):
        if not _is_product(node, written):
            continue
        for product, factor in (node.args, node.args[::-1]):
            alone = _is_product(product, written) and len(product.users) == 1
            if alone and _is_smaller(factor, node):
                _together(graph, node, product, factor)
                break
    graph.eliminate_dead_code()


def add_products(graph: fx.Graph) -> None:
    """Add products to what they are added to in one pass, in place."""
    written = written_later(graph)
    for node in list(graph.nodes):
        if node.target is not _aten.add.Tensor or node.kwargs:
            continue
        for term, product in (node.args, node.args[::-1]):
            if _is_product(product, written) and len(product.users) == 1 and alike(node, term):
                node.target, node.args = _aten.addcmul.default, (term, *product.args)
                break
    graph.eliminate_dead_code()


def write_in_place(graph: fx.Graph) -> None:
    """
    Add to, and multiply, what has just been made, where nothing else reads it.

    Such passes are bound by memory, the more where the allocator maps each large block anew.

    Parameters
    ----------
    graph : fx.Graph
        Its placeholders stay as they are.
    """
    own: set[Node] = set()
    for node in graph.nodes:
        target, count = _IN_PLACE.get(node.target, (None, 0))
        if node.kwargs:  # a factor of a term
            continue
        free = next((each for each in node.args[:count] if _is_free(each, node, own)), None)
        others = [each for each in node.args if each is not free]
        if free is None or len(others) < len(node.args) - 1:
            continue
        node.target, node.args = target, (free, *others)
        if target is _aten.threshold_backward.grad_input:
            node.kwargs = {"grad_input": free}
        own.add(node)


def _is_free(tensor: Node, node: Node, own: Collection[Node]) -> bool:
    """Tell whether a node may write its answer over one of its arguments."""
    made_by = tensor.args[0] if is_item(tensor) else tensor
    return (
        isinstance(made_by, fx.Node)
        and (made_by.target in _NEW or made_by in own)
        and len(tensor.users) == 1
        and alike(node, tensor)
    )


def _is_product(node: Node, written: Collection[Node]) -> bool:
    """Tell whether a node multiplies tensors of one floating dtype that nobody writes into."""
    return (
        isinstance(node, fx.Node)
        and node.target is _aten.mul.Tensor
        and not any(each in written for each in (node, *node.args))
        and all(alike(node, factor, "dtype", "device") for factor in node.args)
        and bool((example := tensor_of(node)) is not None and example.is_floating_point())
    )


def _is_smaller(factor: Node, product: Node) -> bool:
    one, other = tensor_of(factor), tensor_of(product)
    return one is not None and other is not None and one.numel() < other.numel()


def _large_and_small(product: Node) -> Iterator[tuple[Node, Node]]:
    for large, small in (product.args, product.args[::-1]):
        if alike(product, large, "shape") and _is_smaller(small, product):
            yield large, small


def _together(graph: fx.Graph, node: Node, product: Node, factor: Node) -> None:
    """Write (large * small) * factor as large * (small * factor), if those are small together."""
    for large, small in _large_and_small(product):
        shape = torch.broadcast_shapes(small.meta["val"].shape, factor.meta["val"].shape)
        if shape.numel() < product.meta["val"].numel() and alike(node, large, "shape"):
            with graph.inserting_before(node):
                both = graph.call_function(_aten.mul.Tensor, (small, factor))
            both.meta["val"] = small.meta["val"].new_empty(shape)
            node.args = (large, both)
            return
