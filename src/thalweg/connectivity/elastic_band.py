"""The nudged elastic band: images between two points that slide down to a path over a saddle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# FIRE's constants (Bitzek et al., 2006, table I).
_GROW, _SHRINK, _MIX, _MIX_SHRINK, _PATIENCE = 1.1, 0.5, 0.1, 0.99, 5
# Longest step of an image, in distances of two images; share of the steps before one climbs.
_LONGEST, _RELAXED = 0.2, 0.3


@dataclass(frozen=True, eq=False)
class Band:
    """
    Where a band came to.

    Attributes
    ----------
    images : Tensor
        Shape (k, W), the ends among them.
    values : Tensor
        Of each, float64.
    slope : float
        Length of the gradient at the highest inner image: 0 at a saddle.
    scale : float
        Length of the largest gradient at the start.
    steps : int
        How many were taken.
    """

    images: Tensor
    values: Tensor
    slope: float
    scale: float
    steps: int


def relax(
    evaluate: Callable[[int, Tensor], tuple[float, Tensor]],
    images: Tensor,
    *,
    steps: int,
    tolerance: float,
    told: Callable[[], object],
) -> Band:
    """
    Let images slide down across the band, held apart by springs along it.

    After a share of the steps the highest image climbs along the band, to the saddle itself. Steps
    are those of FIRE.

    Parameters
    ----------
    evaluate : callable
        From an image's number and the image to its value and gradient.
    images : Tensor
        Shape (k, W), the ends among them, which stay.
    steps : int
        At most.
    tolerance : float
        The band is at rest where no force is longer than this share of the largest gradient at the
        start.
    told : callable
        Called after each step.

    References
    ----------
    G. Henkelman, B. Uberuaga and H. Jonsson, A climbing image nudged elastic band method (2000);
    G. Henkelman and H. Jonsson, Improved tangent estimate (2000); E. Bitzek et al., Structural
    relaxation made simple (2006).
    """
    images = images.clone()
    ends = [evaluate(i, images[i])[0] for i in (0, len(images) - 1)]
    values = torch.zeros(len(images), dtype=torch.float64)
    values[0], values[-1] = ends[0], ends[1]
    gradients = torch.zeros_like(images)
    velocity = torch.zeros_like(images[1:-1])
    step, mix, downhill, scale, taken = 0.0, _MIX, 0, 0.0, 0
    for taken in range(1, steps + 1):
        for i in range(1, len(images) - 1):
            values[i], gradients[i] = evaluate(i, images[i])
        climbing = 1 + int(values[1:-1].argmax()) if taken > _RELAXED * steps else None
        scale = scale or float(gradients.norm(dim=1).max())
        force = _forces(images, values, gradients, climbing, scale)
        told()
        largest = float(force.norm(dim=1).max())
        if climbing is not None and largest <= tolerance * scale:
            break
        spacing = float((images[1:] - images[:-1]).norm(dim=1).mean())
        if not step:
            step = (0.1 * spacing / max(largest, 1e-300)) ** 0.5
        power = float((force * velocity).sum())
        if power > 0:
            downhill += 1
            aside = mix * velocity.norm() / force.norm().clamp_min(1e-300)
            velocity = (1 - mix) * velocity + aside * force
            if downhill > _PATIENCE:
                step, mix = step * _GROW, mix * _MIX_SHRINK
        elif taken > 1:
            velocity, step, mix, downhill = torch.zeros_like(force), step * _SHRINK, _MIX, 0
        velocity = velocity + step * force
        move = step * velocity
        longest = float(move.norm(dim=1).max())
        if longest > _LONGEST * spacing:
            move *= _LONGEST * spacing / longest
            velocity *= _LONGEST * spacing / longest
        images[1:-1] += move
    for i in range(1, len(images) - 1):
        values[i], gradients[i] = evaluate(i, images[i])
    highest = 1 + int(values[1:-1].argmax())
    return Band(images, values, float(gradients[highest].norm()), scale, taken)


def _forces(
    images: Tensor, values: Tensor, gradients: Tensor, climbing: int | None, scale: float
) -> Tensor:
    ahead, behind = images[2:] - images[1:-1], images[1:-1] - images[:-2]
    tangents = _tangents(values, ahead, behind)
    slopes = gradients[1:-1]
    along = (slopes * tangents).sum(1, keepdim=True)
    lengths = ahead.norm(dim=1, keepdim=True) - behind.norm(dim=1, keepdim=True)
    # Springs as stiff as the landscape is steep over the distance of two images.
    spacing = (images[1:] - images[:-1]).norm(dim=1).mean().clamp_min(1e-300)
    force: Tensor = along * tangents - slopes + (scale / spacing) * lengths * tangents
    if climbing is not None:
        i = climbing - 1
        force[i] = 2 * along[i] * tangents[i] - slopes[i]
    return force


def _tangents(values: Tensor, ahead: Tensor, behind: Tensor) -> Tensor:
    """Give the direction of the band at each inner image: towards the higher neighbour."""
    up = (values[2:] - values[1:-1]).to(ahead)[:, None]
    down = (values[:-2] - values[1:-1]).to(ahead)[:, None]
    most, least = torch.maximum(up.abs(), down.abs()), torch.minimum(up.abs(), down.abs())
    higher_ahead = values[2:, None].to(ahead) > values[:-2, None].to(ahead)
    mixed = torch.where(higher_ahead, most * ahead + least * behind, least * ahead + most * behind)
    plain = torch.where(higher_ahead, ahead, behind)
    # On a slope the higher neighbour alone; at a top or a bottom both.
    slope = (up > 0) != (down > 0)
    tangent = torch.where(slope, plain, mixed)
    tangent = torch.where(tangent.norm(dim=1, keepdim=True) > 0, tangent, ahead + behind)
    unit: Tensor = tangent / tangent.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return unit
