"""Path tracking: solutions of a square system followed while its parameters move.

Adaptive steps, a fourth-order Runge-Kutta predictor and Newton's method as corrector, for all
paths at once, each with its own time and step (Sommese and Wampler, The Numerical Solution of
Systems of Polynomials, 2005, chapter 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Homotopy = Callable[[Array, Array], tuple[Array, Array, Array]]
"""At points (P, n) and times (P,): values (P, n), Jacobians (P, n, n), time derivatives (P, n)."""

CLOSE = 1e-4
"""Largest relative first Newton step of an accepted prediction."""
EASY = 1e-6
"""A first Newton step below this doubles the step."""
CONVERGED = 1e-9
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
        return self.times == 1


def track(
    homotopy: Homotopy,
    starts: Array,
    *,
    first_step: float = 0.05,
    smallest_step: float = 1e-9,
    strict: float = 1.0,
) -> Tracked:
    """Follow the zeros of a homotopy from time 0 to time 1.

    Parameters
    ----------
    homotopy
        Values, Jacobians and time derivatives at points and times.
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
    while alive.any():
        rows = np.flatnonzero(alive)
        goal = np.minimum(t[rows] + h[rows], 1.0)
        with np.errstate(all="ignore"):
            guess = _predict(homotopy, x[rows], t[rows], goal - t[rows])
            found, first, last = _correct(homotopy, guess, goal)
        good = (first < CLOSE * strict) & (last < CONVERGED)
        easy = good & (first < EASY * strict)
        x[rows[good]], t[rows[good]] = found[good], goal[good]
        h[rows] *= np.where(easy, 2.0, np.where(good, 1.0, 0.4))
        h[rows] = np.minimum(h[rows], LONGEST)
        tried += len(rows)
        alive[rows] = (t[rows] < 1) & (h[rows] > smallest_step)
    return Tracked(x, t, tried)


def newton(
    system: Callable[[Array], tuple[Array, Array]], x: Array, *, iterations: int = 6
) -> tuple[Array, Array]:
    """Polish zeros of a square system.

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
            change = solve_linear(jacobian, value)
            x = x - change
            step = _relative(change, x)
    return x, step


def solve_linear(matrices: Array, rows: Array) -> Array:
    """Solve one linear system for each point; where a matrix is singular the answer is not finite."""
    try:
        found: Array = np.linalg.solve(matrices, rows[..., None])[..., 0]
        return found
    except np.linalg.LinAlgError:
        if len(matrices) == 1:
            return np.full_like(rows, np.nan)
        half = len(matrices) // 2
        return np.concatenate(
            [solve_linear(matrices[:half], rows[:half]), solve_linear(matrices[half:], rows[half:])]
        )


def _predict(homotopy: Homotopy, x: Array, t: Array, h: Array) -> Array:
    step = h[:, None]

    def slope(point: Array, time: Array) -> Array:
        _, jacobian, change = homotopy(point, time)
        return -solve_linear(jacobian, change)

    k1 = slope(x, t)
    k2 = slope(x + step / 2 * k1, t + h / 2)
    k3 = slope(x + step / 2 * k2, t + h / 2)
    k4 = slope(x + step * k3, t + h)
    predicted: Array = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return predicted


def _correct(homotopy: Homotopy, x: Array, t: Array) -> tuple[Array, Array, Array]:
    first = last = np.full(len(x), np.inf)
    for iteration in range(3):
        value, jacobian, _ = homotopy(x, t)
        change = solve_linear(jacobian, value)
        x = x - change
        last = _relative(change, x)
        first = last if iteration == 0 else first
    finite = np.isfinite(last)
    return x, np.where(finite, first, np.inf), np.where(finite, last, np.inf)


def _relative(change: Array, x: Array) -> Array:
    size = np.linalg.norm(change, axis=-1) / (1e-300 + np.linalg.norm(x, axis=-1))
    found: Array = np.where(np.isfinite(size), size, np.inf)
    return found
