"""The line between weight vectors, where its height is known: bowls, two wells, permuted copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import barrier
from thalweg.dynamics import train
from thalweg.errors import InvalidArgument, InvalidWeights
from thalweg.landscape import ParameterSpace
from thalweg.problems import Problem, load_problem
from thalweg.risk import EmpiricalRisk


class Polynomial:
    """L(w) = f(w) in one dimension."""

    space = ParameterSpace.euclidean(1)

    def __init__(self, function):
        self.function = function

    def value(self, w):
        return float(self.function(w).sum())

    def gradient(self, w, batch=None):
        raise NotImplementedError


def ends(*values):
    return [torch.tensor([value], dtype=torch.float64) for value in values]


def get(found, name, quantity="loss"):
    return float(found[name].sel(quantity=quantity))


@pytest.fixture(scope="module")
def trained():
    problem = load_problem("digits", network="mlp", widths=[24], train_size=300, test_size=200)
    risk = EmpiricalRisk(problem)
    w = train(risk, risk.space.pack(problem.model), epochs=25, batch_size=30).w
    return risk, w


def permuted(risk, w, order):
    """The same function with the hidden units in another order."""
    parts = {name: tensor.clone() for name, tensor in risk.space.unpack(w).items()}
    first, bias, second, last = parts
    return risk.space.pack(
        {
            first: parts[first][order],
            bias: parts[bias][order],
            second: parts[second][:, order],
            last: parts[last],
        }
    )


def test_a_bowl_lies_below_its_chord():
    # L = w^2 / 2 from -1 to 3: L - chord = -8 t (1 - t), highest next to the ends.
    found = barrier(Polynomial(lambda w: w**2 / 2), *ends(-1.0, 3.0), points=11)
    t = found["t"].values
    assert found["loss"].values == pytest.approx((-1 + 4 * t) ** 2 / 2)
    assert get(found, "barrier") == pytest.approx(-8 * 0.1 * 0.9)
    assert get(found, "mean_excess") == pytest.approx(-2.0)
    assert get(found, "mean_over_best") == pytest.approx(0.0)
    assert found.attrs["length"] == 4.0


def test_a_ridge_off_the_middle_is_found_where_it_is():
    # On [0, 1]: L = t^2 (1 - t), highest at t = 2/3; both ends are zero.
    found = barrier(Polynomial(lambda w: w**2 * (1 - w)), *ends(0.0, 1.0), points=31)
    assert get(found, "barrier_at") == pytest.approx(2 / 3)
    assert get(found, "barrier") == pytest.approx(4 / 27)
    assert get(found, "barrier_stderr") == 0.0


def test_permuted_copies_are_one_function_with_a_barrier_between(trained):
    risk, w = trained
    other = permuted(risk, w, torch.randperm(24, generator=torch.Generator().manual_seed(1)))
    found = barrier(risk, w, other, points=7)
    loss = found["loss"].values
    assert loss[0] == pytest.approx(loss[-1], rel=1e-5)
    for name in ("loss", "test_loss", "error", "test_error"):
        assert get(found, "barrier", name) > 5 * get(found, "barrier_stderr", name) > 0
    assert get(found, "mean_excess") > 0
    # The highest point is the same whichever samples choose it.
    assert get(found, "crossfit") == pytest.approx(get(found, "barrier"))


def test_every_point_is_the_risk_there(trained):
    risk, w = trained
    other = permuted(risk, w, torch.arange(23, -1, -1))
    found = barrier(risk, w, other, points=3)
    for i, t in enumerate((0.0, 0.5, 1.0)):
        for prefix, part in (("", risk), ("test_", risk.on("test"))):
            here = part.evaluate(torch.lerp(w, other, t))
            assert float(found[f"{prefix}loss"][i]) == pytest.approx(here["loss"], rel=1e-5)
            assert float(found[f"{prefix}error"][i]) == here["error"]


def test_standard_errors_are_those_of_repeated_samples():
    """Over many data sets, barriers spread as their standard errors say, paired as they are."""
    model = nn.Linear(1, 1, bias=False)
    generator = torch.Generator().manual_seed(0)
    w0, w1 = torch.tensor([0.0]), torch.tensor([2.0])
    values, errors = [], []
    for _ in range(150):
        x = torch.randn(80, 1, generator=generator)
        y = 3 * torch.randn(80, 1, generator=generator)
        risk = EmpiricalRisk(Problem(model, nn.MSELoss(), (x, y)), batch_size=80)
        found = barrier(risk, w0, w1, points=3)
        values.append(get(found, "barrier"))
        errors.append(get(found, "barrier_stderr"))
    # The noise of y cancels in the pairs: excess = -4 t (1 - t) x^2, of mean -1, spread sqrt(2).
    assert np.mean(values) == pytest.approx(-1.0, abs=4 * np.std(values) / np.sqrt(150))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)
    assert np.mean(errors) == pytest.approx(np.sqrt(2 / 80), rel=0.05)


def test_the_crossfit_does_not_profit_from_the_choice_of_the_highest_point():
    """Where all points are equally high, choosing the highest raises the barrier, not it."""
    from thalweg.connectivity.line import _figures

    chance = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        table = chance.normal(size=(21, 100))
        table[[0, -1]] = 0.0
        rows.append(_figures(np.linspace(0, 1, 21), table))
    naive, fair, error = (
        np.array([row[k] for row in rows]) for k in ("barrier", "crossfit", "crossfit_stderr")
    )
    assert naive.mean() > 0.15
    assert abs(fair.mean()) < 4 * fair.std() / np.sqrt(200)
    # It scatters by more than one point's mean of 100 samples, as the bootstrap says.
    assert 0.1 < fair.std() < error.mean() < 3 * fair.std()
    low, high = (np.array([row[k] for row in rows]) for k in ("barrier_low", "barrier_high"))
    assert np.mean((low <= 0) & (high >= 0)) >= 0.95 > np.mean(np.abs(naive) <= 1.96 * 0.1)


def test_batch_norm_is_estimated_anew_at_every_point():
    problem = load_problem("digits", widths=[4, 4], train_size=100, test_size=50)
    risk = EmpiricalRisk(problem)
    w0 = risk.space.pack(problem.model)
    # The scale of a kernel before batch norm changes nothing if statistics follow.
    w1 = w0.clone()
    w1[risk.space.parameters[0].slice] *= 7.0
    found = barrier(risk, w0, w1, points=5)
    assert np.ptp(found["loss"].values) < 1e-4 * found["loss"].values[0]


def test_frozen_statistics_are_refused():
    problem = load_problem("digits", widths=[4, 4], train_size=50, test_size=20)
    risk = EmpiricalRisk(problem, batchnorm="frozen")
    w = risk.space.pack(problem.model)
    with pytest.raises(InvalidArgument, match="recalibrate"):
        barrier(risk, w, w, points=3)


@pytest.mark.parametrize("points", [2, 4, 1])
def test_the_mean_must_be_a_point(points):
    with pytest.raises(InvalidArgument, match="odd number"):
        barrier(Polynomial(lambda w: w), *ends(0.0, 1.0), points=points)


def test_infinite_ends_are_refused():
    with pytest.raises(InvalidWeights, match="w1"):
        barrier(Polynomial(lambda w: w), *ends(0.0, float("inf")))
