"""Solve the system of zero error: complex solutions modulo symmetry, the real ones among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.monodromy import Monodromy, follow, monodromy
from thalweg.algebra.msolve import ExactDegree, exact_degree, find_msolve
from thalweg.algebra.multihomogeneous import bezout
from thalweg.algebra.rank import GenericRank, generic_rank
from thalweg.algebra.real import project
from thalweg.algebra.slices import SquareFamily, square_family
from thalweg.algebra.system import ZeroSystem
from thalweg.errors import InvalidArgument, SystemTooLarge
from thalweg.result import Result
from thalweg.run.progress import Bar, Progress, silent

MOST_WEIGHTS = 64
LOOPS = 200
"""Largest number of loops of monodromy."""
ACCEPTED = 1e-10
"""Largest relative residual of a solution."""


@dataclass(frozen=True, eq=False)
class Solutions(Result):
    """Solutions of a system of zero error.

    Where the solution set has dimension 0 these are all solutions found, one of each class of
    equivalent weight vectors; else witness points, where random complex planes cut the set.

    Attributes
    ----------
    system
        The system solved.
    weights
        complex128, shape (S, W), free weights; the fixed ones are 1.
    residuals
        Relative residual of each, shape (S,); see `ZeroSystem.relative_residual`.
    real
        Which are equivalent to real weights, boolean of shape (S,).
    real_weights, real_signs
        float64, shapes (R, W) and (R, fixed weights): the real ones and the values, 1 or -1, of
        the fixed weights. In positive dimension empty: see `sample_real`.
    rank
        Generic ranks of the Jacobian.
    dimension
        Of the solution set; None where generic targets have no solution and none was found.
    degree
        Number of complex solutions found in the space of free weights, symmetric ones counted; in
        positive dimension the number of witness points. None where there is no solution.
    generic
        What monodromy found at generic targets.
    exact
        Dimension and degree from msolve, None where it is absent or gave no answer in time.
    lost
        Paths from generic targets that did not arrive at a solution of this system: for special
        targets solutions go to infinity, or meet.
    status
        ``"trace"``, ``"stale"``, ``"limit"``: see `Monodromy`.
    complete
        True only where `exact` equals the number found.
    method
        What was done, in words.
    """

    system: ZeroSystem
    weights: Array
    residuals: Array
    real: Array
    real_weights: Array
    real_signs: Array
    rank: GenericRank
    dimension: int | None
    degree: int | None
    generic: Monodromy
    exact: ExactDegree | None
    lost: int
    status: str
    complete: bool
    method: str


def solve(
    system: ZeroSystem,
    *,
    seed: int = 0,
    exact: bool | None = None,
    seconds: float = 30.0,
    most: int = 5000,
    progress: Progress = silent,
) -> Solutions:
    """All complex solutions modulo symmetry by monodromy, checked by an exact degree.

    Parameters
    ----------
    system
        From `zero_system` or `random_system`.
    seed
        Of the loops. The result is a function of system and seed.
    exact
        Whether to ask msolve for the exact degree; by default where it is installed.
    seconds
        Time that msolve is given.
    most
        Stop beyond so many classes of solutions, or witness points.
    progress
        Where progress is shown.

    Raises
    ------
    SystemTooLarge
        For more than 64 unknowns.

    Examples
    --------
    >>> from thalweg.algebra import network, random_system, solve
    >>> system = random_system(network((2, 3, 1), (0, 0, 0, 1), bias=True), samples=9)
    >>> found = solve(system, exact=False)
    >>> len(found.weights), found.degree, found.status
    (4, 648, 'trace')
    """
    check_size(system)
    if most < 1:
        raise InvalidArgument(f"most is {most}; expected at least 1.")
    rank = generic_rank(system.gauge, seed=seed, progress=progress)
    square = square_family(system, rank.at(system.samples), seed=seed)
    with progress(LOOPS, "loops (at most)") as bar:
        generic = _generic(square, seed, most, bar)
    weights, residuals = _specialized(system, square, generic, seed)
    by_msolve = exact_answer(system, exact, seconds)
    forms = [None if square.planes else real_solution(system, w) for w in weights]
    real_weights, real_signs = _real(system, forms)
    degree = len(weights) * (1 if square.planes else system.gauge.order)
    dimension = square.planes if len(weights) else None
    return Solutions(
        system=system,
        weights=weights,
        residuals=residuals,
        real=np.array([form is not None for form in forms], dtype=bool),
        real_weights=real_weights,
        real_signs=real_signs,
        rank=rank,
        dimension=dimension,
        degree=degree if len(weights) else None,
        generic=generic,
        exact=by_msolve,
        lost=len(generic.points) - len(weights),
        status=generic.status,
        complete=by_msolve is not None
        and (by_msolve.dimension, by_msolve.degree) == (dimension, degree),
        method=_method(square, generic, by_msolve),
    )


def check_size(system: ZeroSystem) -> None:
    """Refuse systems that are beyond path tracking."""
    if system.weights > MOST_WEIGHTS or system.weights == 0:
        bound = bezout(system.degrees)
        raise SystemTooLarge(
            f"The system has {system.equations} equations in {system.weights} unknowns and up to"
            f" {bound} solutions; at most {MOST_WEIGHTS} unknowns (and at least 1) can be solved"
            f" for. A step of one path would take {system.weights**3:.1e} operations, and there is"
            " a path for each class of solutions. Use count for the bounds."
        )


def _generic(square: SquareFamily, seed: int, most: int, bar: Bar) -> Monodromy:
    rng = np.random.default_rng([seed, 11])
    start = rng.normal(size=square.family.size) + 1j * rng.normal(size=square.family.size)
    # The trace of slices is affine for any union of components of the solution set, too: give the
    # loops time to carry points from one component to the others.
    patience = 6 if square.planes else 1
    return monodromy(
        square.family, start, rng=rng, most=most, loops=LOOPS, patience=patience, bar=bar
    )


def _specialized(
    system: ZeroSystem, square: SquareFamily, generic: Monodromy, seed: int
) -> tuple[Array, Array]:
    """Solutions at the targets of the system, and their relative residuals."""
    rng = np.random.default_rng([seed, 13])
    ends = follow(square.family, generic.points, generic.parameters, square.targets, rng=rng)
    residuals = system.relative_residual(ends)
    accepted = residuals < ACCEPTED
    return ends[accepted], residuals[accepted]


def real_solution(system: ZeroSystem, weights: Array) -> tuple[Array, Array] | None:
    """Real weights and signs equivalent to a complex solution, if Newton's method confirms them."""
    form = system.gauge.real_form(weights)
    if form is None:
        return None
    polished = project(system, form[0][None], form[1][None], iterations=4)
    residual = system.relative_residual(polished, form[1][None])[0]
    moved = np.linalg.norm(polished[0] - form[0])
    if residual > ACCEPTED or moved > 1e-6 * (1 + np.linalg.norm(form[0])):
        return None
    return polished[0], form[1]


