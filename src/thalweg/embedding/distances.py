"""Pairwise Euclidean distances of points in weight space, in one streaming pass.

The sums of products (Gram matrix) of centred weights give all squared distances at the speed of
a matrix product, |x_i - x_j|^2 = g_ii + g_jj - 2 g_ij, but cancel where two points are much nearer
to one another than to the centre. The rounding error is bounded (Higham, Accuracy and Stability
of Numerical Algorithms, 2nd ed., eq. 3.5), and pairs the bound does not clear are computed again
from differences, where nothing cancels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thalweg.embedding.source import Block, WeightSource
from thalweg.errors import InvalidArgument, InvalidWeights
from thalweg.run.progress import Progress, silent

NETWORK = "network"
RELATIVE_ACCURACY = 1e-9

# Columns in one matrix product. The error bound grows with the products' length plus their number,
# so it is least near sqrt(W); the product runs at full speed from about 1000 columns on.
_CHUNK = 2048
_UNIT_ROUNDOFF = float(np.finfo(np.float64).eps) / 2
# Roundings besides those of the sums: two for the centring, three for g_ii + g_jj - 2 g_ij, one
# for the square root, and slack for the terms of second order.
_OTHER_ROUNDINGS = 8


@dataclass(frozen=True)
class Distances:
    """Pairwise distances, one matrix for each layer.

    Attributes
    ----------
    layers : tuple of str
        Names of the layers; "network" is all of them together.
    values : float64 array of shape (layers, n, n)
        Euclidean distances in units of weights; symmetric, zero on the diagonal.
    refined : tuple of int
        Pairs of each layer that were computed again from differences.
    """

    layers: tuple[str, ...]
    values: NDArray[np.float64]
    refined: tuple[int, ...]

    def __getitem__(self, layer: str) -> NDArray[np.float64]:
        matrix: NDArray[np.float64] = self.values[self.layers.index(layer)]
        return matrix


class _Span(NamedTuple):
    """Columns ``start:stop`` of a source's block ``name``."""

    name: str
    start: int
    stop: int


class _Slab(NamedTuple):
    """Columns that are read together; ``targets`` index the layers they count for."""

    targets: tuple[int, ...]
    spans: tuple[_Span, ...]

    @property
    def width(self) -> int:
        return sum(span.stop - span.start for span in self.spans)


