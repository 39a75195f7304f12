"""Soft orders: sums, units that move, slopes by differences, and what a descent finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.connectivity.activation_matching import correlate_activations, match_activations
from thalweg.connectivity.matching import Placement, assign, match_weights, ordered_start
from thalweg.connectivity.midpoint import Midpoint
from thalweg.connectivity.search_clock import Clock
from thalweg.connectivity.soft_orders import (
    correlated,
    descend_softly,
    doubly_stochastic,
    mix,
    staying,
)
from thalweg.connectivity.symmetries import find_symmetries
from thalweg.problems import MLP

WIDTHS = (16, 16)


@pytest.fixture(scope="module")
def pair():
    """Give two trained networks of one problem: symmetries, and states."""
    problem = tw.load_problem("digits", network="mlp", widths=WIDTHS, train_size=200)
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    points = [
        tw.train(risk, risk.space.pack(MLP(64, WIDTHS, 10, seed=s)), epochs=40, lr=0.1, seed=s).w
        for s in (0, 1)
    ]
    symmetries = find_symmetries(risk, points[0])
    return symmetries, *(symmetries.state(w, {}) for w in points)


def midpoint_of(pair, steps=None):
    symmetries, first, _ = pair
    clock = Clock(1e9, steps)
    return Midpoint(symmetries.risk, symmetries, [first], clock), clock


def places(symmetries):
    return [[torch.from_numpy(rows) for rows in block.trained] for block in symmetries.blocks]


def test_rows_and_columns_sum_to_one():
    shares = doubly_stochastic(3 * torch.randn(7, 7, dtype=torch.float64))
    ones = torch.ones(7, dtype=torch.float64)
    torch.testing.assert_close(shares.sum(0), ones, rtol=0, atol=1e-12)
    torch.testing.assert_close(shares.sum(1), ones, rtol=0, atol=0.05)
    assert (shares >= 0).all()


def test_a_permutation_moves_units_as_a_placement_does(pair):
    symmetries, _, second = pair
    rng = np.random.default_rng(0)
    placement, shares = Placement.start(symmetries, second), []
    for block in symmetries.blocks:
        order = rng.permutation(block.size)
        placement.move(block, order)
        shares.append(torch.eye(block.size, dtype=torch.float64)[order])
    mixed = mix(torch.from_numpy(second), places(symmetries), shares)
    assert np.array_equal(mixed.numpy(), placement.state)


def test_the_slope_of_the_loss_in_soft_orders_is_that_of_differences(pair):
    symmetries, _, second = pair
    midpoint, _ = midpoint_of(pair)
    generator = torch.Generator().manual_seed(0)
    sizes = [block.size for block in symmetries.blocks]
    logits = [torch.randn(n, n, dtype=torch.float64, generator=generator) for n in sizes]
    along = [torch.randn(n, n, dtype=torch.float64, generator=generator) for n in sizes]

    def mixed(step):
        moved = [z + step * d for z, d in zip(logits, along, strict=True)]
        shares = [doubly_stochastic(z) for z in moved]
        return mix(torch.from_numpy(second), places(symmetries), shares)

    def loss(step):
        return midpoint.risk.value(midpoint._mean(mixed(step).numpy()))

    at = torch.zeros((), dtype=torch.float64, requires_grad=True)
    state = mixed(at)
    slope = midpoint.slope(state.detach().numpy())
    (derivative,) = torch.autograd.grad(state[: len(slope)] @ slope, at)
    assert float(derivative) == pytest.approx((loss(1e-5) - loss(-1e-5)) / 2e-5, rel=1e-6)


def test_a_descent_ends_below_weight_matching_and_never_above_its_start(pair):
    symmetries, first, second = pair
    midpoint, clock = midpoint_of(pair)
    plain = Placement.start(symmetries, second)
    matched = plain.copy()
    match_weights(symmetries, first, matched, np.random.default_rng(0))
    found = descend_softly(midpoint, symmetries, plain, staying(symmetries), clock)
    assert midpoint.loss(found) < 0.7 * midpoint.loss(matched) < 0.7 * midpoint.loss(plain)
    assert found is not plain and np.array_equal(plain.state, second)
    start = Placement.start(symmetries, first)
    assert midpoint.loss(
        descend_softly(midpoint, symmetries, start, staying(symmetries), clock)
    ) <= midpoint.loss(start)


def test_a_descent_ends_with_its_clock(pair):
    symmetries, _, second = pair
    midpoint, clock = midpoint_of(pair, steps=20)
    stays = staying(symmetries)
    descend_softly(midpoint, symmetries, Placement.start(symmetries, second), stays, clock)
    assert 20 <= clock.taken <= 22
    none = clock.started(0.0)
    start = Placement.start(symmetries, second)
    assert none.over() and descend_softly(midpoint, symmetries, start, stays, none) is start


def test_a_descent_from_correlations_begins_at_the_matching_by_activations(pair):
    symmetries, first, second = pair
    correlations = correlate_activations(symmetries, first, second)
    softness = correlated(symmetries, correlations)
    orders = match_activations(correlations)
    for block, logits in zip(symmetries.blocks, softness.logits, strict=True):
        assert np.array_equal(assign(-logits), orders[block.name])
    matched = ordered_start(symmetries, second, orders)
    midpoint, clock = midpoint_of(pair)
    plain = Placement.start(symmetries, second)
    found = descend_softly(midpoint, symmetries, plain, softness, clock)
    assert midpoint.loss(found) < 0.7 * midpoint.loss(matched)
    other = correlated(symmetries, {})  # of which nothing is known: units stay
    for block, logits in zip(symmetries.blocks, other.logits, strict=True):
        assert np.array_equal(logits.argmax(1), np.arange(block.size))
