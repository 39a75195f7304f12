"""Points as whole states: what w leaves out comes from the file, and nothing passes unsaid."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.errors import CheckpointMismatch, InvalidArgument
from thalweg.problems import Problem
from thalweg.problems.between import FixedParts, States


class Standardize(nn.Module):
    """A buffer that a file must bring, and one that no file holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(5))
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, x):
        return (x - self.mean) * self.scale


def data():
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(5))
    return x, (x.sum(1) > 0).long()


def make(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(Standardize(), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    model[0].mean.copy_(torch.randn(5))
    model[1].requires_grad_(False)
    return Problem(model, nn.CrossEntropyLoss(), data())


def loss(model):
    x, y = data()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model.eval()(x), y))


def frozen_embedding(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    model[1].requires_grad_(False)
    model.train()(3 * torch.randn(40, 5))
    return Problem(model, nn.CrossEntropyLoss(), data())


@pytest.mark.parametrize("kind", [make, frozen_embedding])
def test_the_risk_at_a_point_is_the_model_of_the_file(kind, tmp_path):
    other = kind(3).model
    torch.save({"state_dict": other.state_dict()}, tmp_path / "w.pt")
    problem = kind(0)
    risk = tw.EmpiricalRisk(problem, batchnorm="frozen")
    w = tw.open_point(problem, tmp_path / "w.pt").load_into(risk)
    assert risk.value(w) == pytest.approx(loss(other), rel=1e-6)
    assert abs(loss(problem.model) - loss(other)) > 1e-3


def test_weights_and_what_is_left_are_the_whole_state():
    problem = make(1)
    space = tw.ParameterSpace.of(problem.model)
    point = tw.open_point(problem, problem.model.state_dict())
    assert point.weights(space).shape == (space.size,)
    assert set(point.fixed(space)) == {"0.mean", "0.scale", "1.weight", "1.bias"}
    assert any("persistent=False" in note and "0.scale" in note for note in point.notes)


def test_tied_weights_are_no_fixed_part():
    model = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    problem = Problem(model, nn.CrossEntropyLoss(), (torch.tensor([0, 1]), torch.tensor([1, 2])))
    point = tw.open_point(problem, model.state_dict())
    assert point.fixed(tw.ParameterSpace.of(model)) == {}


def test_a_point_of_another_problem_is_refused():
    point = tw.open_point(make(), make().model.state_dict())
    x, y = data()
    other = Problem(nn.Sequential(nn.Identity(), nn.Linear(5, 6)), nn.CrossEntropyLoss(), (x, y))
    with pytest.raises(CheckpointMismatch, match=r"0\.mean.*which the risk has not"):
        point.load_into(tw.EmpiricalRisk(other))


def test_the_digest_is_of_the_whole_state():
    state = make().model.state_dict()
    point = tw.open_point(make(), state)
    moved = tw.open_point(make(), {**state, "0.mean": state["0.mean"] + 1})
    assert point.sha256 == tw.open_point(make(7), state).sha256 != moved.sha256


@pytest.mark.parametrize("name", ["0.mean", "1.weight"])
def test_pack_says_what_it_leaves_out(name, caplog):
    risk = tw.EmpiricalRisk(make())
    state = {n: t for n, t in make(1).model.state_dict().items() if n in (*risk.space.names, name)}
    with caplog.at_level(logging.WARNING, "thalweg"):
        risk.space.pack(state)
    assert "pack took 2 of 3 tensors" in caplog.text and name in caplog.text
    assert "open_point" in caplog.text and "risk.set_fixed" in caplog.text


def test_pack_says_nothing_of_a_model_or_of_weights_alone(caplog):
    problem = make()
    risk = tw.EmpiricalRisk(problem)
    risk.space.pack(problem.model)
    risk.space.pack(risk.space.unpack(risk.space.pack(problem.model)))
    tied = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    tw.ParameterSpace.of(tied).pack(tied.state_dict())
    assert not caplog.text


def test_frozen_statistics_that_pack_was_given_are_not_passed_over(caplog):
    problem, trained = frozen_embedding(0), frozen_embedding(2).model.state_dict()
    risk = tw.EmpiricalRisk(problem, batchnorm="frozen")
    w = risk.space.pack(trained)
    assert "1.running_mean" in caplog.text
    risk.set_fixed(trained)
    point = tw.open_point(problem, trained)
    other = tw.EmpiricalRisk(problem, batchnorm="frozen")
    assert other.value(point.load_into(other)) == risk.value(w)


def test_parts_are_a_points_own_at_the_points_and_mixed_between():
    mixed = {"a": torch.tensor([[0.1], [0.7], [-0.3]]), "c": torch.tensor([[1j], [2j], [3j]])}
    parts = FixedParts(mixed, {"n": torch.tensor([4, 5, 6])})
    for i, shares in enumerate(torch.eye(3).tolist()):
        found = parts.at(shares)
        assert all(torch.equal(found[name], stack[i]) for name, stack in mixed.items())
        assert found["n"] == 4 + i
    found = parts.at([0.5, 0.25, 0.25])
    assert float(found["a"]) == pytest.approx(0.15) and found["n"] == 4
    assert complex(found["c"]) == pytest.approx(1.75j)


def test_states_say_what_differs_and_what_becomes_of_it():
    problems = [make(1), make(2)]
    risk = tw.EmpiricalRisk(problems[0])
    points = [tw.open_point(problems[0], p.model.state_dict()) for p in problems]
    note = States.of(risk, points).parts.note
    assert "2 frozen weights, interpolated (1.bias, 1.weight)" in note
    assert "1 buffer, interpolated (0.mean)" in note
    same = States.of(risk, [points[0], points[0]])
    assert not same.parts and same.parts.note == ""


def test_batch_norm_statistics_are_the_policys():
    problems = [frozen_embedding(1), frozen_embedding(2)]
    points = [tw.open_point(problems[0], p.model.state_dict()) for p in problems]
    note = States.of(tw.EmpiricalRisk(problems[0]), points).parts.note
    assert "2 batch-norm statistics, by the policy (1.running_mean, 1.running_var)" in note
    frozen = tw.EmpiricalRisk(problems[0], batchnorm="frozen")
    assert "2 buffers, interpolated" in States.of(frozen, points).parts.note


def test_a_landscape_without_state_takes_no_whole_state():
    bowl = tw.landscape.Quadratic(torch.ones(14))
    point = tw.open_point(make(), make().model.state_dict())
    with pytest.raises(InvalidArgument, match=r"has no .*set_fixed.*point.weights\(space\)"):
        tw.barrier(bowl, point, point)


def test_held_statistics_stay_those_that_are_held():
    problem, other = frozen_embedding(0), frozen_embedding(2).model.state_dict()
    risk = tw.EmpiricalRisk(problem)
    w0 = risk.space.pack(problem.model)
    held = risk.held(w0)
    statistics = {n: t for n, t in held.fixed().items() if "running" in n}
    point = tw.open_point(problem, other)
    w1 = point.load_into(held)
    after = held.fixed()
    assert all(torch.equal(after[name], tensor) for name, tensor in statistics.items())
    frozen = tw.EmpiricalRisk(problem, batchnorm="frozen")
    frozen.set_fixed(point.fixed(frozen.space) | statistics)
    assert held.value(w1) == pytest.approx(frozen.value(w1), rel=1e-6)
    assert abs(held.value(w1) - risk.value(w1)) > 1e-3
