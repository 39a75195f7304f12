"""Sparse polynomials with rational coefficients, and systems of them evaluated in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import SystemTooLarge

Array = NDArray[Any]
Monomial = tuple[int, ...]
Polynomial = dict[Monomial, Fraction]
"""Coefficients by the exponents of a monomial, one exponent a variable."""

MOST_TERMS = 200_000


def constant(value: Fraction, variables: int) -> Polynomial:
    """A constant as a polynomial in so many variables."""
    return {(0,) * variables: value} if value else {}


def variable(index: int, variables: int) -> Polynomial:
    """One variable as a polynomial in so many variables."""
    return {tuple(int(k == index) for k in range(variables)): Fraction(1)}


def add(a: Polynomial, b: Polynomial) -> Polynomial:
    """Sum of two polynomials."""
    total = dict(a)
    for monomial, value in b.items():
        total[monomial] = total.get(monomial, Fraction(0)) + value
    return {monomial: value for monomial, value in total.items() if value}


def multiply(a: Polynomial, b: Polynomial) -> Polynomial:
    """Product of two polynomials.

    Raises
    ------
    SystemTooLarge
        For a product of more than `MOST_TERMS` terms.
    """
    total: Polynomial = {}
    for monomial_a, value_a in a.items():
        for monomial_b, value_b in b.items():
            monomial = tuple(map(sum, zip(monomial_a, monomial_b, strict=True)))
            total[monomial] = total.get(monomial, Fraction(0)) + value_a * value_b
        if len(total) > MOST_TERMS:
            raise SystemTooLarge(
                f"An equation has more than {MOST_TERMS} terms and cannot be written down; use"
                " fewer weights or a lower degree. Bounds (bezout, count) need no explicit system."
            )
    return {monomial: value for monomial, value in total.items() if value}


def compose(coefficients: Sequence[Fraction], inner: Polynomial, variables: int) -> Polynomial:
    """Polynomial in one variable, coefficients from the constant up, of a polynomial."""
    total = constant(coefficients[-1], variables)
    for value in reversed(coefficients[:-1]):
        total = add(multiply(total, inner), constant(value, variables))
    return total


def differentiate(a: Polynomial, index: int) -> Polynomial:
    """Partial derivative by one variable."""
    derivative: Polynomial = {}
    for monomial, value in a.items():
        if power := monomial[index]:
            lowered = (*monomial[:index], power - 1, *monomial[index + 1 :])
            derivative[lowered] = value * power
    return derivative


def degree(a: Polynomial, group: Sequence[int] | None = None) -> int:
    """Total degree in the variables of a group, all by default."""
    return max((sum(m) if group is None else sum(m[k] for k in group) for m in a), default=0)


@dataclass(frozen=True, eq=False)
class PolynomialSystem:
    """Equations ``p = 0`` with rational coefficients.

    Parameters
    ----------
    equations
        Polynomials, all in the same variables.
    names
        One name a variable.
    """

    equations: tuple[Mapping[Monomial, Fraction], ...]
    names: tuple[str, ...]

    @property
    def degrees(self) -> list[int]:
        """Total degree of each equation."""
        return [degree(dict(p)) for p in self.equations]

    @cached_property
    def _tables(self) -> tuple[Array, Array, Array]:
        """Exponents (T, n), coefficients (T, m) and (T, m * n) of values and derivatives."""
        n = len(self.names)
        columns = [(p, [differentiate(dict(p), k) for k in range(n)]) for p in self.equations]
        monomials = sorted({m for p, derivatives in columns for q in (p, *derivatives) for m in q})
        place = {m: k for k, m in enumerate(monomials)}
        values = np.zeros((len(monomials), len(columns)))
        slopes = np.zeros((len(monomials), len(columns), n))
        for row, (p, derivatives) in enumerate(columns):
            for m, c in p.items():
                values[place[m], row] = float(c)
            for k, q in enumerate(derivatives):
                for m, c in q.items():
                    slopes[place[m], row, k] = float(c)
        exponents = np.array(monomials, dtype=np.int64).reshape(-1, n)
        return exponents, values, slopes.reshape(len(monomials), -1)

    def evaluate(self, x: Array) -> tuple[Array, Array]:
        """Values, shape (P, m), and Jacobians, shape (P, m, n), at points of shape (P, n)."""
        exponents, values, slopes = self._tables
        terms = _monomials(x, exponents)
        shape = (len(x), len(self.equations), len(self.names))
        return terms @ values, (terms @ slopes).reshape(shape)

    def magnitude(self, x: Array) -> Array:
        """Sum of the absolute values of the terms of each equation, shape (P, m)."""
        exponents, values, _ = self._tables
        magnitudes: Array = _monomials(np.abs(x), exponents) @ np.abs(values)
        return magnitudes


def _monomials(x: Array, exponents: Array) -> Array:
    highest = int(exponents.max(initial=0))
    powers = np.ones((highest + 1, *x.shape), dtype=x.dtype)
    for k in range(1, highest + 1):
        powers[k] = powers[k - 1] * x
    terms = np.ones((len(x), len(exponents)), dtype=x.dtype)
    for column in range(x.shape[1]):
        terms *= powers[exponents[:, column], :, column].T
    return terms
