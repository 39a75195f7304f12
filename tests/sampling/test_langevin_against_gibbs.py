"""Langevin chains between a degenerate minimum and a plain one: how long they stay at each."""

from __future__ import annotations

import math

import pytest
import torch

from thalweg.errors import InvalidArgument
from thalweg.landscape.testing import LandscapeContract
from thalweg.landscape.two_minima import TwoMinima
from thalweg.sampling import Langevin, Posterior, diagnose, sample

BETA, SMALL, LARGE = 1.0, 0.004, 0.06  # steps; in the stiffest direction 0.1 is unstable


class TestTwoMinima(LandscapeContract):
    @pytest.fixture
    def landscape(self):
        return TwoMinima(6, degenerate=2)

    @pytest.fixture
    def w(self):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(6, generator=generator, dtype=torch.float64) / 2


def run(dims, seed, *, step, draws=4000):
    """Give the share of time on the degenerate side, its standard error, and the diagnosis."""
    minima = TwoMinima(dims, degenerate=min(dims - 1, 2))
    posterior = Posterior(minima, 0 * minima.plain, beta=BETA, localization=0.0)
    kernel = Langevin(posterior, step_size=step)
    generator = torch.Generator().manual_seed(seed)
    chains = max(64, min(256, 20_000 // dims))
    starts = torch.stack([minima.plain, minima.singular]).repeat(chains // 2, 1)
    warm = sample(kernel, kernel.init(starts), generator, draws=draws // 2)
    right = []

    def observe(state):
        right.append((state.points[:, 0] > 0).double())
        return BETA * state.rise, ((state.points - posterior.centre) * state.gradient).mean(1)

    drawn = sample(kernel, warm.state, generator, draws=draws, observe=observe)
    shares = torch.stack(right).mean(0)  # chains are independent of one another
    found = diagnose(drawn.energy, drawn.distance, drawn.virial, drawn.acceptance)
    error = float(shares.std()) / math.sqrt(chains)
    return float(shares.mean()) - minima.occupancy(BETA), error, found


CASES = [(dims, seed) for dims in (2, 10, 100, 1000) for seed in range(5)]


def check(dims, seed, **more):
    difference, error, found = run(dims, seed, step=SMALL, **more)
    assert found.reasons() == []
    assert abs(difference) < 3 * error < 0.1
    assert run(dims, seed, step=LARGE, draws=300)[2].reasons()


def test_occupancy_is_the_gibbs_ratio():
    check(10, 0, draws=2000)


@pytest.mark.slow
@pytest.mark.parametrize(("dims", "seed"), CASES)
def test_occupancy_is_the_gibbs_ratio_up_to_a_thousand_dimensions(dims, seed):
    check(dims, seed)


def test_the_degenerate_minimum_takes_over_as_the_temperature_falls():
    for degenerate in (1, 2):
        minima = TwoMinima(4, degenerate=degenerate)
        odds = [share / (1 - share) for share in map(minima.occupancy, (1e3, 1e5))]
        # Volume vanishes like beta^-lambda; each quartic weight takes a quarter from lambda.
        assert odds[1] / odds[0] == pytest.approx(100 ** (degenerate / 4), rel=0.05)


def test_a_landscape_of_one_kind_of_minimum_is_refused():
    with pytest.raises(InvalidArgument, match="degenerate"):
        TwoMinima(3, degenerate=3)
