"""The Remez exchange: best uniform approximation by a polynomial on [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

Array = NDArray[np.floating]
Scalar = Callable[[Array], Array]

_GRID = 4096
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0
# Errors below this share of the function's own size are rounding, and do not equioscillate.
_ROUNDING = 64 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Exchange:
    """Outcome of a Remez exchange.

    Parameters
    ----------
    coefficients
        Chebyshev coefficients, shape (degree + 1,), float64.
    lower_bound
        Lower bound on the error of every polynomial of this degree (de la Vallée Poussin).
    reference
        Points in [-1, 1] where the error alternates in sign, at least as large as
        `lower_bound`, shape (degree + 2,), float64.
    iterations
        Exchanges made.
    status
        ``"converged"``: the error equioscillates; ``"rounding"``: the error is at float64's
        level; ``"stalled"``: neither, within the iterations allowed.
    """

    coefficients: Array
    lower_bound: float
    reference: Array
    iterations: int
    status: Literal["converged", "rounding", "stalled"]


def remez(
    function: Scalar, degree: int, *, rtol: float = 1e-9, max_iterations: int = 60
) -> Exchange:
    """Best uniform approximation of `function` on [-1, 1] by a polynomial of a given degree.

    Every step levels the error on degree + 2 points and moves them to where the error peaks.

    Parameters
    ----------
    function
        Vectorized function of a float64 array of points in [-1, 1].
    degree
        Degree of the polynomial, at least 0.
    rtol
        Converged when the upper and the lower bound on the best error agree within `rtol`
        (and float64's rounding of the function's values).
    max_iterations
        Exchanges allowed.

    Returns
    -------
    Exchange
        The polynomial, its lower bound and how it was reached.

    References
    ----------
    E. Ya. Remez (1934); G. Meinardus, *Approximation of Functions* (1967), chapter 7.

    Examples
    --------
    The best quadratic for ``abs(x)`` is ``x**2 + 1/8``, that is ``5/8 + T_2(x)/2``.

    >>> remez(np.abs, 2).coefficients.round(6).tolist()
    [0.625, 0.0, 0.5]
    """
    # Not the points with the ends: a symmetric function levels to zero on those, and its error
    # then alternates too rarely; here a zero level leaves one peak more than is needed.
    reference: Array = chebyshev.chebpts1(degree + 2)
    scale = float(np.abs(function(chebyshev.chebpts2(_GRID))).max())
    best, best_error = None, np.inf
    for iteration in range(1, max_iterations + 1):
        coefficients = _level(function, reference)
        points, errors = alternation(function, coefficients, also=reference)
        error = float(np.abs(errors).max())
        rounding = error <= _ROUNDING * scale
        if len(points) < degree + 2 and not rounding:
            break
        reference, lower = _select(points, errors, degree + 2)
        converged = error - lower <= rtol * error + _ROUNDING * scale
        status: Literal["converged", "rounding", "stalled"] = (
            "rounding" if rounding else "converged" if converged else "stalled"
        )
        if error < best_error:
            best_error = error
            best = Exchange(coefficients, 0.0 if rounding else lower, reference, iteration, status)
        if status != "stalled":
            break
    assert best is not None, "the first levelled error always alternates"
    return best


def alternation(
    function: Scalar, coefficients: Array, *, also: Array | None = None
) -> tuple[Array, Array]:
    """Peaks of the error of a polynomial, one for each run of equal sign.

    Parameters
    ----------
    function
        Vectorized function on [-1, 1].
    coefficients
        Chebyshev coefficients, float64.
    also
        Points to look at besides a grid of 4,096 Chebyshev points and the origin.

    Returns
    -------
    points, errors
        Where the error ``function - polynomial`` peaks, ascending, and its signed value there;
        kinks are found as well, to about 1e-12.
    """

    def residual(points: Array) -> Array:
        return function(points) - chebyshev.chebval(points, coefficients)

    extra = np.zeros(1) if also is None else np.append(also, 0.0)
    grid = np.unique(np.concatenate([chebyshev.chebpts2(_GRID), extra]))
    errors = residual(grid)
    sign = np.where(errors >= 0, 1.0, -1.0)
    starts = np.flatnonzero(np.append(True, sign[1:] != sign[:-1]))
    runs = np.split(np.abs(errors), starts[1:])
    peaks = starts + np.array([int(run.argmax()) for run in runs])
    low, high = grid[np.maximum(peaks - 1, 0)], grid[np.minimum(peaks + 1, len(grid) - 1)]
    points = _golden_section(lambda at: sign[peaks] * residual(at), low, high)
    refined = residual(points)
    better = sign[peaks] * refined > np.abs(errors[peaks])
    return np.where(better, points, grid[peaks]), np.where(better, refined, errors[peaks])


def _level(function: Scalar, reference: Array) -> Array:
    """Polynomial whose error has equal size and alternating sign on the reference."""
    count = len(reference)
    system = np.empty((count, count))
    system[:, :-1] = chebyshev.chebvander(reference, count - 2)
    system[:, -1] = (-1.0) ** np.arange(count)
    solution: Array = np.linalg.solve(system, function(reference))[:-1]
    return solution


def _golden_section(function: Scalar, low: Array, high: Array, *, steps: int = 45) -> Array:
    """Maximizers of `function` in many brackets at once; cusps are as good as smooth peaks."""
    for _ in range(steps):
        span = _GOLDEN * (high - low)
        left, right = high - span, low + span
        rising = function(left) < function(right)
        low, high = np.where(rising, left, low), np.where(rising, high, right)
    middle: Array = (low + high) / 2
    return middle


def _select(points: Array, errors: Array, count: int) -> tuple[Array, float]:
    """Drop the smallest peaks until `count` are left, keeping the alternation and the largest."""
    keep, size = list(range(len(points))), np.abs(errors)
    while len(keep) > count:
        ends = (0, len(keep) - 1)
        if len(keep) == count + 1:
            del keep[min(ends, key=lambda i: size[keep[i]])]
            continue
        smallest = min(range(len(keep)), key=lambda i: size[keep[i]])
        if smallest in ends:
            del keep[smallest]
            continue
        neighbour = min(smallest - 1, smallest + 1, key=lambda i: size[keep[i]])
        for index in sorted((smallest, neighbour), reverse=True):
            del keep[index]
    return points[keep], float(size[keep].min())
