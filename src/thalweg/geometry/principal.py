"""The directions in which points of a trajectory vary most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.curvature.ranks import singular_cutoff
from thalweg.errors import InvalidArgument
from thalweg.result import Result


@dataclass(frozen=True)
class PrincipalDirections(Result):
    """
    Principal components of points.

    Attributes
    ----------
    mean : Tensor
        Shape (W,).
    directions : Tensor
        Shape (W, k), orthonormal; each points from the first point to the last.
    explained_variance : Tensor
        Shape (k,), float64: variance along each, with divisor n - 1.
    explained_variance_ratio : Tensor
        Shape (k,), float64: the same as a share of the total variance.
    """

    mean: Tensor
    directions: Tensor
    explained_variance: Tensor
    explained_variance_ratio: Tensor


def principal_directions(weights: Tensor, count: int = 2) -> PrincipalDirections:
    """
    Find the directions in which points of a trajectory vary most.

    Parameters
    ----------
    weights : Tensor
        Shape (n, W): points, such as all weights along a training.
    count : int
        Number of directions k.

    Returns
    -------
    PrincipalDirections
        Orthonormal directions and the variance along each.

    Raises
    ------
    InvalidArgument
        If the points span fewer than k dimensions.

    Notes
    -----
    From the eigenvectors of the Gram matrix of the centred points (n, n), in float64.

    Examples
    --------
    >>> points = torch.tensor(
    ...     [[-2.0, 0.0, 7.0], [0.0, 1.0, 7.0], [0.0, -1.0, 7.0], [2.0, 0.0, 7.0]]
    ... )
    >>> principal = principal_directions(points)
    >>> principal.explained_variance_ratio
    tensor([0.8000, 0.2000], dtype=torch.float64)
    >>> principal.directions[:, 0].abs()
    tensor([1., 0., 0.])
    """
    if weights.dim() != 2 or count < 1:
        raise InvalidArgument(
            f"weights of shape {tuple(weights.shape)} and count={count}; expected shape (n, W) and"
            " a positive count."
        )
    mean = weights.double().mean(0)
    centred = weights.double() - mean
    eigenvalues, eigenvectors = torch.linalg.eigh(centred @ centred.T)
    eigenvalues, eigenvectors = eigenvalues.flip(0), eigenvectors.flip(1)
    # Centring moves every entry by rounding: what is below is no direction of the points.
    floor = singular_cutoff((len(weights),)) ** 2 * float(eigenvalues.clamp_min(0).max())
    rank = int((eigenvalues > floor).sum())
    if count > rank:
        raise InvalidArgument(
            f"count={count}, and the {len(weights)} points span {rank} dimensions."
        )
    directions = torch.linalg.qr(centred.T @ eigenvectors[:, :count])[0]
    travelled = (centred[-1] - centred[0]) @ directions
    directions = directions * torch.where(travelled < 0, -1.0, 1.0)
    variance = eigenvalues[:count] / (len(weights) - 1)
    share = eigenvalues[:count] / centred.square().sum()
    dtype = weights.dtype
    return PrincipalDirections(mean.to(dtype), directions.to(dtype), variance, share)
