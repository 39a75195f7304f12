"""Arithmetic beyond float64: 80-bit numbers where the machine has them, else pairs of float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Significant bits of a long double that is one: 64 on x86; elsewhere it may be float64 itself.
_BITS = 63
_DIGITS = 45  # of mpmath, where a function has no other extended form


def has_long_double() -> bool:
    """Say whether this machine's long double has at least 64 significant bits."""
    return bool(np.finfo(np.longdouble).nmant >= _BITS)


class DoubleDouble:
    """
    Arrays of unevaluated sums ``high + low`` of two float64: about 104 significant bits.

    Parameters
    ----------
    high, low : ndarray
        Of one shape; ``low`` is at most half a unit in the last place of ``high``.

    References
    ----------
    T. J. Dekker, A floating-point technique for extending the available precision (1971);
    M. Joldes, J.-M. Muller and V. Popescu, Tight and rigorous error bounds for basic building
    blocks of double-word arithmetic (2017): relative errors below 2^-103 for sums (algorithm 6)
    and products (algorithm 11 without FMA).

    Examples
    --------
    >>> third = DoubleDouble.of(np.array([1.0])) * DoubleDouble.of(np.array([1 / 3]))
    >>> float((third + DoubleDouble.of(np.array([2.0**-80]))).low[0]) == 2.0**-80
    True
    """

    __array_priority__ = 1000  # numpy leaves mixed operations to this class

    def __init__(self, high: Any, low: Any) -> None:
        self.high, self.low = high, low

    @classmethod
    def of(cls, values: Any) -> DoubleDouble:
        """Take float64 values as they are."""
        if isinstance(values, DoubleDouble):
            return values
        high = np.asarray(values, dtype=np.float64)
        return cls(high, np.zeros_like(high))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(self.high.shape)

    def reshape(self, *shape: int) -> DoubleDouble:
        """Reshape both parts."""
        return DoubleDouble(self.high.reshape(*shape), self.low.reshape(*shape))

    def transpose(self, *axes: int) -> DoubleDouble:
        """Permute the axes of both parts."""
        return DoubleDouble(self.high.transpose(*axes), self.low.transpose(*axes))

    def __getitem__(self, key: Any) -> DoubleDouble:
        return DoubleDouble(self.high[key], self.low[key])

    def __neg__(self) -> DoubleDouble:
        return DoubleDouble(-self.high, -self.low)

    def __add__(self, other: Any) -> DoubleDouble:
        y = DoubleDouble.of(other)
        s, e = _two_sum(self.high, y.high)
        t, f = _two_sum(self.low, y.low)
        s, e = _fast_two_sum(s, e + t)
        return DoubleDouble(*_fast_two_sum(s, e + f))

    __radd__ = __add__

    def __sub__(self, other: Any) -> DoubleDouble:
        return self + -DoubleDouble.of(other)

    def __mul__(self, other: Any) -> DoubleDouble:
        y = DoubleDouble.of(other)
        p, e = _two_product(self.high, y.high)
        return DoubleDouble(*_fast_two_sum(p, e + (self.high * y.low + self.low * y.high)))

    __rmul__ = __mul__


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _fast_two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    s = a + b
    return s, b - (s - a)


def _two_product(a: Any, b: Any) -> tuple[Any, Any]:
    p = a * b
    (ah, al), (bh, bl) = _halves(a), _halves(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _halves(a: Any) -> tuple[Any, Any]:
    c = 134217729.0 * a  # 2^27 + 1: Veltkamp's splitting
    high = c - (c - a)
    return high, a - high


class Extended:
    """
    One kind of extended numbers: how to make them, and what their operations lose.

    Parameters
    ----------
    double_double : bool, optional
        Use pairs of float64; by default only where there is no long double.

    Attributes
    ----------
    name : str
        What it is, in words.
    unit : float
        Bound of the relative error of one sum or product.
    floor : float
        Errors of polynomials are bounded as if their arguments were at least this large.
    """

    def __init__(self, double_double: bool | None = None) -> None:
        self.pairs = not has_long_double() if double_double is None else double_double
        self.name = "pairs of float64" if self.pairs else "80-bit long double"
        self.unit = 2.0**-100 if self.pairs else 2.0**-63
        self.floor = 0.0

    def of(self, values: Any) -> Any:
        """Take float64 values as they are."""
        return DoubleDouble.of(values) if self.pairs else np.asarray(values, np.longdouble)

    def parts(self, x: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Split into the nearest float64 and what it leaves."""
        if isinstance(x, DoubleDouble):
            return x.high, x.low
        high = np.asarray(x, np.float64)
        return high, np.asarray(x - high, np.float64)

    def join(self, high: Any, low: Any) -> Any:
        """Put two parts together."""
        return DoubleDouble(high, low) if self.pairs else np.asarray(high, np.longdouble) + low

    def take(self, x: Any, places: NDArray[np.int64]) -> Any:
        """Gather columns of a matrix; column number ``x.shape[1]`` is one of zeros."""
        high, low = (np.concatenate([p, np.zeros((len(p), 1))], 1) for p in self.parts(x))
        return self.join(high[:, places], low[:, places])

    def through_mpmath(self, x: Any, function: Callable[[Any, Any], Any]) -> Any:
        """Apply ``function(mpmath, value)`` to each element with 45 digits: right, and slow."""
        import mpmath

        high, low = self.parts(x)
        pairs = np.empty((2, high.size))
        with mpmath.workdps(_DIGITS):
            for i, (h, t) in enumerate(zip(high.flat, low.flat, strict=True)):
                value = function(mpmath, mpmath.mpf(float(h)) + float(t))
                pairs[0, i] = float(value)
                pairs[1, i] = float(value - pairs[0, i])
        return self.join(pairs[0].reshape(high.shape), pairs[1].reshape(high.shape))


class Double(Extended):
    """
    Float64 as it is, whose error bounds hold for any program that evaluates the same formulas.

    Parameters
    ----------
    floor : float
        Largest radius of a polynomial in the Chebyshev basis: its terms are of the size that they
        have there, whatever the argument.
    """

    def __init__(self, floor: float = 0.0) -> None:
        super().__init__(double_double=False)
        self.name, self.unit, self.floor = "float64", 2.0**-53, floor

    def of(self, values: Any) -> Any:
        """Take float64 values as they are."""
        return np.asarray(values, np.float64)

    def parts(self, x: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the number itself, and nothing."""
        return x, np.zeros_like(x)

    def join(self, high: Any, low: Any) -> Any:
        """Give the sum."""
        return np.asarray(high + low, np.float64)
