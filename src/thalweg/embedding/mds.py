"""Multidimensional scaling: points in few dimensions whose distances resemble given ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import InvalidArgument


@dataclass(frozen=True)
class ClassicalScaling:
    """Outcome of classical scaling.

    Attributes
    ----------
    positions : float64 array of shape (n, dims)
        Centred, along principal axes, in the units of the distances.
    eigenvalues : float64 array of shape (n,)
        All eigenvalues of the doubly centred matrix, descending, in squared units.
    negative_share : float
        Sum of the magnitudes of negative eigenvalues over that of all: 0 up to rounding for
        Euclidean distances.
    """

    positions: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    negative_share: float


@dataclass(frozen=True)
class MetricScaling:
    """Outcome of metric scaling.

    Attributes
    ----------
    positions : float64 array of shape (n, dims)
        In the units of the distances; rotation and place are arbitrary.
    iterations : int
        Steps taken from the start.
    converged : bool
        Whether the stress came to rest before ``max_iterations``.
    """

    positions: NDArray[np.float64]
    iterations: int
    converged: bool


def classical_mds(distances: NDArray[np.float64], *, dims: int = 3) -> ClassicalScaling:
    """Classical (Torgerson) scaling: exact where ``dims`` dimensions suffice.

    The doubly centred matrix B = -J D^2 J / 2 is the Gram matrix of the centred points; its
    leading eigenvectors, times the roots of their eigenvalues, are the positions (Borg and
    Groenen, Modern Multidimensional Scaling, 2nd ed., section 12.1).

    Parameters
    ----------
    distances : float64 array of shape (n, n)
        Symmetric, zero on the diagonal.
    dims : int
        Number of dimensions, at most n - 1: more than that n points cannot span.

    Returns
    -------
    ClassicalScaling
        Positions of shape (n, dims), eigenvalues, share of negative ones.

    Raises
    ------
    InvalidArgument
        For fewer than two points, or ``dims`` outside 1 to n - 1.

    Examples
    --------
    >>> line = np.abs(np.subtract.outer([0.0, 1.0, 3.0], [0.0, 1.0, 3.0]))
    >>> x = classical_mds(line, dims=1).positions[:, 0]
    >>> np.abs(x[2] - x).round(12)
    array([3., 2., 0.])
    """
    check_dims(len(distances), dims)
    squares = distances**2
    means = squares.mean(axis=0)
    values, vectors = np.linalg.eigh(-0.5 * (squares - means - means[:, None] + means.mean()))
    values, vectors = values[::-1], vectors[:, ::-1]
    # Below this an eigenvalue is rounding, whose root would be visible noise along an axis that
    # the points do not occupy.
    floor = len(values) * np.finfo(np.float64).eps * np.abs(values).max()
    leading = np.where(values[:dims] > floor, values[:dims], 0.0)
    total = np.abs(values).sum()
    negative_share = float(-values[values < 0].sum() / total) if total > 0 else 0.0
    return ClassicalScaling(vectors[:, :dims] * np.sqrt(leading), values, negative_share)


def metric_mds(
    distances: NDArray[np.float64],
    start: NDArray[np.float64],
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 1000,
) -> MetricScaling:
    """Metric scaling by SMACOF: least sum of squared errors of the distances themselves.

    Each step majorizes the stress and cannot raise it (de Leeuw 1977; Borg and Groenen, Modern
    Multidimensional Scaling, 2nd ed., section 8.6), so that from the positions of classical
    scaling it ends no worse than those. The iteration is scikit-learn's.

    Parameters
    ----------
    distances : float64 array of shape (n, n)
        Symmetric, zero on the diagonal.
    start : float64 array of shape (n, dims)
        Where to start; the outcome is a function of it and of the distances.
    tolerance : float
        Stop once a step lowers the stress by less than this part of the sum of squared distances.
    max_iterations : int
        Stop after this many steps in any case; ``converged`` tells.

    Returns
    -------
    MetricScaling
        Positions of shape (n, dims), number of steps, whether they came to rest.
    """
    from sklearn.manifold import smacof

    # scikit-learn replaces zero distances by 1e-5, whatever the units: the largest is made 1.
    scale = float(distances.max())
    if scale == 0.0:
        return MetricScaling(np.zeros_like(start), 0, True)
    positions, _, iterations = smacof(
        distances / scale,
        metric=True,
        n_components=start.shape[1],
        init=start / scale,
        n_init=1,
        max_iter=max_iterations,
        eps=tolerance,
        normalized_stress=False,
        return_n_iter=True,
    )
    return MetricScaling(positions * scale, int(iterations), int(iterations) < max_iterations)


def check_dims(points: int, dims: int) -> None:
    """Raise unless ``points`` points can be embedded in ``dims`` dimensions."""
    if points < 2:
        raise InvalidArgument(f"got {points} points to embed, expected at least 2")
    if not 1 <= dims < points:
        raise InvalidArgument(
            f"got dims={dims} for {points} points, expected 1 to {points - 1}, the most that "
            f"{points} points can span; record more checkpoints or pass a smaller dims"
        )
