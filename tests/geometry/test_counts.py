"""Intervals of counts of eigenvalues hold the truth where quadrature alone is far off."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import thalweg as tw
from geometry.matrices import Diagonal, overparametrized, planted
from thalweg.errors import InvalidArgument
from thalweg.geometry import near_zero, shares_below, spectral_density

LOG = torch.logspace(-6, 0, 1000, dtype=torch.float64)
SIGNED = torch.cat([LOG[::2], -0.1 * LOG[::5], torch.zeros(50)])


class Block(nn.Module):
    """A transformer's block of five hundred weights."""

    def __init__(self, d: int = 6, h: int = 2) -> None:
        super().__init__()
        self.q, self.o, self.h = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d), h
        self.n1, self.n2, self.head = nn.LayerNorm(d), nn.LayerNorm(d), nn.Linear(d, 3)
        self.m = nn.Sequential(nn.Linear(d, 8), nn.GELU(), nn.Linear(8, d))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (z.view(b, t, self.h, -1).transpose(1, 2) for z in self.q(self.n1(x)).chunk(3, 2))
        a = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(d // self.h), -1) @ v
        x = x + self.o(a.transpose(1, 2).reshape(b, t, d))
        return self.head((x + self.m(self.n2(x))).mean(1))


@pytest.fixture(scope="module")
def transformer():
    """The spectrum of a trained transformer's Hessian, as of shared/cases/truth."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 4, 6, generator=g), torch.arange(24) % 3
    torch.manual_seed(1)
    net = Block().eval()
    problem = tw.Problem(net, nn.CrossEntropyLoss(), (x, y))
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    w = risk.space.pack(net).double()
    w = tw.train(risk, w, optimizer="adam", lr=1e-2, epochs=20, batch_size=8).w
    dense = risk.hessian(w).to_dense()
    return torch.linalg.eigvalsh((dense + dense.T) / 2)


def holds(d, threshold, probes, steps, seeds=10):
    """In how many draws the interval holds the count; and the intervals' mean width."""
    true = int((d.abs() <= threshold).sum())
    found = [
        near_zero(spectral_density(Diagonal(d), probes=probes, steps=steps, seed=s), threshold)
        for s in range(seeds)
    ]
    assert all(f.low <= f.least <= f.count <= f.most <= f.high for f in found)
    return sum(f.low <= true <= f.high for f in found), np.mean([f.high - f.low for f in found])


def test_near_zero_of_a_transformer(transformer):
    d = transformer
    threshold = 1e-2 * float(d.max())
    held, width = holds(d, threshold, 10, 30)
    assert held >= 9 and width < 0.5 * len(d)
    assert holds(d, threshold, 20, 50, seeds=4)[0] == 4


@pytest.mark.parametrize("threshold", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("probes", [2, 6])
def test_near_zero_of_six_decades(threshold, probes):
    assert holds(LOG, threshold, probes, 30)[0] >= 9


@pytest.mark.parametrize("threshold", [1e-3, 3e-2])
def test_near_zero_of_both_signs(threshold):
    assert holds(SIGNED, threshold, 6, 25)[0] >= 9


def test_the_quadrature_by_itself_misses_the_count():
    """The control: without the bounds, two standard errors hold it nowhere."""
    found = near_zero(spectral_density(Diagonal(LOG), probes=20, steps=15), 1e-3)
    true = int((LOG <= 1e-3).sum())
    assert abs(found.count - true) > 3 * found.stderr and found.low <= true <= found.high


def test_null_space_behind_a_gap_is_counted_to_its_scatter():
    d, inside = overparametrized(600, 100), 0
    true = int((d.abs() <= 1e-3).sum())
    for seed in range(12):
        found = near_zero(spectral_density(Diagonal(d), steps=60, points=2, seed=seed), 1e-3)
        inside += found.low <= true <= found.high
        assert found.gap[0] < 1e-9 < 1e-3 < found.gap[1] and found.stderr < 10
    assert inside >= 10
    # 100 steps exhaust the other hundred eigenvalues: nothing is left open but the scatter.
    found = near_zero(spectral_density(Diagonal(d), steps=120, points=2), 1e-3)
    assert found.least == pytest.approx(found.most) and found.high - found.low < 30


def test_a_threshold_below_rounding_is_no_lower_bound():
    d = torch.cat([torch.zeros(90), torch.full((10,), 1e6)])
    found = near_zero(spectral_density(planted(d).float(), steps=60), 1e-3)
    assert found.low == 0.0 and found.high >= 90


def test_at_the_edges():
    everything = near_zero(spectral_density(Diagonal(torch.zeros(30))), 0.5)
    assert everything.count == pytest.approx(30) and everything.gap == (0.0, np.inf)
    assert everything.least == pytest.approx(30) and everything.high == 30
    nothing = near_zero(spectral_density(Diagonal(torch.ones(30))), 0.5)
    assert nothing.count == nothing.low == nothing.most == 0 and nothing.gap[0] == 0.0
    with pytest.raises(InvalidArgument, match="threshold"):
        near_zero(spectral_density(Diagonal(torch.ones(3))), 0.0)


def test_shares_below_hold_at_all_points():
    points = np.array([1e-5, 1e-3, 0.01, 0.1, 0.5, 2.0])
    true = np.array([float((at >= LOG).double().mean()) for at in points])
    held = []
    for seed in range(10):
        found = shares_below(spectral_density(Diagonal(LOG), steps=20, points=2, seed=seed), points)
        held.append((found.low.to_numpy() <= true) & (true <= found.high.to_numpy()))
    assert (np.sum(held, 0) >= 9).all()
    assert found.high[-1] == 1.0 and found.low[-1] > 0.99
