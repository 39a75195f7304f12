"""What linear layers make that nothing reads, and what they read that is never made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.curvature.ranks import singular_cutoff
from thalweg.geometry.scalings import Direction
from thalweg.geometry.shifts import CHANNELS, used_once
from thalweg.tracing.flow import Arrival, Carried, follow
from thalweg.tracing.graph import Graph, Node
from thalweg.tracing.kinds import CONVOLUTIONS
from thalweg.tracing.layers import layer_type

Indices = NDArray[np.int64]
Array = NDArray[np.float64]

# Layers that read more numbers than this are not looked at: dependence takes its cube.
_WIDEST = 1024


class UnreadOutputs:
    """
    What a layer makes and the linear layers behind it, all of them, map to zero.

    Parameters
    ----------
    graph : Graph
        The network, its weights at w.
    places : mapping of str to ndarray
        Places of each trained tensor's entries in the flat vector, in its shape.
    """

    def __init__(self, graph: Graph, places: Mapping[str, Indices]) -> None:
        self._graph, self._places, self._once = graph, places, used_once(graph)

    def directions(self) -> Iterator[Direction]:
        """Give a direction for each vector that nothing reads, and each number that makes it."""
        for node in self._graph.nodes:
            dim, vectors = self._made(node)
            if not vectors:
                continue
            for direction in self._unread(node, dim):
                yield from (Direction(entries, direction) for entries in vectors)

    def _made(self, node: Node) -> tuple[int, list[Indices]]:
        """Give a node's dimension of channels, and weights that add a vector to it: (channels,)."""
        kind = None if node.module is None else layer_type(node.module)
        if node.op == "tensor" and node.shape:
            entries = self._entries(node, "")
            return -1, [] if entries is None else list(entries.reshape(-1, entries.shape[-1]))
        if kind not in (nn.Linear, nn.Embedding, *CONVOLUTIONS):
            return 0, []
        weight, bias = self._entries(node, "weight"), self._entries(node, "bias")
        table = kind is nn.Embedding
        vectors: list[Indices] = []
        if weight is not None:
            vectors += list(weight if table else weight.reshape(len(weight), -1).T)
        return CHANNELS[kind], vectors + ([] if bias is None else [bias])

    def _entries(self, node: Node, name: str) -> Indices | None:
        tensor = node.weights.get(name, "")
        return self._places.get(tensor) if tensor in self._once else None

    def _unread(self, node: Node, dim: int) -> Array:
        """Rows: combinations of a node's channels that all of its readers map to zero."""
        assert node.shape is not None
        none = np.zeros((0, node.shape[dim]))
        read: list[Array] = []
        for arrival in follow(self._graph, node, dim, sums=True):
            rows = _reading(arrival, node.shape[dim])
            if rows is None:
                return none
            read += rows
        return null_space(np.concatenate(read)) if read else none


def _reading(arrival: Arrival, channels: int) -> list[Array] | None:
    """Give matrices (k, channels) that a linear layer applies to what arrives; None for others."""
    node = arrival.node
    kind = None if node is None or node.module is None else layer_type(node.module)
    if node is None or kind not in (nn.Linear, nn.MultiheadAttention, *CONVOLUTIONS):
        return None
    module: Any = node.module
    carried = arrival.carried.along(1 if kind in CONVOLUTIONS else -1)
    if carried is None or getattr(module, "groups", 1) != 1:
        return None
    if kind is nn.MultiheadAttention:
        if module.in_proj_weight is None or arrival.place > 2:
            return None
        weight = module.in_proj_weight.detach().chunk(3)[arrival.place]
    else:
        weight = module.weight.detach().movedim(1, -1).flatten(0, -2)
    return _by_place(weight.double().cpu().numpy(), carried, channels)


def _by_place(matrix: Array, carried: Carried, channels: int) -> list[Array]:
    """Sort a matrix's columns by channel: a matrix for each place at which channels stand."""
    which, factors = carried.channels.cpu().numpy(), carried.factors.cpu().numpy()
    seen: dict[int, int] = {}
    parts: list[Array] = []
    for column, (channel, factor) in enumerate(zip(which.tolist(), factors.tolist(), strict=True)):
        if not factor:
            continue
        place = seen[channel] = seen.get(channel, -1) + 1
        if place == len(parts):
            parts.append(np.zeros((len(matrix), channels)))
        parts[place][:, channel] = factor * matrix[:, column]
    return parts


class Reads:
    """
    All that a layer multiplies its kernel by, as far as linear dependence goes.

    Parameters
    ----------
    bias : bool
        Whether a constant is read besides.

    Attributes
    ----------
    open : bool
        Whether some combination of all may be zero: further reads matter.
    """

    def __init__(self, bias: bool) -> None:
        self._bias, self._count = bias, 0
        self._triangle: Tensor | None = None
        self.open = True

    def add(self, reads: Tensor) -> None:
        """Take reads in, shape (n, fan-in), while some combination of all may be zero."""
        self.open &= reads.shape[1] < _WIDEST
        if not self.open:
            return
        self._count += len(reads)
        rows = torch.cat([reads, torch.ones(len(reads), 1)], 1) if self._bias else reads
        rows = rows if self._triangle is None else torch.cat([self._triangle, rows])
        self._triangle = torch.linalg.qr(rows.double(), mode="r").R
        self.open = len(rows) < rows.shape[1] or bool(len(self._null()))

    def _null(self) -> Array:
        assert self._triangle is not None
        return null_space(self._triangle.cpu().numpy())

    @property
    def dependent(self) -> Array:
        """
        Rows: combinations of what is read that are zero in all reads.

        With fewer reads than numbers any reads leave some: these are the work of W > M.
        """
        if not self.open or self._triangle is None or self._count <= self._triangle.shape[1]:
            return np.zeros((0, 0))
        return self._null()


def null_space(matrix: Array) -> Array:
    """Give an orthonormal basis of the vectors that a matrix maps to zero, as rows."""
    _, values, vectors = np.linalg.svd(matrix, full_matrices=True)
    rank = int((values > singular_cutoff(matrix.shape) * values.max(initial=0.0)).sum())
    basis: Array = vectors[rank:]
    return basis
