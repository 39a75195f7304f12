"""What all kernels share: the state of many chains, and the two functions of a kernel."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from thalweg.sampling.posterior import Posterior


class State(NamedTuple):
    """
    Where k chains are.

    Attributes
    ----------
    points : Tensor
        Shape (k, W), float64.
    potential, rise : Tensor
        Shape (k,): U and L(w) - L(w0).
    gradient : Tensor
        Shape (k, W), of U.
    memory : Tensor or None
        What a kernel keeps beside: momenta or running squares, shape (k, W).
    """

    points: Tensor
    potential: Tensor
    gradient: Tensor
    rise: Tensor
    memory: Tensor | None = None


class Kernel(Protocol):
    """A way to move chains that leaves a posterior as it is, or nearly."""

    posterior: Posterior
    step_size: float

    def init(self, points: Tensor, /) -> State:
        """Evaluate the chains' first points, shape (k, W)."""

    def step(self, state: State, generator: torch.Generator, /) -> tuple[State, Tensor]:
        """Move each chain once; also give the share accepted, shape (k,)."""


def start(posterior: Posterior, points: Tensor, memory: Tensor | None = None) -> State:
    """Evaluate points as a state."""
    points = points.detach().double()
    potential, gradient, rise = posterior.evaluate(points)
    return State(points, potential, gradient, rise, memory)


def choose(accepted: Tensor, new: State, old: State) -> State:
    """Take each chain's new state where it was accepted, shape (k,), and its old one elsewhere."""
    rows = accepted[:, None]
    memory = None
    if new.memory is not None and old.memory is not None:
        memory = torch.where(rows, new.memory, old.memory)
    return State(
        torch.where(rows, new.points, old.points),
        torch.where(accepted, new.potential, old.potential),
        torch.where(rows, new.gradient, old.gradient),
        torch.where(accepted, new.rise, old.rise),
        memory,
    )


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers in the shape of a tensor."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


def accept(log_ratio: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Decide by Metropolis' rule; also give the probabilities. NaN is no."""
    probability = torch.nan_to_num(log_ratio, nan=-torch.inf).clamp(max=0).exp()
    uniform = torch.rand(log_ratio.shape, generator=generator, dtype=log_ratio.dtype)
    return uniform < probability, probability
