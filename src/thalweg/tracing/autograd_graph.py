"""Uses of weights, read off the graph that autograd keeps of an evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from thalweg.tracing.uses import Convolution, Lookup, Product, Scale, Use

_ACCUMULATE = "torch::autograd::AccumulateGrad"
_GEOMETRY = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
_RESHAPES = ("ReshapeAliasBackward0", "UnsafeViewBackward0", "UnsqueezeBackward0", "ViewBackward0")
# Matrices of a stack that are looked at one by one.
_STACK = 64

Consumers = dict[tuple[Any, int], list[tuple[Any, int]]]


@dataclass(frozen=True, eq=False)
class Place:
    """
    A tensor of weights, or what was cut out of it, at the input of an operation.

    Attributes
    ----------
    uses : tuple of Use
        What the operation does with it; none where that is not known.
    """

    uses: tuple[Use, ...]
    _name: str
    _entries: Tensor
    _node: Any
    _index: int
    _consumers: Consumers

    @cached_property
    def above(self) -> tuple[Place, ...] | None:
        """
        Where the entries go from here, if all that the operation does is to arrange them.

        Samples may not be told apart where a tensor is read (positions, for all samples at once),
        and be told apart where it goes. None where the operation does more, or is not known.
        """
        if sum(node is not None for node, _ in self._node.next_functions) != 1:
            return None
        places: list[Place] = []
        for number in range(len(self._node._input_metadata)):
            if (self._node, number) not in self._consumers:
                continue
            entries = _selected(self._node, number, self._entries)
            if entries is None:
                return None
            places += _places(self._node, number, self._name, entries, self._consumers)
        return tuple(places)


def read_places(outputs: Tensor, weights: Mapping[str, Tensor]) -> dict[str, tuple[Place, ...]]:
    """
    Find where each tensor of weights enters the computation of outputs.

    Parameters
    ----------
    outputs : Tensor
        With autograd's graph.
    weights : mapping of str to Tensor
        Leaves of the graph.

    Returns
    -------
    dict of str to tuple of Place
        All places of each tensor; none of a tensor that the outputs do not depend on.
    """
    consumers, leaves = _walk(outputs.grad_fn)
    names = {id(tensor): name for name, tensor in weights.items()}
    places: dict[str, tuple[Place, ...]] = {}
    for leaf in leaves:
        name = names.get(id(leaf.variable))
        if name is not None:
            shape = leaf.variable.shape
            entries = torch.arange(shape.numel()).view(shape)
            places[name] = tuple(_places(leaf, 0, name, entries, consumers))
    return places


def _walk(root: Any) -> tuple[Consumers, list[Any]]:
    """List what reads each tensor of the graph, and its leaves."""
    consumers: Consumers = defaultdict(list)
    seen, stack, leaves = {root}, [root] if root is not None else [], []
    while stack:
        node = stack.pop()
        if node.name() == _ACCUMULATE:
            leaves.append(node)
        for index, (source, number) in enumerate(node.next_functions):
            if source is None:
                continue
            consumers[source, number].append((node, index))
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return consumers, leaves


def _places(
    source: Any, number: int, name: str, entries: Tensor, consumers: Consumers
) -> Iterator[Place]:
    for node, index in consumers.get((source, number), ()):
        rule = _RULES.get(node.name())
        edge = GradientEdge(node, 0)
        uses = () if rule is None else tuple(rule(node, index, name, entries, edge))
        yield Place(uses, name, entries, node, index, consumers)


def _selected(node: Any, number: int, entries: Tensor) -> Tensor | None:
    """
    Say which entries an operation gives, if it only moves them.

    Its derivative, transposed, is asked: it carries marks of what is given back to where it was.
    """
    shape = torch.Size(node._input_metadata[number].shape)
    if node.name() in _RESHAPES:  # known, and everywhere
        return entries.reshape(shape)
    if node.name() == "TBackward0":
        return entries.T
    count = shape.numel()
    cotangents: list[Tensor | None] = [None] * len(node._input_metadata)
    cotangents[number] = torch.arange(1, count + 1, dtype=torch.float64).view(shape)
    try:
        with torch.no_grad():
            back = node(*cotangents)
    except (RuntimeError, TypeError, ValueError):  # an operation that moves nothing may refuse
        return None
    back = next(
        cotangent
        for cotangent in (back if isinstance(back, tuple) else (back,))
        if cotangent is not None
    )
    marks = back.flatten()
    chosen = marks != 0
    if back.shape != entries.shape or int(chosen.sum()) != count:
        return None
    places = marks[chosen]
    if float(places.min()) < 1 or float(places.max()) > count or bool((places % 1 != 0).any()):
        return None
    selected = torch.full((count,), -1)
    selected[places.long() - 1] = entries.flatten()[chosen]
    # As many entries as places: none is left only if each entry has a place of its own.
    return selected.view(shape) if int(selected.min()) >= 0 else None


def _broadcast(entries: Tensor, node: Any) -> Tensor:
    """Give entries as many dimensions as the operation's results."""
    missing = len(node._input_metadata[0].shape) - entries.dim()
    return entries.view(*[1] * missing, *entries.shape)


