"""Blocks of weights drawn in turn from the Gaussian that the curvature of the block gives."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.landscape.protocols import Blocked, require
from thalweg.sampling.kernel import State, accept, choose, normal, start
from thalweg.sampling.posterior import Posterior


class NewtonBlocks:
    """
    Metropolis within Gibbs: each block's proposal is the Gaussian of its Newton step.

    Where the landscape is quadratic in a block while the others rest, as a linear network is in
    each layer, every proposal is accepted and this is the exact Gibbs sampler: it has no step size,
    and stiffness costs it nothing. Elsewhere acceptance corrects for what the curvature at both
    ends says of the block.

    Parameters
    ----------
    posterior : Posterior
        Of a landscape that gives the curvature of its blocks, `Blocked`; positive localization.

    Attributes
    ----------
    smooth : Tensor
        Shape (k,), after each step: the mean over blocks of ``beta E[L - L0 | other blocks]``,
        which has the expectation of ``beta (L - L0)`` and scatters less.
    virial : Tensor
        Shape (k,), after each step: the mean over blocks of ``(w - m) . grad U / n`` over a block's
        n weights, m their mean given the others; its expectation is one, too.
    """

    step_size = 1.0

    def __init__(self, posterior: Posterior) -> None:
        self.posterior = posterior
        self.landscape = require(
            posterior.landscape, Blocked, "NewtonBlocks", "use Hamiltonian instead"
        )
        self.smooth = self.virial = torch.zeros(0, dtype=torch.float64)
        self._turns = 0

    def init(self, points: Tensor, /) -> State:
        """Evaluate the first points."""
        return start(self.posterior, points)

    def step(self, state: State, generator: torch.Generator, /) -> tuple[State, Tensor]:
        """Draw every block of every chain once, forward and backward in turn."""
        count = len(self.posterior.landscape.space.parameters)
        order = range(count) if self._turns % 2 else reversed(range(count))
        self._turns += 1
        rows = []
        for block in order:
            state, row = self._draw(state, block, generator)
            rows.append(row)
        shares, self.smooth, self.virial = torch.stack(rows).mean(0)
        return state, shares

    def _draw(self, state: State, block: int, generator: torch.Generator) -> tuple[State, Tensor]:
        place = self.posterior.landscape.space.parameters[block].slice
        left, right = self.landscape.block_curvature(state.points, block)
        gaussian = _Gaussian(self.posterior, state, place, left, right)
        points = state.points.clone()
        move = gaussian.draw(generator)
        points[:, place] += gaussian.turn_back(move)
        new = start(self.posterior, points)
        # One, but for rounding, which is refused this way.
        accepted, probability = accept(
            state.potential - new.potential + gaussian.log_ratio(move), generator
        )
        expected, state = gaussian.expected_rise(state), choose(accepted, new, state)
        moved = torch.where(accepted[:, None, None], move, 0 * move) - gaussian.mean
        virial = (moved * gaussian.turn(state.gradient[:, place])).mean((1, 2))
        return state, torch.stack([probability, expected, virial])


class _Gaussian:
    """The Gaussian of a block while the others rest, in the eigenvectors of its curvature."""

    def __init__(
        self, posterior: Posterior, state: State, place: slice, left: Tensor, right: Tensor
    ) -> None:
        self.left: Tensor
        self.right: Tensor
        rows, self.left = torch.linalg.eigh(left)
        columns, self.right = torch.linalg.eigh(right)
        beta = float(posterior.beta)
        self.curvature: Tensor = beta * (rows[:, :, None] * columns[:, None, :]).clamp(min=0)
        self.precision = self.curvature + posterior.localization
        offset = (state.points - posterior.centre)[:, place]
        self.beta, self.slope = beta, self.turn(state.gradient[:, place])
        self.pull = self.turn(posterior.localization * offset)
        self.mean = -self.slope / self.precision

    def turn(self, rows: Tensor) -> Tensor:
        """Write rows, shape (k, n), in the eigenvectors."""
        matrix = rows.reshape(len(rows), self.left.shape[1], self.right.shape[1])
        turned: Tensor = self.left.transpose(1, 2) @ matrix @ self.right
        return turned

    def turn_back(self, turned: Tensor) -> Tensor:
        """Undo it."""
        rows: Tensor = self.left @ turned @ self.right.transpose(1, 2)
        return rows.flatten(1)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw a move."""
        move: Tensor = self.mean + normal(self.mean, generator) * self.precision.rsqrt()
        return move

    def log_ratio(self, move: Tensor) -> Tensor:
        """Logarithm of the density of the way back over that of the move."""
        difference = (move - self.mean).square() - self.mean.square()
        ratio: Tensor = (self.precision * difference).sum((1, 2)) / 2
        return ratio

    def expected_rise(self, state: State) -> Tensor:
        """Give ``beta E[L - L0]`` over the block: at its mean, and what scatters around it."""
        change = (self.slope - self.pull) * self.mean + self.curvature * self.mean.square() / 2
        around = self.curvature / self.precision / 2
        expected: Tensor = self.beta * state.rise + (change + around).sum((1, 2))
        return expected
