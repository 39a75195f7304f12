"""All critical points of a small regularized loss, and how degenerate each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.critical_bound import bound_on_critical_points
from thalweg.algebra.critical_point import CriticalPoint, classified, exact_penalties
from thalweg.algebra.homotopy import Isolated, check_paths, isolated_solutions, singular_ends
from thalweg.algebra.msolve import ExactDegree, exact_degree, find_msolve
from thalweg.algebra.penalties import Penalized, Stratum, penalized_points
from thalweg.algebra.polynomials import PolynomialSystem
from thalweg.algebra.symmetry import Gauge
from thalweg.algebra.system import ZeroSystem, critical_system
from thalweg.errors import InvalidArgument
from thalweg.result import Result
from thalweg.run.progress import Progress, silent

SETTLED = 1e-13
"""Relative gradient of a real critical point on a singular set."""
MOST_PATHS = {"homotopy": 20_000, "monodromy": 2_000}
"""Paths after which a solver stops, if nothing is said."""
REGULAR = 1e-9
"""Smallest singular value of the Hessian of a regular point, relative to the largest."""


@dataclass(frozen=True, eq=False)
class CriticalPoints(Result):
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
        Paths to the penalties asked for, and those of them that went to infinity.
    strata
        What monodromy found, one `Stratum` for each set of switched-off units; none where a
        homotopy from general equations was used.
    bound
        Proved upper bound on the number of nonsingular critical points; None where none is known.
    exact
        Dimension and degree from msolve, None where it is absent or gave no answer in time.
    complete
        True only where the number of `complex_points` equals `bound` or the exact degree.
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
    strata: tuple[Stratum, ...]
    bound: int | None
    exact: ExactDegree | None
    complete: bool
    method: str


def critical_points(
    system: ZeroSystem,
    *,
    penalty: str | float | ArrayLike = "generic",
    solver: str | None = None,
    seed: int = 0,
    exact: bool | None = None,
    seconds: float = 30.0,
    most_paths: int | None = None,
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
    solver
        ``"monodromy"``: over penalties and targets, one set of switched-off units at a time; takes
        about as many paths as there are points and asks for positive penalties. ``"homotopy"``:
        from general equations of the same degrees; takes as many paths as these have solutions.
        By default monodromy where all penalties are positive. Under special penalties (equal ones)
        it finds all isolated points, but may miss sets of points; the homotopy comes to each.
    seed
        Of penalties and paths.
    exact, seconds
        As in `solve`.
    most_paths
        Refuse systems with more paths than this, by default 20,000. With monodromy, stop where one
        set of dead units has more points up to signs, by default 2,000: ``strata`` then says
        ``"limit"``. A core tracks some hundred paths a second, each several times.

    Raises
    ------
    InvalidArgument
        For a penalty that is not understood, negative or not finite, or does not fit the solver.
    SystemTooLarge
        For more paths than `most_paths`, and for equations too long to be written down.

    Examples
    --------
    >>> from thalweg.algebra import critical_points, network, random_system
    >>> linear = random_system(network((2, 2, 2), (0, 1)), samples=1)
    >>> found = critical_points(linear, exact=False)
    >>> len(found.complex_points), found.bound, found.complete
    (33, 33, True)
    """
    penalties = exact_penalties(penalty, system.network.size, seed)
    solver = _solver(solver, penalties)
    free = ZeroSystem(system.network, Gauge(system.network, False), system.inputs, system.targets)
    unknown = free if any(penalties) else system
    most_paths = most_paths or MOST_PATHS[solver]
    if solver == "homotopy":
        check_paths(_gradient_degrees(unknown), [len(g) for g in unknown.groups], most_paths)
    equations = critical_system(
        unknown, penalties if unknown is free else [Fraction(0)] * unknown.weights
    )
    strata: tuple[Stratum, ...] = ()
    if solver == "homotopy":
        isolated = isolated_solutions(
            equations, unknown.groups, seed=seed, most_paths=most_paths, progress=progress
        )
    else:
        ends = penalized_points(
            free,
            np.array([float(p) for p in penalties]),
            seed=seed,
            most=most_paths,
            progress=progress,
        )
        isolated, strata = _isolated(equations, ends), ends.strata
    by_msolve_too = exact or (exact is None and find_msolve() is not None)
    by_msolve = exact_degree(equations, seconds=seconds) if by_msolve_too else None
    bound = bound_on_critical_points(free) if all(penalties) else None
    degree = None if by_msolve is None or by_msolve.dimension != 0 else by_msolve.degree
    return CriticalPoints(
        system=free,
        penalties=tuple(penalties),
        complex_points=isolated.points,
        real_points=_real_points(free, unknown, isolated, equations, penalties),
        singular=len(isolated.singular),
        paths=isolated.paths,
        infinite=isolated.infinite,
        strata=strata,
        bound=bound,
        exact=by_msolve,
        complete=len(isolated.points) in (bound, degree),
        method=_method(isolated, strata, bound, by_msolve),
    )