def _channels(entries: Tensor, node: Any) -> Tensor:
    """Lay entries along the second dimension of the operation's results."""
    return entries.view(1, -1, *[1] * (len(node._input_metadata[0].shape) - 2))


def _saved_tensor(node: Any, key: str) -> Tensor:
    """Give a tensor that an operation keeps for its derivative."""
    tensor: Tensor = getattr(node, f"_saved_{key}")
    return tensor.detach()


Rule = Callable[[Any, int, str, Tensor, GradientEdge], Iterator[Use]]


def _addmm(node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge) -> Iterator[Use]:
    if index == 0 and node._saved_beta == 1:
        yield Scale(name, _broadcast(entries, node), edge)
    elif index == 1 and node._saved_alpha == 1:
        yield Product(name, entries.T, edge, _saved_tensor(node, "mat2").T, arrange=_transposed)
    elif index == 2 and node._saved_alpha == 1:
        yield Product(name, entries, edge, _saved_tensor(node, "mat1"))


def _mm(node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge) -> Iterator[Use]:
    if index == 0:
        yield Product(name, entries.T, edge, _saved_tensor(node, "mat2").T, arrange=_transposed)
    else:
        yield Product(name, entries, edge, _saved_tensor(node, "self"))


def _mv(node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge) -> Iterator[Use]:
    if index == 1:
        column = entries.unsqueeze(1)
        yield Product(
            name, column, edge, _saved_tensor(node, "self"), arrange=lambda c: c.unsqueeze(1)
        )


def _bmm(node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge) -> Iterator[Use]:
    if len(entries) > _STACK:
        return
    for number, matrix in enumerate(entries):
        if index == 0:
            factor = _saved_tensor(node, "mat2")[number].T
            yield Product(name, matrix.T, edge, factor, arrange=_picking(number, transposed=True))
        else:
            factor = _saved_tensor(node, "self")[number]
            yield Product(name, matrix, edge, factor, arrange=_picking(number, transposed=False))


def _transposed(cotangent: Tensor) -> Tensor:
    return cotangent.T


def _picking(number: int, *, transposed: bool) -> Callable[[Tensor], Tensor]:
    return lambda cotangent: cotangent[number].T if transposed else cotangent[number]


def _convolution(
    node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge
) -> Iterator[Use]:
    if index == 1:
        geometry = {key: getattr(node, f"_saved_{key}") for key in _GEOMETRY}
        yield Convolution(
            name,
            entries,
            edge,
            _saved_tensor(node, "input"),
            _saved_tensor(node, "weight"),
            geometry,
        )
    elif index == 2:
        yield Scale(name, _channels(entries, node), edge)


