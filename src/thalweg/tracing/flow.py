"""Where channels that a node gives are carried, entry by entry, and what reads them there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.tracing.dims import averaged_dims, data_of
from thalweg.tracing.functions import Reshape
from thalweg.tracing.graph import Graph, Node
from thalweg.tracing.kinds import ADDS, ATTENTION, AVERAGES, MOVES, POOLS, SAME
from thalweg.tracing.layers import layer_type

# Among what attention reads.
KEY, _VALUE = 1, 2


@dataclass(frozen=True, eq=False)
class Carried:
    """
    Numbered channels of one node, as they arrive somewhere else.

    Attributes
    ----------
    channels : Tensor
        Which channel stands where, int64, in the shape of what they arrive in; a tuple of tensors
        where that is one.
    factors : Tensor
        What it has been multiplied by, float64; 0 where there is none.
    """

    channels: Any
    factors: Any

    def along(self, dim: int) -> Carried | None:
        """Give what stands along a dimension, if it is the same everywhere else."""
        channels, factors = (t.movedim(dim, 0).flatten(1) for t in (self.channels, self.factors))
        same = (channels == channels[:, :1]) & (factors == factors[:, :1])
        return Carried(channels[:, 0], factors[:, 0]) if bool(same.all()) else None

    def joined(self) -> Carried:
        """Give one tensor of each where they are in pieces."""
        if isinstance(self.channels, Tensor):
            return self
        pieces = (self.channels, self.factors)
        return Carried(*(torch.cat([p.reshape(-1) for p in piece]) for piece in pieces))


@dataclass(frozen=True, eq=False)
class Arrival:
    """
    What reads channels that were carried to it.

    Attributes
    ----------
    node : Node or None
        None for the network's outputs, and for a layer that has them for its weights.
    carried : Carried
        What it reads.
    place : int
        Which of the tensors that it reads.
    """

    node: Node | None
    carried: Carried
    place: int = 0


def follow(graph: Graph, start: Node, dim: int, *, sums: bool) -> list[Arrival]:
    """
    Follow the channels of a node to all that reads them.

    Parameters
    ----------
    graph : Graph
        The network.
    start : Node
        Gives a tensor.
    dim : int
        Its dimension of channels.
    sums : bool
        Whether they are followed through sums, means and attention, as what is added to them is;
        else through poolings, as what is zero is.

    Returns
    -------
    list of Arrival
        What does not carry on alone: layers, other functions, the outputs.
    """
    assert start.shape is not None
    view = [1] * len(start.shape)
    view[dim] = -1
    channels = torch.arange(start.shape[dim]).view(view).expand(start.shape)
    carried = {start: Carried(channels, torch.ones(start.shape, dtype=torch.float64))}
    arrivals: list[Arrival] = []
    for node in graph.nodes:
        if not any(read in carried for read in node.reads):
            continue
        onward = _carry(graph, node, carried, sums)
        if onward is not None:
            carried[node] = onward
        for place, read in enumerate(node.reads):
            # Of attention, values are carried on, and queries and keys arrive.
            if read in carried and (onward is None or (node.op == ATTENTION and place != _VALUE)):
                is_weight = bool(node.weights) and read is not data_of(
                    node
                )  # as a weight of a layer
                arrivals.append(Arrival(None if is_weight else node, carried[read].joined(), place))
    unread = [node for node in graph.outputs if node in carried]
    return arrivals + [Arrival(None, carried[node].joined()) for node in unread]


def _carry(graph: Graph, node: Node, carried: dict[Node, Carried], sums: bool) -> Carried | None:
    kind = None if node.module is None else layer_type(node.module)
    if kind in SAME:
        return carried[node.reads[0]]
    if node.op in MOVES or kind is Reshape:
        return _moved(graph, node, carried)
    if node.shape is None or any(read.shape is None for read in node.reads):
        return None
    if not sums:
        return _pooled(node, carried[node.reads[0]]) if kind in POOLS else None
    if node.op in ADDS and len(node.reads) == 2 and "alpha" not in node.step.kwargs:
        return _added(node, carried)
    if node.op in AVERAGES:
        return _averaged(graph, node, carried[node.reads[0]])
    if node.op == ATTENTION and node.reads[_VALUE] in carried:
        return _attended(node, carried[node.reads[_VALUE]])
    return None


def _moved(graph: Graph, node: Node, carried: dict[Node, Carried]) -> Carried | None:
    if any(read.shape is None and read not in carried for read in node.reads):
        return None
    parts = list(_carried_or_none(node, carried))
    try:
        moved = [
            graph.apply(node, dict(zip(node.reads, tensors, strict=True)))
            for tensors in zip(*((piece.channels, piece.factors) for piece in parts), strict=True)
        ]
    except (IndexError, RuntimeError, TypeError):  # a selection by what is carried
        return None
    return Carried(*moved)


def _carried_or_none(node: Node, carried: dict[Node, Carried]) -> Iterator[Carried]:
    for read in node.reads:
        if read in carried:
            yield carried[read]
        else:
            assert read.shape is not None
            nothing = torch.zeros(read.shape, dtype=torch.int64)
            yield Carried(nothing, nothing.double())


def _added(node: Node, carried: dict[Node, Carried]) -> Carried | None:
    first, second = _carried_or_none(node, carried)
    first_channels, second_channels = torch.broadcast_tensors(first.channels, second.channels)
    first_factors, second_factors = torch.broadcast_tensors(first.factors, second.factors)
    if bool(
        ((first_channels != second_channels) & (first_factors != 0) & (second_factors != 0)).any()
    ):
        return None
    sums = first_factors + second_factors if node.op == "add" else first_factors - second_factors
    return Carried(torch.where(first_factors != 0, first_channels, second_channels), sums)


def _averaged(graph: Graph, node: Node, carried: Carried) -> Carried | None:
    dims = averaged_dims(node, carried.channels.dim())
    if dims is None or node.shape is None:
        return None
    first = carried.channels.amin(dims, keepdim=True)
    if not torch.equal(first.expand_as(carried.channels), carried.channels):
        return None
    factors = graph.apply(node, {node.reads[0]: carried.factors})
    return Carried(first.reshape(node.shape), factors)


def _attended(node: Node, carried: Carried) -> Carried | None:
    """Average over a sequence with weights that sum to one: what is the same all along stays."""
    pairs = [(t[..., :1, :], t) for t in (carried.channels, carried.factors)]
    if node.shape is None or not all(torch.equal(a.expand_as(b), b) for a, b in pairs):
        return None
    return Carried(*(first.expand(node.shape) for first, _ in pairs))


def _pooled(node: Node, carried: Carried) -> Carried | None:
    along = carried.along(1)
    if along is None or node.shape is None:
        return None
    view = [1, -1] + [1] * (len(node.shape) - 2)
    return Carried(*(t.view(view).expand(node.shape) for t in (along.channels, along.factors)))
