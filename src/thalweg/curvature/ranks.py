"""The one rule for numerical ranks: below which share of the largest a singular value is zero."""

from __future__ import annotations

import math

EPS = 2.0**-52
"""Rounding of float64."""


def singular_cutoff(shape: tuple[int, ...], *, rounding: float = EPS) -> float:
    """
    Give the share of the largest singular value below which others count as zero.

    It is what a Gram matrix of the same size resolves, so that ranks read off a Jacobian J and off
    J J^T are one: rounding leaves eigenvalues of J J^T uncertain by max(shape) times ``rounding``
    of the largest, and singular values by the root of that. For eigenvalues that are squares of
    singular values (of a Gram matrix, or of the Hessian at a zero) take its square.

    Parameters
    ----------
    shape : tuple of int
        Of the matrix.
    rounding : float
        Relative accuracy of the entries; by default that of float64.

    Returns
    -------
    float
        The share.

    Examples
    --------
    >>> singular_cutoff((64, 16))  # 2^-23
    1.1920928955078125e-07
    """
    return math.sqrt(max(shape) * rounding)
