"""Invertible maps of attention heads that bring their weights near to those of others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from thalweg.connectivity.symmetries import Heads, Mixed

Array = NDArray[np.float64]

# A map this ill-conditioned would lose digits of the function.
_CONDITION = 1e3


def head_costs(heads: Heads, first: Array, second: Array) -> Array:
    """
    Compare each head with each other, mapped by the orthogonal maps that bring them nearest.

    Returns
    -------
    ndarray
        Shape (heads, heads): minus the sum of nuclear norms, by which squared distances differ.
    """
    count = len(heads.inside)
    costs = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            for left, right in zip(heads.inside[i], heads.inside[j], strict=True):
                products = first[left.made] @ second[right.made].T
                products += first[left.read] @ second[right.read].T
                costs[i, j] -= np.linalg.svd(products, compute_uv=False).sum()
    return costs


def fit_maps(heads: Heads, first: Array, state: Array) -> list[tuple[Array, ...]]:
    """
    Map the channels of each head by the invertible matrices of least squared distance.

    A matrix M multiplies what makes the channels, its inverse transpose what reads them.

    Parameters
    ----------
    heads : Heads
        Whose channels may be mixed.
    first : ndarray
        The state that stays.
    state : ndarray
        The other; mapped in place.

    Returns
    -------
    list of tuple of ndarray
        For each head, the matrices of its parts.
    """
    return [tuple(_fit(part, first, state) for part in parts) for parts in heads.inside]


def _fit(part: Mixed, first: Array, state: Array) -> Array:
    made, read = state[part.made], state[part.read]
    matrix = nearest_map(first[part.made], first[part.read], made, read)
    state[part.made] = matrix @ made
    state[part.read] = np.linalg.solve(matrix.T, read)
    return matrix


def nearest_map(made0: Array, read0: Array, made1: Array, read1: Array) -> Array:
    """
    Find M that minimizes ``|made0 - M made1|^2 + |read0 - M^-T read1|^2``.

    The orthogonal solution (Procrustes) is the start of a descent over all invertible matrices,
    which stays where it is if that is better or the end is ill-conditioned.

    Examples
    --------
    >>> made, read = np.eye(2, 3), np.eye(2, 4)
    >>> m = np.array([[2.0, 0.5], [0.0, 1.0]])
    >>> found = nearest_map(made, read, np.linalg.solve(m, made), m.T @ read)
    >>> bool(np.allclose(found, m, atol=1e-5))
    True
    """
    left, _, right = np.linalg.svd(made0 @ made1.T + read0 @ read1.T)
    start = left @ right
    size = len(start)

    def loss(entries: Array) -> tuple[float, Array]:
        matrix = entries.reshape(size, size)
        try:
            inverse = np.linalg.inv(matrix).T
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(entries)
        off_made, off_read = matrix @ made1 - made0, inverse @ read1 - read0
        slope = 2 * off_read @ read1.T
        gradient = 2 * off_made @ made1.T - inverse @ slope.T @ inverse
        return float((off_made**2).sum() + (off_read**2).sum()), gradient.reshape(-1)

    options = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 500}
    optimum = minimize(loss, start.reshape(-1), jac=True, method="L-BFGS-B", options=options)
    matrix = np.asarray(optimum.x).reshape(size, size)
    better = optimum.fun < loss(start.reshape(-1))[0]
    usable = bool(np.isfinite(matrix).all()) and np.linalg.cond(matrix) < _CONDITION
    matrix = matrix if better and usable else start
    rounded = np.round(matrix)
    if not np.array_equal(rounded @ rounded.T, np.eye(size)):
        return matrix
    # An order of the channels, or signs, to the last bit: rounding must not blur them.
    exact, near = (loss(m.reshape(-1))[0] for m in (rounded, matrix))
    return rounded if exact <= near * (1 + 1e-9) + 1e-20 else matrix
