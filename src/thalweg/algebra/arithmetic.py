"""Numbers that a network is evaluated over: floating point, or the integers modulo a prime."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Arithmetic(Protocol):
    """What the evaluation of a network asks of a ring of numbers."""

    def matmul(self, a: Array, b: Array) -> Array:
        """Product of two stacks of matrices."""

    def reduce(self, a: Array) -> Array:
        """Representatives of the numbers in `a`."""

    def number(self, value: Fraction) -> Any:
        """A rational number as one of the ring's."""


class Numbers:
    """Real or complex floating point."""

    def matmul(self, a: Array, b: Array) -> Array:
        """Product of two stacks of matrices."""
        product: Array = np.matmul(a, b)
        return product

    def reduce(self, a: Array) -> Array:
        """Floating-point numbers as they are."""
        return a

    def number(self, value: Fraction) -> float:
        """The nearest float64."""
        return float(value)


class Residues:
    """The integers modulo a prime below 2**31, in int64."""

    def __init__(self, prime: int = 2**31 - 1) -> None:
        self.prime = prime

    def matmul(self, a: Array, b: Array) -> Array:
        """Product of two stacks of matrices, one column of `a` at a time against overflow."""
        total = np.zeros(1, dtype=np.int64)
        for inner in range(a.shape[-1]):
            total = total + a[..., :, inner, None] * b[..., None, inner, :] % self.prime
        return self.reduce(total)

    def reduce(self, a: Array) -> Array:
        """Residues from 0 to the prime less one."""
        return a % self.prime

    def number(self, value: Fraction) -> int:
        """Residue of a rational number."""
        return value.numerator * pow(value.denominator, -1, self.prime) % self.prime
