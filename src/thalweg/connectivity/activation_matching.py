"""Matching of units by what they give on data: correlations of activations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from thalweg.connectivity.matching import assign
from thalweg.connectivity.symmetries import Block, Symmetries, kind_of
from thalweg.tracing.dims import data_of
from thalweg.tracing.graph import Node
from thalweg.tracing.kinds import CONVOLUTIONS

Indices = NDArray[np.int64]
Array = NDArray[np.float64]

# Samples that are looked at, at most, so many at once, and numbers of a network that are held.
_SAMPLES, _AT_ONCE, _HELD = 2000, 250, 1 << 24


def correlate_activations(symmetries: Symmetries, first: Array, second: Array) -> dict[str, Array]:
    """
    Correlate the units of two networks in what linear layers read.

    Parameters
    ----------
    symmetries : Symmetries
        What may move.
    first, second : ndarray
        States.

    Returns
    -------
    dict of str to ndarray
        Of each block that layers read, shape (units, units): of the first's with the second's,
        summed over layers that read it.

    References
    ----------
    Y. Li et al., Convergent Learning (2016), section 3; N. Tatro et al., Optimizing Mode
    Connectivity via Neuron Alignment (2020).
    """
    # A flat vector says nothing of statistics: its state has those of whatever was seen before.
    states = [symmetries.re_estimated(state) for state in (first, second)]
    watched = list(_watched(symmetries))
    moments = [_Moments() for _ in watched]
    for start, stop in _bounds(symmetries, {node for node, *_ in watched}):
        values = [_values(symmetries, state, start, stop) for state in states]
        for (node, dim, _, places), sums in zip(watched, moments, strict=True):
            sums.add(*(_by_unit(value[node], dim, places) for value in values))
    total: dict[str, Array] = {}
    for (_, _, block, _), sums in zip(watched, moments, strict=True):
        total[block.name] = total.get(block.name, 0.0) + sums.correlations()
    return total


def match_activations(correlations: Mapping[str, Array]) -> dict[str, Indices]:
    """Give, of each block, the order of the second's units of the largest sum of correlations."""
    return {name: assign(-each) for name, each in correlations.items()}


def _watched(symmetries: Symmetries) -> Iterator[tuple[Node, int, Block, Indices]]:
    """List what layers read: the dimension of channels, and where each unit of a block is."""
    units, seen = symmetries.units, set()
    for layer in symmetries.graph.nodes:
        if kind_of(layer) not in (nn.Linear, nn.MultiheadAttention, *CONVOLUTIONS):
            continue
        node, dim = data_of(layer), 1 if kind_of(layer) in CONVOLUTIONS else -1
        if (node, dim) in seen or node.shape is None:
            continue
        seen.add((node, dim))
        channels = units.numbers(node).movedim(dim, 0).flatten(1)[:, 0].tolist()
        roots = np.array([units.root(channel) for channel in channels])
        for block in symmetries.blocks:
            places = [np.flatnonzero(roots == channel) for channel in block.channels]
            if len(places[0]) and len({len(row) for row in places}) == 1:
                yield node, dim, block, np.stack(places)


def _by_unit(value: Tensor, dim: int, places: Indices) -> Array:
    """Lay out what a node gives: shape (units, count)."""
    rows = value.movedim(dim, 0).flatten(1).numpy()
    return np.asarray(rows[places].reshape(len(places), -1))


class _Moments:
    """Sums over data of two sets of units, and of their products."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: list[Any] = [0.0] * 5

    def add(self, first: Array, second: Array) -> None:
        """Take in values, shape (units, count) each."""
        self._count += first.shape[1]
        parts = (
            first.sum(1),
            second.sum(1),
            (first**2).sum(1),
            (second**2).sum(1),
            first @ second.T,
        )
        self._sums = [a + b for a, b in zip(self._sums, parts, strict=True)]

    def correlations(self) -> Array:
        """Give those of each with each; zeros for a unit that never changes."""
        n, (first, second, first_squares, second_squares, products) = self._count, self._sums
        spread = np.sqrt(np.maximum(first_squares / n - (first / n) ** 2, 0.0))
        spreads = np.sqrt(np.maximum(second_squares / n - (second / n) ** 2, 0.0))
        covariance = products / n - np.outer(first / n, second / n)
        scale = np.outer(spread, spreads)
        # A unit that is constant has a variance of rounding alone.
        floor = 1e-12 * max(float(scale.max(initial=0.0)), 1e-300)
        return np.asarray(np.where(scale > floor, covariance / np.maximum(scale, floor), 0.0))


def _bounds(symmetries: Symmetries, watched: Iterable[Node]) -> Iterator[tuple[int, int]]:
    """Cut samples into as many as the graph takes at once and memory holds."""
    data = symmetries.risk.data
    if not data.joined:
        yield from ((i, i + 1) for i in range(min(len(data), _SAMPLES // _AT_ONCE)))
    elif _takes_any(symmetries):
        # The graph was read with two samples.
        numbers = sum(math.prod(node.shape or (0,)) for node in watched) // 2
        step, stop = max(1, min(_AT_ONCE, _HELD // max(1, numbers))), min(len(data), _SAMPLES)
        yield from ((start, min(start + step, stop)) for start in range(0, stop, step))
    else:
        yield from ((start, start + 2) for start in range(0, min(100, len(data) - 1), 2))


def _takes_any(symmetries: Symmetries) -> bool:
    """Whether the graph is that of any number of samples, not only of the example's."""
    if symmetries.graph.how == "torch.fx" or len(symmetries.risk.data) < 3:
        return True
    args, kwargs = symmetries.call(0, 3)
    try:
        symmetries.graph.run(_tensors((args, kwargs)), lambda node, value: None)
    except Exception:  # the program says in many ways that it is made for one number
        return False
    return True


def _tensors(call: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(call) if isinstance(leaf, Tensor)]


def _values(symmetries: Symmetries, state: Array, start: int, stop: int) -> dict[Node, Tensor]:
    wanted = {node for node, *_ in _watched(symmetries)}
    values: dict[Node, Tensor] = {}

    def see(node: Node, value: Any) -> None:
        if node in wanted:
            values[node] = value

    with symmetries.at(state):
        symmetries.graph.run(_tensors(symmetries.call(start, stop)), see)
    return values
