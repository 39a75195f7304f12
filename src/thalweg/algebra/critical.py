"""All critical points of a small regularized loss, and how degenerate each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thalweg.algebra.homotopy import Isolated, check_paths, isolated_solutions
from thalweg.algebra.kind import kind_of
from thalweg.algebra.msolve import ExactDegree, exact_degree, find_msolve
from thalweg.algebra.network import Array
from thalweg.algebra.nullity import invariant_directions
from thalweg.algebra.polynomials import PolynomialSystem
from thalweg.algebra.symmetry import Gauge
from thalweg.algebra.system import GRID, ZeroSystem, critical_system
from thalweg.errors import InvalidArgument
from thalweg.run.progress import Progress, silent

ZERO = 1e-8
"""Eigenvalues below this, relative to the largest, count as zero."""
SETTLED = 1e-13
"""Relative gradient of a real critical point on a singular set."""


@dataclass(frozen=True, eq=False)
class CriticalPoint:
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
        answer = dict(vars(self))
        answer.update(
            weights=self.weights.tolist(),
            eigenvalues=self.eigenvalues.tolist(),
            gap=self.gap if np.isfinite(self.gap) else None,
        )
        return answer


@dataclass(frozen=True, eq=False)
class CriticalPoints:
    """Critical points of a loss.

    Attributes
    ----------
    system
        The network, ungauged, and its samples.
    penalties
        Exact penalty of each weight.
    complex_points
        Distinct nonsingular complex critical points, complex128, shape (S, W); in the gauge where
        there is no penalty.
    real_points
        The real ones, by value; and, of real points on singular sets that paths led to, one for
        each value, index and nullity.
    singular
        Number of paths that ended at multiple or non-isolated critical points.
    paths, infinite
        Paths tracked, and those of them that went to infinity.
    exact
        Dimension and degree from msolve, None where it is absent or gave no answer in time.
    complete
        True only where the exact degree equals the number of `complex_points`.
    method
        What was done, in words.
    """

    system: ZeroSystem
    penalties: tuple[Fraction, ...]
    complex_points: Array
    real_points: tuple[CriticalPoint, ...]
    singular: int
    paths: int
    infinite: int
    exact: ExactDegree | None
    complete: bool
    method: str


def critical_points(
    system: ZeroSystem,
    *,
    penalty: str | float | ArrayLike = "generic",
    seed: int = 0,
    exact: bool | None = None,
    seconds: float = 30.0,
    most_paths: int = 20_000,
    progress: Progress = silent,
) -> CriticalPoints:
    """Find and classify all critical points of ``sum r**2 / 2 + sum penalty w**2 / 2``.

    Parameters
    ----------
    system
        From `zero_system` or `random_system`. With a penalty all weights of its network are
        unknowns, since the penalty leaves no rescaling; without one the gauge is kept.
    penalty
        ``"generic"``: a random number in [1/8, 3/8] for each weight; or one number for all weights,
        or one for each.
    seed
        Of penalties and paths.
    exact, seconds
        As in `solve`.
    most_paths
        Refuse systems with more paths.

    Raises
    ------
    InvalidArgument
        For a penalty that is not understood, negative or not finite.
    SystemTooLarge
        For more paths than `most_paths`.

    Examples
    --------
    >>> from thalweg.algebra import critical_points, network, random_system
    >>> linear = random_system(network((1, 2, 1), (0, 1)), samples=1)
    >>> len(critical_points(linear, exact=False).complex_points)
    9
    """
    penalties = _penalties(penalty, system.network.size, seed)
    free = ZeroSystem(system.network, Gauge(system.network, False), system.inputs, system.targets)
    unknown = free if any(penalties) else system
    check_paths(_gradient_degrees(unknown), [len(g) for g in unknown.groups], most_paths)
    equations = critical_system(
        unknown, penalties if unknown is free else [Fraction(0)] * unknown.weights
    )
    found = isolated_solutions(
        equations, unknown.groups, seed=seed, most_paths=most_paths, progress=progress
    )
    wanted = exact or (exact is None and find_msolve() is not None)
    answer = exact_degree(equations, seconds=seconds) if wanted else None
    points = _real_points(free, unknown, found, equations, penalties)
    method = f"homotopy with {found.paths} paths, {found.infinite} to infinity"
    if answer is not None:
        method += f"; exact degree {answer.degree} by msolve modulo {answer.prime}"
    return CriticalPoints(
        system=free,
        penalties=tuple(penalties),
        complex_points=found.points,
        real_points=points,
        singular=len(found.singular),
        paths=found.paths,
        infinite=found.infinite,
        exact=answer,
        complete=answer is not None and (answer.dimension, answer.degree) == (0, len(found.points)),
        method=method,
    )


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
    penalties = _penalties(penalty, system.network.size, 0)
    free = ZeroSystem(system.network, Gauge(system.network, False), system.inputs, system.targets)
    point = np.asarray(weights, dtype=float)
    if point.shape != (free.weights,):
        raise InvalidArgument(
            f"weights have shape {point.shape}; expected all weights of the network:"
            f" ({free.weights},)."
        )
    return _classified(free, critical_system(free, penalties), penalties, point)


def _gradient_degrees(unknown: ZeroSystem) -> list[list[int]]:
    """Degree of each partial derivative of the loss in each group: known before it is written."""
    highest = np.array(unknown.layer_degrees).max(axis=0)
    rows = []
    for k, group in enumerate(unknown.groups):
        row = 2 * highest
        row[k] -= 1
        rows += [[int(d) for d in row]] * len(group)
    return rows


def _penalties(penalty: str | float | ArrayLike, size: int, seed: int) -> list[Fraction]:
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


def _real_points(
    free: ZeroSystem,
    unknown: ZeroSystem,
    found: Isolated,
    equations: PolynomialSystem,
    penalties: Sequence[Fraction],
) -> tuple[CriticalPoint, ...]:
    """Real points, all weights given, classified and sorted by value."""
    forms = [unknown.gauge.real_form(w) for w in found.points]
    real = [unknown.gauge.embed(w, s) for w, s in (f for f in forms if f is not None)]
    gradient = equations if unknown is free else critical_system(free, penalties)
    real = _different(real)
    ends = [*real, *_settled(unknown, found.singular, equations)]
    points = [_classified(free, gradient, penalties, w) for w in ends]
    return tuple(sorted(_one_of_each(points, len(real)), key=lambda point: point.value))


def _different(points: list[Array]) -> list[Array]:
    """Points less those that repeat an earlier one: complex points may have one real form."""
    kept: list[Array] = []
    for w in points:
        if all(np.linalg.norm(w - other) > 1e-7 * (1 + np.linalg.norm(w)) for other in kept):
            kept.append(w)
    return kept


def _settled(unknown: ZeroSystem, ends: Array, equations: PolynomialSystem) -> list[Array]:
    """Real critical points from the real parts of singular ends, by least-norm Newton steps.

    A set of critical points, and a multiple one, has no regular system to solve; these steps need
    none, and whatever they come to is a critical point.
    """
    x = ends.real.copy()
    for _ in range(60):
        value, jacobian = equations.evaluate(x)
        x = x - (np.linalg.pinv(jacobian, rcond=1e-9) @ value[..., None])[..., 0]
    residual = np.abs(equations.evaluate(x)[0]) / equations.magnitude(np.maximum(np.abs(x), 1))
    good = residual.max(axis=1, initial=0) < SETTLED
    return [unknown.gauge.embed(w) for w in np.round(x[good], 12)]


def _one_of_each(points: list[CriticalPoint], regular: int) -> list[CriticalPoint]:
    """All regular points, and of the others one for each value, index and nullity."""
    kept: dict[tuple[float, int, int], CriticalPoint] = {}
    for point in points:
        kept.setdefault((round(point.value, 8), point.index, point.nullity), point)
    singular = [point for point in kept.values() if all(point is not p for p in points[:regular])]
    return points[:regular] + singular


def _classified(
    free: ZeroSystem, gradient: PolynomialSystem, penalties: Sequence[Fraction], w: Array
) -> CriticalPoint:
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
            unexplained=_rest(vectors[:, null], np.hstack([symmetric, dead]), unexplained),
        ),
        eigenvalues=eigenvalues,
        threshold=threshold,
        gap=_gap(np.abs(eigenvalues), null),
    )


def _rest(kernel: Array, explained: Array, dimension: int) -> Array:
    """Orthonormal basis of the part of a null space that is orthogonal to what explains it."""
    left = kernel - explained @ (explained.T @ kernel)
    basis: Array = np.linalg.svd(left, full_matrices=False)[0][:, : max(dimension, 0)]
    return basis


def _gap(sizes: Array, null: Array) -> float:
    if null.all() or not null.any() or sizes[null].max() == 0:
        return float("inf")
    return float(sizes[~null].min() / sizes[null].max())
