"""Hamiltonian Monte Carlo in whitened coordinates."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.sampling.kernel import State, accept, choose, normal, start
from thalweg.sampling.langevin import _positive
from thalweg.sampling.posterior import Posterior
from thalweg.sampling.whitening import Whitening, plain_whitening

_SHORT, _OFTEN = 0.1, 0.2


class Hamiltonian:
    """
    Leapfrog trajectories with acceptance, of all chains as one batch.

    Lengths and steps are drawn anew each time (by half, and by a fifth), the same for all chains:
    no direction's period can be a multiple of theirs. One trajectory in five takes as many steps of
    a tenth of the size, so that chains leave places that are stiffer than most.

    Parameters
    ----------
    posterior : Posterior
        Whose density is sampled.
    step_size : float
        In whitened units, where a Gaussian of the centre's curvature allows any below 2.
    length : float
        Of a trajectory, in the same units; about 1.5 is a quarter of a Gaussian's period.
    whitening : Whitening, optional
        The mass: coordinates of the trajectories; by default those of w.
    most : int
        Steps of a trajectory at most.

    References
    ----------
    Neal, MCMC using Hamiltonian dynamics (2011), section 3.
    """

    def __init__(
        self,
        posterior: Posterior,
        *,
        step_size: float,
        length: float = 1.5,
        whitening: Whitening | None = None,
        most: int = 1000,
    ) -> None:
        self.posterior, self.step_size = posterior, _positive(step_size)
        self.length, self.most = length, most
        self.whitening = whitening or plain_whitening(len(posterior.centre), 1.0)
        self.gradients = 0

    def init(self, points: Tensor, /) -> State:
        """Evaluate the first points."""
        return start(self.posterior, points)

    def step(self, state: State, generator: torch.Generator, /) -> tuple[State, Tensor]:
        """Follow a trajectory of every chain, and accept its end or not."""
        draws = torch.rand(3, generator=generator).tolist()
        step = self.step_size * (0.8 + 0.4 * draws[0])
        count = max(1, min(round(self.length * (0.5 + draws[1]) / step), self.most))
        step *= _SHORT if draws[2] < _OFTEN else 1.0
        momentum = normal(state.points, generator)
        before = state.potential + momentum.square().sum(1) / 2
        new, momentum = self._leapfrog(state, momentum, step, count)
        self.gradients += count
        accepted, probability = accept(
            before - new.potential - momentum.square().sum(1) / 2, generator
        )
        return choose(accepted, new, state), probability

    def _leapfrog(
        self, state: State, momentum: Tensor, step: float, count: int
    ) -> tuple[State, Tensor]:
        multiply = self.whitening.multiply
        momentum = momentum - step / 2 * multiply(state.gradient)
        for i in range(count):
            state = start(self.posterior, state.points + step * multiply(momentum))
            last = i == count - 1
            momentum = momentum - (step / 2 if last else step) * multiply(state.gradient)
        return state, momentum
