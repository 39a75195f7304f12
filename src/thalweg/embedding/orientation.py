"""One orientation for an embedding, so that the same points give the same picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Coordinates this near the largest count as equal to it, so that rounding cannot choose the sign.
_TIE = 1e-6


def orient(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre points, turn them to their principal axes, and fix each axis' sign.

    Axes come in the order of falling variance. The coordinate of largest magnitude along each is
    positive (the first of those that tie). Where axes have equal variance any turn among them
    will do, and the one taken depends on the points alone.

    Parameters
    ----------
    positions : float64 array of shape (n, dims)
        Points in any orientation.

    Returns
    -------
    float64 array of shape (n, dims)
        The same points, moved rigidly (reflections allowed): distances are kept.

    Examples
    --------
    >>> orient(np.array([[0.0, 1.0], [0.0, -3.0], [0.0, 2.0]])).round(12)[:, 0]
    array([-1.,  3., -2.])
    """
    centred = positions - positions.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    turned = centred @ axes[:, ::-1]
    magnitudes = np.abs(turned)
    leaders = np.argmax(magnitudes >= (1 - _TIE) * magnitudes.max(axis=0), axis=0)
    signs = np.where(turned[leaders, np.arange(turned.shape[1])] < 0, -1.0, 1.0)
    # Adding zero turns the negative zeros of an axis without extent into zeros.
    oriented: NDArray[np.float64] = turned * signs + 0.0
    return oriented
