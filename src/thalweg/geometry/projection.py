"""Points seen in a line, plane or space: projected onto it, with what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.result import Result


@dataclass(frozen=True)
class Projection(Result):
    """
    Points seen in a line, plane or space.

    Attributes
    ----------
    coordinates : Tensor
        Shape (n, k), float64, in units of the directions.
    distances : Tensor
        Shape (n,), float64: how far each point lies off the plane.
    variance_share : float
        Share of the points' variance that the plane shows; NaN if all points are one.
    """

    coordinates: Tensor
    distances: Tensor
    variance_share: float


def project(trajectory: Tensor, origin: Tensor, directions: Tensor) -> Projection:
    """
    Project points orthogonally onto a plane and say how much of them it shows.

    Parameters
    ----------
    trajectory : Tensor
        Shape (n, W).
    origin : Tensor
        Shape (W,): the plane's point at coordinates 0.
    directions : Tensor
        Shape (W, k), linearly independent, of any lengths and angles.

    Returns
    -------
    Projection
        Coordinates, distances from the plane and the share of variance shown.

    Raises
    ------
    InvalidArgument
        If shapes do not fit or the directions are linearly dependent.

    Examples
    --------
    >>> points = torch.tensor([[0.0, 0.0, 0.0], [2.0, 1.0, 0.0], [4.0, -1.0, 0.0]])
    >>> seen = project(points, torch.zeros(3), torch.tensor([[2.0], [0.0], [0.0]]))
    >>> seen.coordinates.flatten().tolist(), seen.distances.tolist()
    ([0.0, 1.0, 2.0], [0.0, 1.0, 1.0])
    >>> seen.variance_share
    0.8
    """
    if (
        directions.dim() != 2
        or trajectory.dim() != 2
        or not (trajectory.shape[1] == len(directions) == origin.numel())
    ):
        raise InvalidArgument(
            f"trajectory {tuple(trajectory.shape)}, origin {tuple(origin.shape)} and directions"
            f" {tuple(directions.shape)} do not fit; expected (n, W), (W,) and (W, k)."
        )
    basis, upper = torch.linalg.qr(directions.double())
    diagonal = upper.diagonal().abs()
    if bool((diagonal <= 1e-10 * directions.double().norm(dim=0)).any()):
        raise InvalidArgument("the directions are linearly dependent: they span no such plane.")
    offsets = trajectory.double() - origin.double()
    within = offsets @ basis
    distances = (offsets - within @ basis.T).norm(dim=1)
    total = float((offsets - offsets.mean(0)).square().sum())
    shown = float((within - within.mean(0)).square().sum())
    coordinates = torch.linalg.solve_triangular(upper, within.T, upper=True).T
    return Projection(coordinates, distances, shown / total if total > 0 else float("nan"))
