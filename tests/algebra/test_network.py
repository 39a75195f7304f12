from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.algebra import load_solution, network, read_model, zero_system
from thalweg.algebra.arithmetic import Residues
from thalweg.algebra.layers import convolution, dense
from thalweg.algebra.network import Network, coefficients
from thalweg.errors import InvalidArgument, NotPolynomial
from thalweg.polynomial import PolynomialActivation, fit_polynomial

CONVOLUTIONAL = Network(
    (
        convolution(2, 3, shape=(5, 4), kernel=(3, 2), stride=(2, 1), padding=(1, 0)),
        convolution(3, 2, shape=(3, 3), kernel=(2, 2)),
        dense(2, 2, positions=4),
    ),
    coefficients("1,2,3"),
)
NETWORKS = [
    network((2, 3, 1), (0, 0, 0, 1), bias=True),
    network((3, 2, 2, 2), (1, "1/2", 2), bias=True, output_bias=True),
    network((2, 1), (0, 1)),
    CONVOLUTIONAL,
]


@pytest.mark.parametrize("net", NETWORKS)
def test_jacobian_is_the_complex_step_derivative(net):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3, net.inputs))
    weights = rng.normal(size=(1, net.size))
    values, jacobian = net.value_and_jacobian(weights, inputs)
    moved = weights + 1e-30j * np.eye(net.size)
    expected = net.predict(moved, inputs).reshape(net.size, -1).imag / 1e-30
    np.testing.assert_allclose(values[0], net.predict(weights, inputs)[0].ravel(), rtol=1e-13)
    np.testing.assert_allclose(jacobian[0].T, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("net", NETWORKS[1:])
def test_residues_agree_with_exact_integers(net):
    net = Network(net.layers, tuple(Fraction(round(c)) for c in net.activation))
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 5, size=(2, net.size))
    inputs = rng.integers(0, 3, size=(2, net.inputs))
    ring = Residues(101)
    found = net.value_and_jacobian(weights, inputs, ring)
    exact = net.value_and_jacobian(weights.astype(float), inputs.astype(float))
    for modular, real in zip(found, exact, strict=True):
        assert np.abs(real).max() < 2**53
        np.testing.assert_array_equal(modular, real.astype(np.int64) % 101)


def model_of_convolutions():
    polynomial = PolynomialActivation.from_coefficients([0.5, 1.0, -0.25])
    return nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)),
        polynomial,
        nn.Conv2d(3, 2, 2, bias=False),
        polynomial,
        nn.Flatten(),
        nn.Linear(8, 2),
    ).double()


def full_weights(model):
    parts = [p.detach().numpy().ravel() for m in model for p in m.parameters()]
    return np.concatenate(parts)


def test_a_model_is_read_with_its_shared_weights():
    model = model_of_convolutions()
    net = read_model(model, shape=(5, 4))
    inputs = torch.randn(4, 2, 5, 4, dtype=torch.float64)
    expected = model(inputs).detach().numpy()
    found = net.predict(full_weights(model)[None], inputs.reshape(4, -1).numpy())[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_chebyshev_activation_is_read_in_powers():
    fit = fit_polynomial(torch.relu, 4, radius=3.0)
    model = nn.Sequential(nn.Linear(2, 3), PolynomialActivation(fit), nn.Linear(3, 1)).double()
    inputs = torch.randn(5, 2, dtype=torch.float64)
    found = read_model(model).predict(full_weights(model)[None], inputs.numpy())[0]
    np.testing.assert_allclose(found, model(inputs).detach().numpy(), rtol=1e-12, atol=1e-12)


def test_a_solution_is_loaded_back():
    model = model_of_convolutions()
    net = read_model(model, shape=(5, 4))
    rng = np.random.default_rng(3)
    inputs, weights = rng.normal(size=(3, 40)), rng.normal(size=net.size)
    targets = net.predict(weights[None], inputs)[0]
    system = zero_system(net, inputs, targets)
    load_solution(model, system, weights)
    outputs = model(torch.from_numpy(inputs).reshape(3, 2, 5, 4)).detach().numpy()
    np.testing.assert_allclose(outputs, targets, rtol=1e-12)
    with pytest.raises(InvalidArgument, match="expected the 3 of the system's network"):
        load_solution(nn.Sequential(nn.Linear(2, 2)), system, weights)


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ([nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)], "Module 1 is ReLU"),
        (
            [nn.Linear(2, 3), nn.Linear(3, 3), PolynomialActivation.from_coefficients([0, 0, 1])],
            "expected a PolynomialActivation",
        ),
    ],
)
def test_models_that_are_no_polynomials_are_refused(modules, words):
    with pytest.raises(NotPolynomial, match=words):
        read_model(nn.Sequential(*modules))


def test_a_convolution_needs_the_shape_of_its_input():
    with pytest.raises(InvalidArgument, match="shape="):
        read_model(nn.Sequential(nn.Conv2d(1, 1, 2)))


@pytest.mark.parametrize("activation", ["relu", torch.relu, [0, float("nan")], "0,1/0", [3]])
def test_activations_that_are_no_polynomials_are_refused(activation):
    with pytest.raises(NotPolynomial, match="coefficients of a polynomial"):
        network((2, 3, 1), activation)


@pytest.mark.parametrize("widths", [(2,), (2, 0, 1), (2, 1.5, 1)])
def test_wrong_widths_are_refused(widths):
    with pytest.raises(InvalidArgument, match=r"e\.g\. \(2, 3, 1\)"):
        network(widths, (0, 1))
