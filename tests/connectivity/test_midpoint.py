"""The loss at the mean of two networks, and its stand-in where statistics are re-estimated."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg as tw
from thalweg.connectivity.matching import Placement
from thalweg.connectivity.midpoint import Midpoint, enough_seconds
from thalweg.connectivity.search_clock import Clock
from thalweg.connectivity.symmetries import find_symmetries


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


@pytest.fixture
def midpoint(monkeypatch):
    """Give the loss at a mean, judged by 3 batches of 20, and the second network's order."""
    monkeypatch.setattr(sys.modules["thalweg.connectivity.midpoint"], "_OF_A_BATCH", 20)
    torch.manual_seed(0)
    x, y = torch.randn(60, 5, dtype=torch.float64), torch.arange(60) % 3
    models = [_network().double() for _ in range(2)]
    risk = tw.EmpiricalRisk(tw.Problem(models[0], nn.CrossEntropyLoss(), (x, y)))
    points = [risk.space.pack(model) for model in models]
    symmetries = find_symmetries(risk, points[0])
    first, second = (symmetries.state(w, risk.fixed()) for w in points)
    clock = Clock(1e9, None)
    found = Midpoint(risk, symmetries, [first], clock)
    return found, Placement.start(symmetries, second), sum(points) / 2, (x, y)


def _loss(w, x, y):
    """Write out the network, normalized by the batch."""
    model = _network().double().train()
    for parameter, values in zip(
        model.parameters(), w.split([p.numel() for p in model.parameters()]), strict=True
    ):
        parameter.data = values.view(parameter.shape)
    return float(F.cross_entropy(model(x), y).detach())


def test_orders_are_tried_by_batches_with_their_own_statistics(midpoint):
    found, placement, mean, (x, y) = midpoint
    batches = found.batches
    assert [len(batch) for batch in batches] == [20, 20, 20]
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(60))
    expected = [_loss(mean, x[batch], y[batch]) for batch in batches]
    assert found.tried(placement) == pytest.approx(np.mean(expected), rel=1e-12)
    assert found.screened(placement) == pytest.approx(expected[0], rel=1e-12) and found.screens
    assert found.loss(placement) == pytest.approx(found.risk.value(mean), rel=1e-12)
    assert found.loss(placement) != pytest.approx(found.tried(placement), rel=1e-6)


def test_the_gradient_is_that_of_what_orders_are_tried_by(midpoint):
    found, placement, mean, (x, y) = midpoint
    along = torch.randn(len(mean), dtype=torch.float64)

    def tried(step):
        losses = [_loss(mean + step * along, x[b], y[b]) for b in found.batches]
        return np.mean(losses)

    slope = float(found.gradient(placement) @ along.numpy())
    assert slope == pytest.approx((tried(1e-5) - tried(-1e-5)) / 2e-5, rel=1e-6)


def test_slopes_are_of_batches_that_change(midpoint):
    found, placement, *_ = midpoint
    slopes = [found.within(Clock(1.0, None)).slope(placement.state).numpy() for _ in range(300)]
    assert not np.array_equal(slopes[0], slopes[1])
    whole = found.gradient(placement) * found.share
    error = np.linalg.norm(np.mean(slopes, 0) - whole)
    spread = np.linalg.norm(np.std(slopes, 0)) / np.sqrt(len(slopes))
    # Batches of other compositions have other statistics: the means differ by a little more.
    assert error < 5 * spread + 0.05 * np.linalg.norm(whole)


def test_batches_are_no_larger_than_memory_allows(midpoint, monkeypatch):
    risk, module = midpoint[0].risk, sys.modules["thalweg.connectivity.midpoint"]
    risk.memory = 2 * 9 * risk.activation_bytes
    monkeypatch.setattr(module, "_AT_LEAST", 4)
    assert max(len(batch) for batch in module._batches(risk)) == 9
    monkeypatch.setattr(module, "_AT_LEAST", 12)
    assert max(len(batch) for batch in module._batches(risk)) == 12


def test_without_statistics_that_change_the_loss_itself_is_taken():
    problem = tw.load_problem("digits", network="mlp", widths=(6,), train_size=60)
    risk = tw.EmpiricalRisk(problem)
    w = risk.space.pack(problem.model)
    symmetries = find_symmetries(risk, w)
    state = symmetries.state(w, {})
    found = Midpoint(risk, symmetries, [state], Clock(1e9, None))
    placement = Placement.start(symmetries, state)
    assert found.tried(placement) == found.loss(placement) == risk.value(w)
    assert not found.batches and not found.screens


def test_a_search_is_given_what_many_gradients_take():
    problem = tw.load_problem("digits", network="mlp", widths=(6,), train_size=60)
    risk = tw.EmpiricalRisk(problem)
    assert enough_seconds(risk, risk.space.pack(problem.model)) == 6.0
