"""Which channels of a network are scaled together, when weights are, so that its outputs stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.polynomial import PolynomialActivation
from thalweg.tracing.channel_factors import Correction, Indices
from thalweg.tracing.dims import data_of, lay_along
from thalweg.tracing.function_factors import FunctionFactors
from thalweg.tracing.functions import Reshape
from thalweg.tracing.graph import Node
from thalweg.tracing.kinds import (
    ADDS,
    ATTENTION,
    AVERAGES,
    CONVOLUTIONS,
    HOMOGENEOUS,
    MAXIMUM_POOLS,
    MOVES,
    NORMS,
    POOLS,
    SAME,
)
from thalweg.tracing.layers import layer_type


class Channels(FunctionFactors):
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

    def _visit(self, node: Node) -> Any:
        if node.op == "input":
            return self._none(node)
        kind = None if node.module is None else layer_type(node.module)
        rule = _LAYERS.get(kind) if kind is not None else None
        return (rule or _FUNCTIONS.get(node.op, Channels._unknown))(self, node)

    def _pooled(self, node: Node) -> Any:
        channels = self._vector(node.reads[0], 1)
        if layer_type(cast("nn.Module", node.module)) in MAXIMUM_POOLS:
            self._bend(channels)
        return lay_along(channels, node.shape, 1)

    def _linear(self, node: Node) -> Any:
        return self._matrix(node, -1)

    def _convolution(self, node: Node) -> Any:
        module: Any = node.module
        return self._matrix(node, 1) if module.groups == 1 else self._unknown(node)

    def _matrix(self, node: Node, dim: int) -> Any:
        """Tie what a linear layer or convolution reads and gives to its weights."""
        assert node.shape is not None
        read, outputs = self._vector(data_of(node), dim), self.ties.new(node.shape[dim])
        weight = self._entries(node, "weight")
        if weight is None or self._frozen(node, "bias"):
            self.ties.fix_all(outputs)
        if weight is None:
            self.ties.fix_all(read)
        elif self._claim(node.weights["weight"], "matrix", read, outputs):
            self._group(weight.reshape(len(weight), -1), outputs, 1)
            columns = weight.swapaxes(0, 1)
            self._group(columns.reshape(len(columns), -1), read, -1)
        self._shift(node, outputs)
        return lay_along(outputs, node.shape, dim)

    def _shift(self, node: Node, outputs: Tensor, name: str = "bias") -> None:
        """Let a bias go with what it is added to."""
        bias = self._entries(node, name)
        if bias is not None and self._claim(node.weights[name], "shift", outputs[:0], outputs):
            self._group(bias.reshape(len(outputs), -1), outputs, 1)

    def _table(self, node: Node) -> Any:
        """Let the columns of a table go with what is read off it."""
        module: Any = node.module
        outputs = self.ties.new(module.embedding_dim)
        weight = self._entries(node, "weight")
        if weight is None or module.max_norm is not None:
            self.ties.fix_all(outputs)
        elif self._claim(node.weights["weight"], "table", outputs[:0], outputs):
            self._group(np.ascontiguousarray(weight.T), outputs, 1)
        return lay_along(outputs, node.shape, -1)

    def _normed(self, node: Node) -> Any:
        """Let no factor into a norm, and those of its scale out."""
        self._fix(data_of(node))
        return self._rescaled(node, 1 if isinstance(node.module, nn.GroupNorm) else -1)

    def _rescaled(self, node: Node, dim: int) -> Any:
        assert node.shape is not None
        scale = self._entries(node, "weight")
        outputs = self.ties.new(node.shape[dim])
        if scale is None or scale.ndim > 1 or self._frozen(node, "weight", "bias"):
            self.ties.fix_all(outputs)
        elif self._claim(node.weights["weight"], "norm", outputs[:0], outputs):
            self._group(scale[:, None], outputs, 1)
        self._shift(node, outputs)
        self._bend(outputs)
        return lay_along(outputs, node.shape, dim)

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
        for matrix, read, outputs in zip(self._projections(node), reads, rows, strict=True):
            self._group(matrix, outputs, 1)
            self._group(np.ascontiguousarray(matrix.T), read, -1)
        biases = {"in_proj_bias": torch.cat(rows), "bias_k": keys, "bias_v": values}
        for name in biases.keys() & set(tensors):
            self._shift(node, biases[name], name)
        outputs, outward = self.ties.new(size), self._entries(node, "out_proj.weight")
        assert outward is not None
        self._group(outward, outputs, 1)
        self._group(np.ascontiguousarray(outward.T), values, -1)
        self._shift(node, outputs, "out_proj.bias")
        for name in tensors:
            self._claims.setdefault(node.weights[name], ("attention", outputs[:0], outputs))
        return lay_along(outputs, query.shape, -1), torch.zeros(1, dtype=torch.int64)

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
