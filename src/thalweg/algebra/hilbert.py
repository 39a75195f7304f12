"""Dimension and degree of an ideal from its leading monomials (Hilbert's polynomial)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

Monomial = tuple[int, ...]


def dimension_and_degree(leading: Iterable[Monomial], variables: int) -> tuple[int | None, int]:
    """Dimension and degree of the solution set of an ideal.

    Parameters
    ----------
    leading
        Exponents of the leading monomials of a Groebner basis for an order that compares total
        degrees first.
    variables
        Number of variables.

    Returns
    -------
    dimension, degree
        (None, 0) where there is no solution. In dimension 0 the degree is the number of solutions
        with multiplicity; else that of the part of largest dimension.

    Examples
    --------
    >>> dimension_and_degree([(1, 1), (2, 0), (0, 3)], 2)
    (0, 4)
    """
    minimal = _minimal(set(leading))
    if any(not any(m) for m in minimal):
        return None, 0
    numerator = _numerator(minimal)
    dimension = variables
    while numerator and sum(numerator.values()) == 0:
        numerator, dimension = _divided(numerator), dimension - 1
    return dimension, sum(numerator.values())


def _numerator(generators: list[Monomial]) -> Counter[int]:
    """Numerator of the Hilbert series over ``(1 - t)**variables``, by splitting on one variable."""
    occurrences = Counter(k for m in generators for k, power in enumerate(m) if power)
    if not occurrences:
        return Counter({0: 0 if generators else 1})
    pivot, count = occurrences.most_common(1)[0]
    if count == 1:
        return _coprime(generators)
    power = min((m[pivot] for m in generators if m[pivot] and sum(m) > m[pivot]), default=1)
    mixed = [m for m in generators if m[pivot] < power]
    raised = tuple(power if k == pivot else 0 for k in range(len(generators[0])))
    quotient = _minimal(
        {(*m[:pivot], max(0, m[pivot] - power), *m[pivot + 1 :]) for m in generators}
    )
    total = _numerator(_minimal({*mixed, raised}))
    for degree, value in _numerator(quotient).items():
        total[degree + power] += value
    return total


def _coprime(generators: list[Monomial]) -> Counter[int]:
    """Product of ``1 - t**degree`` over monomials that share no variable."""
    total = Counter({0: 1})
    for m in generators:
        product: Counter[int] = Counter()
        for degree, value in total.items():
            product[degree] += value
            product[degree + sum(m)] -= value
        total = product
    return total


def _divided(numerator: Counter[int]) -> Counter[int]:
    """Quotient of a polynomial with root 1 by ``1 - t``."""
    quotient: Counter[int] = Counter()
    running = 0
    for degree in range(max(numerator)):
        running += numerator[degree]
        quotient[degree] = running
    return quotient


def _minimal(monomials: set[Monomial]) -> list[Monomial]:
    """Monomials that no other one divides."""
    minimal: list[Monomial] = []
    for m in sorted(monomials, key=sum):
        if not any(all(a <= b for a, b in zip(k, m, strict=True)) for k in minimal):
            minimal.append(m)
    return minimal
