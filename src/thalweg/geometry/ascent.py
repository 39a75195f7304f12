"""Ascent to the highest point of an ellipsoid around a point, from many starts within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg.run.progress import Bar

# Value and gradient in the coordinates of the ellipsoid, float64, shape (W,).
Objective = Callable[[Tensor], tuple[float, Tensor]]
_MEMORY = 8
# A step is shortened so often before its ascent has ended, at a highest point or in rounding.
_SHORTENED = 4
# Rounds: how many ascents go on, the best first, and to how many gradients of each.
_ROUNDS = ((10, 4), (3, 8), (1, 10**9))
# Ascents whose points have a greater cosine climb the same hill.
_SAME = 0.99
# Rises below this share of the height end an ascent.
_RISE = 1e-9


@dataclass
class Ascent:
    """
    One ascent on the sphere |d| = radius, by L-BFGS in its tangent spaces.

    A tangent step t is followed along the great circle through it, to ``radius (d + t) / |d + t|``.
    Where no curvature is known yet the step goes to the point of the sphere in the direction of
    the gradient: the highest point of a plane.

    Parameters
    ----------
    objective : callable
        Gives height and gradient at d, shape (W,), float64.
    start : Tensor
        Shape (W,), float64: the direction of the first point; any length but 0.
    radius : float
        Of the sphere.

    Attributes
    ----------
    point : Tensor
        The highest point so far.
    height : float
        Its height.
    gradients : int
        Evaluated so far; the first when the ascent is made.
    ended : bool
        Whether no step goes higher.
    """

    objective: Objective
    start: Tensor
    radius: float
    gradients: int = 1
    ended: bool = False
    _steps: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.point = self._onto_sphere(self.start)
        self.height, self._gradient = self.objective(self.point)

    def advance(self, gradients: int) -> None:
        """Go on until so many gradients in all are evaluated, or no step goes higher."""
        while not self.ended and self.gradients < gradients:
            self._step(gradients)

    def _step(self, gradients: int) -> None:
        slope = self._tangent(self._gradient, self.point)
        step = self._quasi_newton(slope)
        for _ in range(_SHORTENED):
            point = self._onto_sphere(self.point + step)
            height, gradient = self.objective(point)
            self.gradients += 1
            if height > self.height or self.gradients >= gradients:
                break
            step = step / 4
        rise = height - self.height
        if rise <= 0:
            self.ended = self.gradients < gradients
            return
        self._remember(point, slope, gradient)
        self.point, self.height, self._gradient = point, height, gradient
        self.ended = rise <= _RISE * abs(height)

    def _remember(self, point: Tensor, slope: Tensor, gradient: Tensor) -> None:
        move = self._tangent(point - self.point, point)
        change = self._tangent(slope, point) - self._tangent(gradient, point)
        if float(move @ change) > 1e-10 * float(move.norm() * change.norm()):
            self._steps = [*self._steps, (move, change)][-_MEMORY:]
        else:  # the height curves upwards there: what was learnt would lead down
            self._steps = []

    def _quasi_newton(self, slope: Tensor) -> Tensor:
        """Multiply the slope by the approximate inverse of the curvature (two-loop recursion)."""
        if not self._steps:
            return self._to_the_gradient(slope)
        step, shares = slope.clone(), []
        for move, change in reversed(self._steps):
            shares.append(float(move @ step) / float(move @ change))
            step -= shares[-1] * change
        move, change = self._steps[-1]
        step *= float(move @ change) / float(change @ change)
        for (move, change), share in zip(self._steps, reversed(shares), strict=True):
            step += (share - float(change @ step) / float(move @ change)) * move
        step = self._tangent(step, self.point)
        if float(step @ slope) <= 0:
            self._steps = []
            return self._to_the_gradient(slope)
        return step * min(1.0, self.radius / float(step.norm()))

    def _to_the_gradient(self, slope: Tensor) -> Tensor:
        onto = self._onto_sphere(self._gradient)
        if float(onto @ self.point) > 0:
            # The tangent vector whose great circle leads there.
            return onto * (self.radius**2 / float(onto @ self.point)) - self.point
        return slope * (self.radius / max(float(slope.norm()), torch.finfo(slope.dtype).tiny))

    def _onto_sphere(self, d: Tensor) -> Tensor:
        return d * (self.radius / float(d.norm()))

    def _tangent(self, v: Tensor, point: Tensor) -> Tensor:
        return v - point * (float(v @ point) / self.radius**2)


def highest(
    objective: Objective, starts: Sequence[Tensor], radius: float, gradients: int, bar: Bar
) -> list[Ascent]:
    """
    Ascend from all starts a little, from the three best further, from the best to the end.

    The heights of first points say little of where an ascent leads; after four gradients the best
    of them lead on to the highest or close to it (measured on networks with 5 to 12 local maxima
    on the sphere).

    Parameters
    ----------
    objective : callable
        As of `Ascent`.
    starts : sequence of Tensor
        Directions, shape (W,), float64.
    radius : float
        Of the sphere.
    gradients : int
        That may be evaluated in all.
    bar : Bar
        Told of each.

    Returns
    -------
    list of Ascent
        The highest first; those that were given up stand where they were.
    """

    def counted(d: Tensor) -> tuple[float, Tensor]:
        bar.update()
        return objective(d)

    ascents = [Ascent(counted, start, radius) for start in starts[:gradients]]
    spent = len(ascents)
    for keep, reach in _ROUNDS:
        kept = _apart(ascents, radius)[:keep]
        for place, ascent in enumerate(kept):
            before = ascent.gradients
            allowed = max(0, gradients - spent) // (len(kept) - place)
            ascent.advance(min(reach, before + allowed))
            spent += ascent.gradients - before
    return sorted(ascents, key=_height, reverse=True)


def _height(ascent: Ascent) -> float:
    return ascent.height


def _apart(ascents: Sequence[Ascent], radius: float) -> list[Ascent]:
    """Sort by height, and leave out those that have come close to a higher one."""
    kept: list[Ascent] = []
    for ascent in sorted(ascents, key=_height, reverse=True):
        cosines = [float(ascent.point @ other.point) / radius**2 for other in kept]
        if max(cosines, default=0.0) < _SAME:
            kept.append(ascent)
    return kept
