"""Fits of activations: published values, closed forms, orthogonality, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev, legendre, polynomial
from scipy.integrate import quad
from torch import nn

from thalweg.errors import InvalidArgument, NotElementwise
from thalweg.polynomial.fit import fit_polynomial

METHODS = ["minimax", "chebyshev", "interpolation", "legendre"]


@pytest.mark.parametrize(
    ("method", "error"),
    [("minimax", 0.0139), ("chebyshev", 0.0289), ("interpolation", 0.0273), ("legendre", 0.0278)],
)
def test_relu_at_degree_10(method, error):
    fit = fit_polynomial(torch.relu, 10, method=method)
    assert fit.error == pytest.approx(error, abs=5e-5)
    assert fit.degree == 10 and fit.method == method


@pytest.mark.parametrize("degree", [4, 10, 20, 30])
@pytest.mark.parametrize("radius", [1.0, 8.0])
def test_minimax_error_of_the_relu_is_0140_r_over_d(degree, radius):
    fit = fit_polynomial(torch.relu, degree, radius=radius)
    assert fit.status == "converged"
    assert fit.error == pytest.approx(0.140 * radius / degree, rel=0.04)
    assert fit.lower_bound <= fit.error <= fit.lower_bound * (1 + 1e-8)


@pytest.mark.parametrize(
    ("method", "at", "error"),
    [
        ("chebyshev", 1.1, 0.17),
        ("chebyshev", 1.5, 40.0),
        ("chebyshev", 2.0, 1500.0),
        ("minimax", 1.1, 0.66),
        ("minimax", 1.5, 128.0),
        ("minimax", 2.0, 4600.0),
    ],
)
def test_the_fit_explodes_outside_its_interval(method, at, error):
    fit = fit_polynomial(torch.relu, 10, radius=3.0, method=method)
    excess = abs(fit(np.array(3.0 * at)) - 3.0 * at) / 3.0
    assert excess == pytest.approx(error, rel=0.02)


def test_chebyshev_coefficients_of_the_absolute_value():
    # |x| = 2/pi - 4/pi sum (-1)^k T_2k(x) / (4 k^2 - 1).
    fit = fit_polynomial(torch.abs, 20, method="chebyshev")
    k = np.arange(1, 11)
    expected = np.zeros(21)
    expected[0] = 2 / np.pi
    expected[2::2] = -4 / np.pi * (-1.0) ** k / (4 * k**2 - 1)
    np.testing.assert_allclose(fit.chebyshev, expected, atol=1e-12)


def test_legendre_residual_is_orthogonal_to_the_polynomials():
    fit = fit_polynomial(torch.sigmoid, 5, radius=4.0, method="legendre")
    for k in range(6):
        basis = legendre.Legendre.basis(k)

        def integrand(t, basis=basis):
            return (1 / (1 + np.exp(-4 * t)) - fit(4 * np.array(t))) * basis(t)

        assert quad(integrand, -1, 1)[0] == pytest.approx(0, abs=1e-10)


def test_interpolation_meets_the_function_at_chebyshev_points():
    fit = fit_polynomial(torch.tanh, 7, radius=3.0, method="interpolation")
    points = 3 * chebyshev.chebpts1(8)
    np.testing.assert_allclose(fit(points), np.tanh(points), atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("function", [torch.relu, torch.nn.functional.gelu, torch.sin])
def test_sup_norm_error_is_that_of_a_fine_grid(function, method):
    fit = fit_polynomial(function, 9, radius=5.0, method=method)
    grid = np.union1d(np.linspace(-5, 5, 100_001), 0.0)
    seen = np.abs(function(torch.tensor(grid)).numpy() - fit(grid)).max()
    assert seen <= fit.error * (1 + 1e-12)
    assert fit.error == pytest.approx(seen, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    coefficients=st.lists(st.floats(-2, 2), min_size=1, max_size=7),
    radius=st.floats(0.25, 8.0),
    extra=st.integers(0, 3),
    method=st.sampled_from(METHODS),
)
def test_a_polynomial_is_its_own_fit(coefficients, radius, extra, method):
    def function(x):
        return torch.tensor(polynomial.polyval(x.numpy(), coefficients))

    degree = len(coefficients) - 1 + extra
    fit = fit_polynomial(function, degree, radius=radius, method=method)
    grid = np.linspace(-radius, radius, 101)
    scale = 1 + np.abs(polynomial.polyval(radius, np.abs(coefficients)))
    assert fit.error <= 1e-12 * scale
    np.testing.assert_allclose(
        polynomial.polyval(grid, fit.power), function(torch.tensor(grid)), atol=1e-11 * scale
    )


def test_the_two_bases_are_one_polynomial():
    fit = fit_polynomial(torch.tanh, 9, radius=2.5)
    x = np.linspace(-2.5, 2.5, 51)
    np.testing.assert_allclose(polynomial.polyval(x, fit.power), fit(x), atol=1e-13)


def test_symmetry_is_kept_exactly():
    relu = fit_polynomial(nn.ReLU(), 11, radius=2.0)
    assert relu.chebyshev[1] == 1.0 and not relu.chebyshev[3::2].any()
    assert not fit_polynomial(torch.sin, 8, radius=2.0).chebyshev[0::2].any()


def test_error_at_the_level_of_float64_is_said():
    fit = fit_polynomial(torch.sin, 20)
    assert fit.status == "rounding"
    assert fit.error < 1e-14


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"degree": -1}, InvalidArgument, "degree must be an integer of at least 0, got -1"),
        ({"degree": 2.5}, InvalidArgument, "degree"),
        ({"degree": True}, InvalidArgument, "degree"),
        ({"radius": 0.0}, InvalidArgument, "radius must be positive"),
        ({"radius": float("inf")}, InvalidArgument, "finite"),
        ({"radius": float("nan")}, InvalidArgument, "finite"),
        ({"radius": "large"}, InvalidArgument, "radius=8.0"),
        ({"method": "taylor"}, InvalidArgument, "'minimax'"),
        ({"activation": "relu"}, NotElementwise, "torch.relu"),
        ({"activation": nn.Softmax(dim=0)}, NotElementwise, "each element"),
        ({"activation": torch.sum}, NotElementwise, "shape"),
        ({"activation": nn.Dropout(0.5)}, NotElementwise, "deterministic"),
        ({"activation": torch.log}, InvalidArgument, "not finite"),
    ],
)
def test_bad_input_is_refused(changes, error, words):
    arguments = {"activation": torch.relu, "degree": 4, **changes}
    with pytest.raises(error, match=words):
        fit_polynomial(arguments.pop("activation"), arguments.pop("degree"), **arguments)
