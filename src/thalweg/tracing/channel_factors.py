"""Factors on the channels of a network: their numbers, and the weights that go with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map_only

from thalweg.tracing.graph import Graph, Node
from thalweg.tracing.kinds import BENT, BENT_FUNCTIONS
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


class ChannelFactors(ABC):
    """
    Numbers of factors for every entry that is computed, tied as a subclass's rules say.

    Parameters and attributes are those of `thalweg.tracing.channels.Channels`.
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

    @abstractmethod
    def _visit(self, node: Node) -> Any:
        """Give the numbers of what a node gives, tied to those of what it reads."""

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

    def _claim(self, name: str, role: str, read: Tensor, outputs: Tensor) -> bool:
        """
        Say what a tensor is used for: True the first time.

        What uses it again is tied to what used it first; uses of two kinds leave no factor, but
        for a table whose rows are read and which is a matrix elsewhere.
        """
        if name not in self._claims:
            self._claims[name] = role, read, outputs
            return True
        its_role, its_read, its_outputs = self._claims[name]
        if role == its_role and its_outputs.shape == outputs.shape:
            self.ties.tie_all(read, its_read)
            self.ties.tie_all(outputs, its_outputs)
            return False
        self.unknown.add(f"{name}, which is used in two ways")
        if {role, its_role} == {"table", "matrix"}:
            columns = outputs if role == "table" else its_outputs
            read, outputs = (its_read, its_outputs) if role == "table" else (read, outputs)
            self.ties.fix_all(outputs)
            self.ties.tie_all(columns, read, -1.0)
            self._bend(columns)
        else:
            for numbers in (read, outputs, its_read, its_outputs):
                self.ties.fix_all(numbers)
        return False

    def _entries(self, node: Node, name: str) -> Indices | None:
        """Places of a layer's tensor, in its shape; None where it is not trained."""
        return self._places.get(node.weights.get(name, ""))

    def _frozen(self, node: Node, *names: str) -> bool:
        """Whether a layer has one of these tensors, and it is not trained."""
        present = (name for name in names if getattr(node.module, name, None) is not None)
        return any(self._entries(node, name) is None for name in present)

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
