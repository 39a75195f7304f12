from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from thalweg.algebra import (
    Network,
    convolution,
    critical_system,
    dense,
    network,
    random_system,
    zero_system,
)
from thalweg.algebra.network import coefficients
from thalweg.algebra.polynomials import MOST_TERMS
from thalweg.algebra.system import most_terms
from thalweg.errors import ContradictorySamples, InvalidArgument, SystemTooLarge

CONVOLUTIONAL = Network(
    (convolution(1, 2, shape=(4,), kernel=(2,), stride=(2,)), dense(2, 1, positions=2)),
    coefficients((0, 0, 1)),
)
SYSTEMS = [
    random_system(network((2, 3, 1), (0, 0, 0, 1), bias=True), samples=3),
    random_system(network((2, 2, 2, 1), (0, 0, 1), bias=True), samples=2),
    random_system(network((2, 2, 2, 2), (0, 1, 1)), samples=2),
    random_system(network((2, 2, 2, 2), (0, 0, 2)), samples=2),
    random_system(network((1, 2, 1), (0, 0, 0, 1), bias=True, output_bias=True), samples=2),
    random_system(CONVOLUTIONAL, samples=3),
]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_written_system_is_the_network(system):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, system.weights)) + 1j * rng.normal(size=(3, system.weights))
    values, jacobian = system.evaluate(weights)
    written, slopes = system.explicit.evaluate(weights)
    np.testing.assert_allclose(written, values - system.targets.ravel(), rtol=1e-11, atol=1e-9)
    np.testing.assert_allclose(slopes, jacobian, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("system", SYSTEMS)
def test_degrees_are_those_of_the_written_equations(system):
    from thalweg.algebra.polynomials import degree

    assert system.degrees == system.explicit.degrees
    for p, row in zip(system.explicit.equations, system.layer_degrees, strict=True):
        assert row == tuple(degree(dict(p), list(group)) for group in system.groups)


def test_the_system_is_exact_over_the_rationals():
    system = zero_system(network((1, 1, 1), ("1/3", 0, 1)), [[0.5]], [0.1])
    w, a = Fraction(2, 7), Fraction(3)
    value = sum(c * w ** m[0] * a ** m[1] for m, c in system.explicit.equations[0].items())
    assert value == a * (Fraction(1, 3) + (w / 2) ** 2) - Fraction(0.1)


def test_the_critical_system_is_the_gradient():
    system = random_system(network((2, 2, 1), (0, 1, 1)), samples=3, gauge=False)
    penalties = [Fraction(k + 1, 8) for k in range(system.weights)]
    w = np.random.default_rng(2).normal(size=system.weights)

    def loss(v):
        residual = system.evaluate(v[None])[0][0] - system.targets.ravel()
        return (residual**2).sum() / 2 + (np.array(penalties, float) * v**2).sum() / 2

    moved = [loss(w + 1e-30j * e).imag / 1e-30 for e in np.eye(system.weights)]
    found, hessian = critical_system(system, penalties).evaluate(w[None])
    np.testing.assert_allclose(found[0], moved, rtol=1e-10)
    np.testing.assert_allclose(hessian[0], hessian[0].T, rtol=1e-10, atol=1e-10)


def test_contradictory_samples_are_named():
    inputs = [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    with pytest.raises(ContradictorySamples, match="0 and 2"):
        zero_system(network((2, 1), (0, 1)), inputs, [1.0, 2.0, 3.0, 2.0])


def test_samples_given_twice_are_kept_once():
    system = zero_system(network((1, 1), (0, 1)), [[2.0], [1.0], [2.0]], [1.0, 3.0, 1.0])
    np.testing.assert_array_equal(system.inputs, [[2.0], [1.0]])
    np.testing.assert_array_equal(system.targets, [[1.0], [3.0]])


@pytest.mark.parametrize(
    ("inputs", "targets"), [([[1.0]], [1.0]), ([[1.0, 2.0]], [1.0, 2.0]), ([[np.nan, 0]], [1])]
)
def test_wrong_samples_are_refused(inputs, targets):
    with pytest.raises(InvalidArgument):
        zero_system(network((2, 1), (0, 1)), inputs, targets)


def test_a_gauge_that_does_not_exist_is_refused():
    with pytest.raises(InvalidArgument, match="monomial"):
        random_system(network((2, 2, 1), (0, 1, 1)), samples=1, gauge=True)


def test_equations_with_too_many_terms_are_refused():
    system = random_system(network((12, 12, 12, 1), (0, 0, 0, 0, 1)), samples=1)
    with pytest.raises(SystemTooLarge, match=str(MOST_TERMS)):
        _ = system.explicit


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_number_of_terms_is_bounded_before_they_are_written(system):
    longest = max(len(p) for p in system.explicit.equations)
    assert longest - 1 <= most_terms(system.network) <= 6 * longest
