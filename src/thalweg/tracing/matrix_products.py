"""Products of two values, as attention written by hand has them, and the heads in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.tracing.channels import Channels
from thalweg.tracing.dims import lay_along
from thalweg.tracing.graph import Graph, Node
from thalweg.tracing.kinds import ATTENTION
from thalweg.tracing.layers import layer_type
from thalweg.tracing.ties import Ties

Indices = NDArray[np.int64]

# Nodes between the scores of a head and what multiplies its values: scale, mask, softmax, dropout.
_BETWEEN = 12


@dataclass(frozen=True, eq=False)
class Head:
    """
    The channels of one attention, a row a head.

    Attributes
    ----------
    queries, values : ndarray
        Numbers of channels, int64, shape (heads, size); keys have those of the queries.
    """

    queries: Indices
    values: Indices


class Products(Channels):
    """
    Factors of channels, as `Channels` has them, that pass through products of two values.

    Parameters
    ----------
    graph, places, batch_statistics, ties
        As for `Channels`.

    Attributes
    ----------
    heads : list of Head
        Attentions, by torch's functions or by hand.
    """

    def __init__(
        self,
        graph: Graph,
        places: Mapping[str, Indices],
        *,
        batch_statistics: bool,
        ties: Ties | None = None,
    ) -> None:
        self.heads: list[Head] = []
        self._scores: dict[Node, Tensor] = {}
        super().__init__(graph, places, batch_statistics=batch_statistics, ties=ties)

    def _visit(self, node: Node) -> Any:
        kind = None if node.module is None else layer_type(node.module)
        rule = _ATTENTIONS.get(node.op if kind is None else kind)
        return super()._visit(node) if rule is None else rule(self, node)

    def _product(self, node: Node) -> Any:
        """Tie what is summed over in a product of two values; see heads of attention in it."""
        if len(node.reads) != 2 or node.shape is None:
            return self._unknown(node)
        first, second = (self._of(read) for read in node.reads)
        if node.reads[1].op == "tensor" and second.dim() == 2:
            return self._of_matrix(node)
        if min(first.dim(), second.dim()) < 2:
            return self._unknown(node)
        places_first = same_along(second, -2)
        if places_first and not first.any():  # shares of the places of a sequence, times values
            self._see_head(node, second)
            return second.narrow(-2, 0, 1).expand(node.shape)
        if not (same_along(first, -2) and same_along(second, -1)):
            return self._unknown(node)
        queries, keys = first.narrow(-2, 0, 1), second.narrow(-1, 0, 1).transpose(-1, -2)
        shared = queries.amin(0, keepdim=True)
        self.ties.tie_all(queries, shared)
        self.ties.tie_all(queries, keys, -1.0)
        rows = shared.reshape(-1, shared.shape[-1])
        self.vectors.append(rows)
        self._scores[node] = rows
        return self._none(node)

    def _of_matrix(self, node: Node) -> Any:
        """Read ``x @ W`` as the layer that it is."""
        data, tensor = node.reads
        name = tensor.weights.get("", "")
        read, entries = self._vector(data, -1), self._places.get(name)
        if entries is None:
            self.ties.fix_all(read)
            return self._none(node)
        assert node.shape is not None
        outputs = self.ties.new(node.shape[-1])
        if self._claim(name, "product", read, outputs):
            self._group(np.ascontiguousarray(entries.T), outputs, 1)
            self._group(entries, read, -1)
        return lay_along(outputs, node.shape, -1)

    def _see_head(self, node: Node, values: Tensor) -> None:
        source: Node | None = node.reads[0]
        for _ in range(_BETWEEN):
            if source is None:
                return
            if source in self._scores:
                rows = values.amin((0, -2)).reshape(-1, values.shape[-1])
                self.vectors.append(rows)
                self.heads.append(Head(self._scores[source].numpy(), rows.numpy()))
                return
            source = next((read for read in source.reads if read.op != "tensor"), None)

    def _attention(self, node: Node) -> Any:
        before = len(self.vectors)
        factors = super()._attention(node)
        if len(self.vectors) == before + 3:
            queries, _, values = self.vectors[before:]
            self.heads.append(Head(queries.numpy(), values.numpy()))
        return factors

    def _dot_product(self, node: Node) -> Any:
        before = len(self.vectors)
        factors = super()._dot_product(node)
        if len(self.vectors) == before + 3:
            queries, _, values = self.vectors[before:]
            self.heads.append(Head(queries.numpy(), values.numpy()))
        return factors


def same_along(numbers: Tensor, dim: int) -> bool:
    """Whether all along a dimension have the same number."""
    return torch.equal(numbers.narrow(dim, 0, 1).expand_as(numbers), numbers)


_ATTENTIONS: dict[Any, Callable[[Products, Node], Any]] = {
    nn.MultiheadAttention: Products._attention,
    ATTENTION: Products._dot_product,
    **dict.fromkeys(("matmul", "bmm"), Products._product),
}
