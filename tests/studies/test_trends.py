"""Rank trends within parents, and training to one and the same loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

from thalweg.errors import InvalidArgument
from thalweg.landscape import Quadratic
from thalweg.plots import plot_ladder, plot_trends
from thalweg.studies.claim import Verdict
from thalweg.studies.equal_loss import PRECISION, train_to_level
from thalweg.studies.invariant_measures import FLATNESS, MEASURES
from thalweg.studies.small_network import SmallLinear, SmallNetwork
from thalweg.studies.trends import THIRD, rank_trend, tabulate, trend_statistic, trends


def ladder(values: np.ndarray, name: str = "average") -> xr.Dataset:
    """Ends of parents, a row each, over rungs; the other measures have no numbers."""
    parents, rungs = np.indices(values.shape)
    columns = {key: ("end", np.full(values.size, np.nan)) for key in MEASURES}
    columns[name] = ("end", values.reshape(-1))
    coords = {"parent": ("end", parents.reshape(-1)), "rung": ("end", rungs.reshape(-1))}
    return xr.Dataset(columns, coords=coords)


def test_a_pair_within_the_tolerance_goes_neither_way():
    assert rank_trend([3.0, 2.0, 1.0]) == -1.0
    assert rank_trend([1.0, 2.0, 1.5]) == pytest.approx(1 / 3)
    assert rank_trend([1.0, 1.04, 2.0], tolerance=0.05) == pytest.approx(2 / 3)
    assert rank_trend([1.0, np.nan, 2.0]) == 1.0
    assert np.isnan(rank_trend([1.0, np.nan]))


def test_robust_is_up_whichever_way_a_measure_goes():
    falls = np.array([[4.0, 2.0, 1.0], [4.0, 2.0, 1.0]])
    assert trends(ladder(falls), FLATNESS).tolist() == [1.0, 1.0]
    assert trends(ladder(falls, "loss_noise"), FLATNESS).tolist() == [-1.0, -1.0]
    assert trends(ladder(falls / 10, "test_error"), ("test_error",)).tolist() == [1.0, 1.0]
    # One in twenty is within the tolerance of the mean rise, in logarithms.
    assert trends(ladder(np.array([[1.0, 0.97, 0.96]])), FLATNESS).tolist() == [0.0]


@pytest.mark.parametrize(
    ("factors", "verdict"),
    [
        ([1.0, 0.5, 0.25, 0.1], Verdict.SUPPORTED),
        ([1.0, 2.0, 4.0, 8.0], Verdict.REFUTED),
        ([1.0, 1.0, 1.0, 1.0], Verdict.REFUTED),
    ],
)
def test_verdicts_of_made_ladders(factors, verdict):
    noise = np.exp(0.1 * np.random.default_rng(0).normal(size=(8, 4)))
    noise = noise if factors[0] != factors[1] else np.ones((8, 4))
    found = trend_statistic(ladder(np.array(factors) * noise), FLATNESS)
    assert THIRD.verdict(found) is verdict and found is not None and found.n == 8


def test_shuffled_labels_have_no_trend_and_one_parent_no_interval():
    steep = ladder(np.array([[8.0, 4.0, 2.0, 1.0]] * 8))
    shuffled = trend_statistic(steep, FLATNESS, shuffle=0)
    assert shuffled is not None and THIRD.verdict(shuffled) is Verdict.REFUTED
    assert shuffled == trend_statistic(steep, FLATNESS, shuffle=0)
    assert trend_statistic(ladder(np.array([[8.0, 4.0]])), FLATNESS) is None


@pytest.mark.parametrize("training", [{"lr": 0.3, "batch_size": 0}, {"lr": 0.3, "batch_size": 1}])
def test_trainings_of_all_noises_end_at_the_level(training):
    network = SmallNetwork(samples=8, inputs=4, hidden=3, seed=0)
    end = train_to_level(
        network,
        network.beginning(0),
        training | {"momentum": 0.0},
        level=0.01,
        epochs=400,
        descent=300,
        seed=0,
    )
    assert end.status == "at level" and abs(network.value(end.w) / 0.01 - 1) <= PRECISION


def test_a_level_that_is_not_reached_is_told():
    bowl = Quadratic(torch.ones(3, dtype=torch.float64), height=1.0)
    given = {"level": 0.5, "epochs": 20, "descent": 20, "seed": 0}
    end = train_to_level(bowl, bowl.centre + 1.0, {"lr": 0.5, "batch_size": 0}, **given)
    assert end.status == "not reached" and end.loss > 0.99
    far = train_to_level(
        bowl, bowl.centre + 1.0, {"lr": 50.0, "batch_size": 0}, **given | {"epochs": 900}
    )
    assert far.status == "diverged"


@pytest.mark.parametrize(
    "network",
    [
        SmallNetwork(samples=8, inputs=4, hidden=3, seed=1),
        SmallLinear(samples=8, inputs=19, seed=1),
    ],
)
def test_small_landscapes_have_the_gradients_of_their_values(network):
    w = network.beginning(3)
    leaf = w[None].clone().requires_grad_()
    value, gradient = network.values_and_gradients(leaf)
    expected = torch.autograd.grad(value.sum(), leaf)[0]
    assert torch.allclose(gradient.detach(), expected, atol=1e-12)
    batches = [network.gradient(w, torch.tensor([i])) for i in range(network.samples)]
    assert torch.allclose(torch.stack(batches).mean(0), network.gradient(w), atol=1e-12)


def test_a_ladder_draws_parents_and_their_mean_where_all_have_come():
    values = np.array([[1.0, 4.0, np.nan], [4.0, 16.0, 2.0]])
    axes = plot_ladder(
        ladder(values), variable="average", names=["a", "b", "c"], ax=Figure().add_subplot()
    )
    *parents, mean = (np.asarray(line.get_ydata(), dtype=float) for line in axes.lines)
    np.testing.assert_allclose(parents, values)
    np.testing.assert_allclose(mean, [2.0, 8.0, np.nan])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    with pytest.raises(InvalidArgument, match="variable='height'"):
        plot_ladder(ladder(values), variable="height", names=["a", "b", "c"])


def test_trends_are_drawn_with_their_intervals():
    rows = tabulate({"up": ladder(np.array([[4.0, 2.0, 1.0]] * 3))}, ("average", "margin"))
    trends_of = xr.Dataset({key: ("row", [row[key] for row in rows]) for key in rows[0]})
    axes = plot_trends(trends_of, groups={"up": "up"}, threshold=1 / 3, ax=Figure().add_subplot())
    (container,) = axes.containers
    assert list(container.lines[0].get_xdata()) == [1.0, pytest.approx(np.nan, nan_ok=True)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["average", "margin"]
    assert rows[1]["parents"] == 0.0
