"""What a Gauss quadrature proves of the measure that it was made from, and its sampling error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# A recurrence that has come this close to its end, relative to its norm, has ended.
_ENDED = 1e-13


def share_bounds(
    nodes: Array, weights: Array, points: Array, *, whole: bool
) -> tuple[Array, Array]:
    """
    Bound the share of a measure up to some points by the moments that a Gauss quadrature knows.

    Of all measures with these moments, the one with a node at the point has the least mass before
    it and the most up to it (the inequalities of Chebyshev, Markov and Stieltjes: Szego,
    Orthogonal Polynomials, 1939, theorem 3.41.1; Krein and Nudelman, The Markov Moment Problem,
    1977, chapter III). It is the rule of Gauss and Radau: the quadrature's tridiagonal matrix, its
    last entry changed so that the point is an eigenvalue (Golub, SIAM Review 15, 1973, section 7).

    Parameters
    ----------
    nodes, weights : float64 array
        Shape (k,), of a quadrature of total weight 1.
    points : float64 array
        Shape (points,).
    whole : bool
        Whether the measure has no more points than the quadrature, which is it, then.

    Returns
    -------
    low, high : float64 array
        Between 0 and 1, shape (points,) each.

    Examples
    --------
    Two nodes know mean and variance, and Chebyshev's inequality of one side follows:

    >>> two, half = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    >>> low, high = share_bounds(two, half, np.array([-2.0]), whole=False)
    >>> low.tolist(), high.round(12).tolist()
    ([0.0], [0.2])
    """
    if whole:
        shares = np.array([weights[nodes <= at].sum() for at in points])
        return shares, shares
    matrix = _jacobi(nodes, weights)
    low, high = np.array([_bounds_at(matrix.copy(), at, nodes) for at in points]).T
    return low, high


def _bounds_at(matrix: Array, at: float, nodes: Array) -> tuple[float, float]:
    """Change the tridiagonal matrix of a quadrature to have a node at a point: masses there."""
    size = len(matrix)
    if size == 1:
        return 0.0, 1.0
    with np.errstate(all="ignore"):
        head = matrix[:-1, :-1] - at * np.eye(size - 1)
        last = np.zeros(size - 1)
        last[-1] = matrix[-1, -2] ** 2
        try:
            matrix[-1, -1] = at + np.linalg.solve(head, last)[-1]
        except np.linalg.LinAlgError:
            matrix[-1, -1] = np.inf
    if not abs(matrix[-1, -1]) < 1e12 * np.abs(nodes).max():
        # The other node has gone to infinity with no weight: the point is a node of one step less.
        matrix = matrix[:-1, :-1]
    values, vectors = np.linalg.eigh(matrix)
    shares = vectors[0] ** 2
    here = int(np.abs(values - at).argmin())
    before = float(shares[:here].sum())
    return before, min(1.0, before + float(shares[here]))


def _jacobi(nodes: Array, weights: Array) -> Array:
    """Give the tridiagonal matrix of a quadrature: shape (k, k), or less where it ends before."""
    scale = float(np.abs(nodes).max())
    rows = np.empty((len(nodes) + 1, len(nodes)))
    rows[0] = np.sqrt(weights / weights.sum())
    diagonal, beside = [], []
    for i in range(len(nodes)):
        basis = rows[: i + 1]
        image = nodes * basis[-1]
        diagonal.append(float(basis[-1] @ image))
        for _ in range(2):
            image = image - (basis @ image) @ basis
        norm = float(np.linalg.norm(image))
        if norm <= _ENDED * scale:
            break
        beside.append(norm)
        rows[i + 1] = image / norm
    beside = beside[: len(diagonal) - 1]
    matrix: Array = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    return matrix


def share_interval(low: float, high: float, size: int, probes: int) -> tuple[float, float]:
    """
    Add the scatter of random vectors to bounds of a share of eigenvalues.

    A random unit vector's share in a subspace of dimension p W is of Beta's distribution with mean
    p and variance p (1 - p) / (W / 2 + 1), whatever the subspace. The mean over probes is nearly
    so, with a variance so many times less; the ends are the p for which a mean as large as ``low``,
    or as small as ``high``, is left with probability 2.5%.

    Parameters
    ----------
    low, high : float
        Means over probes.
    size : int
        W.
    probes : int
        How many.

    Returns
    -------
    low, high : float
        A 95% interval of the share.

    Examples
    --------
    >>> least, most = share_interval(0.5, 0.5, 1000, 10)
    >>> round(least, 3), round(most, 3)
    (0.486, 0.514)
    """
    from scipy.optimize import brentq
    from scipy.special import betainc

    if size == 1:
        return low, high
    degrees = probes * (size / 2 + 1) - 1
    least, most = 1e-3 / size, 1 - 1e-3 / size
    low, high = (min(max(share, 0.0), 1.0) for share in (low, high))  # up to rounding

    def beyond(share: float) -> float:
        return 0.975 - float(betainc(share * degrees, (1 - share) * degrees, low))

    def before(share: float) -> float:
        return float(betainc(share * degrees, (1 - share) * degrees, high)) - 0.025

    # A share that no other could have led to but one beyond the last is 0 or 1 itself.
    bottom = top = float("nan")
    if beyond(least) < 0 < beyond(most):
        bottom = brentq(beyond, least, most)
    if before(most) < 0 < before(least):
        top = brentq(before, least, most)
    bottom = bottom if bottom == bottom else float(beyond(most) <= 0)
    top = top if top == top else float(before(most) >= 0)
    return min(bottom, low), max(top, high)


def share_stderr(first: Array, second: Array, size: int, probes: int) -> Array:
    """
    Give the standard error of a trace of f(A) / W over random unit vectors.

    Their variance is 2 (m2 - m1 m1) / (W + 2), with m1 and m2 the means of f and of its square over
    the eigenvalues: known far better from a few probes than from their own scatter.

    Parameters
    ----------
    first, second : float64 array
        Estimates of m1 and m2.
    size : int
        W.
    probes : int
        How many random vectors.

    Returns
    -------
    float64 array
        Standard errors of m1.
    """
    variance = 2 * np.maximum(second - first**2, 0.0) / (size + 2)
    spread: Array = np.sqrt(variance / probes)
    return spread
