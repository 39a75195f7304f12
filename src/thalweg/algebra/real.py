"""The real solution set where there are more weights than equations: points and walks on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.system import ZeroSystem
from thalweg.curvature.ranks import singular_cutoff
from thalweg.errors import InvalidArgument
from thalweg.result import Result

EXACT = 1e-12
"""Largest relative residual of a point on the set."""


@dataclass(frozen=True, eq=False)
class RealPoints(Result):
    """Points on a real solution set.

    Attributes
    ----------
    weights
        float64, shape (R, W): free weights.
    signs
        Values of the fixed weights, 1 or -1, shape (R, fixed weights).
    residuals
        Relative residuals, shape (R,).
    tried
        Number of starts.
    """

    weights: Array
    signs: Array
    residuals: Array
    tried: int


@dataclass(frozen=True, eq=False)
class Walk:
    """A path along a real solution set.

    Attributes
    ----------
    weights
        float64, shape (steps + 1, W).
    residuals
        Relative residuals, shape (steps + 1,).
    length
        Length of the path.
    status
        ``"done"``; or ``"stopped"`` where no step could be taken: the set is singular or ends.
    """

    weights: Array
    residuals: Array
    length: float
    status: str


def sample_real(system: ZeroSystem, count: int = 100, *, seed: int = 0) -> RealPoints:
    """Points on the real solution set, by Gauss-Newton from Gaussian starts.

    Where the gauge leaves signs (even degree) these are random too. Starts that do not converge are
    dropped, so there may be fewer points than asked for; none is no proof that there is none. The
    points are not uniform on the set.

    Examples
    --------
    >>> from thalweg.algebra import network, random_system
    >>> from thalweg.algebra.real import sample_real
    >>> curve = random_system(network((1, 2, 1), (0, 0, 0, 1)), samples=1)
    >>> points = sample_real(curve, 10)
    >>> points.weights.shape, bool((points.residuals < 1e-12).all())
    ((10, 2), True)
    """
    rng = np.random.default_rng([seed, 23])
    fixed = len(system.gauge.fixed_indices)
    x = rng.normal(size=(count, system.weights))
    signs = np.ones((count, fixed))
    if system.network.degree % 2 == 0:
        signs = rng.choice([-1.0, 1.0], size=(count, fixed))
    x = project(system, x, signs)
    residuals = system.relative_residual(x, signs)
    solved = residuals < EXACT
    return RealPoints(x[solved], signs[solved], residuals[solved], count)


def project(system: ZeroSystem, weights: Array, signs: Array, *, iterations: int = 100) -> Array:
    """Move real points to the solution set by damped least-norm Newton steps."""
    x = weights.copy()
    targets = system.targets.ravel()
    damping = np.full(len(x), 1.0)
    value, jacobian = system.evaluate(x, signs)
    loss = np.linalg.norm(value - targets, axis=1)
    for _ in range(iterations):
        step = np.linalg.pinv(jacobian, rcond=1e-12) @ (value - targets)[..., None]
        trial = x - damping[:, None] * step[..., 0]
        value_trial, jacobian_trial = system.evaluate(trial, signs)
        loss_trial = np.linalg.norm(value_trial - targets, axis=1)
        better = loss_trial < loss
        x[better], value[better] = trial[better], value_trial[better]
        jacobian[better], loss[better] = jacobian_trial[better], loss_trial[better]
        damping = np.where(better, np.minimum(1.0, 2 * damping), damping / 2)
        if (damping < 1e-12).all() or not loss.any():
            break
    return x


def walk(
    system: ZeroSystem,
    weights: ArrayLike,
    *,
    signs: ArrayLike | None = None,
    steps: int = 100,
    length: float = 0.05,
    seed: int = 0,
) -> Walk:
    """Walk along the real solution set from a point on it.

    Each step follows the tangent direction closest to the last one and is corrected back to the
    set; the first direction is random. On a curve this traces it.

    Parameters
    ----------
    system
        A system with more weights than its Jacobian has rank.
    weights
        A real solution, shape (W,).
    signs
        Values of the fixed weights, 1 by default.
    steps
        Number of steps.
    length
        Length of a step in weight space, before it is corrected.
    seed
        Of the first direction.

    Raises
    ------
    InvalidArgument
        If the point is no solution, or is isolated.
    """
    x = np.array(weights, dtype=float)
    fixed = np.ones(len(system.gauge.fixed_indices)) if signs is None else np.asarray(signs, float)
    start = system.relative_residual(x[None], fixed[None])[0]
    if not start < 1e-8:
        raise InvalidArgument(
            f"The point has relative residual {start:.1e}; a walk begins at a solution, e.g. one of"
            " sample_real."
        )
    direction = np.random.default_rng([seed, 29]).normal(size=x.shape)
    points, status = [x], "done"
    for _ in range(steps):
        next_point = _step(system, points[-1], fixed, direction, length)
        if next_point is None:
            status = "stopped"
            break
        direction = next_point - points[-1]
        points.append(next_point)
    path = np.array(points)
    residuals = system.relative_residual(path, np.tile(fixed, (len(path), 1)))
    moved = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    return Walk(path, residuals, moved, status)


def _step(
    system: ZeroSystem, x: Array, signs: Array, direction: Array, length: float
) -> Array | None:
    _, jacobian = system.evaluate(x[None], signs[None])
    _, sizes, rows = np.linalg.svd(jacobian[0])
    least = singular_cutoff(jacobian[0].shape) * max(sizes.max(initial=0), 1e-300)
    rank = int((sizes > least).sum())
    if rank == len(x):
        raise InvalidArgument(
            "The point is an isolated solution, so there is nowhere to walk; begin where there are"
            " more unknowns than equations."
        )
    tangent = rows[rank:].T @ (rows[rank:] @ direction)
    for shrink in (1.0, 0.5, 0.1, 0.01):
        step = shrink * length * tangent / np.linalg.norm(tangent)
        projected = project(system, (x + step)[None], signs[None], iterations=30)
        residual = system.relative_residual(projected, signs[None])[0]
        moved = np.linalg.norm(projected[0] - x)
        if residual < EXACT and 0.5 * shrink * length < moved < 2 * shrink * length:
            return np.asarray(projected[0])
    return None