def pairwise_distances(
    source: WeightSource,
    *,
    layers: Sequence[str] | None = None,
    memory: int = 256 * 2**20,
    progress: Progress = silent,
) -> Distances:
    """Euclidean distances between all points, for the whole network and for each layer.

    The weights are read once, in blocks of columns; only the points of near pairs are read a
    second time. Sums are float64. Every distance is right to a relative error of 1e-9 by a
    worst-case bound (typically 1e-14), and distances between identical points are exactly zero.

    Parameters
    ----------
    source : WeightSource
        n points of W weights each.
    layers : sequence of str, optional
        What to measure; by default "network" and every layer.
    memory : int
        Bytes for the block of weights in memory; the results take 8 n^2 bytes a layer besides.
    progress : callable
        Shows how many weights of W have been through.

    Returns
    -------
    Distances
        Distances in units of weights, float64, shape (layers, n, n).

    Raises
    ------
    InvalidArgument
        For a layer the source does not have.
    InvalidWeights
        For NaN or infinite weights; names the point and the tensor.

    Examples
    --------
    >>> from thalweg.embedding.source import ArraySource
    >>> points = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    >>> pairwise_distances(ArraySource(points))["network"][0]
    array([0., 5., 1.])
    """
    names = _chosen_layers(source.blocks, layers)
    columns = max(1, memory // (8 * max(1, source.points)))
    slabs = list(_slabs(source.blocks, names, columns))
    values, products = _gram(source, slabs, len(names), progress)
    near = []
    for gram, terms in zip(values, products, strict=True):
        near.append(_squared_distances(gram, _CHUNK + terms + _OTHER_ROUNDINGS))
    if any(pairs.any() for pairs in near):
        _refine(source, slabs, values, near, progress)
    np.sqrt(values, out=values)
    return Distances(names, values, tuple(int(pairs.sum()) for pairs in near))


def _chosen_layers(blocks: Sequence[Block], chosen: Sequence[str] | None) -> tuple[str, ...]:
    layers = (NETWORK, *dict.fromkeys(block.layer for block in blocks if block.layer is not None))
    if chosen is None:
        return layers
    for name in chosen:
        if name not in layers:
            raise InvalidArgument(f"got layer {name!r}, expected one of {', '.join(layers)}")
    return tuple(dict.fromkeys(chosen))


def _slabs(blocks: Sequence[Block], layers: tuple[str, ...], columns: int) -> Iterator[_Slab]:
    """Cut the columns that count into slabs, none wider than ``columns`` or over two layers."""
    members: dict[tuple[int, ...], list[Block]] = {}
    for block in blocks:
        targets = tuple(i for i, name in enumerate(layers) if name in (NETWORK, block.layer))
        members.setdefault(targets, []).append(block)
    for targets, run in members.items():
        if not targets:
            continue
        spans: list[_Span] = []
        room = columns
        for block in run:
            start = 0
            while start < block.size:
                stop = min(block.size, start + room)
                spans.append(_Span(block.name, start, stop))
                room -= stop - start
                start = stop
                if not room:
                    yield _Slab(targets, tuple(spans))
                    spans, room = [], columns
        if spans:
            yield _Slab(targets, tuple(spans))


def _read_slab(
    source: WeightSource, slab: _Slab, points: Sequence[int], buffer: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Read a slab of the given points into the front of ``buffer``, one row for each point."""
    rows = buffer[: len(points) * slab.width].reshape(len(points), slab.width)
    for row, point in zip(rows, points, strict=True):
        at = 0
        for name, start, stop in slab.spans:
            values = source.read(point, name, start, stop)
            if not _is_finite(values):
                # A flipped bit can make NaN of a number: damage is said first.
                getattr(source, "check", _no_check)(point)
                raise InvalidWeights(
                    f"{source.describe(point)}: {name!r} holds NaN or infinite weights, expected "
                    "finite ones; leave out the checkpoints after training diverged"
                )
            row[at : at + stop - start] = values
            at += stop - start
    return rows


def _is_finite(values: NDArray[Any]) -> bool:
    # The sum of squares is much cheaper, and finite only where all of them are.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values @ values)) or bool(np.isfinite(values).all())


def _no_check(point: int) -> None:
    pass


def _buffer(slabs: Sequence[_Slab], points: int) -> NDArray[np.float64]:
    return np.empty(points * max((slab.width for slab in slabs), default=0))


def _chunks(rows: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, rows.shape[1], _CHUNK):
        yield rows[:, start : start + _CHUNK]


def _centre(rows: NDArray[np.float64]) -> None:
    """Subtract a centre near the mean from each column, in place.

    Any centre will do. Clipping makes columns in which all points agree exactly zero, so that a
    frozen layer has no near pairs to refine.
    """
    rows -= np.clip(rows.mean(axis=0), rows.min(axis=0), rows.max(axis=0))


def _gram(
    source: WeightSource, slabs: Sequence[_Slab], layers: int, progress: Progress
) -> tuple[NDArray[np.float64], list[int]]:
    """Gram matrices of the centred points, and the number of products summed into each."""
    points = source.points
    gram = np.zeros((layers, points, points))
    products = [0] * layers
    product = np.empty((points, points))
    buffer = _buffer(slabs, points)
    with progress(sum(slab.width for slab in slabs), "distances") as bar:
        for slab in slabs:
            rows = _read_slab(source, slab, range(points), buffer)
            _centre(rows)
            for chunk in _chunks(rows):
                np.matmul(chunk, chunk.T, out=product)
                for target in slab.targets:
                    gram[target] += product
                    products[target] += 1
                bar.update(chunk.shape[1])
    return gram, products


def _squared_distances(gram: NDArray[np.float64], roundings: int) -> NDArray[np.bool_]:
    """Turn a Gram matrix into squared distances in place; return the pairs to compute again.

    A sum of products of k terms is wrong by at most k u |x_i| |x_j|, so the squared distance is
    wrong by at most k u (|x_i| + |x_j|)^2. Half of the relative error of the square is that of
    the distance.
    """
    squares = gram.diagonal().copy()
    lengths = np.sqrt(squares)
    gram *= -2.0
    gram += np.add.outer(squares, squares)
    np.fill_diagonal(gram, 0.0)
    bound = roundings * _UNIT_ROUNDOFF * np.add.outer(lengths, lengths) ** 2
    near: NDArray[np.bool_] = np.triu(bound > 2 * RELATIVE_ACCURACY * (gram - bound), k=1)
    return near


def _refine(
    source: WeightSource,
    slabs: Sequence[_Slab],
    squared: NDArray[np.float64],
    near: list[NDArray[np.bool_]],
    progress: Progress,
) -> None:
    """Compute the squared distances of near pairs from differences, in place."""
    for values, pairs in zip(squared, near, strict=True):
        values[pairs] = 0.0
    slabs = [slab for slab in slabs if any(near[target].any() for target in slab.targets)]
    buffer = _buffer(slabs, source.points)
    with progress(sum(slab.width for slab in slabs), "near pairs") as bar:
        for slab in slabs:
            first, second = np.nonzero(np.logical_or.reduce([near[t] for t in slab.targets]))
            points = np.union1d(first, second)
            rows = _read_slab(source, slab, [int(point) for point in points], buffer)
            sums = _squared_differences(
                rows, np.searchsorted(points, first), np.searchsorted(points, second)
            )
            for target in slab.targets:
                close = near[target][first, second]
                squared[target, first[close], second[close]] += sums[close]
            bar.update(slab.width)
    for values, pairs in zip(squared, near, strict=True):
        values.T[pairs] = values[pairs]


def _squared_differences(
    rows: NDArray[np.float64], first: NDArray[np.intp], second: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Squared distances of the pairs (first, second) of rows; ``first`` is sorted."""
    sums = np.zeros(len(first))
    owners, starts = np.unique(first, return_index=True)
    stops = [*starts[1:], len(first)]
    for chunk in _chunks(rows):
        for owner, start, stop in zip(owners, starts, stops, strict=True):
            difference = chunk[second[start:stop]]
            difference -= chunk[owner]
            sums[start:stop] += np.vecdot(difference, difference)
    return sums
