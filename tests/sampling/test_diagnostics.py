"""R-hat and effective sizes of chains whose autocorrelation is known."""

from __future__ import annotations

import math

import pytest
import torch

from thalweg.sampling import bulk_ess, diagnose, rhat, tail_ess
from thalweg.sampling.diagnostics import mean_ess, standard_error


def autoregressive(correlation, *, draws=4000, chains=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, chains, generator=generator, dtype=torch.float64)
    rows = [noise[0]]
    for row in noise[1:]:
        rows.append(correlation * rows[-1] + math.sqrt(1 - correlation**2) * row)
    return torch.stack(rows)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_effective_size_of_an_autoregression_is_known(correlation):
    draws = autoregressive(correlation)
    exact = draws.numel() * (1 - correlation) / (1 + correlation)
    assert bulk_ess(draws) == pytest.approx(exact, rel=0.15)
    assert mean_ess(draws) == pytest.approx(exact, rel=0.15)
    assert tail_ess(draws) > 0.5 * exact


def test_the_standard_error_covers():
    inside = [
        abs(float(draws.mean())) < 1.96 * standard_error(draws)
        for draws in (autoregressive(0.8, draws=300, chains=8, seed=seed) for seed in range(40))
    ]
    assert 0.85 <= sum(inside) / 40 <= 1


def test_rhat_sees_places_and_spreads_that_differ():
    draws = autoregressive(0.0, draws=500, chains=4)
    assert rhat(draws) < 1.01
    assert rhat(draws + torch.tensor([0, 0, 0, 2.0])) > 1.1
    assert rhat(draws * torch.tensor([1, 1, 1, 4.0])) > 1.1
    assert rhat(draws.cumsum(0)) > 1.1
    assert rhat(torch.ones(10, 2)) == 1.0


def test_heavy_tails_leave_rhat_finite():
    generator = torch.Generator().manual_seed(0)
    cauchy = torch.randn(1000, 4, generator=generator) / torch.randn(1000, 4, generator=generator)
    assert rhat(cauchy) < 1.02


def test_arviz_agrees():
    arviz = pytest.importorskip("arviz_stats", reason="arviz-stats is not installed")
    base = arviz.base.array_stats
    for correlation in (0.0, 0.5, 0.9):
        draws = autoregressive(correlation, draws=500, chains=4)
        theirs = draws.T.numpy()
        assert rhat(draws) == pytest.approx(float(base.rhat(theirs)), rel=1e-3)
        assert bulk_ess(draws) == pytest.approx(float(base.ess(theirs, method="bulk")), rel=0.02)
        assert tail_ess(draws) == pytest.approx(
            float(base.ess(theirs, method="tail", prob=(0.05, 0.95))), rel=0.02
        )


def test_groups_of_short_chains_are_judged_as_one():
    # Chains that hardly move, drawn from the density: each by itself has seen little.
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(800, generator=generator, dtype=torch.float64)
    noise = torch.randn(12, 800, generator=generator, dtype=torch.float64)
    draws = start + 0.01 * noise
    assert diagnose(draws, draws, draws, 1.0).rhat > 10
    assert diagnose(draws, draws, draws, 1.0, together=50).rhat < 1.02
    apart = draws + (torch.arange(800) >= 400)  # as from two sides that have not met
    assert diagnose(apart, apart, apart, 1.0, together=50).rhat > 1.1
