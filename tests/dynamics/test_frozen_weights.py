"""Trainings of networks with frozen weights: checkpoints are whole, and go on from any problem."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.errors import InvalidWeights
from thalweg.problems import Problem
from thalweg.run import read_checkpoint

OPTIONS = {"epochs": 4, "lr": 0.1, "batch_size": 10, "every": 2}


def make(seed: int) -> Problem:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    model[0].requires_grad_(False)
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(5))
    return Problem(model, nn.CrossEntropyLoss(), (x, (x.sum(1) > 0).long()))


@pytest.fixture
def trained(tmp_path):
    problem = make(1)
    risk = tw.EmpiricalRisk(problem)
    result = tw.train(risk, risk.space.pack(problem.model), run=tmp_path / "run", **OPTIONS)
    return risk, result


def test_checkpoints_hold_frozen_weights(trained):
    risk, result = trained
    tensors, about = read_checkpoint(result.checkpoints[-1])
    assert torch.equal(tensors["0.weight"], risk.fixed()["0.weight"])
    assert about["parameters"] == ["2.weight", "2.bias"]
    other = tw.EmpiricalRisk(make(2))
    w = tw.open_point(other.problem, result.checkpoints[-1]).load_into(other)
    assert other.value(w) == pytest.approx(risk.value(result.w), rel=1e-6)


def test_branches_from_a_file_have_its_frozen_weights(trained):
    risk, result = trained
    other = tw.EmpiricalRisk(make(2))
    before = other.fixed()
    stay = {"epochs": 1, "lr": 1e-9, "batch_size": 10, "evaluate_every": "end"}
    tree = tw.branch(other, result, at=["final"], copies=1, scale=0.0, **stay)
    loss = tree.branches[0].result.history[-1]["loss"]
    assert loss == pytest.approx(risk.value(result.w), rel=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.fixed().items())


@pytest.mark.parametrize("bad", [torch.ones(1), torch.ones(8, 5, dtype=torch.complex64)])
def test_frozen_weights_of_another_form_are_refused(bad):
    risk = tw.EmpiricalRisk(make(1))
    with pytest.raises(InvalidWeights, match=r"0\.weight.*expected \(8, 5\)"):
        risk.set_fixed({"0.weight": bad})


def test_names_of_compiled_models_are_understood():
    risk = tw.EmpiricalRisk(make(1))
    risk.set_fixed({"_orig_mod.0.weight": torch.ones(8, 5)})
    assert bool((risk.fixed()["0.weight"] == 1).all())
