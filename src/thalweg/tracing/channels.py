"""Which channels of a network are scaled together, when weights are, so that its outputs stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from thalweg.polynomial import PolynomialActivation
from thalweg.tracing.functions import Reshape
from thalweg.tracing.graph import Graph, Node
from thalweg.tracing.kinds import (
    ADDS,
    ATTENTION,
    AVERAGES,
    BENT,
    BENT_FUNCTIONS,
    CONVOLUTIONS,
    HOMOGENEOUS,
    JOINS,
    MAXIMUM_POOLS,
    MOVES,
    NORMS,
    POOLS,
    SAME,
)
from thalweg.tracing.layers import layer_type
from thalweg.tracing.ties import Ties

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Group:
    """
    Weights that are scaled by the factors of channels.

    Attributes
    ----------
    entries : ndarray
        Places in the flat vector, int64, shape (channels, fan).
    factors : ndarray
        Of each channel, int64, shape (channels,).
    sign : {1, -1}
        1: weights are multiplied by the factor. -1: divided.
    """

    entries: Indices
    factors: Indices
    sign: int


@dataclass(frozen=True, eq=False)
class Correction:
    """
    A batch norm that reads channels with factors.

    Attributes
    ----------
    node : Node
        The norm.
    factors : ndarray
        Of the channels it reads, int64, shape (channels,).
    scale, shift : ndarray or None
        Places of its weights in the flat vector; None where it has none.
    """

    node: Node
    factors: Indices
    scale: Indices | None
    shift: Indices | None


class Channels:
    """
    Factors on a network's channels, and on its weights, that leave its outputs as they are.

    Every entry of every tensor in the graph gets the number of a factor; operations tie factors to
    one another: what is added must be scaled alike, what goes through tanh not at all. A linear
    layer's weights are multiplied by the factor of what it gives and divided by that of what it
    reads.

    Parameters
    ----------
    graph : Graph
        The network.
    places : mapping of str to ndarray
        Places of each trained tensor's entries in the flat vector, in its shape.
    batch_statistics : bool
        Whether batch norm uses the statistics of the batch, which take factors away.
    ties : Ties, optional
        How factors are tied to one another; by default as powers.

    Attributes
    ----------
    ties : Ties
        Of the factors.
    groups : list of Group
        Which weights go with which.
    corrections : list of Correction
        Batch norms that read channels with factors.
    vectors : list of Tensor
        Factors of channels of which only sums along rows can take the place of channels, shape
        (rows, channels): the channels of a head of attention, a single one before a ReLU.
    unknown : set of str
        Operations behind which nothing was looked for.
    """

    def __init__(
        self,
        graph: Graph,
        places: Mapping[str, Indices],
        *,
        batch_statistics: bool,
        ties: Ties | None = None,
    ) -> None:
        self.ties, self.groups = ties or Ties(), list[Group]()
        self.corrections, self.vectors = list[Correction](), list[Tensor]()
        self.unknown: set[str] = set()
        self._graph, self._places, self._batch = graph, places, batch_statistics
        self._numbers: dict[Node, Any] = {}
        self._claims: dict[str, tuple[str, Tensor, Tensor]] = {}
        for node in graph.nodes:
            if node.op != "tensor":  # these are read where they are used
                self._numbers[node] = self._visit(node)
        for node in graph.outputs:
            self._fix(node)

    def _visit(self, node: Node) -> Any:
        if node.op == "input":
            return self._none(node)
        kind = None if node.module is None else layer_type(node.module)
        rule = _LAYERS.get(kind) if kind is not None else None
        return (rule or _FUNCTIONS.get(node.op, Channels._unknown))(self, node)

    def _of(self, node: Node) -> Any:
        """Give the numbers of what a node gives; a tensor of the model gets new ones."""
        if node not in self._numbers:
            self._numbers[node] = self._tensor(node)
        return self._numbers[node]

    def _none(self, node: Node) -> Any:
        """Give factor 0, which is one, to all that a node gives."""
        return None if node.shape is None else torch.zeros(node.shape, dtype=torch.int64)

    def _fix(self, node: Node) -> None:
        tree_map_only(Tensor, self.ties.fix_all, self._of(node))

    def _unknown(self, node: Node) -> Any:
        """Let no factor pass, and say so where one came, unless none ever does."""
        kind = None if node.module is None else layer_type(node.module)
        bends = kind in BENT or node.op in BENT_FUNCTIONS
        for read in node.reads:
            if not bends and self._has_factors(read):
                self.unknown.add(node.op)
            self._fix(read)
        return self._none(node)

    def _has_factors(self, node: Node) -> bool:
        numbers = self._of(node)
        if not isinstance(numbers, Tensor):
            return False
        return any(self.ties.find(i)[0] for i in numbers.unique().tolist())

    def _vector(self, node: Node, dim: int) -> Tensor:
        """Give one number for each channel along a dimension; other entries are tied to them."""
        numbers: Tensor = self._of(node).movedim(dim, 0).flatten(1)
        self.ties.tie_all(numbers, numbers[:, :1])
        return numbers[:, 0]

    def _bend(self, numbers: Tensor) -> None:
        """Say that sums of channels cannot take their place."""
        self.vectors.append(numbers.unique()[:, None])

    def _group(self, entries: Indices, factors: Tensor, sign: int) -> None:
        self.groups.append(Group(entries, factors.numpy(), sign))

    def _claim(self, name: str, role: str, read: Tensor, given: Tensor) -> bool:
        """
        Say what a tensor is used for: True the first time.

        What uses it again is tied to what used it first; uses of two kinds leave no factor, but
        for a table whose rows are read and which is a matrix elsewhere.
        """
        if name not in self._claims:
            self._claims[name] = role, read, given
            return True
        its_role, its_read, its_given = self._claims[name]
        if role == its_role and its_given.shape == given.shape:
            self.ties.tie_all(read, its_read)
            self.ties.tie_all(given, its_given)
            return False
        self.unknown.add(f"{name}, which is used in two ways")
        if {role, its_role} == {"table", "matrix"}:
            columns = given if role == "table" else its_given
            read, given = (its_read, its_given) if role == "table" else (read, given)
            self.ties.fix_all(given)
            self.ties.tie_all(columns, read, -1.0)
            self._bend(columns)
        else:
            for numbers in (read, given, its_read, its_given):
                self.ties.fix_all(numbers)
        return False

    def _entries(self, node: Node, name: str) -> Indices | None:
        """Places of a layer's tensor, in its shape; None where it is not trained."""
        return self._places.get(node.weights.get(name, ""))

    def _frozen(self, node: Node, *names: str) -> bool:
        """Whether a layer has one of these tensors, and it is not trained."""
        held = (name for name in names if getattr(node.module, name, None) is not None)
        return any(self._entries(node, name) is None for name in held)

    def _tensor(self, node: Node) -> Tensor:
        """Give each entry of a trained tensor of the model a factor of its own."""
        name, shape = node.weights.get("", ""), node.shape
        assert shape is not None
        if name not in self._places:
            return torch.zeros(shape, dtype=torch.int64)
        numbers = self.ties.new(self._places[name].size)
        if self._claim(name, "entries", numbers[:0], numbers):
            self._group(self._places[name].reshape(-1, 1), numbers, 1)
        return numbers.view(shape)

    def _moved(self, node: Node) -> Any:
        values = {read: self._of(read) for read in node.reads}
        chosen = len(values) > 1 and node.op not in JOINS  # by a tensor of indices
        if chosen or any(value is None for value in values.values()):
            return self._unknown(node)
        return self._graph.apply(node, values)

    def _same(self, node: Node) -> Any:
        return self._of(node.reads[0])

    def _homogeneous(self, node: Node) -> Any:
        numbers = self._of(node.reads[0])
        self._bend(numbers)
        return numbers

    def _polynomial(self, node: Node) -> Any:
        """Let a monomial raise factors to its power."""
        power = monomial(node.module)
        if power is None:
            return self._unknown(node)
        before = self._of(node.reads[0])
        old, places = before.unique(return_inverse=True)
        new = self.ties.new(len(old))
        self.ties.tie_all(new, old, power)
        self._bend(before)
        return new[places]

    def _pooled(self, node: Node) -> Any:
        channels = self._vector(node.reads[0], 1)
        if layer_type(cast("nn.Module", node.module)) in MAXIMUM_POOLS:
            self._bend(channels)
        return lay_along(channels, node.shape, 1)

    def _averaged(self, node: Node) -> Any:
        """Tie what is averaged, and let it pass."""
        numbers = self._of(node.reads[0])
        dims = averaged_dims(node, numbers.dim())
        if dims is None or 0 in dims or node.shape is None:
            return self._unknown(node)
        kept = numbers.amin(dims, keepdim=True)
        self.ties.tie_all(numbers, kept)
        return kept.reshape(node.shape)

    def _added(self, node: Node) -> Any:
        """Tie what is added; a number that is added leaves no factor."""
        if len(node.reads) != 2:
            self._fix(node.reads[0])
            return self._none(node)
        first, second = (self._of(read) for read in node.reads)
        self.ties.tie_all(first, second)
        return first.expand(node.shape)

    def _multiplied(self, node: Node) -> Any:
        """Let numbers pass; divide a tensor of the model by the factor of what it multiplies."""
        if len(node.reads) == 1 and not isinstance(node.step.args[0], int | float):
            return self._same(node)
        if len(node.reads) != 2 or node.shape is None:
            return self._unknown(node)
        first, second = node.reads
        if node.op == "mul" and first.op == "tensor":
            first, second = second, first
        if node.op == "mul" and second.weights.get("", "") in self._places:
            return self._scaled(node, second, first)
        if node.op == "mul" and self._has_factors(second):
            first, second = second, first
        if self._has_factors(second):
            return self._unknown(node)
        self._fix(second)
        numbers = self._of(first).expand(node.shape)
        if _differs_along(numbers, second.shape):
            self._bend(numbers)
        return numbers

    def _scaled(self, node: Node, tensor: Node, factor: Node) -> Any:
        places = self._places[tensor.weights[""]]
        assert node.shape is not None
        spread = torch.arange(places.size).view(places.shape).expand(node.shape)
        numbers = self._of(factor).expand(node.shape)
        read = torch.zeros(places.size, dtype=torch.int64)
        read[spread.reshape(-1)] = numbers.reshape(-1)  # one of those that each entry multiplies
        self.ties.tie_all(numbers, read[spread])
        given = self.ties.new(places.size)
        if self._claim(tensor.weights[""], "scale", read, given):
            self._group(places.reshape(-1, 1), given, 1)
            self._group(places.reshape(-1, 1), read, -1)
        self._bend(torch.cat([read, given]))
        return given[spread]

    def _linear(self, node: Node) -> Any:
        return self._matrix(node, -1)

    def _convolution(self, node: Node) -> Any:
        module: Any = node.module
        return self._matrix(node, 1) if module.groups == 1 else self._unknown(node)

    def _matrix(self, node: Node, dim: int) -> Any:
        """Tie what a linear layer or convolution reads and gives to its weights."""
        assert node.shape is not None
        read, given = self._vector(data_of(node), dim), self.ties.new(node.shape[dim])
        weight = self._entries(node, "weight")
        if weight is None or self._frozen(node, "bias"):
            self.ties.fix_all(given)
        if weight is None:
            self.ties.fix_all(read)
        elif self._claim(node.weights["weight"], "matrix", read, given):
            self._group(weight.reshape(len(weight), -1), given, 1)
            columns = weight.swapaxes(0, 1)
            self._group(columns.reshape(len(columns), -1), read, -1)
        self._shift(node, given)
        return lay_along(given, node.shape, dim)

    def _shift(self, node: Node, given: Tensor, name: str = "bias") -> None:
        """Let a bias go with what it is added to."""
        bias = self._entries(node, name)
        if bias is not None and self._claim(node.weights[name], "shift", given[:0], given):
            self._group(bias.reshape(len(given), -1), given, 1)

    def _table(self, node: Node) -> Any:
        """Let the columns of a table go with what is read off it."""
        module: Any = node.module
        given = self.ties.new(module.embedding_dim)
        weight = self._entries(node, "weight")
        if weight is None or module.max_norm is not None:
            self.ties.fix_all(given)
        elif self._claim(node.weights["weight"], "table", given[:0], given):
            self._group(np.ascontiguousarray(weight.T), given, 1)
        return lay_along(given, node.shape, -1)

    def _normed(self, node: Node) -> Any:
        """Let no factor into a norm, and those of its scale out."""
        self._fix(data_of(node))
        return self._rescaled(node, 1 if isinstance(node.module, nn.GroupNorm) else -1)

    def _rescaled(self, node: Node, dim: int) -> Any:
        assert node.shape is not None
        scale = self._entries(node, "weight")
        given = self.ties.new(node.shape[dim])
        if scale is None or scale.ndim > 1 or self._frozen(node, "weight", "bias"):
            self.ties.fix_all(given)
        elif self._claim(node.weights["weight"], "norm", given[:0], given):
            self._group(scale[:, None], given, 1)
        self._shift(node, given)
        self._bend(given)
        return lay_along(given, node.shape, dim)

    def _batch_normed(self, node: Node) -> Any:
        """Take factors away (by the batch's statistics), or divide the scale by them."""
        read, scale = self._vector(data_of(node), 1), self._entries(node, "weight")
        shift, name = self._entries(node, "bias"), node.weights.get("weight", "")
        self._bend(read)
        if self._batch:
            self.corrections.append(Correction(node, read.numpy(), scale, shift))
        elif scale is None or shift is None or name in self._claims:
            self.ties.fix_all(read)
        else:
            self.corrections.append(Correction(node, read.numpy(), scale, shift))
            self._group(scale[:, None], read, -1)
        return self._rescaled(node, 1)

    def _attention(self, node: Node) -> Any:
        """Tie queries to keys and values to what reads them, a head at a time."""
        module: Any = node.module
        tensors = [name for name, _ in module.named_parameters()]
        used = any(node.weights.get(name, "") in self._claims for name in tensors)
        if used or any(self._entries(node, name) is None for name in tensors):
            return self._unattended(node)
        query, key, value, *masks = node.reads
        for mask in masks:
            self._fix(mask)
        heads, size = module.num_heads, module.embed_dim
        reads = [self._vector(read, -1) for read in (query, key, value)]
        queries, keys, values = rows = [self.ties.new(size) for _ in range(3)]
        self.ties.tie_all(queries, keys, -1.0)
        self.vectors += [numbers.view(heads, -1) for numbers in rows]
        for part, read, given in zip(self._projections(node), reads, rows, strict=True):
            self._group(part, given, 1)
            self._group(np.ascontiguousarray(part.T), read, -1)
        biases = {"in_proj_bias": torch.cat(rows), "bias_k": keys, "bias_v": values}
        for name in biases.keys() & set(tensors):
            self._shift(node, biases[name], name)
        given, outward = self.ties.new(size), self._entries(node, "out_proj.weight")
        assert outward is not None
        self._group(outward, given, 1)
        self._group(np.ascontiguousarray(outward.T), values, -1)
        self._shift(node, given, "out_proj.bias")
        for name in tensors:
            self._claims.setdefault(node.weights[name], ("attention", given[:0], given))
        return lay_along(given, query.shape, -1), torch.zeros(1, dtype=torch.int64)

    def _unattended(self, node: Node) -> Any:
        self._unknown(node)
        shape = node.reads[0].shape
        assert shape is not None
        return torch.zeros(shape, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)

    def _projections(self, node: Node) -> list[Indices]:
        """Places of the matrices that queries, keys and values are made with."""
        packed = self._entries(node, "in_proj_weight")
        if packed is not None:
            return list(np.split(packed, 3))
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [self._places[node.weights[name]] for name in names]

    def _dot_product(self, node: Node) -> Any:
        """Tie queries to keys and let values pass, a head at a time."""
        if node.shape is None or len(node.reads) < 3 or node.step.kwargs.get("enable_gqa"):
            return self._unknown(node)
        for mask in node.reads[3:]:
            self._fix(mask)
        heads = []
        for read in node.reads[:3]:
            numbers = self._of(read)
            kept = numbers.amin((0, -2), keepdim=True)
            self.ties.tie_all(numbers, kept)
            heads.append(kept)
        queries, keys, values = heads
        self.ties.tie_all(queries, keys, -1.0)
        self.vectors += [kept.reshape(-1, kept.shape[-1]) for kept in heads]
        return values.expand(node.shape)


