"""Slice sampling of one weight after another: no step size, at any stiffness along the axes."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.sampling.kernel import State, start
from thalweg.sampling.posterior import Posterior

_WIDTH = 12.0  # of the first interval, in standard deviations of the localization
_MOST = 200  # shrinkings; each halves the interval on average


class Slices:
    """
    Each weight is drawn from the slice of its line, by shrinking a wide interval.

    An interval of fixed width is laid around the weight at random, and cut where a draw falls below
    the slice's height, until one does not: exact for any density, and the number of evaluations
    grows only with the logarithm of the stiffness. Narrow valleys that are not along the axes it
    crosses slowly. For few weights.

    Parameters
    ----------
    posterior : Posterior
        Whose density is sampled; positive localization.

    References
    ----------
    Neal, Slice sampling (2003), section 4.
    """

    step_size = 1.0

    def __init__(self, posterior: Posterior) -> None:
        self.posterior = posterior
        self.width = _WIDTH / posterior.localization**0.5
        self.gradients = 0

    def init(self, points: Tensor, /) -> State:
        """Evaluate the first points."""
        return start(self.posterior, points)

    def step(self, state: State, generator: torch.Generator, /) -> tuple[State, Tensor]:
        """Draw every weight of every chain once; all are accepted."""
        points, potential = state.points.clone(), state.potential.clone()
        for axis in range(points.shape[1]):
            self._draw(points, potential, axis, generator)
        return start(self.posterior, points), torch.ones_like(potential)

    def _draw(
        self, points: Tensor, potential: Tensor, axis: int, generator: torch.Generator
    ) -> None:
        def uniform(count: int) -> Tensor:
            return torch.rand(count, generator=generator, dtype=points.dtype)

        height = potential - uniform(len(points)).log()
        here = points[:, axis].clone()
        low = here - self.width * uniform(len(points))
        high = low + self.width
        open_rows = torch.arange(len(points))
        for _ in range(_MOST):
            drawn = low[open_rows] + (high - low)[open_rows] * uniform(len(open_rows))
            tried = points[open_rows]
            tried[:, axis] = drawn
            found = self.posterior.evaluate(tried)[0]
            self.gradients += 1
            inside = found <= height[open_rows]
            rows = open_rows[inside]
            points[rows, axis], potential[rows] = drawn[inside], found[inside]
            open_rows, drawn = open_rows[~inside], drawn[~inside]
            if not len(open_rows):
                break
            left = drawn < here[open_rows]
            low[open_rows[left]] = drawn[left]
            high[open_rows[~left]] = drawn[~left]
