"""The mean of two models as a state, and the verdict on the line between them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.errors import InvalidArgument
from thalweg.landscape import Quadratic

F64 = torch.float64


def network(seed, dtype=torch.float32):
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)]
    return nn.Sequential(*layers).to(dtype)


@pytest.fixture
def problem():
    torch.manual_seed(5)
    x = torch.randn(90, 4)
    return tw.Problem(network(0), nn.CrossEntropyLoss(), (x, x[:, :3].argmax(1)))


def test_the_mean_evaluates_alone_as_the_middle_of_the_line_does(problem, tmp_path):
    other = network(1)
    for model, name in ((problem.model, "a.pt"), (other, "b.pt")):
        torch.save(model.state_dict(), tmp_path / name)
    risk = tw.EmpiricalRisk(problem)
    ends = [tw.open_point(problem, tmp_path / name) for name in ("a.pt", "b.pt")]
    line = tw.barrier(risk, *ends, points=3)
    state = tw.mean_state(risk, *ends)
    assert list(state) == list(problem.model.state_dict())
    merged = copy.deepcopy(problem.model)
    merged.load_state_dict(state)
    x, y = problem.samples("train").slice(0, 90)
    with torch.no_grad():
        alone = float(nn.functional.cross_entropy(merged.eval()(x), y))
    assert alone == pytest.approx(float(line.loss[1]), rel=1e-5)
    # Averaged statistics are those of no model: without re-estimation the mean is another.
    plain = {k: (problem.model.state_dict()[k] + other.state_dict()[k]) / 2 for k in state}
    merged.load_state_dict({k: plain[k].to(state[k].dtype) for k in state})
    with torch.no_grad():
        averaged = float(nn.functional.cross_entropy(merged.eval()(x), y))
    assert averaged != pytest.approx(alone, rel=1e-2)


def test_frozen_weights_are_averaged_and_the_risk_is_left_as_it_was(problem, tmp_path):
    for model, value, name in ((problem.model, 1.0, "a.pt"), (network(1), 3.0, "b.pt")):
        state = model.state_dict() | {"3.bias": torch.full((3,), value)}
        torch.save(state, tmp_path / name)
    problem.model[3].bias.requires_grad_(False)
    risk = tw.EmpiricalRisk(problem)
    before = {name: tensor.clone() for name, tensor in risk.fixed().items()}
    ends = [tw.open_point(problem, tmp_path / name) for name in ("a.pt", "b.pt")]
    assert torch.equal(tw.mean_state(risk, *ends)["3.bias"], torch.full((3,), 2.0))
    assert torch.equal(tw.mean_state(risk, *ends, share=1.0)["3.bias"], torch.full((3,), 3.0))
    after = risk.fixed()
    assert all(torch.equal(after[name], before[name]) for name in before)


class Wells:
    """Two wells of depth 0 at -1 and 1, a hill of height ``height`` between."""

    space = tw.ParameterSpace.euclidean(1)

    def __init__(self, height):
        self.height = height

    def value(self, w):
        return self.height * float((w**2 - 1) ** 2)

    def gradient(self, w, batch=None):
        return 4 * self.height * w * (w**2 - 1)


@pytest.mark.parametrize(("height", "verdict"), [(0.05, "one basin"), (0.2, "a barrier")])
def test_the_barrier_against_what_is_allowed_decides(height, verdict):
    w = torch.ones(1, dtype=F64)
    line = tw.barrier(Wells(height), -w, w)
    judged = tw.one_basin(line, allowed=0.1)
    assert judged.verdict == verdict and judged.barrier == pytest.approx(height)
    assert str(judged).startswith(verdict)


def test_an_interval_on_both_sides_decides_nothing(problem):
    risk = tw.EmpiricalRisk(problem)
    line = tw.barrier(risk, *(risk.space.pack(network(seed)) for seed in (0, 1)), points=5)
    here = line.sel(quantity="error")
    low, high = float(here.barrier_low), float(here.barrier_high)
    assert low < high
    assert tw.one_basin(line, allowed=(low + high) / 2).verdict == "undecided"
    assert tw.one_basin(line, allowed=high).verdict == "one basin"
    assert tw.one_basin(line, allowed=low - 1e-9).verdict == "a barrier"


def test_losses_have_no_default():
    bowl = Quadratic(torch.ones(2, dtype=F64))
    line = tw.barrier(bowl, bowl.centre - 1, bowl.centre)
    with pytest.raises(InvalidArgument, match=r"no loss is small by itself; write allowed=0\.1"):
        tw.one_basin(line)
