"""How far a surface must reach to show given points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Ends = NDArray[np.float64]


def covering_extent(
    coordinates: ArrayLike,
    points: Sequence[int],
    *,
    margin: float = 0.25,
    path: ArrayLike | None = None,
) -> list[tuple[float, float]]:
    """
    Choose an extent that shows given points, with the origin on a grid point of each axis.

    Parameters
    ----------
    coordinates : array of shape (n, k)
        In units of the directions, such as `project` gives them.
    points : sequence of int
        Number of grid points along each of the k axes, at least 3.
    margin : float
        What is shown beyond the points on either side, as a share of their range.
    path : array of shape (m, k), optional
        What is to be shown as well, as far as it goes no further beyond on either side than what
        the coordinates alone need is wide: a longer path would leave these too small to be seen.

    Returns
    -------
    list of (low, high)
        One pair an axis. An axis along which all points lie at the origin is as wide as the widest.

    Examples
    --------
    >>> covering_extent([[0.0], [1.0]], [5], margin=0.5)
    [(-0.5, 1.5)]
    """
    shown = np.atleast_2d(np.asarray(coordinates, dtype=float))
    low, high = np.minimum(shown.min(0), 0.0), np.maximum(shown.max(0), 0.0)
    flat = high <= low
    reach = 0.5 * float((high - low).max()) or 1.0
    low, high = np.where(flat, -reach, low), np.where(flat, reach, high)
    spare = margin * (high - low)
    low, high = low - spare, high + spare
    if path is not None:
        low, high = _with_path(low, high, np.atleast_2d(np.asarray(path, dtype=float)))
    return [_through_zero(a, b, n) for a, b, n in zip(low, high, points, strict=True)]


def _with_path(low: _Ends, high: _Ends, path: _Ends) -> tuple[_Ends, _Ends]:
    """Widen ranges to where a path leaves them, with some room; on a side, by a width at most."""
    width, spare = high - low, 0.05 * np.ptp(path, axis=0)
    least, most = path.min(0), path.max(0)
    return (
        np.where(least < low, np.maximum(least - spare, low - width), low),
        np.where(most > high, np.minimum(most + spare, high + width), high),
    )


def _through_zero(low: float, high: float, points: int) -> tuple[float, float]:
    """Widen a range until one of evenly spaced points lies at 0."""
    below = max(1, min(points - 2, round(-low / (high - low) * (points - 1))))
    step = max(-low / below, high / (points - 1 - below))
    return float(-below * step), float((points - 1 - below) * step)
