"""Curves through weight space by their control points: Bezier curves and chains of lines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["bezier", "chain", "band"]


@dataclass(frozen=True, eq=False)
class Curve:
    """
    A curve from the first to the last of its points.

    Attributes
    ----------
    kind : {"bezier", "chain", "band"}
        A Bezier curve; or straight lines from each point to the next, each an equal share of t.
    points : Tensor
        Shape (k, W), the ends among them.

    Examples
    --------
    >>> curve = Curve("chain", torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]))
    >>> curve.at(0.25).tolist(), round(curve.length, 4)
    ([0.5, 0.5], 2.8284)
    """

    kind: Kind
    points: Tensor

    def shares(self, t: float) -> Tensor:
        """Give the share of each point at t: shape (k,), of sum 1, in the points' dtype."""
        last = len(self.points) - 1
        if self.kind == "bezier":
            parts = [math.comb(last, i) * t**i * (1 - t) ** (last - i) for i in range(last + 1)]
        else:
            parts = [max(0.0, 1 - abs(t * last - i)) for i in range(last + 1)]
        return torch.tensor(parts, dtype=self.points.dtype, device=self.points.device)

    def at(self, t: float) -> Tensor:
        """Give the point at t, from 0 to 1, shape (W,); the ends are exact."""
        if t in (0.0, 1.0):
            return self.points[-int(t)].clone()
        return self.shares(t) @ self.points

    @property
    def length(self) -> float:
        """Its length; of a Bezier curve, that of 200 chords."""
        points = self.points.double()
        if self.kind == "bezier":
            points = torch.stack([self.at(i / 200) for i in range(201)]).double()
        return float((points[1:] - points[:-1]).norm(dim=1).sum())

    @classmethod
    def line(cls, kind: Kind, w0: Tensor, w1: Tensor, bends: int) -> Curve:
        """Make the straight line with so many points between its ends."""
        inner = [torch.lerp(w0, w1, i / (bends + 1)) for i in range(1, bends + 1)]
        return cls(kind, torch.stack([w0, *inner, w1]))

    def shaken(self, size: float, generator: torch.Generator) -> Curve:
        """Move the inner points at random, by a share of the distance of the ends."""
        points = self.points.clone()
        noise = torch.randn(points[1:-1].shape, generator=generator, dtype=torch.float64)
        distance = float((points[-1] - points[0]).double().norm())
        points[1:-1] += (size * distance / math.sqrt(points.shape[1])) * noise.to(points)
        return Curve(self.kind, points)
