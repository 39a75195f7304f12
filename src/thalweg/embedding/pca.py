"""Principal component analysis from pairwise distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.embedding.mds import classical_mds


@dataclass(frozen=True)
class PrincipalComponents:
    """Outcome of a principal component analysis.

    Attributes
    ----------
    positions : float64 array of shape (n, dims)
        Scores: coordinates of the centred points along the components.
    explained_variance : float64 array of shape (dims,)
        Variance along each component, with divisor n - 1, in squared units.
    explained_variance_ratio : float64 array of shape (dims,)
        The same as a share of the total variance; NaN if all points are one.
    """

    positions: NDArray[np.float64]
    explained_variance: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64]


def principal_components(distances: NDArray[np.float64], *, dims: int = 3) -> PrincipalComponents:
    """Scores and explained variance of the points behind Euclidean distances.

    The scores are the positions of classical scaling: the Gram matrix of the centred points and
    their covariance matrix share the eigenvalues but for the divisor n - 1 (Gower 1966,
    Biometrika 53, 325). What this adds is the variance along each component; the components
    themselves, vectors of W weights, are never formed.

    Parameters
    ----------
    distances : float64 array of shape (n, n)
        Euclidean, symmetric, zero on the diagonal.
    dims : int
        Number of components, at most n - 1.

    Returns
    -------
    PrincipalComponents
        Scores of shape (n, dims), explained variance and its ratio of shape (dims,).

    Raises
    ------
    InvalidArgument
        For fewer than two points, or ``dims`` outside 1 to n - 1.

    Examples
    --------
    >>> points = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    >>> distances = np.linalg.norm(points[:, None] - points, axis=-1)
    >>> principal_components(distances, dims=2).explained_variance_ratio.round(12)
    array([0.8, 0.2])
    """
    scaling = classical_mds(distances, dims=dims)
    variance = (scaling.positions**2).sum(axis=0) / (len(distances) - 1)
    total = scaling.eigenvalues.sum() / (len(distances) - 1)
    ratio = variance / total if total > 0 else np.full(dims, np.nan)
    return PrincipalComponents(scaling.positions, variance, ratio)
