from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest

from thalweg.certificates.extended import DoubleDouble, Extended, has_long_double
from thalweg.certificates.nonlinearity import Activation, _largest
from thalweg.certificates.products import (
    Standard,
    Verified,
    exact_products,
    extended_product,
    spectral_bound,
)


def _exact(a, b):
    rows = [[Fraction(float(v)) for v in row] for row in a]
    columns = [[Fraction(float(v)) for v in row] for row in b]
    return [[sum(p * q for p, q in zip(r, c, strict=True)) for c in columns] for r in rows]


def _pair(seed, n=40):
    generator = np.random.default_rng(seed)
    a, b = generator.standard_normal((2, 5, n)) * 10.0 ** generator.integers(-8, 8, (2, 5, n))
    a[:, 1], b[:, 1] = a[:, 0], -b[:, 0]  # cancellation
    return a, b


@pytest.mark.parametrize("make", [Standard, Verified])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_a_product_is_within_its_bound(make, seed):
    a, b = _pair(seed)
    products = make()
    found, true = products(a, b), _exact(a, b)
    sizes = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    for i in range(5):
        for j in range(5):
            error = abs(Fraction(float(found[i, j])) - true[i][j])
            assert error <= products.relative(40) * sizes[i, j]
    assert products.relative(40) < 1e-14


def test_slices_multiply_exactly_in_any_order():
    a, b = _pair(7, 300)
    order = np.random.default_rng(0).permutation(300)
    one, _, _ = exact_products(a, b)
    other, _, _ = exact_products(a[:, order], b[:, order])
    assert all(np.array_equal(p, q) for p, q in zip(one, other, strict=True))


@pytest.mark.parametrize("pairs", [False, True], ids=["long double", "pairs"])
def test_extended_products_are_right_beyond_float64(pairs):
    if not pairs and not has_long_double():
        pytest.skip("this machine's long double is no wider than float64")
    kind = Extended(double_double=pairs)
    a, b = _pair(1)
    third = kind.of(a) * (kind.of(np.float64(1.0)) * 0.1)
    product, relative = extended_product(kind, third, b)
    unit = Fraction(kind.unit)
    high, low = kind.parts(product)
    left, right = kind.parts(third)
    assert relative < 1e-18
    for i in range(5):
        row = [Fraction(float(v)) + Fraction(float(right[i, k])) for k, v in enumerate(left[i])]
        for j in range(5):
            true = sum(x * Fraction(float(y)) for x, y in zip(row, b[j], strict=True))
            error = abs(Fraction(float(high[i, j])) + Fraction(float(low[i, j])) - true)
            size = np.linalg.norm(left[i]) * np.linalg.norm(b[j])
            assert error <= relative * size * 1.01 + abs(true) * (unit + Fraction(2) ** -105)


def test_pairs_add_and_multiply_as_mpmath_does():
    generator = np.random.default_rng(0)
    high = generator.standard_normal((2, 200))
    x, y = (DoubleDouble(h, h * 2.0**-54 * 0.7) for h in high)
    with mpmath.workdps(60):
        for operation in (lambda p, q: p + q, lambda p, q: p - q, lambda p, q: p * q):
            found = operation(x, y)
            for k in range(200):
                p, q = (mpmath.mpf(float(v.high[k])) + float(v.low[k]) for v in (x, y))
                true = operation(p, q)
                got = mpmath.mpf(float(found.high[k])) + float(found.low[k])
                assert abs(got - true) <= 2.0**-100 * (abs(true) + 2.0**-3)


POLYNOMIAL = Activation("polynomial", tuple(Fraction(c) for c in (0.1, 1.5, -0.3, 0.25, 0.01)))
SLOPED = Activation("leaky_relu", (Fraction(0.1),))
KINDS = ["tanh", "sigmoid", "softplus", "silu", "gelu", "relu", "identity"]
TRUE = {
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log(1 + mpmath.exp(x)),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: x * (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2,
    "relu": lambda x: max(x, mpmath.mpf(0)),
    "leaky_relu": lambda x: x if x > 0 else mpmath.mpf(0.1) * x,
    "identity": lambda x: x,
    "polynomial": lambda x: mpmath.polyval([0.01, 0.25, -0.3, 1.5, 0.1], x),
}


@pytest.mark.parametrize("pairs", [False, True], ids=["long double", "pairs"])
@pytest.mark.parametrize(
    "activation", [*map(Activation, KINDS), POLYNOMIAL, SLOPED], ids=lambda a: a.kind
)
def test_values_and_slopes_are_within_their_bounds(activation, pairs):
    kind = Extended(double_double=pairs)
    z = np.linspace(-6, 6, 25).reshape(5, 5) + 0.011
    for order in (0, 1):
        values, error = activation.evaluate(kind, kind.of(z), order)
        high, low = kind.parts(values)
        with mpmath.workdps(40):
            for i in np.ndindex(z.shape):
                true = mpmath.diff(TRUE[activation.kind], mpmath.mpf(z[i]), order)
                got = mpmath.mpf(float(high[i])) + float(low[i])
                assert abs(got - true) <= error[i] + 1e-19
                assert error[i] < 1e-14


@pytest.mark.parametrize(
    "activation", [*map(Activation, KINDS), POLYNOMIAL, SLOPED], ids=lambda a: a.kind
)
def test_derivatives_are_bounded_tightly(activation):
    z = np.linspace(-3, 3, 20001)
    first = (
        activation.evaluate(Extended(), np.asarray(z, np.longdouble), 1)[0].astype(float)
        if (activation.kind != "gelu")
        else np.array([float(mpmath.ncdf(x) + x * mpmath.npdf(x)) for x in z[::20]])
    )
    step = z[1] - z[0] if activation.kind != "gelu" else z[20] - z[0]
    one, two = activation.bounds(3.0)
    assert np.abs(first).max() <= one * (1 + 1e-12)
    assert one <= 1.3 * np.abs(first).max()
    if not activation.sided:
        second = np.abs(np.diff(first) / step).max()
        assert second <= two + 1e-9 and two <= 1.3 * second + 1e-9


def test_a_chebyshev_sum_bounds_a_polynomial():
    coefficients = [Fraction(c) for c in (1, 0, -2, 0, 1)]  # (x^2 - 1)^2
    assert 9.0 <= _largest(coefficients, 2.0) < 12.0
    assert _largest([Fraction(0), Fraction(0), Fraction(0), Fraction(1)], 2.0) == pytest.approx(8)


@pytest.mark.parametrize("shape", [(3, 50), (50, 3), (40, 40)])
def test_the_spectral_bound_is_one(shape):
    weight = np.random.default_rng(0).standard_normal(shape)
    true = np.linalg.norm(weight, 2)
    assert true <= spectral_bound(weight) <= 1.3 * true


def test_the_spectral_bound_takes_many_complex_matrices():
    generator = np.random.default_rng(1)
    parts = generator.standard_normal((2, 4, 3, 7, 5))
    weight = parts[0] + 1j * parts[1]
    true = np.linalg.norm(weight, 2, axis=(-2, -1))
    found = spectral_bound(weight)
    assert found.shape == (4, 3) and (true <= found).all() and (found <= 1.2 * true).all()
