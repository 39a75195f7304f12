"""Trees of basins: passes between all minima, where they join, and how long each basin lasts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.basins.many import values_at
from thalweg.connectivity import align, connect
from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import Landscape, placed, words_of
from thalweg.run.progress import Progress, silent

Floats = NDArray[np.float64]
By = Literal["line", "aligned", "band", "bezier", "chain"]


@dataclass(frozen=True, eq=False)
class DisconnectivityGraph:
    """
    Where minima join as the level rises.

    Attributes
    ----------
    minima : Tensor
        Shape (k, W).
    values : ndarray
        Shape (k,), of the minima.
    passes : dict of str to ndarray
        By way of joining, shape (k, k): the highest value on the way found between two minima.
    heights : ndarray
        Shape (k, k): the lowest level at which two minima are joined, by any ways and by way of
        any other minima; their own value on the diagonal. From above: there may be lower passes.
    merges : tuple of (float, tuple of int, tuple of int)
        From the lowest: the level, and the two sets of minima that join there.
    provenance : dict
        Which function it is.
    """

    minima: Tensor = field(repr=False)
    values: Floats
    passes: dict[str, Floats] = field(repr=False)
    heights: Floats = field(repr=False)
    merges: tuple[tuple[float, tuple[int, ...], tuple[int, ...]], ...]
    provenance: dict[str, Any] = field(repr=False)

    @property
    def persistence(self) -> Floats:
        """
        Say from where to where each basin lasts, shape (k, 2), by minima.

        A basin begins at its minimum and ends where it joins one with a lower minimum; the lowest
        never does (the sublevel sets' persistent homology in dimension 0).
        """
        lasts = np.column_stack([self.values, np.full(len(self.values), np.inf)])
        for height, *joined in self.merges:
            lowest = [min(part, key=lambda i: (self.values[i], i)) for part in joined]
            ends = max(lowest, key=lambda i: (self.values[i], i))
            lasts[ends, 1] = height
        return lasts


def disconnectivity_graph(
    landscape: Landscape,
    minima: Tensor,
    *,
    by: tuple[By, ...] = ("line",),
    points: int = 101,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> DisconnectivityGraph:
    """
    Find ways between all pairs of minima, and the tree of levels at which these join.

    Parameters
    ----------
    landscape : Landscape
        What they are minima of.
    minima : Tensor
        Shape (k, W), k of 2 or more: such as the ``ends`` of `basin_labels`, one of each basin, or
        trained networks.
    by : tuple of {"line", "aligned", "band", "bezier", "chain"}
        Ways: the straight line; the line to the second network in the order of the first
        (`align`: an `EmpiricalRisk` only); a path of `connect`. The lowest of all is taken.
    points : int
        Places on a line.
    steps : int, optional
        Of paths, as for `connect`; of the search for an order, as for `align`.
    seed : int
        Of paths and orders.
    progress : Progress
        Shows pairs.

    Raises
    ------
    InvalidArgument
        If there are fewer than two minima, or a way is not known.

    References
    ----------
    O. M. Becker and M. Karplus, The topology of multidimensional potential energy surfaces (1997).

    Examples
    --------
    >>> from thalweg.landscape.synthetic import BasinTree
    >>> tree = BasinTree(5)
    >>> found = disconnectivity_graph(tree, tree.centres)
    >>> [(round(level, 2), one, other) for level, one, other in found.merges]
    [(1.0, (0,), (1,)), (1.0, (2,), (3,)), (3.0, (0, 1), (2, 3))]
    """
    _check(minima, by, points)
    minima = torch.stack([placed(landscape, landscape.space.check(w)) for w in minima])
    values = values_at(landscape, minima).numpy()
    pairs = list(itertools.combinations(range(len(minima)), 2))
    passes: dict[str, Floats] = {way: np.diag(values) for way in by}
    with progress(len(pairs) * len(by), "pairs") as bar:
        for way, (i, j) in itertools.product(by, pairs):
            highest = _pass(landscape, minima[i], minima[j], way, points, steps, seed)
            passes[way][i, j] = passes[way][j, i] = max(highest, values[i], values[j])
            bar.update(1)
    lowest = np.min(list(passes.values()), axis=0)
    merges = merge_levels(lowest)
    heights = np.diag(values)
    for height, left, right in merges:
        for i, j in itertools.product(left, right):
            heights[i, j] = heights[j, i] = height
    return DisconnectivityGraph(minima, values, passes, heights, merges, words_of(landscape))


def _pass(
    landscape: Landscape,
    w0: Tensor,
    w1: Tensor,
    way: By,
    points: int,
    steps: int | None,
    seed: int,
) -> float:
    """Give the highest value on one way between two minima."""
    if way == "line" or way == "aligned":
        if way == "aligned":
            searched: dict[str, Any] = {} if steps is None else {"steps": steps}
            network: Any = landscape  # which `align` refuses if it is none
            w1 = align(network, w0, w1, seed=seed, **searched).w
        t = torch.linspace(0, 1, points, dtype=torch.float64).to(w0)
        return float(values_at(landscape, w0 + t[:, None] * (w1 - w0)).max())
    return connect(landscape, w0, w1, kind=way, steps=steps, seed=seed, test=False).highest


def merge_levels(
    passes: Floats,
) -> tuple[tuple[float, tuple[int, ...], tuple[int, ...]], ...]:
    """
    Join minima by single linkage.

    Parameters
    ----------
    passes : ndarray
        Shape (k, k): the highest value on a way between two minima.

    Returns
    -------
    tuple of (float, tuple of int, tuple of int)
        From the lowest: the level, and the two sets of minima that join there.

    Examples
    --------
    >>> merge_levels(np.array([[0.0, 1.0, 3.0], [1.0, 0.0, 2.0], [3.0, 2.0, 0.0]]))
    ((1.0, (0,), (1,)), (2.0, (0, 1), (2,)))
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    # Levels may be negative; linkage takes distances.
    least = float(passes.min())
    off = passes - least
    np.fill_diagonal(off, 0.0)
    sets: list[tuple[int, ...]] = [(i,) for i in range(len(passes))]
    merges = []
    for left, right, height, _ in linkage(squareform(off, checks=False), "single"):
        parts = sorted((sets[int(left)], sets[int(right)]))
        merges.append((float(height) + least, parts[0], parts[1]))
        sets.append(tuple(sorted(parts[0] + parts[1])))
    return tuple(merges)


def _check(minima: Tensor, by: tuple[By, ...], points: int) -> None:
    unknown = [way for way in by if way not in get_args(By)]
    if minima.dim() != 2 or len(minima) < 2 or unknown or not by or points < 3:
        raise InvalidArgument(
            f"minima of shape {tuple(minima.shape)}, by={by}, points={points}; write minima of"
            f" shape (k, W), k of 2 or more, ways among {', '.join(get_args(By))}, and 3 points or"
            " more."
        )
