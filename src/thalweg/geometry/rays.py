"""The share of a density's integral below a level, along rays through draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thalweg.sampling.posterior import Posterior

_REACH, _SPACING, _FINE = 7.0, 0.6, 32  # of the grid, in standard deviations, and parts of a cell
_PROBE = 0.02  # step of the second difference that tells the standard deviation, times sqrt(W)
_EDGE = 0.05  # share of a ray's integral that may lie at the grid's ends


def ray_log_ratios(
    posterior: Posterior, draws: Tensor, centre: Tensor, *, level: float
) -> Tensor | None:
    """
    Integrate the volume below a level and the density, both along rays from a centre.

    The mean of the ratios over draws of the density is the ratio of the whole integrals. It
    scatters far less than the draws' own weights: not at all where the landscape is homogeneous.

    Parameters
    ----------
    posterior : Posterior
        Its localization weighs the volume, too.
    draws : Tensor
        Shape (n, k, W), of its density.
    centre : Tensor
        Shape (W,), where the rays begin.
    level : float
        Above the landscape at the posterior's centre.

    Returns
    -------
    Tensor or None
        Logarithms of the ratios, shape (n, k); None where the grid along the rays does not hold
        both integrals.
    """
    spread = _spread(posterior, draws[0], centre)
    if spread is None:
        return None
    ends = _REACH * spread
    grid = torch.linspace(-ends, ends, 2 * math.ceil(_REACH / _SPACING) + 1, dtype=torch.float64)
    ratios = [_ratios(posterior, rows - centre, centre, grid, level) for rows in draws]
    if any(row is None for row in ratios):
        return None
    return torch.stack([row for row in ratios if row is not None])


def _spread(posterior: Posterior, points: Tensor, centre: Tensor) -> float | None:
    """Estimate the standard deviation of the logarithm of the distance along a ray."""
    directions, step = points - centre, _PROBE / math.sqrt(points.shape[1])

    def slope(logarithm: float) -> Tensor:
        offsets = math.exp(logarithm) * directions
        return (posterior.evaluate(centre + offsets)[1] * offsets).sum(1)

    curvature = float((slope(step) - slope(-step)).median()) / (2 * step)
    return curvature**-0.5 if 0 < curvature < math.inf else None


def _ratios(
    posterior: Posterior, directions: Tensor, centre: Tensor, grid: Tensor, level: float
) -> Tensor | None:
    """Give the logarithm of both integrals' ratio for each ray, shape (k,)."""
    size, beta = directions.shape[1], float(posterior.beta)
    rises, slopes = _along(posterior, directions, centre, grid)
    fine = torch.linspace(
        float(grid[0]), float(grid[-1]), (len(grid) - 1) * _FINE + 1, dtype=torch.float64
    )
    rises = _interpolated(rises, slopes, float(grid[1] - grid[0]))
    outward = centre - posterior.centre
    inner, own = directions @ outward, directions.square().sum(1)
    factors = fine.exp()
    squares = outward.square().sum() + 2 * torch.outer(inner, factors)
    squares = squares + torch.outer(own, factors.square())
    volume = size * fine - posterior.localization / 2 * squares
    density = volume - beta * rises
    inside = rises < level
    part = _log_integrals(volume, fine, rises - level)
    whole = _log_integrals(density, fine, torch.full_like(rises, -1.0))
    # Towards the centre both go on as t^W.
    within = torch.where(inside[:, 0], volume[:, 0] - math.log(size), -math.inf)
    inward = density[:, 0] - math.log(size)
    outward_end = density[:, -1] + math.log(float(grid[-1]) / _REACH)
    lost = torch.maximum(inward, outward_end) - whole
    if bool(inside[:, -1].any()) or not bool((lost < math.log(_EDGE)).all()):
        return None
    answer = torch.logaddexp(part, within) - torch.logaddexp(whole, inward)
    return answer if bool(torch.isfinite(answer).all()) else None


def _along(
    posterior: Posterior, directions: Tensor, centre: Tensor, grid: Tensor
) -> tuple[Tensor, Tensor]:
    """Evaluate the rise and its slope over the logarithm of the distance, each (k, m)."""
    beta, rows = float(posterior.beta), []
    for factor in grid.exp().tolist():
        points = centre + factor * directions
        _, gradient, rise = posterior.evaluate(points)
        plain = gradient - posterior.localization * (points - posterior.centre)
        rows.append((rise, factor * (plain * directions).sum(1) / beta))
    rises, slopes = zip(*rows, strict=True)
    return torch.stack(rises, 1), torch.stack(slopes, 1)


def _interpolated(values: Tensor, slopes: Tensor, width: float) -> Tensor:
    """Refine a grid by cubics with the values and slopes at both ends of each cell."""
    t = torch.arange(_FINE, dtype=torch.float64) / _FINE
    first, second = values[:, :-1, None], values[:, 1:, None]
    rising, falling = slopes[:, :-1, None] * width, slopes[:, 1:, None] * width
    cells = (
        (1 + 2 * t) * (1 - t) ** 2 * first
        + t * (1 - t) ** 2 * rising
        + t**2 * (3 - 2 * t) * second
        + t**2 * (t - 1) * falling
    )
    return torch.cat([cells.flatten(1), values[:, -1:]], 1)


def _log_integrals(logs: Tensor, grid: Tensor, heights: Tensor) -> Tensor:
    """Integrate ``exp(logs)`` where the heights are negative; both are linear in each cell."""
    first, second = heights[:, :-1], heights[:, 1:]
    crossing = (first / (first - second)).nan_to_num(0.0)
    start = torch.where(first < 0, 0.0, torch.where(second < 0, crossing, 1.0))
    end = torch.where(second < 0, 1.0, torch.where(first < 0, crossing, 1.0))
    rise = logs.diff(dim=1)
    share = (end - start) * rise
    # The integral of exp from 0 to x, over x, in logarithms.
    small = share.abs() < 1e-8
    safe = torch.where(small, 1.0, share)
    mean = torch.where(small, share / 2, (torch.expm1(safe) / safe).log())
    cells = logs[:, :-1] + start * rise + mean + (end - start).log()
    return (cells + grid.diff().log()).logsumexp(1)