def _solver(solver: str | None, penalties: Sequence[Fraction]) -> str:
    if solver not in (None, "monodromy", "homotopy"):
        raise InvalidArgument(
            f"solver is {solver!r}; expected 'monodromy' or 'homotopy', or leave it out."
        )
    if solver == "monodromy" and not all(penalties):
        raise InvalidArgument(
            "solver='monodromy' loops through the penalties and asks for positive ones; some are"
            " 0. Write solver='homotopy', or leave it out."
        )
    return solver or ("monodromy" if all(penalties) else "homotopy")


def _isolated(equations: PolynomialSystem, ends: Penalized) -> Isolated:
    """Ends of paths parted into regular points, singular ones, and those that are none."""
    sizes = np.linalg.svd(equations.evaluate(ends.arrived)[1], compute_uv=False)
    regular = sizes[:, -1] > REGULAR * sizes[:, 0]
    irregular = np.concatenate([ends.arrived[~regular], ends.unfinished])
    singular = singular_ends(equations, irregular)
    return Isolated(ends.arrived[regular], singular, ends.paths, len(irregular) - len(singular))


def _method(
    isolated: Isolated,
    strata: tuple[Stratum, ...],
    bound: int | None,
    by_msolve: ExactDegree | None,
) -> str:
    parts = [f"homotopy with {isolated.paths} paths, {isolated.infinite} to infinity"]
    if strata:
        parts = [
            f"monodromy over penalties and targets, {len(strata)} sets of switched-off units,"
            f" {isolated.paths} paths to the penalties, {isolated.infinite} of them lost"
        ]
        failed = [stratum for stratum in strata if stratum.status in ("stale", "limit")]
        parts.append(
            f"trace test not passed in {len(failed)} of them"
            if failed
            else f"trace test passed to {max(stratum.trace for stratum in strata):.0e}"
        )
    if bound is not None:
        parts.append(f"at most {bound} are possible")
    if by_msolve is not None:
        parts.append(f"exact degree {by_msolve.degree} by msolve modulo {by_msolve.prime}")
    return "; ".join(parts)


def _gradient_degrees(unknown: ZeroSystem) -> list[list[int]]:
    """Degree of each partial derivative of the loss in each group: known before it is written."""
    highest = np.array(unknown.layer_degrees).max(axis=0)
    rows = []
    for k, group in enumerate(unknown.groups):
        row = 2 * highest
        row[k] -= 1
        rows += [[int(d) for d in row]] * len(group)
    return rows


def _real_points(
    free: ZeroSystem,
    unknown: ZeroSystem,
    isolated: Isolated,
    equations: PolynomialSystem,
    penalties: Sequence[Fraction],
) -> tuple[CriticalPoint, ...]:
    """Real points, all weights given, classified and sorted by value."""
    forms = [unknown.gauge.real_form(w) for w in isolated.points]
    real = [unknown.gauge.embed(w, s) for w, s in (f for f in forms if f is not None)]
    gradient = equations if unknown is free else critical_system(free, penalties)
    real = _different(real)
    ends = [*real, *_settled(unknown, isolated.singular, equations)]
    points = [classified(free, gradient, penalties, w) for w in ends]
    return tuple(sorted(_one_of_each(points, len(real)), key=lambda point: point.value))


def _different(points: list[Array]) -> list[Array]:
    """Points less those that repeat an earlier one: complex points may have one real form."""
    distinct: list[Array] = []
    for w in points:
        if all(
            np.linalg.norm(w - earlier) > 1e-7 * (1 + np.linalg.norm(w)) for earlier in distinct
        ):
            distinct.append(w)
    return distinct


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
    representatives: dict[tuple[float, int, int], CriticalPoint] = {}
    for point in points:
        representatives.setdefault((round(point.value, 8), point.index, point.nullity), point)
    singular = [
        point for point in representatives.values() if all(point is not p for p in points[:regular])
    ]
    return points[:regular] + singular
