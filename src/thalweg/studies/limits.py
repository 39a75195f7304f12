"""What is left of a perturbation in the limit of ever longer training: bounds no bowl can fake."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.dynamics.flow import Flow, gradient_flow
from thalweg.landscape.protocols import Landscape
from thalweg.studies.claim import Statistic
from thalweg.studies.intervals import cluster_mean

# The least curvature that counts as one, as a share of the largest: less is called flat.
RESOLUTION = 1e-8
# A flow is followed until what may still be hidden is at most this share of the perturbation.
PRECISION = 0.15
# Back at the bottom: at most this share of the loss that the noise made.
BACK = 0.01
# The bounds hold at any point, wherever it came from: the solver need not be exact.
_RTOL = 0.02
_STATIONARY = 1e-8


@dataclass(frozen=True)
class Limit:
    """
    Two points that training came to, as a share of how far apart the noise had put them.

    On a landscape that is nowhere below zero and curves upward by at least m, a point of value L
    is at most ``sqrt(2 L / m)`` from the lowest one: two points further apart than the sum of both
    have a flat direction between them, or curvatures below m. So far, too, descent can still go
    where the slope squared is at least ``2 m L`` (Polyak 1963; Karimi, Nutini and Schmidt 2016,
    theorem 2), flat directions or not. `RESOLUTION` times the largest curvature is m.

    Attributes
    ----------
    left : float
        Their distance.
    hidden : float
        The sum of both ``sqrt(2 L / m)``: what longer training could still close.
    back : bool
        Whether both are at the bottom again.
    over : bool
        Whether the training has ended, so that a point not back will not be.
    """

    left: float
    hidden: float
    back: bool
    over: bool = True

    @property
    def low(self) -> float:
        """The least that is left however long training goes on; nothing where it is not back."""
        return max(0.0, self.left - self.hidden) if self.back else 0.0

    @property
    def high(self) -> float:
        """The most that can be left; nothing where it has ended and is not back."""
        return self.left + self.hidden if self.back or not self.over else 0.0

    @property
    def condition(self) -> float:
        """The condition number up to which no bowl holds two such points."""
        if not self.left:
            return 0.0
        return (self.left / self.hidden) ** 2 / RESOLUTION if self.hidden else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Give all of it by name."""
        return asdict(self) | {"low": self.low, "high": self.high, "condition": self.condition}


def hidden(values: tuple[float, float], noise: float, top: float) -> float:
    """
    Give the longest distance that two points of these values can have in a bowl.

    Parameters
    ----------
    values : (float, float)
        Of the two, zero being the least possible.
    noise : float
        Their distance after the perturbation, the unit of the result.
    top : float
        The largest curvature; where it is not known to be above zero, nothing is known.

    Examples
    --------
    >>> round(hidden((0.5e-8, 0.0), noise=2.0, top=1.0), 6)
    0.5
    """
    if top <= 0:
        return math.inf
    return sum(math.sqrt(2 * max(0.0, value) / (RESOLUTION * top)) for value in values) / noise


def flow_back(
    landscape: Landscape,
    home: Tensor,
    start: Tensor,
    *,
    top: float,
    max_gradients: int,
) -> tuple[Flow, Limit, list[tuple[float, float]]]:
    """
    Follow the gradient flow from a perturbed point until what is left of the noise is known.

    Parameters
    ----------
    landscape : Landscape
        Nowhere below zero.
    home : Tensor
        Shape (W,): the point before the perturbation.
    start : Tensor
        Shape (W,): after it.
    top : float
        The largest curvature at home.
    max_gradients : int
        The longest training.

    Returns
    -------
    flow : Flow
        At one tolerance: the bounds hold at any point.
    limit : Limit
        Of the end and home.
    path : list of (float, float)
        Time, in units of one over the largest curvature, and distance from home.
    """
    home = home.to(start)
    noise = float((start - home).norm())
    first, bottom = landscape.value(start), landscape.value(home)
    path = [(0.0, 1.0)]

    def known(time: float, value: float, w: Tensor) -> bool:
        path.append((time * top, float((w - home).norm()) / noise))
        return value <= BACK * first and hidden((value, bottom), noise, top) <= PRECISION

    flow = gradient_flow(
        landscape,
        start,
        rtol=_RTOL,
        check=False,
        stationary=_STATIONARY,
        max_gradients=max_gradients,
        method="chebyshev",
        stop=known,
    )
    limit = Limit(
        left=path[-1][1],
        hidden=hidden((flow.value, bottom), noise, top),
        back=flow.value <= BACK * first,
        over=flow.ended == "stationary",
    )
    return flow, limit, path


def between(
    ends: tuple[Tensor, Tensor],
    starts: tuple[Tensor, Tensor],
    values: tuple[float, float],
    limits: tuple[Limit, Limit],
    top: float,
) -> Limit:
    """Give the limit of two copies of one point, from the ends, starts and limits of both."""
    noise = float((starts[0] - starts[1]).double().norm())
    return Limit(
        left=float((ends[0] - ends[1]).double().norm()) / noise,
        hidden=hidden(values, noise, top),
        back=all(limit.back for limit in limits),
        over=all(limit.over for limit in limits),
    )


def left_in_the_limit(
    lows: ArrayLike, lefts: ArrayLike, highs: ArrayLike, clusters: ArrayLike
) -> Statistic | None:
    """
    Estimate what is left in the limit over a population of parents.

    Parameters
    ----------
    lows, lefts, highs : array-like
        Shape (n,): `Limit.low`, `Limit.left` and `Limit.high`.
    clusters : array-like
        Shape (n,): the parent of each.

    Returns
    -------
    Statistic or None
        From the lower end of the interval of the mean lower bound to the upper end of that of the
        mean upper bound; None of fewer than two parents.
    """
    if len(np.unique(np.asarray(clusters))) < 2:
        return None
    name = "left of the perturbation in the limit of ever longer training"
    low, high = (cluster_mean(name, values, clusters) for values in (lows, highs))
    bottom, top = max(0.0, low.low), max(0.0, high.high)
    value = min(max(cluster_mean(name, lefts, clusters).value, bottom), top)
    method = f"lower and upper bound, each with {low.method}"
    return Statistic(name, value, bottom, top, "lengths of the perturbation", method, low.n)