def _real(system: ZeroSystem, forms: list[tuple[Array, Array] | None]) -> tuple[Array, Array]:
    """Real solutions and their signs, stacked."""
    present = [form for form in forms if form is not None]
    signs = len(system.gauge.fixed_indices)
    return (
        np.array([w for w, _ in present]).reshape(len(present), system.weights),
        np.array([s for _, s in present]).reshape(len(present), signs),
    )


def exact_answer(system: ZeroSystem, exact: bool | None, seconds: float) -> ExactDegree | None:
    """Exact dimension and degree; None where msolve is absent, unwanted, or too slow."""
    if exact is False or (exact is None and find_msolve() is None):
        return None
    try:
        return exact_degree(system.explicit, seconds=seconds)
    except SystemTooLarge:
        if exact:
            raise
        return None


def _method(square: SquareFamily, generic: Monodromy, by_msolve: ExactDegree | None) -> str:
    words = {
        "trace": "trace test passed",
        "stale": "trace test not passed",
        "limit": "stopped at its limit",
    }
    parts = [f"monodromy, {generic.loops} loops, {words[generic.status]}"]
    if square.planes:
        parts.append(f"sliced by {square.planes} random complex planes")
    if square.combined:
        parts.append("equations combined at random, then all checked")
    if by_msolve is not None:
        parts.append(f"exact degree {by_msolve.degree} by msolve modulo {by_msolve.prime}")
    return "; ".join(parts)
