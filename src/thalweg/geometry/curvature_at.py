"""The leading curvature at a point: all of it where it is small, the top of it where it is not."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.geometry.spectrum import top_eigenvalues
from thalweg.landscape.protocols import Curved, Landscape, placed

_DENSE = 400  # weights up to which all products are cheaper than a search
_LEADING = 100
_SHARE = 1e-10  # of the largest eigenvalue: what is below is taken for flat


def leading_curvature(
    landscape: Landscape, w: Tensor, *, dense: int = _DENSE, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """
    Give eigenvalues and eigenvectors of the Hessian, the largest by magnitude.

    Parameters
    ----------
    landscape : Landscape
        Without a Hessian nothing is given.
    w : Tensor
        Shape (W,).
    dense : int
        Weights up to which all eigenvectors are given, flat ones too.
    seed : int
        Of the search's first vector.

    Returns
    -------
    tuple of Tensor
        Shapes (r,) and (W, r), float64 on the CPU; r may be 0.
    """
    size = len(w)
    if not isinstance(landscape, Curved):
        return torch.zeros(0, dtype=torch.float64), torch.zeros(size, 0, dtype=torch.float64)
    operator, here = landscape.hessian(placed(landscape, w)), placed(landscape, w)
    if size <= dense:
        matrix = (operator @ torch.eye(size, dtype=here.dtype, device=here.device)).double().cpu()
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        return values, vectors
    leading = top_eigenvalues(operator, _LEADING, rtol=1e-2, max_products=600, seed=seed)
    values = torch.as_tensor(leading.values).double().cpu()
    vectors = torch.as_tensor(leading.vectors).double().cpu()
    kept = values.abs() > _SHARE * values.abs().max()
    return values[kept], vectors[:, kept]
