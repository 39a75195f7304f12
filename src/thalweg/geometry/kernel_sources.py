"""How many directions of a kernel its known causes explain, none counted twice."""

from __future__ import annotations

from dataclasses import dataclass
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
from thalweg.run.seeds import numpy_generator

if TYPE_CHECKING:
    from scipy import sparse

Array = NDArray[np.float64]

# Directions of a kind that is not in the kernel as a whole are checked one by one up to here.
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
    risk: EmpiricalRisk, w: Tensor, jacobian: Jacobian, *, tolerance: float, seed: int = 0
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
        Of the combinations that are checked.
    """
    check = (jacobian, tolerance, seed)
    repeated = jacobian.shape[0] // risk.samples * _repeated(risk)
    try:
        known = Invariances(risk, w.cpu(), batch_statistics=risk.policy == "batch")
        listed = known.directions()
    except NotDefined as error:
        counts = dict.fromkeys(KINDS, 0)
        return Explained(counts, {}, repeated, {"symmetry": f"not determined: {error}"})
    listed = {kind: [d for d in found if np.any(d.values)] for kind, found in listed.items()}
    kept = listed
    if not _all_in_kernel([d for found in listed.values() for d in found], *check):
        kept = {kind: _in_kernel(found, *check) for kind, found in listed.items()}
    broken = {kind: len(found) - len(kept[kind]) for kind, found in listed.items()}
    broken = {kind: count for kind, count in broken.items() if count}
    counts = _sequential_ranks(kept, risk.space.size)
    return Explained(counts, broken, repeated, known.described)


def _all_in_kernel(
    directions: list[Direction], jacobian: Jacobian, tolerance: float, seed: int
) -> bool:
    """Tell whether J maps random combinations of the directions to zero."""
    if not directions:
        return True
    rng = numpy_generator(seed, "invariances")
    mixed = _columns(directions, jacobian.shape[1]) @ rng.standard_normal((len(directions), 2))
    return bool(_image(mixed, jacobian).max() <= tolerance)


def _in_kernel(
    directions: list[Direction], jacobian: Jacobian, tolerance: float, seed: int
) -> list[Direction]:
    """Keep the directions that J maps to zero."""
    if _all_in_kernel(directions, jacobian, tolerance, seed):
        return directions
    if len(directions) > _EACH:
        return []
    columns = _columns(directions, jacobian.shape[1])
    kept = [
        float(_image(columns[:, [i]].toarray(), jacobian)[0]) <= tolerance
        for i in range(len(directions))
    ]
    return [d for d, keep in zip(directions, kept, strict=True) if keep]


def _image(vectors: Array, jacobian: Jacobian) -> Array:
    unit = torch.from_numpy(vectors / np.linalg.norm(vectors, axis=0))
    image: Array = (jacobian @ unit).norm(dim=0).cpu().numpy()
    return image


def _columns(directions: list[Direction], size: int) -> sparse.csc_array:
    """Unit vectors as the columns of a sparse matrix."""
    from scipy import sparse

    values = [d.values / np.linalg.norm(d.values) for d in directions]
    places = np.cumsum([0, *(len(v) for v in values)])
    entries = np.concatenate([d.entries for d in directions])
    return sparse.csc_array((np.concatenate(values), entries, places), (size, len(directions)))


def _sequential_ranks(kinds: dict[str, list[Direction]], size: int) -> dict[str, int]:
    """Rank of all kinds up to each, less that of the kinds before it."""
    single: set[int] = set()
    rest: list[Direction] = []
    apart: list[Direction] = []
    counts, before = {}, 0
    for kind, directions in kinds.items():
        single |= {int(d.entries[0]) for d in directions if len(d.entries) == 1}
        longer = [d for d in directions if len(d.entries) > 1]
        if kind == ORTHONORMAL:
            apart += longer
        else:
            rest += longer
        rank = len(single) + _rank_beside(rest, apart, single, size) if directions else before
        counts[kind], before = rank - before, rank
    return counts


def _rank_beside(
    directions: list[Direction], apart: list[Direction], single: set[int], size: int
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
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    blocks = (products[part][:, part].toarray() for part in parts)
    # Of unit directions: the largest singular value is one or a little more.
    least = singular_cutoff(columns.shape) ** 2
    return len(apart) + sum(int((np.linalg.eigvalsh(block) > least).sum()) for block in blocks)


def _repeated(risk: EmpiricalRisk) -> int:
    """Count the samples whose input another has before them."""
    if not risk.data.joined:
        return 0
    inputs = pair(risk.data.slice(0, risk.samples))[0]
    leaves = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    rows = [leaf.reshape(risk.samples, -1).cpu().numpy() for leaf in leaves]
    return risk.samples - len({tuple(r[i].tobytes() for r in rows) for i in range(risk.samples)})
