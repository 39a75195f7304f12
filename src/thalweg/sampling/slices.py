"""Slice sampling along the axes and along logarithms: no step size, at any stiffness."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.sampling.kernel import State, normal, start
from thalweg.sampling.posterior import Posterior

_WIDTH = 12.0  # of the first interval, in standard deviations of the localization or of the draws
_MOST = 200  # shrinkings; each halves the interval on average
_TINY = 1e-300  # a logarithm's least argument


class Slices:
    """
    Each weight is drawn from the slice of its line, by shrinking a wide interval.

    An interval of fixed width is laid around the weight at random, and cut where a draw falls below
    the slice's height, until one does not: exact for any density, and the number of evaluations
    grows only with the logarithm of the stiffness.

    Around a normal crossing as ``w1^2 w2^2`` the density is a cross whose arms are the narrower the
    farther out; draws along the axes walk its arms in steps of a factor, and take as many as the
    square of its length in factors. In the logarithms of the offsets the cross is a straight
    ribbon. Once `fit` has seen where draws lie, all weights also move together along a random line
    of these logarithms, drawn from the draws' own covariance there: the ribbon is crossed in a few.

    Narrow valleys that are straight in neither way are crossed slowly. For few weights.

    Parameters
    ----------
    posterior : Posterior
        Whose density is sampled; positive localization.

    References
    ----------
    Neal, Slice sampling (2003), section 4; Karamanis and Beutler, Ensemble slice sampling (2021),
    for lines from the draws' own covariance.
    """

    step_size = 1.0

    def __init__(self, posterior: Posterior) -> None:
        self.posterior = posterior
        self.gradients = self._turns = 0
        self._spread: Tensor | None = None  # a root of the covariance of log |w - w0|, (W, W)

    def fit(self, points: Tensor) -> None:
        """Take the lines of logarithms from points, shape (k, W); draws before are not kept."""
        logarithms = (points - self.posterior.centre).abs().clamp(min=_TINY).log()
        covariance = torch.atleast_2d(logarithms.T.cov())
        ridge = 1e-6 * torch.eye(len(covariance), dtype=covariance.dtype)
        self._spread = torch.linalg.cholesky(covariance + ridge)

    def init(self, points: Tensor, /) -> State:
        """Evaluate the first points."""
        return start(self.posterior, points)

    def step(self, state: State, generator: torch.Generator, /) -> tuple[State, Tensor]:
        """Draw every chain along each axis, or along one in turn and some lines of logarithms."""
        points, potential = state.points.clone(), state.potential.clone()
        size = points.shape[1]
        # Draws along an axis take most of the time: across scales they shrink their interval often.
        for axis in range(size) if self._spread is None else [self._turns % size]:
            self._draw_along_axis(points, potential, axis, generator)
        if self._spread is not None:
            for _ in range(max(1, size - 1)):
                self._draw_along_logarithms(points, potential, self._spread, generator)
        self._turns += 1
        return start(self.posterior, points), torch.ones_like(potential)

    def _draw_along_axis(
        self, points: Tensor, potential: Tensor, axis: int, generator: torch.Generator
    ) -> None:
        def move(rows: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
            moved = points[rows]
            moved[:, axis] += way
            return moved, torch.zeros_like(way)

        width = _WIDTH / self.posterior.localization**0.5
        self._shrink(points, potential, move, width, generator)

    def _draw_along_logarithms(
        self, points: Tensor, potential: Tensor, spread: Tensor, generator: torch.Generator
    ) -> None:
        directions = normal(points, generator) @ spread.T
        offsets = points - self.posterior.centre

        def move(rows: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
            factors = (way[:, None] * directions[rows]).exp()
            # A volume of logarithms is one of offsets over their product.
            return self.posterior.centre + offsets[rows] * factors, way * directions[rows].sum(1)

        self._shrink(points, potential, move, _WIDTH, generator)

    def _shrink(
        self,
        points: Tensor,
        potential: Tensor,
        move: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        width: float,
        generator: torch.Generator,
    ) -> None:
        """
        Draw each chain's place on its line, in place.

        ``move(rows, way)`` gives the points of chains ``rows``, (r, W), at places ``way``, (r,), of
        their lines, 0 where they are, and the logarithm of the volume there.
        """

        def uniform(count: int) -> Tensor:
            return torch.rand(count, generator=generator, dtype=points.dtype)

        height = potential - uniform(len(points)).log()
        low = -width * uniform(len(points))
        high = low + width
        open_rows = torch.arange(len(points))
        for _ in range(_MOST):
            way = low[open_rows] + (high - low)[open_rows] * uniform(len(open_rows))
            tried, log_volumes = move(open_rows, way)
            potentials = self.posterior.evaluate(tried)[0]
            self.gradients += 1
            inside = potentials - log_volumes <= height[open_rows]
            rows = open_rows[inside]
            points[rows], potential[rows] = tried[inside], potentials[inside]
            open_rows, way = open_rows[~inside], way[~inside]
            if not len(open_rows):
                break
            low[open_rows[way < 0]] = way[way < 0]
            high[open_rows[way >= 0]] = way[way >= 0]
