"""Annealed importance sampling between two densities, forward and backward."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.sampling.kernel import Kernel


@dataclass(frozen=True)
class LogRatio:
    """
    Logarithm of the ratio of two densities' integrals, as chains' works tell it.

    Attributes
    ----------
    works : Tensor
        Shape (k,): logarithms of independent weights.
    value : float
        Logarithm of the mean weight.
    error : float
        Standard error of the value.
    """

    works: Tensor

    @property
    def value(self) -> float:
        """Logarithm of the mean weight."""
        return float(self.works.logsumexp(0)) - math.log(len(self.works))

    @property
    def error(self) -> float:
        """Standard error of the logarithm of the mean weight."""
        weights = (self.works - self.works.max()).exp()
        return float(weights.std() / weights.mean()) / math.sqrt(len(weights))


def anneal(
    points: Tensor,
    generator: torch.Generator,
    *,
    rungs: Sequence[float],
    make: Callable[[float], Kernel],
) -> LogRatio:
    """
    Carry points from the first rung's density to the last, and weigh the way.

    Densities are ``exp(-(A + s D))`` at rung s. The weight's expectation is the ratio of the last
    integral to the first, if the points are drawn from the first.

    Parameters
    ----------
    points : Tensor
        Shape (k, W), drawn from the density of ``rungs[0]``.
    generator : torch.Generator
        Of all that is random.
    rungs : sequence of float
        From first to last, rising or falling.
    make : callable
        ``make(s)``: a kernel that leaves the density of rung s as it is, and whose posterior
        evaluates D as the rise.

    References
    ----------
    Neal, Annealed importance sampling (2001); Grosse et al., Measuring the reliability of MCMC
    inference with bidirectional Monte Carlo (2016).
    """
    state = make(rungs[0]).init(points)
    works = torch.zeros(len(points), dtype=torch.float64)
    for here, there in itertools.pairwise(rungs):
        works -= (there - here) * state.rise
        if there == rungs[-1]:
            break  # a move at the last rung changes no weight
        kernel = make(there)
        state, _ = kernel.step(kernel.init(state.points), generator)
    return LogRatio(works)
