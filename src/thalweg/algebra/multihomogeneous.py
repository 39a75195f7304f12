"""Bezout's number and its refinement by groups of unknowns, in exact integers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from thalweg.errors import InvalidArgument

LONGEST = 1000
"""Integers with more digits are printed in closed form only."""


@dataclass(frozen=True)
class Bezout:
    """A product of degrees: the largest possible number of isolated solutions.

    Attributes
    ----------
    degrees
        How many equations have each degree.
    """

    degrees: Mapping[int, int]

    @property
    def value(self) -> int:
        """The exact integer, however long."""
        return math.prod(degree**count for degree, count in self.degrees.items())

    @property
    def log10(self) -> float:
        """Decimal logarithm; minus infinity for zero."""
        if any(degree == 0 for degree in self.degrees):
            return -math.inf
        return math.fsum(count * math.log10(degree) for degree, count in self.degrees.items())

    @property
    def closed_form(self) -> str:
        """The product as powers, e.g. ``3^9``."""
        powers = [f"{degree}^{count}" for degree, count in sorted(self.degrees.items())]
        return " * ".join(powers) or "1"

    @property
    def short(self) -> int | str:
        """The exact integer where it has at most 1000 digits, else the closed form."""
        return self.value if self.log10 < LONGEST else self.closed_form

    def __str__(self) -> str:
        if self.log10 < 15:
            return f"{self.closed_form} = {self.value}"
        return f"{self.closed_form} = 10^{self.log10:.6g}"


def bezout(degrees: Mapping[int, int] | Iterable[int]) -> Bezout:
    """Bezout's number of a square system: the product of its degrees.

    It bounds the number of isolated complex solutions, and is reached by generic equations of
    these degrees, not by those of a network.

    Parameters
    ----------
    degrees
        The degree of each equation, or a mapping from degree to number of equations.

    Raises
    ------
    InvalidArgument
        For negative degrees or counts.

    Examples
    --------
    >>> print(bezout([3] * 9))
    3^9 = 19683
    >>> print(bezout({10**4: 10**4}))
    10000^10000 = 10^40000
    """
    counts = Counter(dict(degrees)) if isinstance(degrees, Mapping) else Counter(degrees)
    if any(degree < 0 or count < 0 for degree, count in counts.items()):
        raise InvalidArgument(
            f"degrees are {dict(counts)}; expected non-negative degrees and numbers of equations."
        )
    return Bezout({degree: count for degree, count in sorted(counts.items()) if count})


def multihomogeneous_bezout(rows: Iterable[Sequence[int]], sizes: Sequence[int]) -> int:
    """Number of solutions of generic equations with given degrees in groups of unknowns.

    The coefficient of ``prod_j a_j**sizes[j]`` in ``prod_i sum_j rows[i][j] a_j`` (Morgan and
    Sommese, Appl. Math. Comput. 24, 1987), by dynamic programming over the distinct rows.

    Parameters
    ----------
    rows
        For each equation its degree in each group.
    sizes
        Number of unknowns of each group; they sum to the number of equations.

    Examples
    --------
    An eigenvector problem, three equations of degree 1 in the eigenvalue and 1 in the vector:

    >>> multihomogeneous_bezout([(1, 1), (1, 1), (1, 1)], [1, 2])
    3
    """
    counts = Counter(tuple(int(d) for d in row) for row in rows)
    if sum(counts.values()) != sum(sizes):
        raise InvalidArgument(
            f"{sum(counts.values())} equations in {sum(sizes)} unknowns; expected as many of one"
            " as of the other."
        )
    states: dict[tuple[int, ...], int] = {tuple(sizes): 1}
    remaining = sum(sizes)
    for row, count in counts.items():
        remaining -= count
        following: dict[tuple[int, ...], int] = {}
        for degrees, ways in states.items():
            for used in _compositions(count, degrees, row):
                lowered = tuple(a - b for a, b in zip(degrees, used, strict=True))
                following[lowered] = following.get(lowered, 0) + ways * _terms(used, row)
        states = following
    return states.get(tuple(0 for _ in sizes), 0)


def _terms(used: Sequence[int], row: Sequence[int]) -> int:
    """Coefficient of ``prod a_j**used_j`` in the power of ``sum_j row_j a_j``."""
    total, remaining = 1, sum(used)
    for count, degree in zip(used, row, strict=True):
        total *= math.comb(remaining, count) * degree**count
        remaining -= count
    return total


def _compositions(
    total: int, limits: Sequence[int], row: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """Ways to write a number as a sum below limits, zero where the degree is zero."""
    if not limits:
        if total == 0:
            yield ()
        return
    most = min(total, limits[0]) if row[0] else 0
    least = max(0, total - sum(limits[1:]))
    for first in range(least, most + 1):
        for tail in _compositions(total - first, limits[1:], row[1:]):
            yield (first, *tail)
