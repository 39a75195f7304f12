"""A critical point of a small regularized loss, and how degenerate it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.kind import kind_of
from thalweg.algebra.nullity import invariant_directions
from thalweg.algebra.polynomials import PolynomialSystem
from thalweg.algebra.symmetry import Gauge
from thalweg.algebra.system import GRID, ZeroSystem, critical_system
from thalweg.errors import InvalidArgument
from thalweg.result import Result

ZERO = 1e-8
"""Eigenvalues below this, relative to the largest, count as zero."""


@dataclass(frozen=True, eq=False)
class CriticalPoint(Result):
    """A real critical point of a loss.

    Attributes
    ----------
    weights
        float64, shape (size,): all weights of the network.
    value
        ``sum r**2 / 2 + sum penalty w**2 / 2``.
    gradient
        Norm of the gradient.
    index
        Number of negative eigenvalues of the Hessian.
    nullity
        Number of zero eigenvalues: below `threshold` in absolute value.
    nullity_symmetry, nullity_dead
        How many of them are tangent to continuous symmetries, and to dead input directions besides.
    nullity_unexplained
        The rest.
    kind
        ``"minimum"``, ``"maximum"``, ``"saddle"``, or ``"undetermined"`` where the Hessian does not
        tell: see `thalweg.algebra.kind`.
    eigenvalues
        Of the Hessian, ascending, shape (size,).
    threshold
        Bound below which an eigenvalue counts as zero.
    gap
        Smallest counted as nonzero over the largest counted as zero, in absolute value; infinite
        where there is none of either.
    """

    weights: Array
    value: float
    gradient: float
    index: int
    nullity: int
    nullity_symmetry: int
    nullity_dead: int
    nullity_unexplained: int
    kind: str
    eigenvalues: Array
    threshold: float
    gap: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite gap as null."""
        entries = dict(vars(self))
        entries.update(
            weights=self.weights.tolist(),
            eigenvalues=self.eigenvalues.tolist(),
            gap=self.gap if np.isfinite(self.gap) else None,
        )
        return entries


def classify(
    system: ZeroSystem, weights: ArrayLike, *, penalty: float | ArrayLike = 0.0
) -> CriticalPoint:
    """Value, index and nullity of a loss at one real weight vector, supposed critical.

    Parameters
    ----------
    system
        A network and its samples.
    weights
        All weights of the network, shape (size,).
    penalty
        One number for all weights, or one for each.

    Examples
    --------
    A quadratic unit that reads (1, 1), one sample with target -1: a line of minima with nonzero
    loss. One null direction is the rescaling, the other is dead.

    >>> from thalweg.algebra import classify, network, zero_system
    >>> unit = zero_system(network((2, 1, 1), (0, 0, 1)), [[1.0, 1.0]], [-1.0])
    >>> point = classify(unit, [1.0, -1.0, 1.0])
    >>> point.value, point.index, point.nullity, point.nullity_dead
    (0.5, 0, 2, 1)
    """
    penalties = exact_penalties(penalty, system.network.size, 0)
    free = ZeroSystem(system.network, Gauge(system.network, False), system.inputs, system.targets)
    point = np.asarray(weights, dtype=float)
    if point.shape != (free.weights,):
        raise InvalidArgument(
            f"weights have shape {point.shape}; expected all weights of the network:"
            f" ({free.weights},)."
        )
    return classified(free, critical_system(free, penalties), penalties, point)


def exact_penalties(penalty: str | float | ArrayLike, size: int, seed: int) -> list[Fraction]:
    """Penalties of all weights, exact; ``"generic"`` draws them."""
    if isinstance(penalty, str) and penalty == "generic":
        rng = np.random.default_rng([seed, 19])
        return [Fraction(int(k), GRID) for k in rng.integers(GRID // 8, 3 * GRID // 8, size=size)]
    try:
        values = np.broadcast_to(np.asarray(penalty, dtype=float), (size,))
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if not np.isfinite(values).all() or (values < 0).any():
        raise InvalidArgument(
            f"penalty is {penalty!r}; expected 'generic', a number from 0 up, or {size} of them,"
            " one for each weight of the network."
        )
    return [Fraction(float(v)) for v in values]


def classified(
    free: ZeroSystem, gradient: PolynomialSystem, penalties: Sequence[Fraction], w: Array
) -> CriticalPoint:
    """Classify one real critical point, given the equations that say so."""
    slope, hessian = gradient.evaluate(w[None])
    eigenvalues, vectors = np.linalg.eigh((hessian[0] + hessian[0].T) / 2)
    scale = max(
        float(np.abs(eigenvalues).max()),
        1e-3 * float(gradient.magnitude(np.ones((1, len(w)))).max()),
    )
    threshold = ZERO * scale
    null = np.abs(eigenvalues) < threshold
    index = int((eigenvalues < -threshold).sum())
    floats = np.array([float(p) for p in penalties])
    symmetric, dead = invariant_directions(free, w, floats)
    unexplained = int(null.sum()) - symmetric.shape[1] - dead.shape[1]

    def loss(points: Array) -> Array:
        residuals = free.network.predict(points, free.inputs) - free.targets
        total: Array = ((residuals**2).sum(axis=(1, 2)) + (points**2) @ floats) / 2
        return total

    return CriticalPoint(
        weights=w,
        value=float(loss(w[None])[0]),
        gradient=float(np.linalg.norm(slope)),
        index=index,
        nullity=int(null.sum()),
        nullity_symmetry=symmetric.shape[1],
        nullity_dead=dead.shape[1],
        nullity_unexplained=unexplained,
        kind=kind_of(
            loss,
            2 * max(free.degrees),
            w,
            index=index,
            positive=len(w) - index - int(null.sum()),
            unexplained=_unexplained(vectors[:, null], np.hstack([symmetric, dead]), unexplained),
        ),
        eigenvalues=eigenvalues,
        threshold=threshold,
        gap=_gap(np.abs(eigenvalues), null),
    )


def _unexplained(kernel: Array, explained: Array, dimension: int) -> Array:
    """Orthonormal basis of the part of a null space that is orthogonal to what explains it."""
    unexplained = kernel - explained @ (explained.T @ kernel)
    basis: Array = np.linalg.svd(unexplained, full_matrices=False)[0][:, : max(dimension, 0)]
    return basis


def _gap(sizes: Array, null: Array) -> float:
    if null.all() or not null.any() or sizes[null].max() == 0:
        return float("inf")
    return float(sizes[~null].min() / sizes[null].max())