def data_of(node: Node) -> Node:
    """Give what a layer is applied to, among what it reads: the rest are its weights."""
    return next((read for read in node.reads if read.op != "tensor"), node.reads[0])


def _differs_along(numbers: Tensor, shape: tuple[int, ...] | None) -> bool:
    """Whether numbers differ where a tensor of a shape, which is broadcast, may differ too."""
    if shape is None:
        return True
    return any(
        size > 1 and bool((numbers != numbers.narrow(dim, 0, 1)).any())
        for dim, size in zip(range(-len(shape), 0), shape, strict=True)
    )


def monomial(module: nn.Module | None) -> float | None:
    """
    Give d where a polynomial is a multiple of ``x**d``.

    Examples
    --------
    >>> monomial(PolynomialActivation.from_coefficients([0, 0, 0, 2.0]))
    3.0
    """
    if not isinstance(module, PolynomialActivation) or module.basis != "power":
        return None
    powers = torch.nonzero(module.coefficients).flatten().tolist()
    return float(powers[0]) if len(powers) == 1 and powers[0] > 0 else None


def averaged_dims(node: Node, rank: int) -> list[int] | None:
    """Give the dimensions that a mean or sum is over; None for all."""
    given: Any = node.step.kwargs.get("dim", (*node.step.args, None)[1])
    if given is None or isinstance(given, torch.dtype):
        return None
    dims = [given] if isinstance(given, int) else list(given)
    return [dim % rank for dim in dims]


