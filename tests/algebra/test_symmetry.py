from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.algebra import Gauge, Network, convolution, dense, network
from thalweg.algebra.network import coefficients

CONVOLUTIONAL = Network(
    (convolution(1, 2, shape=(4,), kernel=(2,)), dense(2, 1, positions=3)), coefficients("0,0,0,1")
)
CASES = [
    (network((2, 3, 1), (0, 0, 0, 1), bias=True), 6 * 27),
    (network((2, 2, 2, 1), (0, 0, 1), bias=True), 8 * 8),
    (network((2, 2, 2, 2), (0, 0, 1)), 8 * 8),
    (network((1, 2, 1), (0, 1, 0, 1)), 2 * 4),
    (network((1, 3, 1), (1, 1, 1)), 6),
    (CONVOLUTIONAL, 2 * 9),
]


@pytest.mark.parametrize(("net", "order"), CASES)
def test_the_group_has_its_order_and_keeps_the_network(net, order):
    gauge = Gauge(net, net.monomial)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=gauge.size) + 1j * rng.normal(size=gauge.size)
    orbit = gauge.orbit(weights)
    inputs = rng.normal(size=(4, net.inputs))
    expected = net.predict(gauge.embed(weights[None]), inputs)
    found = net.predict(gauge.embed(orbit), inputs)
    assert gauge.order == order == len(np.unique(np.round(orbit, 8), axis=0))
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-9)
    same = gauge.invariants(orbit)
    np.testing.assert_allclose(same, np.broadcast_to(same[:1], same.shape), rtol=1e-8)


@pytest.mark.parametrize(("net", "order"), CASES)
def test_invariants_tell_classes_apart(net, order):
    gauge = Gauge(net, net.monomial)
    weights = np.random.default_rng(1).normal(size=(2, gauge.size)) + 0j
    one, other = gauge.invariants(weights)
    assert (np.abs(one - other) > 1e-3 * np.abs(one)).any()


@settings(max_examples=25, deadline=None)
@given(case=st.sampled_from(CASES), seed=st.integers(0, 1000))
def test_the_real_form_of_any_turned_real_weights_is_found(case, seed):
    net, _ = case
    gauge = Gauge(net, net.monomial)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=gauge.size)
    orbit = gauge.orbit(weights)
    form = gauge.real_form(orbit[rng.integers(len(orbit))])
    assert form is not None
    inputs = rng.normal(size=(4, net.inputs))
    expected = net.predict(gauge.embed(weights[None]), inputs)
    found = net.predict(gauge.embed(form[0][None], form[1][None]), inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert set(form[1]) <= {1.0, -1.0}


def test_complex_weights_have_no_real_form():
    gauge = Gauge(network((2, 2, 1), (0, 0, 0, 1), bias=True), True)
    assert gauge.real_form(np.arange(1, 7) + 1j * np.arange(6)) is None


def test_the_sign_of_an_even_unit_is_found():
    gauge = Gauge(network((2, 1, 1), (0, 0, 1)), True)
    weights, signs = gauge.real_form(np.array([2j, -3j]))
    np.testing.assert_allclose(np.abs(weights), [2, 3])
    assert signs.tolist() == [-1.0]
