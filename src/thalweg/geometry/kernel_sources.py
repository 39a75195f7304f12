"""How many directions of a kernel its known causes explain, none counted twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from thalweg.curvature.operators import Jacobian
from thalweg.curvature.ranks import singular_cutoff
from thalweg.errors import NotDefined
from thalweg.geometry.invariances import KINDS, ORTHONORMAL, Invariances
from thalweg.geometry.scalings import Direction
from thalweg.landscape.provenance import Word
from thalweg.problems.loss import pair
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.progress import Bar, Progress, silent
from thalweg.run.seeds import numpy_generator

if TYPE_CHECKING:
    from scipy import sparse

Array = NDArray[np.float64]

# Sizes of a random projection of J v, in units of what counts as zero: at most one of 10,000
# longer vectors is below the first, and none (1e-23) of those that count as zero above the other.
_SMALL, _LARGE = 1e-4, 10.0
# As many directions of a kind in between are multiplied one by one; where more are, none counts.
_EACH = 2000


@dataclass(frozen=True)
class Explained:
    """
    What explains a kernel.

    Attributes
    ----------
    counts : dict of str to int
        For each kind of `invariances.KINDS`, by how much it raises the rank of those before it.
    broken : dict of str to int
        Directions of each kind that J does not map to zero; kinds without one are left out.
    repeated : int
        Equations that repeat others because their samples have the same input.
    described : dict
        What could not be read.
    """

    counts: dict[str, int]
    broken: dict[str, int]
    repeated: int
    described: dict[str, Word]


def explain(
    risk: EmpiricalRisk,
    w: Tensor,
    jacobian: Jacobian,
    *,
    tolerance: float,
    seed: int = 0,
    progress: Progress = silent,
) -> Explained:
    """
    Count the directions of the kernel of J that symmetry and dead weights explain.

    Parameters
    ----------
    risk : EmpiricalRisk
        In float64, with frozen batch-norm statistics or those of the whole set.
    w : Tensor
        Shape (W,), float64.
    jacobian : Jacobian
        J at w.
    tolerance : float
        Largest ``|J v|`` of a unit vector v that counts as zero.
    seed : int
        Of the vector that directions are checked with.
    progress : Progress
        Counts passes over the samples, and kinds as they are checked and as they are ranked.
    """
    repeated = jacobian.shape[0] // risk.samples * _repeated(risk)
    try:
        known = Invariances(risk, w.cpu(), batch_statistics=risk.policy == "batch")
    except NotDefined as error:
        counts = dict.fromkeys(KINDS, 0)
        return Explained(counts, {}, repeated, {"symmetry": f"not determined: {error}"})
    kernel = _Kernel(jacobian, tolerance, seed)
    with progress(known.passes + 2 * len(KINDS), "symmetries") as bar:
        listed = {
            kind: [d for d in directions if np.any(d.values)]
            for kind, directions in known.directions(bar).items()
        }
        kept: dict[str, list[Direction]] = {}
        for kind, directions in listed.items():
            kept[kind] = kernel.holding(directions)
            bar.update()
        counts = _sequential_ranks(kept, risk.space.size, bar)
    broken = {kind: len(directions) - len(kept[kind]) for kind, directions in listed.items()}
    broken = {kind: count for kind, count in broken.items() if count}
    return Explained(counts, broken, repeated, known.described)


class _Kernel:
    """
    The kernel of J, as far as it holds given directions.

    Of a random vector y of variance one, ``(J^T y) v`` has mean zero and variance ``|J v|^2``: one
    product with the transpose tells of all directions v at once whether J maps them to zero.
    """

    def __init__(self, jacobian: Jacobian, tolerance: float, seed: int) -> None:
        self._jacobian, self._tolerance, self._seed = jacobian, tolerance, seed

    @cached_property
    def _pulled(self) -> Array:
        rng = numpy_generator(self._seed, "invariances")
        y = torch.from_numpy(rng.standard_normal(self._jacobian.shape[0]))
        pulled: Array = (self._jacobian.T @ y).cpu().numpy()
        return pulled

    def holding(self, directions: list[Direction]) -> list[Direction]:
        """Keep the directions that J maps to zero."""
        if not directions:
            return directions
        columns = _columns(directions, self._jacobian.shape[1])
        sizes = np.abs(columns.T @ self._pulled) / self._tolerance
        keep = sizes <= _SMALL
        doubtful = np.flatnonzero(~keep & (sizes <= _LARGE))
        if len(doubtful) <= _EACH:
            keep[doubtful] = [self._is_zero(columns[:, [i]].toarray()) for i in doubtful]
        return list(itertools.compress(directions, keep))

    def _is_zero(self, unit: Array) -> bool:
        return float((self._jacobian @ torch.from_numpy(unit)).norm()) <= self._tolerance


def _columns(directions: list[Direction], size: int) -> sparse.csc_array:
    """Unit vectors as the columns of a sparse matrix."""
    from scipy import sparse

    lengths = [len(d.values) for d in directions]
    places = np.cumsum([0, *lengths])
    values = np.concatenate([d.values for d in directions])
    entries = np.concatenate([d.entries for d in directions])
    norms = np.sqrt(np.add.reduceat(np.square(values), places[:-1]))
    return sparse.csc_array((values / norms.repeat(lengths), entries, places), (size, len(lengths)))


def _sequential_ranks(kinds: dict[str, list[Direction]], size: int, bar: Bar) -> dict[str, int]:
    """Rank of all kinds up to each, less that of the kinds before it."""
    single: set[int] = set()
    rest: list[Direction] = []
    apart: list[Direction] = []
    rank_of = _block_ranks()
    counts, before = {}, 0
    for kind, directions in kinds.items():
        single |= {int(d.entries[0]) for d in directions if len(d.entries) == 1}
        longer = [d for d in directions if len(d.entries) > 1]
        if kind == ORTHONORMAL:
            apart += longer
        else:
            rest += longer
        if directions:
            rank = len(single) + _rank_beside(rest, apart, single, size, rank_of)
            counts[kind], before = rank - before, rank
        else:
            counts[kind] = 0
        bar.update()
    return counts


def _block_ranks() -> Callable[[Array, float], int]:
    """Give a function of Gram matrices that knows those again that no further kind has changed."""
    known: dict[tuple[bytes, float], int] = {}

    def rank(block: Array, least: float) -> int:
        key = block.tobytes(), least
        if key not in known:
            known[key] = int((np.linalg.eigvalsh(block) > least).sum())
        return known[key]

    return rank


def _rank_beside(
    directions: list[Direction],
    apart: list[Direction],
    single: set[int],
    size: int,
    rank_of: Callable[[Array, float], int],
) -> int:
    """Rank of directions, ``apart`` orthonormal, with the coordinates in ``single`` struck out."""
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    free = np.ones(size)
    free[list(single)] = 0.0
    touched = [d for d in apart if not free[d.entries].all()]
    if touched:  # no longer of length one, nor at right angles
        apart = [d for d in apart if free[d.entries].all()]
        directions = [*directions, *touched]
    if not directions:
        return len(apart)
    columns = sparse.diags_array(free) @ _columns(directions, size)
    products = (columns.T @ columns).tocsr()
    if apart:  # what these span is taken out of the others: they are many, and need no eigenvalues
        along = _columns(apart, size).T @ columns
        products = (products - along.T @ along).tocsr()
    # Directions that share no weight are independent: most are of one layer or head.
    _, labels = connected_components(products, directed=False)
    # Of unit directions: the largest singular value is one or a little more.
    least = singular_cutoff(columns.shape) ** 2
    return len(apart) + sum(rank_of(block, least) for block in _blocks(products, labels))


def _blocks(products: sparse.csr_array, labels: Array) -> Iterator[Array]:
    """Cut a matrix into the dense blocks of which it is made, rows of one label each."""
    order = np.argsort(labels, kind="stable")
    ordered = products[order][:, order].tocoo()
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    sizes = np.diff(starts, append=len(labels))
    of_block = np.repeat(np.arange(len(starts)), sizes)[ordered.row]
    by_block = np.argsort(of_block, kind="stable")
    counts = np.bincount(of_block, minlength=len(starts))
    for start, size, entries in zip(
        starts, sizes, np.split(by_block, np.cumsum(counts)[:-1]), strict=True
    ):
        block = np.zeros((size, size))
        block[ordered.row[entries] - start, ordered.col[entries] - start] = ordered.data[entries]
        yield block


def _repeated(risk: EmpiricalRisk) -> int:
    """Count the samples whose input another has before them."""
    if not risk.data.joined:
        return 0
    inputs = pair(risk.data.slice(0, risk.samples))[0]
    leaves = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    rows = [leaf.reshape(risk.samples, -1).cpu().numpy() for leaf in leaves]
    return risk.samples - len({tuple(r[i].tobytes() for r in rows) for i in range(risk.samples)})
