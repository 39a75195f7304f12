"""How far pre-activations leave the interval of a polynomial activation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Excursion:
    """Pre-activations seen by one polynomial activation while training.

    Parameters
    ----------
    radius
        Half-width r of the interval.
    seen
        Pre-activations seen.
    outside
        Those outside [-r, r], NaN included.
    largest
        Largest absolute pre-activation; infinite after a NaN.
    """

    radius: float
    seen: int
    outside: int
    largest: float

    @property
    def share(self) -> float:
        """Share of pre-activations outside [-r, r]; 0 before any was seen."""
        return self.outside / self.seen if self.seen else 0.0

    @property
    def factor(self) -> float:
        """Largest absolute pre-activation in units of r."""
        return self.largest / self.radius


class ExcursionRecord:
    """Running count behind an `Excursion`; no buffer, so nothing perturbs or averages it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self.seen = self.outside = 0
        self.largest = 0.0

    def observe(self, x: Tensor, radius: float) -> None:
        """Add the pre-activations `x`; one reading of `x` while all are inside."""
        if not x.numel():
            return
        low, high = (float(end) for end in torch.aminmax(x.detach()))
        largest = max(-low, high) if low == low else math.inf
        self.seen += x.numel()
        self.largest = max(self.largest, largest)
        if largest > radius:
            self.outside += x.numel() - int((x.detach().abs() <= radius).sum())

    def freeze(self, radius: float) -> Excursion:
        """Return what was seen so far."""
        return Excursion(radius, self.seen, self.outside, self.largest)
