"""Overdamped Langevin dynamics: without acceptance (SGLD), and with it (MALA)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import Batched, Parallel, placed, require
from thalweg.sampling.kernel import State, accept, choose, normal, start
from thalweg.sampling.posterior import Posterior
from thalweg.sampling.whitening import Whitening, plain_whitening

_DECAY, _FLOOR = 0.99, 1e-8  # of running squares, as Li et al. (2016) take them


def langevin_step(
    w: Tensor, drift: Tensor, noise: Tensor, *, rate: float, temperature: float
) -> None:
    """
    Change w in place by ``-rate drift + sqrt(2 rate temperature) noise``: Euler's scheme.

    References
    ----------
    Welling and Teh, Bayesian Learning via Stochastic Gradient Langevin Dynamics (2011), eq. 4.
    """
    w.sub_(rate * drift)
    w.add_(noise, alpha=math.sqrt(2 * rate * temperature))


class Langevin:
    """
    Langevin steps without acceptance: what is known as SGLD, on full gradients.

    On a quadratic of curvature c of U the stationary variance is ``1 / (c (1 - step c / 2))``: too
    large by a factor that no R-hat sees, and the virial does.

    Parameters
    ----------
    posterior : Posterior
        Whose density is sampled, up to an error of first order in the step.
    step_size : float
        In units of 1 / curvature of U; of preconditioned curvature where there is one.
    preconditioner : Whitening or "rmsprop", optional
        A fixed linear map, or running root mean squares of the gradient, whose slow change is
        neglected (Li et al., Preconditioned SGLD, 2016).
    batch_size : int, optional
        Samples of a step's gradient, drawn with replacement for each chain; its noise adds to that
        of the density. What is observed, and the virial with it, stays that of all samples.

    Raises
    ------
    InvalidArgument
        If a batch is asked of a landscape without samples.
    """

    def __init__(
        self,
        posterior: Posterior,
        *,
        step_size: float,
        preconditioner: Whitening | Literal["rmsprop"] | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.posterior, self.step_size = posterior, _positive(step_size)
        self.batch_size = batch_size
        self.running = preconditioner == "rmsprop"
        if batch_size is not None:
            require(posterior.landscape, Batched, "Langevin", "leave batch_size out")
        self.whitening = plain_whitening(len(posterior.centre), 1.0)
        if isinstance(preconditioner, Whitening):
            self.whitening = preconditioner

    def init(self, points: Tensor, /) -> State:
        """Evaluate the first points."""
        state = start(self.posterior, points)
        return state._replace(memory=state.gradient.square()) if self.running else state

    def step(self, state: State, generator: torch.Generator, /) -> tuple[State, Tensor]:
        """Take a step of every chain; all are accepted."""
        noise, drift, memory = normal(state.points, generator), state.gradient, None
        if self.batch_size is not None:
            drift = self._on_batches(state.points, self.batch_size, generator)
        if state.memory is not None:
            memory = _DECAY * state.memory + (1 - _DECAY) * drift.square()
            scale = (memory.sqrt() + _FLOOR).reciprocal()
            drift, noise = scale * drift, scale.sqrt() * noise
        else:
            drift = self.whitening.multiply(self.whitening.multiply(drift))
            noise = self.whitening.multiply(noise)
        points = state.points.clone()
        langevin_step(points, drift, noise, rate=self.step_size, temperature=1.0)
        return start(self.posterior, points, memory), torch.ones(len(points)).to(points)

    def _on_batches(self, points: Tensor, size: int, generator: torch.Generator) -> Tensor:
        landscape = require(self.posterior.landscape, Batched, "Langevin", "leave batch_size out")
        batches = torch.randint(landscape.samples, (len(points), size), generator=generator)
        if isinstance(landscape, Parallel):
            gradients = landscape.batch_gradients(placed(landscape, points), batches)
        else:
            pairs = zip(placed(landscape, points), batches, strict=True)
            gradients = torch.stack([landscape.gradient(w, batch) for w, batch in pairs])
        held = self.posterior.localization * (points - self.posterior.centre)
        return self.posterior.beta * gradients.to(points) + held


class Metropolis:
    """
    Langevin steps with acceptance: MALA, exact at any step.

    Parameters
    ----------
    posterior : Posterior
        Whose density is sampled.
    step_size : float
        In whitened units.
    whitening : Whitening, optional
        Coordinates of the steps; by default those of w.
    """

    def __init__(
        self, posterior: Posterior, *, step_size: float, whitening: Whitening | None = None
    ) -> None:
        self.posterior, self.step_size = posterior, _positive(step_size)
        self.whitening = whitening or plain_whitening(len(posterior.centre), 1.0)

    def init(self, points: Tensor, /) -> State:
        """Evaluate the first points."""
        return start(self.posterior, points)

    def step(self, state: State, generator: torch.Generator, /) -> tuple[State, Tensor]:
        """Propose a step of every chain, and accept or not."""
        noise, h = normal(state.points, generator), self.step_size
        move = math.sqrt(2 * h) * noise - h * self.whitening.multiply(state.gradient)
        new = start(self.posterior, state.points + self.whitening.multiply(move))
        back = (move - h * self.whitening.multiply(new.gradient)).square().sum(1) / (4 * h)
        log_ratio = state.potential - new.potential + noise.square().sum(1) / 2 - back
        accepted, probability = accept(log_ratio, generator)
        return choose(accepted, new, state), probability


def _positive(step_size: float) -> float:
    if not 0 < step_size < math.inf:
        raise InvalidArgument(f"step_size={step_size}; give a positive number.")
    return step_size