def _embedding(
    node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge
) -> Iterator[Use]:
    if not node._saved_scale_grad_by_freq:
        indices, skipped = node._saved_indices, int(node._saved_padding_idx)
        yield Lookup(name, entries, edge, indices, skipped if skipped < len(entries) else -1)


def _indexing(
    node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge
) -> Iterator[Use]:
    (chosen, *further) = node._saved_indices
    if further or entries.dim() != 2 or chosen is None or chosen.dtype is not torch.int64:
        return
    yield Lookup(name, entries, edge, chosen % len(entries))


def _add(node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge) -> Iterator[Use]:
    if index == 0 or node._saved_alpha == 1:
        yield Scale(name, _broadcast(entries, node), edge)


def _mul(node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge) -> Iterator[Use]:
    factor = _saved_tensor(node, "other") if index == 0 else _saved_tensor(node, "self")
    yield Scale(name, _broadcast(entries, node), edge, factor)


def _expand(node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge) -> Iterator[Use]:
    yield Scale(name, _broadcast(entries, node), edge)


def _repeat(node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge) -> Iterator[Use]:
    repeats = node._saved_repeats
    sizes = [1] * (len(repeats) - entries.dim()) + list(entries.shape)
    shape = [size for pair in zip(repeats, sizes, strict=True) for size in pair]
    spread = entries.view([size for s in sizes for size in (1, s)])
    yield Scale(name, spread, edge, arrange=lambda cotangent: cotangent.reshape(shape))


def _prelu(node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge) -> Iterator[Use]:
    if index == 1:
        yield Scale(name, _broadcast(entries, node), edge, _saved_tensor(node, "self").clamp_max(0))


def _layer_norm(
    node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge
) -> Iterator[Use]:
    x, mean, inverse = (
        _saved_tensor(node, "input"),
        _saved_tensor(node, "result1"),
        _saved_tensor(node, "result2"),
    )
    yield from _norm(index, name, _broadcast(entries, node), edge, (x - mean) * inverse)


def _group_norm(
    node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge
) -> Iterator[Use]:
    x, mean, inverse = (
        _saved_tensor(node, "input"),
        _saved_tensor(node, "result1"),
        _saved_tensor(node, "result2"),
    )
    groups = x.reshape(*mean.shape, -1)
    normal = (groups - mean.unsqueeze(-1)) * inverse.unsqueeze(-1)
    yield from _norm(index, name, _channels(entries, node), edge, normal.view_as(x))


def _batch_norm(
    node: Any, index: int, name: str, entries: Tensor, edge: GradientEdge
) -> Iterator[Use]:
    if node._saved_training:  # each result depends on all samples
        return
    x, mean = _saved_tensor(node, "input"), _channels(_saved_tensor(node, "running_mean"), node)
    inverse = (_channels(_saved_tensor(node, "running_var"), node) + node._saved_eps).rsqrt()
    yield from _norm(index, name, _channels(entries, node), edge, (x - mean) * inverse)


def _norm(
    index: int, name: str, entries: Tensor, edge: GradientEdge, normal: Tensor
) -> Iterator[Use]:
    """Scale, the second argument of a norm, or shift, the third."""
    yield Scale(name, entries, edge, normal if index == 1 else None)


_RULES: dict[str, Rule] = {
    "AddBackward0": _add,
    "AddmmBackward0": _addmm,
    "BmmBackward0": _bmm,
    "ConvolutionBackward0": _convolution,
    "EmbeddingBackward0": _embedding,
    "ExpandBackward0": _expand,
    "IndexBackward0": _indexing,
    "MmBackward0": _mm,
    "MulBackward0": _mul,
    "MvBackward0": _mv,
    "NativeBatchNormBackward0": _batch_norm,
    "NativeGroupNormBackward0": _group_norm,
    "NativeLayerNormBackward0": _layer_norm,
    "PreluKernelBackward0": _prelu,
    "RepeatBackward0": _repeat,
}
