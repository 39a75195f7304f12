"""Runs chains: chooses a kernel's step, draws, and keeps what diagnostics and estimates need."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.run.progress import Progress, silent
from thalweg.sampling.diagnostics import Diagnosis, diagnose
from thalweg.sampling.kernel import Kernel, State

_TARGET = 0.8  # share accepted: near the best for HMC in high dimension (Beskos et al., 2013)


@dataclass(frozen=True)
class Chains:
    """
    What was drawn.

    Attributes
    ----------
    energy, distance, virial : Tensor
        Shape (n, k): ``beta (L - L0)``, ``|w - w0|^2`` and ``(w - w0) . grad U / W``.
    acceptance : float
        Mean share accepted.
    state : State
        Where the chains are.
    """

    energy: Tensor
    distance: Tensor
    virial: Tensor
    acceptance: float
    state: State

    def diagnose(self) -> Diagnosis:
        """Judge them."""
        return diagnose(self.energy, self.distance, self.virial, self.acceptance)


def sample(
    kernel: Kernel,
    state: State,
    generator: torch.Generator,
    *,
    draws: int,
    observe: Callable[[State], tuple[Tensor, Tensor]] | None = None,
    progress: Progress = silent,
) -> Chains:
    """
    Draw from chains that have been warmed up.

    Parameters
    ----------
    kernel : Kernel
        What moves them.
    state : State
        Where they are.
    generator : torch.Generator
        Of all that is random.
    draws : int
        Steps of each chain.
    observe : callable, optional
        Gives what is kept as ``energy`` and ``virial``, each (k,), after a step; by default
        ``beta (L - L0)`` and ``(w - w0) . grad U / W``.
    progress : Progress
        Told of each draw.
    """
    rows, shares = [], []
    look = observe or (lambda state: _observe(kernel, state))
    with progress(draws, "draws") as bar:
        for _ in range(draws):
            state, share = kernel.step(state, generator)
            energy, virial = look(state)
            distance = (state.points - kernel.posterior.centre).square().sum(1)
            rows.append(torch.stack([energy, distance, virial]))
            shares.append(share)
            bar.update()
    kept = torch.stack(rows)
    acceptance = float(torch.stack(shares).mean())
    return Chains(kept[:, 0], kept[:, 1], kept[:, 2], acceptance, state)


def _observe(kernel: Kernel, state: State) -> tuple[Tensor, Tensor]:
    offsets = state.points - kernel.posterior.centre
    beta = kernel.posterior.beta
    factor = beta[:, 0] if isinstance(beta, Tensor) else beta
    return factor * state.rise, (offsets * state.gradient).mean(1)


def adapt(
    kernel: Kernel,
    state: State,
    generator: torch.Generator,
    *,
    steps: int,
    target: float = _TARGET,
    averaged: int = 1,
) -> State:
    """
    Warm chains up while the kernel's step is fitted to the share accepted.

    Parameters
    ----------
    kernel : Kernel
        One that accepts or not; its ``step_size`` is changed.
    state : State
        Where the chains are.
    generator : torch.Generator
        Of all that is random.
    steps : int
        Of each chain.
    target : float
        The share that is wanted.
    averaged : int
        The geometric mean of the last so many step sizes is kept: one alone has much of chance.
    """
    logs = []
    for taken in range(steps):
        state, share = kernel.step(state, generator)
        gain = 0.7 / math.sqrt(1 + 0.2 * taken)
        kernel.step_size *= math.exp(gain * (float(share.mean()) - target))
        logs.append(math.log(kernel.step_size))
    if averaged > 1:
        kernel.step_size = math.exp(sum(logs[-averaged:]) / len(logs[-averaged:]))
    return state
