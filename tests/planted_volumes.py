"""Sets of known volume: ellipsoids, flat tubes with walls, shells."""

from __future__ import annotations

import math

import torch

from thalweg.landscape import ParameterSpace, Quadratic


class Ellipsoid(Quadratic):
    """A bowl that evaluates many points at once."""

    def values_and_gradients(self, points):
        offsets = points - self.centre
        slopes = offsets * self.curvature
        return (offsets * slopes).sum(1) / 2, slopes


class Tube:
    """``sum |x_i / a_i|^p_i``: flat along weights of p = 8 until it reaches their walls."""

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, widths, powers):
        self.widths, self.powers = widths, powers
        self.space = ParameterSpace.euclidean(len(widths))
        self.centre = torch.ones_like(widths)

    def values_and_gradients(self, points):
        x = (points - self.centre) / self.widths
        rest = x.abs() ** (self.powers - 2) * x
        return (rest * x).sum(1), self.powers * rest / self.widths

    def value(self, w):
        return float(self.values_and_gradients(self.space.check(w)[None])[0][0])

    def gradient(self, w, batch=None):
        return self.values_and_gradients(self.space.check(w)[None])[1][0]

    def hessian(self, w):
        x = (w - self.centre) / self.widths
        curvature = self.powers * (self.powers - 1) * x.abs() ** (self.powers - 2)
        return torch.diag(curvature / self.widths**2)

    def log_volume(self, level):
        inverse = 1 / self.powers
        ends = (2 * self.widths).log() + inverse * math.log(level) + torch.lgamma(1 + inverse)
        return float(ends.sum() - torch.lgamma(1 + inverse.sum()))


class Shell:
    """``(|x|^2 - 1)^2 / (8 thickness^2)``: below 1/2 within about a thickness of the sphere."""

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, size, thickness):
        self.thickness = thickness
        self.space = ParameterSpace.euclidean(size)
        self.centre = torch.zeros(size, dtype=torch.float64)
        self.centre[0] = 1.0

    def values_and_gradients(self, points):
        square = points.square().sum(1) - 1
        values = square**2 / (8 * self.thickness**2)
        return values, square[:, None] * points / (2 * self.thickness**2)

    def value(self, w):
        return float(self.values_and_gradients(self.space.check(w)[None])[0][0])

    def gradient(self, w, batch=None):
        return self.values_and_gradients(self.space.check(w)[None])[1][0]

    def hessian(self, w):
        return torch.outer(w, w) / self.thickness**2

    def log_volume(self, level):
        half = self.space.size / 2
        width = math.sqrt(8 * level) * self.thickness
        outer = half * math.log1p(width)
        inner = half * math.log1p(-width) if width < 1 else -math.inf
        ball = half * math.log(math.pi) - math.lgamma(half + 1)
        return ball + outer + math.log1p(-math.exp(inner - outer))


def planted(seed):
    """Give a landscape, its minimum, a level and the true log-volume, drawn from a seed."""
    generator = torch.Generator().manual_seed(seed)
    size = round(10 ** (1 + 2 * float(torch.rand((), generator=generator))))
    kind = ("ellipsoid", "tube", "shell")[seed % 3]
    decades = 4 * float(torch.rand((), generator=generator))
    spread = 10 ** (decades * torch.rand(size, generator=generator, dtype=torch.float64))
    level = 0.5
    if kind == "ellipsoid":
        landscape = Ellipsoid(spread)
        ball = size / 2 * math.log(math.pi) - math.lgamma(size / 2 + 1)
        truth = ball + size / 2 * math.log(2 * level) - float(spread.log().sum()) / 2
    elif kind == "tube":
        powers = torch.where(torch.rand(size, generator=generator) < 0.3, 8.0, 2.0).double()
        landscape = Tube(spread.rsqrt(), powers)
        truth = landscape.log_volume(level)
    else:
        landscape = Shell(size, 0.02 + 0.1 * float(torch.rand((), generator=generator)))
        truth = landscape.log_volume(level)
    return kind, landscape, landscape.centre, level, truth
