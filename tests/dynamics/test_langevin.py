"""Langevin dynamics: its stationary distribution, exactly where the scheme's own is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import binomtest, chi2

from dynamics.cases import Bowl, classification, start_of
from thalweg.dynamics import train
from thalweg.errors import InvalidArgument
from thalweg.landscape import ParameterSpace

CHAINS = 4000
CONSTANT = {"optimizer": "langevin", "schedule": "constant", "evaluate_every": "end"}


@pytest.mark.parametrize(("curvature", "lr"), [(1.5, 0.2), (0.5, 1.0)])
def test_the_stationary_variance_on_a_bowl_is_that_of_the_scheme(curvature, lr):
    temperature = 0.3
    w0 = torch.zeros(CHAINS, dtype=torch.float64)
    bowl = Bowl([curvature] * CHAINS)
    w = train(bowl, w0, lr=lr, temperature=temperature, steps=60, **CONSTANT).w
    # w' = (1 - lr c) w + sqrt(2 lr T) noise, coordinate by coordinate.
    variance = temperature / (curvature * (1 - lr * curvature / 2))
    total = float(w.square().sum())
    assert 1e-4 < chi2.cdf(total / variance, CHAINS) < 1 - 1e-4
    # Without the scheme's factor the test would fail.
    assert chi2.cdf(total / (temperature / curvature), CHAINS) > 1 - 1e-6


class TwoWells:
    """Copies of a line with a wide and a narrow well of one depth, at -1 and 1."""

    space = ParameterSpace.euclidean(CHAINS)
    wide, narrow, blend = 1.0, 9.0, 0.1

    def potential(self, x):
        sides = torch.stack([self.wide * (x + 1) ** 2 / 2, self.narrow * (x - 1) ** 2 / 2])
        return -self.blend * torch.logsumexp(-sides / self.blend, 0)

    def value(self, w):
        return float(self.potential(w).sum())

    def gradient(self, w, batch=None):
        x = w.detach().requires_grad_()
        return torch.autograd.grad(self.potential(x).sum(), x)[0]


def test_wells_of_one_depth_are_occupied_by_their_volume():
    wells, temperature = TwoWells(), 0.5
    w0 = torch.ones(CHAINS, dtype=torch.float64)
    w = train(wells, w0, lr=0.01, temperature=temperature, steps=1500, **CONSTANT).w

    def weight(x):
        height = float(wells.potential(torch.tensor(x, dtype=torch.float64)))
        return np.exp(-height / temperature)

    ridge = 0.5
    left, right = quad(weight, -8, ridge)[0], quad(weight, ridge, 6)[0]
    hits = int((w > ridge).sum())
    assert 0.15 < right / (left + right) < 0.35
    # A part in 50 of the narrow well's weight is left to the scheme, of order lr times curvature.
    interval = binomtest(hits, CHAINS).proportion_ci(0.9999)
    expected = right / (left + right)
    assert interval.low - 0.02 * expected < expected < interval.high + 0.02 * expected


def test_without_temperature_it_is_gradient_descent():
    risk, model, *_ = classification()
    w0, options = start_of(risk, model), {"lr": 0.1, "steps": 12}
    cold = train(risk, w0, optimizer="langevin", temperature=0.0, batch_size=None, **options)
    assert torch.allclose(cold.w, train(risk, w0, optimizer="gd", **options).w, atol=1e-12)


def test_noise_depends_on_the_seed_and_on_nothing_else():
    bowl, w0 = Bowl([1.0, 2.0]), torch.zeros(2, dtype=torch.float64)
    one, same, other = (
        train(bowl, w0, lr=0.1, temperature=1.0, steps=5, seed=seed, **CONSTANT).w
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_temperature_is_needed_and_is_langevins_own():
    bowl, w0 = Bowl([1.0]), torch.zeros(1, dtype=torch.float64)
    with pytest.raises(InvalidArgument, match="temperature=1e-4"):
        train(bowl, w0, optimizer="langevin", steps=1)
    with pytest.raises(InvalidArgument, match="only optimizer='langevin'"):
        train(bowl, w0, optimizer="sgd", temperature=1.0, steps=1)
    with pytest.raises(InvalidArgument, match="temperature=-1"):
        train(bowl, w0, optimizer="langevin", temperature=-1, steps=1)
