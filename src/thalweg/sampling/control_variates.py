"""Takes out of draws the scatter of what is known to have mean zero."""

from __future__ import annotations

import torch
from torch import Tensor


def without_scatter_of(known: Tensor, draws: Tensor) -> Tensor:
    """
    Subtract from draws the multiples of known quantities that leave the least variance.

    As these have mean zero the mean stays as it is in expectation, up to a share of one in the
    number of effective draws.

    Parameters
    ----------
    known : Tensor
        Shape (n, k, r), float64: r quantities of mean zero for n draws of k chains.
    draws : Tensor
        Shape (n, k).

    Returns
    -------
    Tensor
        Shape (n, k); the draws as they are where a number is not finite.

    References
    ----------
    Mira, Solgi and Imparato, Zero variance Markov chain Monte Carlo for Bayesian estimators (2013).

    Examples
    --------
    >>> known = torch.randn(400, 5, 2, dtype=torch.float64)
    >>> draws = 3 + known @ torch.tensor([1.0, -2.0], dtype=torch.float64)
    >>> adjusted = without_scatter_of(known, draws)
    >>> round(float(adjusted.mean()), 6), round(float(adjusted.std()), 6)
    (3.0, 0.0)
    """
    if not (known.isfinite().all() and draws.isfinite().all()):
        return draws
    rows = known.flatten(0, 1)
    centred = rows - rows.mean(0)
    target = draws.flatten()
    multiples = torch.linalg.lstsq(centred, (target - target.mean())[:, None]).solution[:, 0]
    adjusted: Tensor = draws - known @ multiples
    return adjusted
