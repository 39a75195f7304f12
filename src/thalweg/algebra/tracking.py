"""Path tracking: solutions of a square system followed while its parameters move.

Adaptive steps, a predictor through the last two points and tangents, and Newton's method as
corrector, for all paths at once, each with its own time and step (Sommese and Wampler, The
Numerical Solution of Systems of Polynomials, 2005, chapter 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Homotopy = Callable[[Array, Array, Array], tuple[Array, Array, Array]]
"""At points (P, n) and times (P,) of the paths with numbers (P,): values (P, n), Jacobians
(P, n, n), time derivatives (P, n)."""

CLOSE = 1e-3
"""Largest relative first Newton step of an accepted prediction."""
EASY = 1e-4
"""A first Newton step below this doubles the step."""
CONVERGED = 1e-6
"""Largest relative last Newton step of an accepted point."""
LONGEST = 0.2


@dataclass(frozen=True)
class Tracked:
    """Where paths ended.

    Attributes
    ----------
    points
        complex128, shape (P, n).
    times
        How far each came, shape (P,): 1 where it arrived.
    steps
        Number of steps tried, all paths together.
    """

    points: Array
    times: Array
    steps: int

    @property
    def arrived(self) -> Array:
        """Which paths came to time 1."""
        arrived: Array = self.times == 1
        return arrived


def track(
    homotopy: Homotopy,
    starts: Array,
    *,
    first_step: float = 0.05,
    smallest_step: float = 1e-11,
    strict: float = 1.0,
) -> Tracked:
    """Follow the zeros of a homotopy from time 0 to time 1.

    Parameters
    ----------
    homotopy
        Values, Jacobians and time derivatives at points and times; each path may have its own.
    starts
        Zeros at time 0, complex, shape (P, n).
    first_step, smallest_step
        Step to begin with, and the one below which a path is given up.
    strict
        Factor on what a Newton step may be; below 1 a jump from path to path is less likely.

    Returns
    -------
    Tracked
        End points; a path that was given up keeps its last accepted point.
    """
    x = starts.astype(complex)
    t, h = np.zeros(len(x)), np.full(len(x), first_step)
    alive, tried = np.ones(len(x), dtype=bool), 0
    with np.errstate(all="ignore"):
        v = _tangent(*homotopy(x, t, np.arange(len(x))))[1] if len(x) else x
    before = (x.copy(), v.copy(), np.full(len(x), -1.0))
    while alive.any():
        rows = np.flatnonzero(alive)
        goal = np.minimum(t[rows] + h[rows], 1.0)
        with np.errstate(all="ignore"):
            past = tuple(a[rows] for a in before)
            guess = _predict((x[rows], v[rows], t[rows]), past, goal)
            corrected, slope, first, last = _correct(homotopy, guess, goal, rows)
        good = (first < CLOSE * strict) & (last < CONVERGED)
        easy = good & (first < EASY * strict)
        moved = rows[good]
        for array, values in zip(before, (x, v, t), strict=True):
            array[moved] = values[moved]
        x[moved], v[moved], t[moved] = corrected[good], slope[good], goal[good]
        h[rows] *= np.where(easy, 2.0, np.where(good, 1.0, 0.4))
        h[rows] = np.minimum(h[rows], LONGEST)
        tried += len(rows)
        alive[rows] = (t[rows] < 1) & (h[rows] > smallest_step)
    return Tracked(x, t, tried)


def newton(
    system: Callable[[Array], tuple[Array, Array]],
    x: Array,
    *,
    iterations: int = 6,
    floor: float = 0.0,
) -> tuple[Array, Array]:
    """Polish zeros of a square system; steps below `floor` are measured against it.

    Returns
    -------
    points, steps
        Points, shape (P, n), and the relative length of the last Newton step of each, (P,).
    """
    step = np.full(len(x), np.inf)
    iterations = iterations if len(x) else 0
    with np.errstate(all="ignore"):
        for _ in range(iterations):
            value, jacobian = system(x)
            change = solve_linear(jacobian, value[..., None])[..., 0]
            x = x - change
            step = _relative(change, x, floor)
    return x, step


def solve_linear(matrices: Array, sides: Array) -> Array:
    """Solve linear systems, one matrix a point; where it is singular the answer is not finite."""
    try:
        solutions: Array = np.linalg.solve(matrices, sides)
        return solutions
    except np.linalg.LinAlgError:
        if len(matrices) == 1:
            return np.full_like(sides, np.nan)
        half = len(matrices) // 2
        parts = [(matrices[:half], sides[:half]), (matrices[half:], sides[half:])]
        return np.concatenate([solve_linear(a, b) for a, b in parts])


def _predict(now: tuple[Array, ...], past: tuple[Array, ...], goal: Array) -> Array:
    """Cubic through the last two points and their tangents; a straight line from the first."""
    (x, v, t), (x_past, v_past, t_past) = now, past
    ahead = (goal - t)[:, None]
    width = (t - t_past)[:, None]
    u = 1 + ahead / width
    cubic = (1 + 2 * u) * (1 - u) ** 2 * x_past + u**2 * (3 - 2 * u) * x
    cubic += width * (u * (1 - u) ** 2 * v_past + u**2 * (u - 1) * v)
    predicted: Array = np.where(t_past[:, None] < 0, x + ahead * v, cubic)
    return predicted


def _correct(
    homotopy: Homotopy, x: Array, t: Array, rows: Array
) -> tuple[Array, Array, Array, Array]:
    """Two Newton steps and their relative lengths; the second shares its Jacobian with the tangent.

    Two are enough: a point is accepted where the second step is so short that the error left after
    it, about its square, is below rounding.
    """
    change, _ = _tangent(*homotopy(x, t, rows))
    x = x - change
    first = _relative(change, x)
    change, slope = _tangent(*homotopy(x, t, rows))
    x = x - change
    usable = np.isfinite(slope).all(axis=1)
    return x, slope, first, np.where(usable, _relative(change, x), np.inf)


def _tangent(value: Array, jacobian: Array, moving: Array) -> tuple[Array, Array]:
    """Newton step and tangent of the path at a point."""
    solved = solve_linear(jacobian, np.stack([value, -moving], axis=-1))
    return solved[..., 0], solved[..., 1]


def _relative(change: Array, x: Array, floor: float = 0.0) -> Array:
    scale = np.maximum(np.linalg.norm(x, axis=-1), floor + 1e-300)
    size = np.linalg.norm(change, axis=-1) / scale
    relative: Array = np.where(np.isfinite(size), size, np.inf)
    return relative
