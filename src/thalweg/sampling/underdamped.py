"""Underdamped Langevin dynamics: momentum that friction and noise renew."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thalweg.sampling.kernel import State, normal, start
from thalweg.sampling.langevin import _positive
from thalweg.sampling.posterior import Posterior
from thalweg.sampling.whitening import Whitening, plain_whitening


class Underdamped:
    """
    The BAOAB scheme without acceptance: on quadratics the positions' variance is exact.

    Parameters
    ----------
    posterior : Posterior
        Whose density is sampled, up to an error of second order in the step.
    step_size : float
        In whitened units.
    friction : float
        Per unit of time.
    whitening : Whitening, optional
        The mass.

    References
    ----------
    Leimkuhler and Matthews, Rational construction of stochastic numerical methods for molecular
    sampling (2013).
    """

    def __init__(
        self,
        posterior: Posterior,
        *,
        step_size: float,
        friction: float = 1.0,
        whitening: Whitening | None = None,
    ) -> None:
        self.posterior, self.step_size, self.friction = posterior, _positive(step_size), friction
        self.whitening = whitening or plain_whitening(len(posterior.centre), 1.0)

    def init(self, points: Tensor, /) -> State:
        """Evaluate the first points, at rest."""
        state = start(self.posterior, points)
        return state._replace(memory=torch.zeros_like(state.points))

    def step(self, state: State, generator: torch.Generator, /) -> tuple[State, Tensor]:
        """Take a step of every chain; all are accepted."""
        h, multiply = self.step_size, self.whitening.multiply
        assert state.memory is not None
        momentum = state.memory - h / 2 * multiply(state.gradient)
        points = state.points + h / 2 * multiply(momentum)
        kept = math.exp(-self.friction * h)
        momentum = kept * momentum + math.sqrt(1 - kept**2) * normal(points, generator)
        new = start(self.posterior, points + h / 2 * multiply(momentum))
        momentum = momentum - h / 2 * multiply(new.gradient)
        return new._replace(memory=momentum), torch.ones(len(points)).to(points)
