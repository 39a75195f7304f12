"""A logarithmic scale for losses, which reach zero where training succeeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class LogScale:
    """
    Range of a logarithmic scale, and what does not fit on it.

    Parameters
    ----------
    floor, top : float
        Smallest and largest value shown, both positive.
    floored : int
        How many values lie below the floor and are drawn at it.
    missing : int
        How many values are not numbers.
    """

    floor: float
    top: float
    floored: int
    missing: int

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """Raise values below the floor to it, cut infinite ones to the top, leave NaN."""
        placed: NDArray[np.float64] = np.clip(np.asarray(values, dtype=float), self.floor, self.top)
        return placed

    @property
    def decades(self) -> NDArray[np.int64]:
        """Exponents of the powers of ten within the range, at most seven, evenly spaced."""
        first, last = np.ceil(np.log10(self.floor)), np.floor(np.log10(self.top))
        if last < first:
            first = last = np.round(np.log10(np.sqrt(self.floor * self.top)))
        return np.arange(int(first), int(last) + 1, max(1, -(-int(last - first) // 6)))

    @property
    def note(self) -> str:
        """What a caption must say of values off the scale; empty if there are none."""
        if not self.floored:
            return ""
        values = "value" if self.floored == 1 else "values"
        return f"{self.floored} {values} of zero drawn at the floor of the scale, {self.floor:.2g}."


def log_scale(values: Any) -> LogScale:
    """
    Choose the logarithmic scale that shows ``values``.

    The floor is the smallest positive value; if there is none, the resolution of float32.

    Parameters
    ----------
    values : array of any shape
        May hold zeros, NaN and infinities.

    Returns
    -------
    LogScale
        With ``top`` above ``floor``, also where all values are one.

    Examples
    --------
    >>> scale = log_scale([0.0, 1e-3, 10.0])
    >>> scale.floor, scale.top, scale.floored
    (0.001, 10.0, 1)
    """
    array = np.asarray(values, dtype=float)
    shown = array[np.isfinite(array) & (array > 0)]
    floor = float(shown.min()) if shown.size else float(np.finfo(np.float32).eps)
    top = max(float(shown.max()) if shown.size else floor, 1.1 * floor)
    return LogScale(floor, top, int((array < floor).sum()), int(np.isnan(array).sum()))
