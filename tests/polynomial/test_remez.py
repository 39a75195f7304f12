"""The Remez exchange against closed forms, Bernstein's constant and a linear program."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev
from scipy.optimize import linprog

from thalweg.polynomial.remez import alternation, remez


def on_tensors(function, radius=1.0):
    return lambda points: function(torch.tensor(radius * points)).numpy()


CLOSED_FORMS = {
    "abs, degree 2: x^2 + 1/8": (np.abs, 2, [5 / 8, 0, 1 / 2], 1 / 8),
    "abs, degree 3: the same": (np.abs, 3, [5 / 8, 0, 1 / 2, 0], 1 / 8),
    "relu, degree 0: 1/2": (lambda t: np.maximum(t, 0), 0, [1 / 2], 1 / 2),
    "relu, degree 1: x/2 + 1/4": (lambda t: np.maximum(t, 0), 1, [1 / 4, 1 / 2], 1 / 4),
    "relu, degree 2: x^2/2 + x/2 + 1/16": (
        lambda t: np.maximum(t, 0),
        2,
        [5 / 16, 1 / 2, 1 / 4],
        1 / 16,
    ),
    "T_5, degree 4: zero": (lambda t: chebyshev.chebval(t, [0] * 5 + [1]), 4, [0] * 5, 1.0),
    # Best linear fit of a convex function: chord slope, half the largest gap to the chord.
    "exp, degree 1": (
        np.exp,
        1,
        [(np.cosh(1) + np.sinh(1) - np.sinh(1) * np.log(np.sinh(1)) - np.cosh(1)) / 2
         + np.cosh(1) / 2, np.sinh(1)],
        (np.cosh(1) - np.sinh(1) + np.sinh(1) * np.log(np.sinh(1))) / 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CLOSED_FORMS)
def test_closed_forms(case):
    function, degree, coefficients, error = CLOSED_FORMS[case]
    result = remez(function, degree)
    assert result.status == "converged"
    assert result.lower_bound == pytest.approx(error, rel=1e-8)
    np.testing.assert_allclose(result.coefficients, coefficients, atol=1e-8)


ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": torch.nn.functional.gelu,
    "softplus": torch.nn.functional.softplus,
    "sin": torch.sin,
}


@pytest.mark.parametrize("radius", [1.0, 6.0])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_error_equioscillates_at_degrees_1_to_30(name, radius):
    function = on_tensors(ACTIVATIONS[name], radius)
    for degree in range(1, 31):
        result = remez(function, degree)
        assert result.status in ("converged", "rounding"), degree
        if result.status == "rounding":
            continue
        at = result.reference
        assert len(at) == degree + 2 and (np.diff(at) > 0).all()
        errors = function(at) - chebyshev.chebval(at, result.coefficients)
        largest = np.abs(alternation(function, result.coefficients)[1]).max()
        assert (errors[1:] * errors[:-1] < 0).all()
        assert np.abs(errors).min() >= largest * (1 - 1e-6) - 3e-14 * radius


def test_errors_for_the_relu_approach_bernsteins_constant():
    # Varga and Carpenter (1985): 2m E_2m(|x|) -> 0.2801694990...; the ReLU is half of that.
    errors = [degree * remez(lambda t: np.maximum(t, 0), degree).lower_bound for degree in (10, 30)]
    assert errors[0] < errors[1] < 0.28016949902 / 2
    assert errors[1] == pytest.approx(0.140, abs=2e-4)


@pytest.mark.parametrize("degree", [3, 8])
def test_agrees_with_a_linear_program_on_a_grid(degree):
    points = np.append(np.cos(np.linspace(0, np.pi, 800)), 0.3)
    values = np.maximum(points - 0.3, 0)
    basis = chebyshev.chebvander(points, degree)
    above, below = np.c_[basis, -np.ones(801)], np.c_[-basis, -np.ones(801)]
    cost = np.append(np.zeros(degree + 1), 1.0)
    program = linprog(
        cost,
        A_ub=np.r_[above, below],
        b_ub=np.r_[values, -values],
        bounds=[(None, None)] * (degree + 2),
    )
    best = remez(lambda t: np.maximum(t - 0.3, 0), degree).lower_bound
    assert program.fun <= best + 1e-9
    assert best == pytest.approx(program.fun, rel=1e-4)


def test_too_few_iterations_are_data():
    result = remez(lambda t: np.maximum(t, 0), 20, max_iterations=1)
    assert result.status == "stalled"
    assert 0 < result.lower_bound < 0.00699


def test_peaks_are_found_at_a_kink_off_the_grid():
    points, errors = alternation(lambda t: 1 - np.abs(t - 0.123456), np.zeros(1))
    assert points[np.abs(errors).argmax()] == pytest.approx(0.123456, abs=1e-9)
    assert np.abs(errors).max() == pytest.approx(1.0, abs=1e-9)
