"""Parallel tempering: chains at a ladder of temperatures that exchange their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.sampling.kernel import Kernel, State, accept, choose
from thalweg.sampling.posterior import Posterior


class Tempering:
    """
    The chains of one posterior at several inverse temperatures, each with a kernel of its own.

    Chains come in groups of as many as there are temperatures: point i is at temperature
    ``i % len(betas)``. After each move, neighbours of even and of odd places in turn exchange.

    Parameters
    ----------
    posterior : Posterior
        At any inverse temperature.
    betas : sequence of float
        Two or more, the wanted one last.
    make : callable
        ``make(posterior) -> Kernel`` for each temperature.

    Attributes
    ----------
    exchanged : list of float
        Share of exchanges accepted in each step.

    References
    ----------
    Geyer, Markov chain Monte Carlo maximum likelihood (1991).
    """

    def __init__(
        self, posterior: Posterior, *, betas: Sequence[float], make: Callable[[Posterior], Kernel]
    ) -> None:
        if len(betas) < 2:
            raise InvalidArgument(f"betas={tuple(betas)}; give two inverse temperatures or more.")
        self.betas = torch.tensor(list(betas), dtype=torch.float64)
        self.posterior = posterior.at(float(betas[-1]))
        self.kernels = [make(posterior.at(float(beta))) for beta in betas]
        self.step_size = self.kernels[-1].step_size
        self.exchanged: list[float] = []
        self._parity = 0

    def init(self, points: Tensor, /) -> State:
        """Evaluate the first points, of which the number is a multiple of that of temperatures."""
        if len(points) % len(self.betas):
            raise InvalidArgument(
                f"{len(points)} points for {len(self.betas)} temperatures; give a multiple."
            )
        rungs = len(self.betas)
        states = [kernel.init(points[i::rungs]) for i, kernel in enumerate(self.kernels)]
        return self._join(states)

    def step(self, state: State, generator: torch.Generator, /) -> tuple[State, Tensor]:
        """Move every chain by its kernel, then exchange."""
        moved, shares = [], torch.zeros(len(state.points), dtype=torch.float64)
        for i, kernel in enumerate(self.kernels):
            part, share = kernel.step(self.part(state, i), generator)
            moved.append(part)
            shares[i :: len(self.kernels)] = share
        return self._exchange(self._join(moved), generator), shares

    def part(self, state: State, rung: int) -> State:
        """Give the chains at one temperature."""
        rows = slice(rung, None, len(self.kernels))
        return State(*(None if tensor is None else tensor[rows] for tensor in state))  # type: ignore[arg-type]

    def _join(self, states: Sequence[State]) -> State:
        def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
            present = [tensor for tensor in tensors if tensor is not None]
            return torch.stack(present, 1).flatten(0, 1) if present else None

        return State(*(joined(tensors) for tensors in zip(*states, strict=True)))  # type: ignore[arg-type]

    def _exchange(self, state: State, generator: torch.Generator) -> State:
        rungs, groups = len(self.betas), len(state.points) // len(self.betas)
        lower = torch.arange(self._parity, rungs - 1, 2)
        self._parity = 1 - self._parity
        if not len(lower):
            return state
        rise = state.rise.reshape(groups, rungs)
        difference = self.betas[lower] - self.betas[lower + 1]
        accepted, share = accept(difference * (rise[:, lower] - rise[:, lower + 1]), generator)
        self.exchanged.append(float(share.mean()))
        order = torch.arange(rungs).repeat(groups, 1)
        order[:, lower] += accepted.long()
        order[:, lower + 1] -= accepted.long()
        rows = (order + rungs * torch.arange(groups)[:, None]).flatten()
        return self._placed(state, rows, groups)

    def _placed(self, state: State, rows: Tensor, groups: int) -> State:
        """Give every chain its new place, and the potential of the temperature there."""
        points, rise = state.points[rows], state.rise[rows]
        own = self.betas.repeat(groups)
        ratio = (own / self.betas.repeat(groups)[rows])[:, None]
        held = self.posterior.localization * (points - self.posterior.centre)
        gradient = (state.gradient[rows] - held) * ratio + held
        potential = own * rise + (held * (points - self.posterior.centre)).sum(1) / 2
        memory = None if state.memory is None else state.memory[rows]
        return choose(
            torch.ones(len(rows), dtype=torch.bool),
            State(points, potential, gradient, rise, memory),
            state,
        )
