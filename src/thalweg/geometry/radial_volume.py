"""The plain radial estimate of a volume: distances to a level along random directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thalweg.landscape.protocols import Landscape
from thalweg.sampling.posterior import evaluate_many

_DIRECTIONS, _HALVINGS, _DOUBLINGS = 64, 24, 60


def radial_log_volume(
    landscape: Landscape, w: Tensor, *, level: float, generator: torch.Generator
) -> float:
    """
    Estimate the log-volume below a level by the mean of ``distance^W`` over random directions.

    In many dimensions nearly all of that mean comes from directions that are never drawn, so that
    it is far too low unless the set is nearly round.

    Parameters
    ----------
    landscape : Landscape
        Anything with a gradient.
    w : Tensor
        Shape (W,).
    level : float
        Above the landscape at ``w``.
    generator : torch.Generator
        Of the directions.

    Returns
    -------
    float
        In nats; infinite where some direction never reaches the level.

    References
    ----------
    Huang et al., Understanding generalization through visualizations (2020).
    """
    centre, size = w.detach().double(), len(w)
    directions = torch.randn(_DIRECTIONS, size, generator=generator, dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True)
    height = float(landscape.value(w))

    def below(distances: Tensor) -> Tensor:
        values, _ = evaluate_many(landscape, centre + distances[:, None] * directions)
        return values - height < level

    low = torch.zeros(_DIRECTIONS, dtype=torch.float64)
    high = torch.full_like(low, 1e-6 * max(float(centre.norm()), 1.0))
    for _ in range(_DOUBLINGS):
        inside = below(high)
        if not bool(inside.any()):
            break
        low, high = torch.where(inside, high, low), torch.where(inside, 2 * high, high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inside = below(middle)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    if bool((high > 1e11 * max(float(centre.norm()), 1.0)).any()):
        return math.inf
    ball = size / 2 * math.log(math.pi) - math.lgamma(size / 2 + 1)
    logs = size * ((low + high) / 2).log()
    return ball + float(logs.logsumexp(0)) - math.log(_DIRECTIONS)
