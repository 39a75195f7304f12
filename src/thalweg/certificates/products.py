"""Matrix products with a bound of their rounding error: of standard products, or verified."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.certificates.extended import Double, Extended

Array = NDArray[np.float64]

UNIT = 2.0**-53
# Sums and roots of bounds are themselves computed in float64: each bound is widened by this, far
# above the error of a sum of up to 10^8 terms of one sign.
WIDER = 1 + 1e-7
_SLICES = 3


def gamma(count: float) -> float:
    """Bound the relative error of ``count`` operations (Higham 2002, lemma 3.1)."""
    return count * UNIT / (1 - count * UNIT)


def norm(x: NDArray[Any], axis: int | tuple[int, ...] | None = None) -> Any:
    """Bound the Euclidean norm from above."""
    sizes = np.abs(x) if np.iscomplexobj(x) else x
    return np.sqrt(np.square(sizes).sum(axis=axis)) * WIDER


class Standard:
    """
    Products ``A B^T`` as the machine computes them.

    Assumes that every entry is a sum of n products in some order, each operation rounded to
    float64 or fused: true of BLAS, not of Strassen's method.
    """

    name = "standard products, each entry a sum in any order"

    def __call__(self, a: Array, b: Array) -> Array:
        """Multiply (R, n) by the transpose of (m, n)."""
        return a @ b.T

    def relative(self, n: int) -> float:
        """Bound ``|error_ij| / (|a_i| |b_j|)`` over all products of inner length n so far."""
        return gamma(n + 1)


class Verified:
    """
    Products whose error bound rests on elementwise IEEE arithmetic alone.

    Both matrices are cut into slices of so few bits that products of slices are exact in float64,
    whatever order a library sums in; what is cut off is measured. Costs six products.

    References
    ----------
    K. Ozaki, T. Ogita, S. Oishi and S. M. Rump, Error-free transformations of matrix
    multiplication by using fast routines of matrix multiplication (2012).

    Examples
    --------
    >>> a = np.array([[1.0, 1e-9]])
    >>> verified = Verified()
    >>> float(verified(a, a)[0, 0]) - 1.0, verified.relative(2) < 1e-15
    (0.0, True)
    """

    name = "products of slices that are exact in float64, six for each product"

    def __init__(self) -> None:
        self._worst = 0.0

    def __call__(self, a: Array, b: Array) -> Array:
        """Multiply (R, n) by the transpose of (m, n)."""
        parts, relative, _ = exact_products(a, b)
        total = parts[-1]
        for product in reversed(parts[:-1]):  # the smallest first
            total = total + product
        self._worst = max(self._worst, relative + gamma(len(parts)) * 1.01)
        return np.asarray(total)

    def relative(self, n: int) -> float:
        """Bound ``|error_ij| / (|a_i| |b_j|)`` over all products so far."""
        return self._worst


def slices(x: Any, inner: int) -> tuple[list[Array], Array]:
    """
    Cut a matrix into slices of few bits.

    Parameters
    ----------
    x : array
        Shape (R, n), float64 or extended.
    inner : int
        n, the number of terms that an exact sum must take.

    Returns
    -------
    parts : list of ndarray
        Float64; the product of any two slices of two such matrices is exact in float64.
    tail : ndarray
        Bound of the Euclidean norm of what is left of each row, shape (R,).
    """
    bits = (53 - math.ceil(math.log2(max(inner, 2)))) // 2
    kind = Extended(double_double=not isinstance(x, np.ndarray))
    high, _ = kind.parts(x)
    largest = np.abs(high).max(axis=1, initial=0.0)
    # One above the exponent: rounding up cannot pass it.
    exponent = np.where(largest > 0, np.frexp(largest)[1] + 1, 0)[:, None]
    parts, remainder = [], x
    for i in range(1, _SLICES + 1):
        grid = np.ldexp(1.0, exponent - i * bits)
        slice_ = np.rint(kind.parts(remainder)[0] / grid) * grid
        parts.append(slice_)
        remainder = remainder - slice_
    return parts, norm(np.abs(kind.parts(remainder)[0]), axis=1)


def exact_products(a: Any, b: Any) -> tuple[list[Array], float, float]:
    """
    Multiply slices exactly: ``a b^T`` is the sum of the parts up to a measured rest.

    Returns
    -------
    parts : list of ndarray
        Six matrices, exact, the largest first.
    relative : float
        Bound of ``|rest_ij| / (|a_i| |b_j|)``.
    minor : float
        Such a bound of all parts but the first, added up by their sizes.
    """
    inner = a.shape[1]
    (first_slices, first_tail), (second_slices, second_tail) = slices(a, inner), slices(b, inner)
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0)]
    parts = [first_slices[i] @ second_slices[j].T for i, j in pairs]
    ratios = [_ratios(s, t) for s, t in ((first_slices, first_tail), (second_slices, second_tail))]
    (_, l2, l3, lt), (_, r2, r3, rt) = ratios
    relative = l2 * r3 + l3 * r2 + l3 * r3 + 2 * lt + 2 * rt
    # |a_i| is at least half of its first slice.
    minor = 2 * (l2 + r2 + l3 + r3) + l2 * r2
    return parts, relative * WIDER, minor * WIDER


def _ratios(parts: list[Array], tail: Array) -> list[float]:
    size = norm(parts[0], axis=1) / WIDER**2
    # The first slice is within half of the row's norm: its largest entry keeps its leading bits.
    size = np.where(size > 0, size * 0.5, 1.0)
    return [float((t / size).max(initial=0.0)) for t in [*(norm(p, axis=1) for p in parts), tail]]


def extended_product(kind: Extended, a: Any, b: Array) -> tuple[Any, float]:
    """
    Multiply an extended matrix (R, n) by the transpose of (m, n), exact slice by exact slice.

    In float64 the product is as the machine computes it, in any order of its sums.

    Returns
    -------
    product : extended array
        Shape (R, m).
    relative : float
        Bound of ``|error_ij| / (|a_i| |b_j|)``, without the last rounding: ``kind.unit`` of an
        entry of the product.
    """
    if isinstance(kind, Double):
        return a @ b.T, gamma(a.shape[1] + 1)
    parts, relative, minor = exact_products(a, b)
    total = kind.of(parts[-1])
    for product in reversed(parts[:-1]):
        total = total + kind.of(product)
    return total, relative + len(parts) * minor * kind.unit


def spectral_bound(weight: NDArray[Any]) -> Any:
    """
    Bound the largest singular value of matrices from above, rounding included.

    The root of order 8 of the Frobenius norm of the fourth power of ``A A^*``: at most r^(1/16)
    too large for rank r.

    Parameters
    ----------
    weight : ndarray
        Real or complex, shape (..., m, n).

    Returns
    -------
    ndarray
        Shape (...).

    Examples
    --------
    >>> 2.0 <= float(spectral_bound(np.array([[2.0, 0.0], [0.0, 1.0]]))) < 2.01
    True
    """
    rows, columns = weight.shape[-2:]
    a = weight if rows <= columns else weight.swapaxes(-1, -2)
    parts = 4 if np.iscomplexobj(a) else 1  # products of reals in one of the entries
    inner, sides = parts * max(rows, columns), parts * min(rows, columns)
    total = norm(a, axis=(-2, -1))
    power, lost = a @ a.conj().swapaxes(-1, -2), [gamma(inner + 4) * total**2]
    for _ in range(2):
        lost.append(gamma(sides + 4) * norm(power, axis=(-2, -1)) ** 2)
        power = power @ power.conj().swapaxes(-1, -2)
    bound = norm(power, axis=(-2, -1))
    for error in reversed(lost):
        bound = np.sqrt(bound + error)
    return np.minimum(bound * WIDER, total)
