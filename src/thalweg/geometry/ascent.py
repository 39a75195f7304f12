"""Ascent to the highest point of an ellipsoid around a point, from many starts within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from thalweg.geometry.inner_products import inner, lengths
from thalweg.run.progress import Bar


class Heights(Protocol):
    """What is climbed: a function of points d, shape (W,), of one dtype."""

    dtype: torch.dtype

    def value(self, d: Tensor, /) -> float:
        """Evaluate it at d."""

    def value_and_gradient(self, d: Tensor, /) -> tuple[float, Tensor]:
        """Evaluate it and its gradient, shape (W,), in the dtype of d."""


MEMORY = 8
# A step is shortened so often before its ascent has ended, at a highest point or in rounding.
_SHORTENED = 4
# Rounds: how many ascents go on, the best first, and to how many gradients of each.
_ROUNDS = ((8, 4), (3, 8), (1, 10**9))
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
    heights : Heights
        What is climbed.
    start : Tensor
        Shape (W,): the direction of the first point; any length but 0.
    radius : float
        Of the sphere.
    memory : int
        Steps that are remembered, each two vectors.

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

    heights: Heights
    start: InitVar[Tensor]
    radius: float
    memory: int = MEMORY
    gradients: int = field(default=1, init=False)
    ended: bool = field(default=False, init=False)
    _steps: list[tuple[Tensor, Tensor]] = field(default_factory=list, init=False)

    def __post_init__(self, start: Tensor) -> None:
        self.point = self._onto_sphere(start.to(self.heights.dtype))
        self.height, self._gradient = self.heights.value_and_gradient(self.point)

    def outlook(self) -> float:
        """Evaluate the height a step ahead, where the gradient leads, at the price of a value."""
        return self.heights.value(self._onto_sphere(self._gradient))

    def advance(self, gradients: int) -> None:
        """Go on until so many gradients in all are evaluated, or no step goes higher."""
        while not self.ended and self.gradients < gradients:
            self._step(gradients)

    def wait(self, steps: int) -> None:
        """Remember so many steps at most, the last, while others go on."""
        self._steps = self._steps[-steps:]

    def give_up(self) -> None:
        """Keep the point and its height, and free what only going on would need."""
        self._steps, self._gradient = [], self.point[:0]

    def _step(self, gradients: int) -> None:
        slope = self._tangent(self._gradient, self.point)
        step = self._quasi_newton(slope)
        for _ in range(_SHORTENED):
            point = self._onto_sphere(self.point + step)
            height, gradient = self.heights.value_and_gradient(point)
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
        if float(inner(move, change)) > 1e-10 * float(lengths(move) * lengths(change)):
            self._steps = [*self._steps, (move, change)][-self.memory :]
        else:  # the height curves upwards there: what was learnt would lead down
            self._steps = []

    def _quasi_newton(self, slope: Tensor) -> Tensor:
        """Multiply the slope by the approximate inverse of the curvature (two-loop recursion)."""
        if not self._steps:
            return self._to_the_gradient(slope)
        step, shares = slope.clone(), []
        for move, change in reversed(self._steps):
            shares.append(float(inner(move, step)) / float(inner(move, change)))
            step -= shares[-1] * change
        move, change = self._steps[-1]
        step *= float(inner(move, change)) / float(inner(change, change))
        for (move, change), share in zip(self._steps, reversed(shares), strict=True):
            step += (share - float(inner(change, step)) / float(inner(move, change))) * move
        step = self._tangent(step, self.point)
        if float(inner(step, slope)) <= 0:
            self._steps = []
            return self._to_the_gradient(slope)
        return step * min(1.0, self.radius / float(lengths(step)))

    def _to_the_gradient(self, slope: Tensor) -> Tensor:
        onto = self._onto_sphere(self._gradient)
        if float(inner(onto, self.point)) > 0:
            # The tangent vector whose great circle leads there.
            return onto * (self.radius**2 / float(inner(onto, self.point))) - self.point
        return slope * (self.radius / max(float(lengths(slope)), torch.finfo(slope.dtype).tiny))

    def _onto_sphere(self, d: Tensor) -> Tensor:
        return d * (self.radius / float(lengths(d)))

    def _tangent(self, v: Tensor, point: Tensor) -> Tensor:
        return v - point * (float(inner(v, point)) / self.radius**2)


def highest(
    heights: Heights,
    starts: Iterable[Tensor],
    radius: float,
    gradients: int,
    bar: Bar,
    *,
    memory: int = MEMORY,
) -> list[Ascent]:
    """
    Look a step ahead of all starts, ascend from the best a little, from the best of these further.

    The heights of the starts say little of where an ascent leads, those a step ahead much, those
    after four gradients most (measured on networks with 5 to 12 hills on the sphere).

    Parameters
    ----------
    heights : Heights
        What is climbed.
    starts : iterable of Tensor
        Directions, shape (W,), the most promising first.
    radius : float
        Of the sphere.
    gradients : int
        That may be evaluated in all; starts take a third of them at most.
    bar : Bar
        Told of each.
    memory : int
        Steps that the ascent under way remembers; where they are fewer than `MEMORY`, because each
        is long, the others wait with one.

    Returns
    -------
    list of Ascent
        The highest first; those that were given up stand where they were.
    """
    ascents = []
    for start in islice(starts, max(1, gradients // 3)):
        ascents.append(Ascent(heights, start, radius, memory))
        bar.update()
    spent = len(ascents)
    going = sorted(ascents, key=Ascent.outlook, reverse=True)
    for keep, reach in _ROUNDS:
        going = _apart(going, radius)[:keep]
        for ascent in ascents:
            if not any(ascent is other for other in going):
                ascent.give_up()
        for place, ascent in enumerate(going):
            before = ascent.gradients
            allowed = max(0, gradients - spent) // (len(going) - place)
            ascent.advance(min(reach, before + allowed))
            if memory < MEMORY:
                ascent.wait(1)
            spent += ascent.gradients - before
            bar.update(ascent.gradients - before)
        going.sort(key=_height, reverse=True)
    return sorted(ascents, key=_height, reverse=True)


def _height(ascent: Ascent) -> float:
    return ascent.height


def _apart(ascents: Sequence[Ascent], radius: float) -> list[Ascent]:
    """Leave out those that have come close to one before them."""
    kept: list[Ascent] = []
    for ascent in ascents:
        cosines = [float(inner(ascent.point, other.point)) / radius**2 for other in kept]
        if max(cosines, default=0.0) < _SAME:
            kept.append(ascent)
    return kept
