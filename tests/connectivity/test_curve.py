"""Paths: saddles whose heights are known, ends, what is never worse, digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.connectivity.highest import highest_between
from thalweg.connectivity.path_shapes import Curve
from thalweg.errors import InvalidArgument, InvalidWeights
from thalweg.landscape import Quadratic
from thalweg.problems import MLP

F64 = torch.float64


class Ring:
    """Two wells on a ring in d dimensions; the pass over it has the height s - s^2 / 4."""

    def __init__(self, s: float, dims: int = 2) -> None:
        self.s, self.space = s, tw.ParameterSpace.euclidean(dims)

    def value(self, w):
        aside = w[1:].double().square().sum()
        return float((w[0].double() ** 2 + aside - 1) ** 2 + self.s * aside)

    def gradient(self, w, batch=None):
        slope = 4 * (w.square().sum() - 1) * w
        return slope + 2 * self.s * torch.cat([torch.zeros_like(w[:1]), w[1:]])


class MullerBrown:
    """The potential of Mueller and Brown (1979), whose stationary points are published."""

    space = tw.ParameterSpace.euclidean(2)
    A = torch.tensor([-200.0, -100.0, -170.0, 15.0], dtype=F64)
    a = torch.tensor([-1.0, -1.0, -6.5, 0.7], dtype=F64)
    b = torch.tensor([0.0, 0.0, 11.0, 0.6], dtype=F64)
    c = torch.tensor([-10.0, -10.0, -6.5, 0.7], dtype=F64)
    x = torch.tensor([1.0, 0.0, -0.5, -1.0], dtype=F64)
    y = torch.tensor([0.0, 0.5, 1.5, 1.0], dtype=F64)

    def _parts(self, w):
        dx, dy = w[0] - self.x, w[1] - self.y
        return dx, dy, self.A * torch.exp(self.a * dx**2 + self.b * dx * dy + self.c * dy**2)

    def value(self, w):
        return float(self._parts(w)[2].sum())

    def gradient(self, w, batch=None):
        dx, dy, e = self._parts(w)
        along = (e * (2 * self.a * dx + self.b * dy)).sum()
        return torch.stack([along, (e * (self.b * dx + 2 * self.c * dy)).sum()])


def ends(dims=2):
    w = torch.zeros(dims, dtype=F64)
    w[0] = 1.0
    return -w, w


@pytest.mark.parametrize(("s", "dims"), [(0.1, 2), (0.5, 2), (0.5, 20)])
def test_a_band_finds_the_height_of_the_pass(s, dims):
    found = tw.connect(Ring(s, dims), *ends(dims), kind="band")
    truth = s - s**2 / 4
    assert found.highest == pytest.approx(truth, rel=0.01) and found.status == "converged"
    assert found.line_highest == pytest.approx(1.0) and found.slope < 1e-3
    assert found.barrier == pytest.approx(truth, rel=0.01)


def test_a_band_finds_a_published_saddle():
    w0, w1 = (torch.tensor(w, dtype=F64) for w in ([-0.5582, 1.4417], [0.6235, 0.0280]))
    found = tw.connect(MullerBrown(), w0, w1, kind="band", bends=25)
    # Minima -146.700 and -108.167, the higher of the two saddles on the way -40.665.
    depth = -40.665 + 146.700
    assert found.highest + 146.700 == pytest.approx(depth, rel=0.01)
    place = found.curve.at(found.at)
    assert place.tolist() == pytest.approx([-0.822, 0.624], abs=0.03)


@pytest.mark.parametrize("kind", ["bezier", "chain"])
def test_a_trained_curve_goes_around_a_hill(kind):
    found = tw.connect(Ring(0.05), *ends(), kind=kind, steps=400)
    assert found.highest < 0.2 * found.line_highest and found.status == "trained"
    # No path is lower than the pass.
    assert found.highest >= 0.05 - 0.05**2 / 4 - 1e-9
    assert torch.equal(found.curve.at(0.0), ends()[0])
    assert torch.equal(found.curve.at(1.0), ends()[1])
    assert float(found.profile.loss.max()) <= found.highest + found.error
    assert found.profile.attrs["length"] == pytest.approx(found.curve.length)
    assert found.curve.length > 2.2


def test_the_line_is_given_where_nothing_is_lower():
    bowl = Quadratic(torch.tensor([1.0, 2.0, 5.0], dtype=F64))
    w0, w1 = bowl.centre - 1, bowl.centre + torch.tensor([1.0, 0.5, 0.2], dtype=F64)
    found = tw.connect(bowl, w0, w1, steps=100)
    assert found.highest <= found.line_highest and found.barrier <= found.line_barrier

    class Channel:
        """A straight valley: whatever leaves the line is higher."""

        space = tw.ParameterSpace.euclidean(2)

        def value(self, w):
            return float(math.cos(3 * float(w[0])) + 1e4 * w[1] ** 2)

        def gradient(self, w, batch=None):
            return torch.stack([-3 * torch.sin(3 * w[0]), 2e4 * w[1]])

    found = tw.connect(Channel(), *ends(), kind="chain", steps=1)
    assert found.status == "the line"
    assert found.highest == found.line_highest == pytest.approx(1.0, abs=1e-6)


def test_a_peak_between_the_places_is_found():
    places = np.linspace(0, 1, 11).tolist()

    def peak(t):
        return math.exp(-(((t - 0.437) / 0.05) ** 2))

    found = highest_between(peak, places, [peak(t) for t in places])
    assert found.value == pytest.approx(1.0, abs=1e-6) and found.at == pytest.approx(
        0.437, abs=1e-3
    )
    assert max(map(peak, places)) < 0.8 and found.error < 1e-3


def test_shares_of_a_curve_sum_to_one():
    for kind in ("bezier", "chain"):
        curve = Curve(kind, torch.randn(5, 3, dtype=F64))
        for t in (0.0, 0.13, 0.5, 1.0):
            assert float(curve.shares(t).sum()) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def digits():
    problem = tw.load_problem("digits", network="mlp", widths=(16,), train_size=300)
    risk = tw.EmpiricalRisk(problem)
    starts = [risk.space.pack(MLP(64, (16,), 10, seed=s)) for s in range(2)]
    return risk, [tw.train(risk, w, epochs=30, lr=0.05, seed=s).w for s, w in enumerate(starts)]


def test_digits_are_joined_by_a_curve(digits):
    risk, (w0, w1) = digits
    found = tw.connect(risk, w0, w1, steps=300, points=11)
    assert found.barrier < 0.05 * found.line_barrier and found.stderr > 0
    assert found.profile.sizes["t"] == 11 and "test_error" in found.profile
    assert found.profile.loss[0] == pytest.approx(risk.value(w0))
    again = tw.connect(risk, w0, w1, steps=300, points=11)
    assert torch.equal(again.curve.points, found.curve.points)


def test_whole_states_are_joined(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(60, 4), torch.randint(0, 3, (60,))
    made = [
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        for _ in range(2)
    ]
    problem = tw.Problem(made[0], nn.CrossEntropyLoss(), (x, y))
    risk = tw.EmpiricalRisk(problem)
    points = [tw.open_point(problem, model.state_dict()) for model in made]
    found = tw.connect(risk, *points, steps=30, points=5)
    assert found.highest <= found.line_highest and "notes" in found.profile.attrs


def test_refusals():
    bowl = Quadratic(torch.ones(2, dtype=F64))
    w = bowl.centre
    with pytest.raises(InvalidArgument, match="write 'bezier', 'chain' or 'band'"):
        tw.connect(bowl, w, w, kind="arc")
    with pytest.raises(InvalidArgument, match="bends=0"):
        tw.connect(bowl, w, w, bends=0)
    with pytest.raises(InvalidArgument, match="points=4"):
        tw.connect(bowl, w, w, points=4)
    with pytest.raises(InvalidWeights, match="w1: 1 of 2 weights"):
        tw.connect(bowl, w, torch.tensor([0.0, torch.nan], dtype=F64))


@pytest.mark.slow
def test_a_curve_has_under_a_hundredth_of_the_lines_barrier():
    problem = tw.load_problem("digits", network="mlp", widths=(32, 32))
    risk = tw.EmpiricalRisk(problem)
    starts = [risk.space.pack(MLP(64, (32, 32), 10, seed=s)) for s in (4, 5)]
    w0, w1 = (tw.train(risk, w, epochs=40, lr=0.05, seed=s).w for s, w in enumerate(starts))
    found = tw.connect(risk, w0, w1, test=False)
    assert found.line_barrier > 0.5 and found.barrier < 0.01 * found.line_barrier
