"""The highest point of a function of one number, between the places where it was evaluated too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_GOLDEN = (math.sqrt(5) - 1) / 2
# Local maxima of the grid that are searched, and evaluations of each search: 16 shrink the
# distance between two places to a 2000th.
_PEAKS, _EVALUATIONS = 3, 16


@dataclass(frozen=True)
class Highest:
    """
    A highest point.

    Attributes
    ----------
    value, at : float
        The largest value that was seen, and where.
    error : float
        How much the last evaluations around it still differ: what is left of the search.
    """

    value: float
    at: float
    error: float


def highest_between(
    function: Callable[[float], float], places: Sequence[float], values: Sequence[float]
) -> Highest:
    """
    Find the highest point of a function, from its values at some places.

    Around each of the highest places a golden-section search looks between its neighbours. A peak
    narrower than the distance of two places may be missed.

    Parameters
    ----------
    function : callable
        Of one number.
    places, values : sequence of float
        In order, three or more.

    Examples
    --------
    >>> places = [0.0, 0.25, 0.5, 0.75, 1.0]
    >>> hill = lambda t: -((t - 0.4) ** 2)
    >>> found = highest_between(hill, places, [hill(t) for t in places])
    >>> round(found.at, 2), round(found.value, 5)
    (0.4, -0.0)
    """
    last = len(places) - 1
    peaks = [
        i
        for i, value in enumerate(values)
        if value >= values[max(i - 1, 0)] and value >= values[min(i + 1, last)]
    ]
    peaks = sorted(peaks, key=lambda i: -values[i])[:_PEAKS]
    maxima = [
        _golden(function, places[max(i - 1, 0)], places[min(i + 1, last)], places[i], values[i])
        for i in peaks
    ]
    return max(maxima, key=lambda maximum: maximum.value)


def _golden(
    function: Callable[[float], float], low: float, high: float, at: float, value: float
) -> Highest:
    best, seen = (value, at), []
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_EVALUATIONS - 2):
        best = max(best, (at_left, left), (at_right, right))
        seen = [at_left, at_right]
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    best = max(best, (at_left, left), (at_right, right))
    return Highest(best[0], best[1], abs(seen[0] - seen[1]))