def lay_along(channels: Tensor, shape: tuple[int, ...] | None, dim: int) -> Tensor:
    """Lay a vector along a dimension of a shape."""
    assert shape is not None
    view = [1] * len(shape)
    view[dim] = -1
    return channels.view(view).expand(shape)


Rule = Callable[[Channels, Node], Any]

_LAYERS: dict[type[nn.Module], Rule] = {
    nn.Linear: Channels._linear,
    nn.Embedding: Channels._table,
    nn.MultiheadAttention: Channels._attention,
    nn.LayerNorm: Channels._normed,
    nn.RMSNorm: Channels._normed,
    nn.GroupNorm: Channels._normed,
    nn.Flatten: Channels._moved,
    nn.Unflatten: Channels._moved,
    Reshape: Channels._moved,
    PolynomialActivation: Channels._polynomial,
    **dict.fromkeys(CONVOLUTIONS, Channels._convolution),
    **dict.fromkeys(NORMS, Channels._batch_normed),
    **dict.fromkeys(POOLS, Channels._pooled),
    **dict.fromkeys(SAME, Channels._same),
    **dict.fromkeys(HOMOGENEOUS, Channels._homogeneous),
}
_FUNCTIONS: dict[str, Rule] = {
    ATTENTION: Channels._dot_product,
    **dict.fromkeys(MOVES, Channels._moved),
    **dict.fromkeys(AVERAGES, Channels._averaged),
    **dict.fromkeys(ADDS, Channels._added),
    **dict.fromkeys(("mul", "div"), Channels._multiplied),
}
