"""What a traced graph does for nothing is taken out of it: zeros, copies, the same twice."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from thalweg.curvature.graph_nodes import Node, alike, is_item, is_written, written_later

_aten = torch.ops.aten
# What `torch.func.jvp` fills to add to it, or to copy into it.
_FILLED = {
    _aten.zeros.default,
    _aten.zeros_like.default,
    _aten._new_zeros_with_same_feature_meta.default,
}
_VIEWS = {_aten.expand.default, _aten.view.default, _aten.alias.default, _aten.t.default}
# Zeros where a factor is zeros.
_PRODUCTS = {_aten.mm.default, _aten.bmm.default, _aten.mul.Tensor}
# What gives its argument back where shape, dtype and layout are the same.
_COPIES = {
    _aten._to_copy.default,
    _aten.alias.default,
    _aten.clone.default,
    _aten.expand.default,
    _aten.view.default,
}


def simplify(graph: fx.Graph) -> None:
    """
    Take out of a graph what it does for nothing, in place.

    Parameters
    ----------
    graph : fx.Graph
        Made by ``make_fx``, with examples of the tensors in ``meta["val"]``.
    """
    drop_zeros(graph)
    drop_copies(graph)
    merge_repeats(graph)


def drop_zeros(graph: fx.Graph) -> None:
    """
    Take sums with zeros and copies into zeros out of a graph, in place.

    A derivative along a direction is zero in what does not depend on it, an image for one, and
    torch computes with these zeros as with any numbers. Values stay those they were, but for the
    sign of zeros, and for factors that are not finite.
    """
    zeros: set[Node] = set()
    repeats: dict[Node, Node] = {}  # of one value, which may lie otherwise in memory
    for node in list(graph.nodes):
        if _is_zero(node, zeros):
            zeros.add(node)
            continue
        same = _repeated(node, zeros)
        if same is None or is_written(node):
            continue
        repeats[node] = same
        while same in repeats and not alike(node, same):
            same = repeats[same]
        if alike(node, same):
            _replace(graph, node, same)
            del repeats[node]
    graph.eliminate_dead_code()


def drop_copies(graph: fx.Graph) -> None:
    """
    Take copies of what nobody writes into out of a graph, in place.

    Double backward through batch norm expands each tensor to its own shape and copies that.
    """
    written = written_later(graph)
    for node in list(graph.nodes):
        if node.target not in _COPIES or not alike(node, node.args[0]):
            continue
        if written.isdisjoint((node, node.args[0])):
            _replace(graph, node, node.args[0])


def merge_repeats(graph: fx.Graph) -> None:
    """
    Compute once what a graph computes twice, in place.

    Backward passes compute again what the forward pass had, images less their mean for one, and
    both would be kept between products.
    """
    first: dict[Any, Node] = {}
    written = written_later(graph)
    for node in list(graph.nodes):
        key = _computed(node)
        if key is None or not written.isdisjoint((node, *node.all_input_nodes)):
            continue
        if key in first:
            _replace(graph, node, first[key])
        else:
            first[key] = node


def _replace(graph: fx.Graph, node: Node, other: Node) -> None:
    node.replace_all_uses_with(other)
    graph.erase_node(node)


def _computed(node: Node) -> Any:
    """Give what tells a computation from others; None of one that may give another answer."""
    if node.op == "get_attr":
        return node.op, node.target
    if node.op != "call_function":
        return None
    if node.target is not operator.getitem:
        schema = getattr(node.target, "_schema", None)
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if schema is None or schema.is_mutable or random:
            return None
    key = (node.target, _frozen(node.args), _frozen(dict(node.kwargs)))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _frozen(arguments: Any) -> Any:
    """Give arguments as what can be hashed; equal numbers of two types are not the same."""
    if isinstance(arguments, dict):
        return tuple((name, _frozen(value)) for name, value in sorted(arguments.items()))
    if isinstance(arguments, list | tuple):
        return tuple(_frozen(value) for value in arguments)
    return type(arguments), arguments


def _is_zero(node: Node, zeros: Collection[Node]) -> bool:
    """Tell whether a node's value is zero whatever the arguments, and stays so."""
    if is_written(node):
        return False
    if node.target in _FILLED:
        return True
    if node.target in _VIEWS:
        return node.args[0] in zeros
    if node.target in _PRODUCTS:
        return any(factor in zeros for factor in node.args)
    if node.target is _aten.convolution.default:
        return node.args[2] is None and (node.args[0] in zeros or node.args[1] in zeros)
    if is_item(node) and node.args[0].target is _aten.convolution_backward.default:
        slope, inputs, weights = node.args[0].args[:3]
        factor = {0: weights, 1: inputs}.get(node.args[1])  # of the input's and the weights'
        return slope in zeros or factor in zeros
    return False


def _repeated(node: Node, zeros: Collection[Node]) -> Node | None:
    """Give the node whose values this one repeats."""
    if node.target is _aten.add.Tensor and not node.kwargs:
        for term, other in (node.args, node.args[::-1]):
            if other in zeros and alike(node, term, "shape", "dtype"):
                return term
    if node.target is _aten.copy_.default:
        filled, source = node.args[:2]
        apart = filled.target in _FILLED and set(filled.users) == {node}
        if apart and alike(node, source, "shape", "dtype"):
            return source
    return None
