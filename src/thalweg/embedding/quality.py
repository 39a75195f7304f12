"""How faithfully an embedding shows the distances it was made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Distances that differ by less than this part of their mean do not differ: nothing to correlate.
_SAME = 1e-9


def shown_distances(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances between the rows of ``positions``, shape (n, n)."""
    from scipy.spatial.distance import pdist, squareform

    shown: NDArray[np.float64] = squareform(pdist(positions))
    return shown


def stress_1(distances: NDArray[np.float64], shown: NDArray[np.float64]) -> float:
    """Kruskal's stress-1 of shown distances d against true distances δ.

    sqrt(sum (d - δ)^2 / sum d^2) over all pairs: Kruskal 1964, Psychometrika 29, 1, with the
    true distances in the place of the disparities. 0 is perfect; Kruskal calls 0.05 good and
    0.2 poor.

    Parameters
    ----------
    distances, shown : float64 arrays of shape (n, n)
        True and shown distances, symmetric, in one unit.

    Returns
    -------
    float
        Dimensionless; 0 if all distances are zero, infinite if only the shown ones are.

    Examples
    --------
    >>> stress_1(np.array([[0.0, 3.0], [3.0, 0.0]]), np.array([[0.0, 2.0], [2.0, 0.0]]))
    0.5
    """
    return float(_relative(((shown - distances) ** 2).sum(), (shown**2).sum()))


def point_stress(distances: NDArray[np.float64], shown: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stress-1 of each point alone: the sums run over the pairs it is part of.

    The squares, weighted by each point's sum of squared shown distances, average to the square
    of :func:`stress_1`.

    Parameters
    ----------
    distances, shown : float64 arrays of shape (n, n)
        True and shown distances, symmetric, in one unit.

    Returns
    -------
    float64 array of shape (n,)
        Dimensionless.

    Examples
    --------
    >>> point_stress(np.array([[0.0, 3.0], [3.0, 0.0]]), np.array([[0.0, 2.0], [2.0, 0.0]]))
    array([0.5, 0.5])
    """
    return _relative(((shown - distances) ** 2).sum(axis=1), (shown**2).sum(axis=1))


def _relative(error: NDArray[np.float64], norm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root of error over norm, with 0 / 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, np.sqrt(np.divide(error, norm)))


def fidelity(distances: NDArray[np.float64], shown: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation of each point's shown distances with its true ones.

    Parameters
    ----------
    distances, shown : float64 arrays of shape (n, n)
        True and shown distances, symmetric.

    Returns
    -------
    float64 array of shape (n,)
        1 where the picture keeps a point's distances up to one scale and offset; NaN where there
        is nothing to correlate: fewer than three points, or equal distances to all others.

    Examples
    --------
    >>> line = np.abs(np.subtract.outer([0.0, 1.0, 3.0], [0.0, 1.0, 3.0]))
    >>> fidelity(line, 2 * line).round(12)
    array([1., 1., 1.])
    """
    true_part, true_norm = _deviations(distances)
    shown_part, shown_norm = _deviations(shown)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation: NDArray[np.float64] = (true_part * shown_part).sum(axis=1) / (
            true_norm * shown_norm
        )
    return np.clip(correlation, -1.0, 1.0)


def _deviations(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Deviations of each row's n - 1 off-diagonal entries from their mean, and their norms."""
    n = len(matrix)
    off_diagonal = matrix[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    means = off_diagonal.mean(axis=1, keepdims=True)
    deviations = off_diagonal - means
    norms = np.linalg.norm(deviations, axis=1)
    return deviations, np.where(norms > _SAME * np.sqrt(n) * means[:, 0], norms, 0.0)
