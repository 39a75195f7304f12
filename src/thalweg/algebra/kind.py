"""What a critical point is: a minimum, a maximum, a saddle, or none of these for certain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from thalweg.algebra.arithmetic import Array

LINES = 8
"""Random lines along which a flat point is looked at."""
NOTHING = 1e-7
"""Coefficients below this, relative to the largest on the line, count as zero."""


def kind_of(
    loss: Callable[[Array], Array],
    degree: int,
    weights: Array,
    *,
    index: int,
    positive: int,
    unexplained: Array,
) -> str:
    """
    Tell the kind of a critical point.

    Where every zero eigenvalue is tangent to a family of networks with the same loss, the signs of
    the others decide (the loss is a Morse-Bott function there). Else the loss, a polynomial, is
    written out along random lines in the remaining null space: an odd first term, or a negative
    one, means that it falls.

    Parameters
    ----------
    loss
        Values, shape (P,), at weights of shape (P, size).
    degree
        Of the loss.
    weights
        The critical point, shape (size,).
    index, positive
        Numbers of negative and of positive eigenvalues.
    unexplained
        Orthonormal basis, shape (size, k), of the null space that no family explains.

    Returns
    -------
    str
        ``"minimum"``, ``"maximum"``, ``"saddle"`` or ``"undetermined"``. A minimum, or a maximum,
        is one in the wide sense where families pass through it.
    """
    if index and positive:
        return "saddle"
    if not unexplained.shape[1]:
        return "maximum" if index else "minimum"
    if index:
        return "undetermined"
    odd, falls = _along_lines(loss, degree, weights, unexplained)
    return "saddle" if odd or (falls and positive) else "undetermined"


def _along_lines(
    loss: Callable[[Array], Array], degree: int, weights: Array, basis: Array
) -> tuple[bool, bool]:
    """Whether the loss begins with an odd term, and with a negative one, along some line."""
    rng = np.random.default_rng(0)
    odd = falls = False
    places = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    reach = 1 + np.linalg.norm(weights)
    for direction in (basis @ rng.normal(size=(basis.shape[1], LINES))).T:
        direction = reach * direction / np.linalg.norm(direction)
        values = loss(weights + places[:, None] * direction)
        terms = np.polynomial.chebyshev.cheb2poly(
            np.polynomial.chebyshev.chebfit(places, values, degree)
        )
        large = np.flatnonzero(np.abs(terms[3:]) > NOTHING * np.abs(terms).max()) + 3
        if len(large):
            odd |= bool(large[0] % 2)
            falls |= bool(terms[large[0]] < 0)
    return odd, falls
