"""Count the solutions of zero error: bounds, generic rank, dimension, degree."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from thalweg.algebra.mixed_volume import mixed_volume
from thalweg.algebra.multihomogeneous import Bezout, bezout, multihomogeneous_bezout
from thalweg.algebra.rank import GenericRank, generic_rank
from thalweg.algebra.solve import MOST_WEIGHTS, Solutions, exact_answer, solve
from thalweg.algebra.system import ZeroSystem
from thalweg.errors import SystemTooLarge
from thalweg.result import Result
from thalweg.run.progress import Progress, silent

MOST_STATES = 20_000
LARGEST_EXPLICIT = 10


@dataclass(frozen=True)
class Count(Result):
    """How many solutions a system of zero error has.

    Degree and complex solutions are counted in the space of free weights, before dividing by the
    finite symmetry group.

    Attributes
    ----------
    weights, equations
        Unknowns W after the gauge, and equations N times outputs.
    bezout
        Product of degrees: of all equations, or of the W of highest degree where there are more. In
        positive dimension a bound on the degree.
    multihomogeneous
        The same bound by the unknowns of each layer; None where it takes too long.
    mixed_volume
        Bernstein's bound on solutions without zero weights; None where it is not computed.
    generic_rank
        Largest rank of the Jacobian: the dimension of the family of functions. None where the
        system is too large.
    largest_samples
        Largest N for which generic targets have a solution.
    dimension
        Of the solution set; None where generic targets have no solution.
    degree
        Of the solution set; None where it is empty or was not computed.
    solutions_complex
        Number of complex solutions; None where there are infinitely many or it was not computed.
    solutions_modulo_symmetry
        The same, divided by `symmetry_order`.
    symmetry_order
        Order of the finite group of `Gauge`.
    continuous_symmetry
        Dimension of the set of weights of one function: W less the generic rank.
    complete
        True only where an exact degree equals the number found.
    method, status
        How it was counted, and how monodromy stopped; status ``"empty"``: no solutions by the rank;
        ``"bounds"``: too large, only bounds.
    symmetry
        Gauge and group in words.
    """

    weights: int
    equations: int
    bezout: Bezout
    multihomogeneous: int | None
    mixed_volume: int | None
    generic_rank: int | None
    largest_samples: int | None
    dimension: int | None
    degree: int | None
    solutions_complex: int | None
    solutions_modulo_symmetry: int | None
    symmetry_order: int
    continuous_symmetry: int | None
    complete: bool
    method: str
    status: str
    symmetry: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; integers of more than 1000 digits in closed form."""
        entries = dict(vars(self))
        entries["bezout"] = self.bezout.short
        entries["bezout_log10"] = self.bezout.log10
        for name in ("multihomogeneous", "symmetry_order"):
            if entries[name] is not None and entries[name] > 10**1000:
                entries[name] = f"10^{_log10(entries[name]):.6g}"
        return entries


def count(
    system: ZeroSystem,
    *,
    seed: int = 0,
    exact: bool | None = None,
    seconds: float = 30.0,
    most: int = 5000,
    bounds: bool = False,
    progress: Progress = silent,
) -> Count:
    """Bounds, rank, dimension and number of solutions of a system of zero error.

    Where there are more than 64 unknowns, or with ``bounds=True``, the bounds are given and nothing
    is solved. The other arguments are those of `solve`.

    Examples
    --------
    >>> from thalweg.algebra import count, network, random_system
    >>> cube = random_system(network((2, 2, 1), (0, 0, 0, 1), bias=True), samples=6)
    >>> found = count(cube, exact=False)
    >>> found.bezout.value, found.solutions_complex, found.solutions_modulo_symmetry
    (729, 270, 15)
    """
    try:
        rank = generic_rank(system.gauge, seed=seed, progress=progress)
    except SystemTooLarge:
        return _answer(system, None, None, False, "bounds: too large for the rank", "bounds")
    fits = rank.at(system.samples) == system.equations
    if bounds or system.weights > MOST_WEIGHTS:
        words = "rank modulo a prime; bounds"
        words += "" if bounds else f": more than {MOST_WEIGHTS} unknowns"
        return _answer(
            system,
            rank,
            system.weights - system.equations if fits else None,
            False,
            words,
            "bounds",
        )
    if not fits:
        return _empty(system, rank, exact, seconds)
    return count_solutions(
        solve(system, seed=seed, exact=exact, seconds=seconds, most=most, progress=progress)
    )


def count_solutions(found: Solutions) -> Count:
    """The count that goes with solutions already found."""
    status = found.status if found.degree is not None else "empty"
    return _answer(
        found.system, found.rank, found.dimension, found.complete, found.method, status, found
    )


def _empty(system: ZeroSystem, rank: GenericRank, exact: bool | None, seconds: float) -> Count:
    """More equations than the rank: no solution, which an exact computation may confirm."""
    by_msolve = exact_answer(system, exact, seconds)
    words = "generic rank modulo a prime below the number of equations"
    if by_msolve is not None:
        words += f"; exact degree {by_msolve.degree} by msolve modulo {by_msolve.prime}"
    complete = by_msolve is not None and by_msolve.dimension is None
    return _answer(system, rank, None, complete, words, "empty")


def _answer(
    system: ZeroSystem,
    rank: GenericRank | None,
    dimension: int | None,
    complete: bool,
    method: str,
    status: str,
    solutions: Solutions | None = None,
) -> Count:
    order = system.gauge.order
    degree = solutions.degree if solutions is not None else None
    number = {"empty": 0, "bounds": None}.get(status, degree if dimension == 0 else None)
    return Count(
        weights=system.weights,
        equations=system.equations,
        bezout=bezout(sorted(system.degrees)[-system.weights :]),
        multihomogeneous=_multihomogeneous(system),
        mixed_volume=_mixed_volume(system),
        generic_rank=None if rank is None else rank.rank,
        largest_samples=None if rank is None else rank.largest_samples,
        dimension=dimension,
        degree=degree,
        solutions_complex=number,
        solutions_modulo_symmetry=None if number is None else number // order,
        symmetry_order=order,
        continuous_symmetry=None if rank is None else system.weights - rank.rank,
        complete=complete,
        method=method,
        status=status,
        symmetry=system.gauge.description,
    )


def _multihomogeneous(system: ZeroSystem) -> int | None:
    """Bound by layers: combined where there are too many equations, sliced where too few."""
    sizes = [len(group) for group in system.groups]
    rows = Counter(system.layer_degrees)
    missing = system.weights - system.equations
    if missing > 0:
        rows[(1,) * len(sizes)] += missing
    elif missing < 0:
        rows = Counter(
            {tuple(max(row[k] for row in rows) for k in range(len(sizes))): system.weights}
        )
    if len(rows) > 1 and math.prod(size + 1 for size in sizes) > MOST_STATES:
        return None
    return multihomogeneous_bezout(rows.elements(), sizes)


def _mixed_volume(system: ZeroSystem) -> int | None:
    if system.weights != system.equations or system.weights > LARGEST_EXPLICIT:
        return None
    try:
        return mixed_volume(system.explicit)
    except SystemTooLarge:
        return None


def _log10(number: int) -> float:
    digits = number.bit_length() * math.log10(2)
    shift = max(0, int(digits) - 300)
    return shift + math.log10(number // 10**shift)
