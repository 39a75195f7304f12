"""Densities with a known integral, fitted to draws: where annealing starts."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

_BOUNDED = 2.7  # kurtosis below which a coordinate is taken for cut off by walls; a Gaussian has 3
_STEEPEST = 16.0  # power of a wall


class Reference(Protocol):
    """A density of coordinates in which draws have mean 0 and variance 1."""

    def potential(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Give minus the logarithm of the density, without its constant, and the gradient."""

    def log_integral(self) -> float:
        """Give the integral of what `potential` is minus the logarithm of."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw points, shape (count, W)."""


class Powers:
    """
    Independent coordinates, ``exp(-sum |y_i / a_i|^p_i)`` of variance 1: Gaussian where p is 2.

    Parameters
    ----------
    powers : Tensor
        Shape (W,): p.
    """

    def __init__(self, powers: Tensor) -> None:
        self.powers = powers
        inverse = 1 / powers
        self.widths = ((torch.lgamma(inverse) - torch.lgamma(3 * inverse)) / 2).exp()

    def potential(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Give minus the logarithm of the density, without its constant, and the gradient."""
        ratios = points / self.widths
        slopes = ratios.abs() ** (self.powers - 2) * ratios
        return (slopes * ratios).sum(1), self.powers * slopes / self.widths

    def log_integral(self) -> float:
        """Give the integral of what `potential` is minus the logarithm of."""
        return float(((2 * self.widths).log() + torch.lgamma(1 + 1 / self.powers)).sum())

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw points, shape (count, W): powers of Gamma variates, with signs."""
        shape = (1 / self.powers).expand(count, -1).contiguous()
        sizes = torch._standard_gamma(shape, generator=generator) ** (1 / self.powers)
        signs = torch.randint(0, 2, shape.shape, generator=generator) * 2 - 1
        return self.widths * sizes * signs


class Gaussian:
    """
    The standard Gaussian.

    Parameters
    ----------
    size : int
        W.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def potential(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Give minus the logarithm of the density, without its constant, and the gradient."""
        return points.square().sum(1) / 2, points

    def log_integral(self) -> float:
        """Give the integral of what `potential` is minus the logarithm of."""
        return self.size / 2 * math.log(2 * math.pi)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw points, shape (count, W)."""
        return torch.randn(count, self.size, generator=generator, dtype=torch.float64)


class Radial:
    """
    All directions alike, and a radius whose logarithm is Gaussian: shells, thick or thin.

    Parameters
    ----------
    size : int
        W.
    mean, deviation : float
        Of the logarithm of the radius.
    """

    def __init__(self, size: int, mean: float, deviation: float) -> None:
        self.size, self.mean, self.deviation = size, mean, deviation

    def potential(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Give minus the logarithm of the density, without its constant, and the gradient."""
        squares = points.square().sum(1)
        logs = squares.log() / 2
        away = (logs - self.mean) / self.deviation
        slopes = (self.size + away / self.deviation) / squares
        return self.size * logs + away.square() / 2, slopes[:, None] * points

    def log_integral(self) -> float:
        """Give the integral of what `potential` is minus the logarithm of."""
        half = self.size / 2
        sphere = math.log(2) + half * math.log(math.pi) - math.lgamma(half)
        return sphere + math.log(self.deviation) + math.log(2 * math.pi) / 2

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw points, shape (count, W)."""
        plain = torch.randn(count, self.size, generator=generator, dtype=torch.float64)
        logs = torch.randn(count, 1, generator=generator, dtype=torch.float64)
        radii = (self.mean + self.deviation * logs).exp()
        rows: Tensor = plain / plain.norm(dim=1, keepdim=True) * radii
        return rows


def fitted_reference(draws: Tensor, kurtosis: Tensor | None) -> Reference:
    """
    Fit a Gaussian, a shell, or independent coordinates with walls, the most probable.

    Parameters
    ----------
    draws : Tensor
        Shape (n, W), of mean 0 and variance 1.
    kurtosis : Tensor or None
        Shape (W,), of each coordinate, from all that was drawn; None where coordinates are
        arbitrary.
    """
    size = draws.shape[1]
    logs = draws.square().sum(1).log() / 2
    candidates: list[Reference] = [Gaussian(size)]
    if size > 1 and float(logs.std()) > 0:
        candidates.append(Radial(size, float(logs.mean()), float(logs.std())))
    if kurtosis is not None and bool((kurtosis < _BOUNDED).any()):
        candidates.append(Powers(powers_of(kurtosis)))

    def surprise(reference: Reference) -> float:
        return float(reference.potential(draws)[0].mean()) + reference.log_integral()

    return min(candidates, key=surprise)


def powers_of(kurtosis: Tensor) -> Tensor:
    """
    Give the power p of ``exp(-|y|^p)`` with a kurtosis, shape (W,); 2 where it is near 3 or above.

    Examples
    --------
    >>> powers_of(torch.tensor([3.1, 2.0, 1.8])).round().tolist()  # 1.8 is that of a box
    [2.0, 6.0, 16.0]
    """
    powers = torch.logspace(0, math.log2(_STEEPEST / 2), 400, base=2, dtype=torch.float64) * 2
    inverse = 1 / powers
    logs = torch.lgamma(5 * inverse) + torch.lgamma(inverse) - 2 * torch.lgamma(3 * inverse)
    known = logs.exp().flip(0)
    place = torch.searchsorted(known, kurtosis.double().contiguous()).clamp(max=len(known) - 1)
    return torch.where(kurtosis < _BOUNDED, powers.flip(0)[place], 2.0)
