"""Functions whose minima and lowest passes are known, in plain arithmetic.

They take a number for each coordinate: of NumPy, real or complex, or of torch. So other tools can
evaluate them in environments without torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def mueller_brown(x, y):
    """K. Mueller and L. D. Brown (1979)."""
    rows = (
        (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
        (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
        (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
        (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
    )
    return sum(
        A * math.e ** (a * (x - p) ** 2 + b * (x - p) * (y - q) + c * (y - q) ** 2)
        for A, a, b, c, p, q in rows
    )


def himmelblau(x, y):
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def camel(x, y):
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2


def two_wells(x, y):
    return (x**2 - 1) ** 2 + 0.2 * x + 2 * (y - 0.5 * x**2) ** 2


def styblinski_tang(*coordinates):
    """M. A. Styblinski and T.-S. Tang (1990): a sum over coordinates."""
    return sum(x**4 - 16 * x**2 + 5 * x for x in coordinates) / 2


@dataclass(frozen=True)
class AnalyticLandscape:
    """A function, a box that holds its minima, and what is known of it.

    passes: by pairs of minima, the lowest level at which they are joined.
    """

    function: Callable[..., Any]
    box: tuple[tuple[float, float], ...]
    minima: list[tuple[float, ...]]
    values: tuple[float, ...]
    passes: dict[tuple[int, int], float]

    @property
    def span(self) -> float:
        """From the lowest minimum to the highest pass."""
        return max(self.passes.values()) - min(self.values)


def _three_wells_a_side() -> AnalyticLandscape:
    """Styblinski and Tang's function of three coordinates.

    4x³ - 32x + 5 = 0 has three roots: two wells and a pass between. From a corner of the cube to
    the next one coordinate crosses that pass; the others wait in the lower well or in their own.
    """
    left, right, top = -2.9035340276, 2.7468027709, 0.1567312567
    corners = list(itertools.product((left, right), repeat=3))
    cost = {x: styblinski_tang(x) for x in (left, right, top)}
    values = [sum(cost[x] for x in corner) for corner in corners]
    passes = {}
    for (i, one), (j, other) in itertools.combinations(enumerate(corners), 2):
        # Leave the right well one coordinate after another, then go up again.
        most = max(corner.count(right) for corner in (one, other))
        passes[i, j] = cost[top] + (most - 1) * cost[right] + (3 - most) * cost[left]
    return AnalyticLandscape(styblinski_tang, ((-5.0, 5.0),) * 3, corners, tuple(values), passes)


# Minima, and saddles by value: published (Mueller-Brown, Himmelblau, camel); two wells are one
# function of x along the parabola; Styblinski-Tang is a closed form.
ANALYTIC_LANDSCAPES = {
    "Mueller-Brown": AnalyticLandscape(
        mueller_brown,
        ((-1.5, 1.0), (-0.5, 2.0)),
        [(-0.5582, 1.4417), (0.6235, 0.0280), (-0.0500, 0.4667)],
        (-146.700, -108.167, -80.768),
        {(1, 2): -72.249, (0, 2): -40.665, (0, 1): -40.665},
    ),
    "Himmelblau": AnalyticLandscape(
        himmelblau,
        ((-5.0, 5.0), (-5.0, 5.0)),
        [(3.0, 2.0), (3.5844, -1.8481), (-2.8051, 3.1313), (-3.7793, -3.2832)],
        (0.0, 0.0, 0.0, 0.0),
        {(0, 1): 13.312, (0, 2): 67.719, (2, 3): 104.015, (1, 3): 104.015},
    ),
    "six-hump camel": AnalyticLandscape(
        camel,
        ((-2.0, 2.0), (-1.0, 1.0)),
        [
            *[(0.0898, -0.7126), (-0.0898, 0.7126), (1.7036, -0.7961), (-1.7036, 0.7961)],
            *[(1.6071, 0.5687), (-1.6071, -0.5687)],
        ],
        (-1.0316, -1.0316, -0.2155, -0.2155, 2.1043, 2.1043),
        {
            **{(0, 1): 0.0, (0, 2): 0.5437, (1, 3): 0.5437, (2, 3): 0.5437},
            **{(2, 4): 2.2294, (3, 5): 2.2294, (4, 5): 2.2294},
        },
    ),
    "two wells": AnalyticLandscape(
        two_wells,
        ((-2.0, 2.0), (-1.0, 2.0)),
        [(-1.0241, 0.5244), (0.9740, 0.4743)],
        (-0.2024, 0.1975),
        {(0, 1): 1.0050},
    ),
    "Styblinski-Tang": _three_wells_a_side(),
}
