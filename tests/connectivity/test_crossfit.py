"""Intervals of barriers against repeated draws of samples from populations of known barrier."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.connectivity.crossfit import crossfit
from thalweg.connectivity.line import _figures
from thalweg.landscape.sample_means import mean_interval

PLACES = np.linspace(0.0, 1.0, 11)
DRAWS = 150


@pytest.fixture(scope="module")
def networks():
    """Losses and errors on the line between two trained networks: the population's tables."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(5, 3, generator=g)

    def net():
        return nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3))

    def risk(n):
        x = torch.randn(n, 5, generator=g)
        y = ((x @ mix) + torch.randn(n, 3, generator=g)).argmax(1)
        return tw.EmpiricalRisk(tw.Problem(net(), nn.CrossEntropyLoss(), (x, y)))

    ends = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model, train = net(), risk(2000)
        w = train.space.pack(model)
        ends.append(tw.train(train, w, epochs=5, lr=0.05, batch_size=50, seed=seed).w)
    whole = risk(40_000)
    found = [whole.evaluate_samples(torch.lerp(*ends, t)) for t in PLACES.tolist()]
    return {
        name: np.stack([row[name].double().numpy() for row in found]) for name in ("loss", "error")
    }


def heavy_tails():
    """A barrier of lognormal height, each sample's own, beside the noise of its losses."""
    rng = np.random.default_rng(0)
    shape = np.sin(np.pi * PLACES)[:, None]
    noise = 0.3 * rng.standard_normal((11, 40_000)) * (shape > 1e-9)
    return shape * np.exp(1.2 * rng.standard_normal(40_000)) + noise


def flat():
    """All points as high as one another: nothing but choice."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((11, 40_000)) * (PLACES * (1 - PLACES) > 0)[:, None]


def coverage(table, samples, largest=None):
    """Share of draws in which each figure's interval holds its value of the population."""
    truth, rng, hits = _figures(PLACES, table, largest), np.random.default_rng(2), []
    names = ("barrier", "crossfit", "mean_excess", "mean_over_best")
    for _ in range(DRAWS):
        drawn = rng.integers(0, table.shape[1], samples)
        found = _figures(PLACES, table[:, drawn], largest)
        goal = {**truth, "crossfit": truth["barrier"]}
        hits.append([found[f"{n}_low"] <= goal[n] <= found[f"{n}_high"] for n in names])
    return dict(zip(names, np.mean(hits, 0), strict=True))


@pytest.mark.parametrize("quantity", ["loss", "error"])
def test_barriers_between_networks(networks, quantity):
    found = coverage(networks[quantity], 300, 1.0 if quantity == "error" else None)
    assert min(found.values()) >= 0.90, found


@pytest.mark.parametrize(("table", "samples"), [(heavy_tails, 100), (heavy_tails, 300), (flat, 60)])
def test_heavy_tails_and_nothing_but_choice(table, samples):
    found = coverage(table(), samples)
    assert min(found[n] for n in ("barrier", "crossfit", "mean_excess")) >= 0.90, found


def test_rare_errors_that_no_sample_shows(networks):
    table = networks["error"]
    found = coverage(np.where(np.arange(40_000) % 10, 0.0, table), 60, 1.0)
    assert min(found.values()) >= 0.93, found


def test_scatter_of_the_judged_samples_alone_is_too_small():
    """The control: without the choices in it, the standard error of the crossfit falls short."""
    found = [crossfit(np.random.default_rng(s).standard_normal((9, 200))) for s in range(100)]
    values = np.array([f.value for f in found])
    alone = np.mean([f.judged.std(ddof=1) / np.sqrt(200) for f in found])
    assert np.mean([f.stderr for f in found]) > 0.95 * values.std() > 1.1 * alone


def test_mean_interval_of_one_sample_and_of_none_that_differ():
    assert mean_interval(np.array([3.0])) == (3.0, 3.0)
    low, high = mean_interval(np.full(50, 2.0))
    assert low < 2.0 < high  # as if the largest value had been drawn once more
    assert mean_interval(np.zeros(50)) == (0.0, 0.0)


def test_crossfit_of_one_sample_and_of_few():
    assert crossfit(np.array([[1.0], [3.0]])).value == 3.0
    assert crossfit(np.array([[1.0, 3.0], [2.0, 0.0]])).value == 0.5  # each chosen on the other


def test_kept_resamples_are_those_that_are_drawn(monkeypatch):
    """Counts are drawn once for all quantities of a line; nothing may write into them."""
    table = np.random.default_rng(5).standard_normal((7, 60))
    kept = [crossfit(table).stderr for _ in range(2)]
    monkeypatch.setattr("thalweg.connectivity.crossfit._KEPT_SAMPLES", 0)
    assert kept == [crossfit(table).stderr] * 2
