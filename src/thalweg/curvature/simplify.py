"""What a traced graph does for nothing is taken out of it: sums with zeros, copies into zeros."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import fx

Node = Any  # an fx.Node: what its arguments may be is too wide a union to write down
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
# What gives a new tensor that is nobody else's.
_NEW = {
    _aten.convolution.default,
    _aten.convolution_backward.default,
    _aten.mm.default,
    _aten.bmm.default,
}


def drop_zeros(graph: fx.Graph) -> None:
    """
    Take sums with zeros and copies into zeros out of a graph, in place.

    A derivative along a direction is zero in what does not depend on it, an image for one, and
    torch computes with these zeros as with any numbers. Values stay those they were, but for the
    sign of zeros, and for factors that are not finite.

    Parameters
    ----------
    graph : fx.Graph
        Made by ``make_fx``, with shapes and strides in ``meta["tensor_meta"]``.
    """
    zeros: set[Node] = set()
    repeats: dict[Node, Node] = {}  # of one value, which may lie otherwise in memory
    for node in list(graph.nodes):
        if _is_zero(node, zeros):
            zeros.add(node)
            continue
        same = _repeated(node, zeros)
        if same is None or _is_written(node):
            continue
        repeats[node] = same
        while same in repeats and not _alike(node, same):
            same = repeats[same]
        if _alike(node, same):
            node.replace_all_uses_with(same)
            graph.erase_node(node)
            del repeats[node]
    graph.eliminate_dead_code()


def add_in_place(graph: fx.Graph) -> None:
    """
    Add to what a product has just made, where nothing else reads it.

    Such sums are bound by memory, the more where the allocator maps each large block anew.

    Parameters
    ----------
    graph : fx.Graph
        Its placeholders stay as they are.
    """
    for node in graph.nodes:
        if node.target is not _aten.add.Tensor or node.kwargs:
            continue
        first, second = node.args
        made_by = first.args[0] if _is_item(first) else first
        if (
            isinstance(made_by, fx.Node)
            and made_by.target in _NEW
            and first is not second
            and len(first.users) == 1
            and _alike(node, first)
        ):
            node.target = _aten.add_.Tensor


def _is_zero(node: Node, zeros: Collection[Node]) -> bool:
    """Tell whether a node's value is zero whatever the arguments, and stays so."""
    if _is_written(node):
        return False
    if node.target in _FILLED:
        return True
    if node.target in _VIEWS:
        return node.args[0] in zeros
    if node.target in _PRODUCTS:
        return any(factor in zeros for factor in node.args)
    if node.target is _aten.convolution.default:
        return node.args[2] is None and (node.args[0] in zeros or node.args[1] in zeros)
    if _is_item(node) and node.args[0].target is _aten.convolution_backward.default:
        slope, inputs, weights = node.args[0].args[:3]
        factor = {0: weights, 1: inputs}.get(node.args[1])  # of the input's and the weights'
        return slope in zeros or factor in zeros
    return False


def _repeated(node: Node, zeros: Collection[Node]) -> Node | None:
    """Give the node whose values this one repeats."""
    if node.target is _aten.add.Tensor and not node.kwargs:
        for term, other in (node.args, node.args[::-1]):
            if other in zeros and _alike(node, term, "shape", "dtype"):
                return term
    if node.target is _aten.copy_.default:
        filled, source = node.args[:2]
        apart = filled.target in _FILLED and set(filled.users) == {node}
        if apart and _alike(node, source, "shape", "dtype"):
            return source
    return None


def _is_item(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is operator.getitem


def _is_written(node: Node) -> bool:
    """Tell whether something writes into a node's tensor, by itself or by a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None or user.args[0] is not node:
            continue
        shares = any(answer.alias_info is not None for answer in schema.returns)
        if schema.is_mutable or (shares and _is_written(user)):
            return True
    return False


def _alike(node: Node, other: Any, *features: str) -> bool:
    """Tell whether two nodes give tensors of one shape, dtype and layout in memory."""
    if not isinstance(other, fx.Node):
        return False
    metas = [each.meta.get("tensor_meta") for each in (node, other)]
    return None not in metas and all(
        getattr(metas[0], feature) == getattr(metas[1], feature)
        for feature in features or ("shape", "dtype", "stride")
    )
