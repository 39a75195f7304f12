"""Training of a curve: its inner points move until the loss is low all along it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.connectivity.path_shapes import Curve
from thalweg.landscape.protocols import Batched, Landscape
from thalweg.run.seeds import torch_generator

# Points whose gradients make a step; samples of a mini-batch; steps from one look to the next.
_POINTS, _BATCH, _LOOK = 4, 128, 50
# Places where a look evaluates the curve.
_LOOKED_AT = 16
# Adam's constants; the last step size, as a share of the first.
_DECAYS, _EPS, _LAST = (0.9, 0.999), 1e-12, 0.02


@dataclass(frozen=True, eq=False)
class Trained:
    """
    A curve that was trained.

    Attributes
    ----------
    curve : Curve
        The one whose highest place among those looked at was the lowest.
    steps : int
        How many were taken.
    """

    curve: Curve
    steps: int


def train_curve(
    landscape: Landscape,
    curve: Curve,
    go: Callable[[float], object],
    *,
    steps: int,
    lr: float,
    seed: int,
    told: Callable[[], object],
) -> Trained:
    """
    Lower the loss along a curve by steps of Adam on its inner points.

    Each step takes the gradient at some random places, more often where the curve was high when it
    was last looked at, of a mini-batch each where the landscape has samples.

    Parameters
    ----------
    landscape : Landscape
        What is low or high.
    curve : Curve
        The start.
    go : callable
        Called with t before the landscape is evaluated at that place.
    steps : int
        How many.
    lr : float
        Size of the first steps, of each weight.
    seed : int
        Of places and mini-batches.
    told : callable
        Called after each step.

    References
    ----------
    T. Garipov et al., Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs (2018).
    """
    generator = torch_generator(seed, "curve")
    looked = [(i + 0.5) / _LOOKED_AT for i in range(_LOOKED_AT)]
    points = curve.points.clone()
    first, second = torch.zeros_like(points[1:-1]), torch.zeros_like(points[1:-1])
    best, lowest, heights = curve, math.inf, [1.0] * _LOOKED_AT
    for step in range(steps + 1):
        here = Curve(curve.kind, points)
        if step % _LOOK == 0 or step == steps:
            heights = []
            for t in looked:
                go(t)
                heights.append(landscape.value(here.at(t)))
            if max(heights) < lowest:
                best, lowest = Curve(curve.kind, points.clone()), max(heights)
        if step == steps:
            break
        gradient = torch.zeros_like(first)
        for t in _places(heights, generator):
            go(t)
            slope = landscape.gradient(here.at(t), *_batch(landscape, generator))
            gradient += torch.outer(here.shares(t)[1:-1], slope.to(points)) / _POINTS
        first = _DECAYS[0] * first + (1 - _DECAYS[0]) * gradient
        second = _DECAYS[1] * second + (1 - _DECAYS[1]) * gradient**2
        share = _LAST + (1 - _LAST) * (1 + math.cos(math.pi * step / steps)) / 2
        mean = first / (1 - _DECAYS[0] ** (step + 1))
        spread = (second / (1 - _DECAYS[1] ** (step + 1))).sqrt()
        points = points.clone()
        points[1:-1] -= lr * share * mean / (spread + _EPS)
        told()
    return Trained(best, steps)


def _batch(landscape: Landscape, generator: torch.Generator) -> tuple[Tensor, ...]:
    if not isinstance(landscape, Batched) or landscape.samples <= 2 * _BATCH:
        return ()
    return (torch.randint(landscape.samples, (_BATCH,), generator=generator),)


def _places(heights: Sequence[float], generator: torch.Generator) -> list[float]:
    """Draw a place from each equal share of a density: half even, half by height."""
    above = np.maximum(np.nan_to_num(heights, nan=0.0, posinf=1e30) - min(heights), 0.0)
    density = np.ones(len(above)) + (above / above.mean() if above.sum() > 0 else 0.0)
    edges = np.concatenate([[0.0], np.cumsum(density) / density.sum()])
    drawn = (torch.arange(_POINTS) + torch.rand(_POINTS, generator=generator)) / _POINTS
    return np.interp(drawn.numpy(), edges, np.linspace(0, 1, len(edges))).tolist()  # type: ignore[no-any-return]
