"""Copies trained as one batch of models: the trainings of one after another, each by itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dynamics.cases import Bowl, classification, start_of
from thalweg.dynamics import branch, train
from thalweg.errors import InvalidArgument, InvalidProblem
from thalweg.polynomial import replace_activations
from thalweg.problems import Problem
from thalweg.problems.networks import AllConv
from thalweg.risk import EmpiricalRisk
from thalweg.run import read_checkpoint

OPTIONS = {"epochs": 3, "batch_size": 20, "every": 5}


def convolutions():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 1, 8, 8, generator=generator)
    y = torch.randint(10, (50,), generator=generator)
    return Problem(AllConv((1, 8, 8), widths=(4, 6)), nn.CrossEntropyLoss(), (x, y), (x + 0.1, y))


def regression():
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)[:, None]
    model = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    return Problem(model, nn.MSELoss(), (x, torch.sin(3 * x)))


def risk_of(problem, **options):
    return EmpiricalRisk(problem, dtype=torch.float64, **options)


def both(risk, parent, **options):
    trees = [branch(risk, parent, together=together, **options) for together in (False, True)]
    return zip(*trees, strict=True)


def assert_same(one, other):
    assert (one.moment, one.step, one.copy) == (other.moment, other.step, other.copy)
    assert torch.equal(one.start, other.start)
    assert (one.result.status, one.result.step) == (other.result.status, other.result.step)
    torch.testing.assert_close(one.result.w, other.result.w, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(one.result.buffers, other.result.buffers, rtol=1e-10, atol=1e-12)
    for row, twin in zip(one.result.history, other.result.history, strict=True):
        assert row.keys() == twin.keys()
        for name, value in row.items():
            near = None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)
            assert twin[name] == near


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: classification()[0], {}),
        (lambda: risk_of(convolutions()), {"momentum": 0.5, "weight_decay": 0.01, "clip": 1.0}),
        (lambda: risk_of(convolutions(), batchnorm="frozen"), {"optimizer": "adam", "lr": 0.01}),
        (lambda: risk_of(regression()), {"schedule": "constant"}),
    ],
    ids=["batch norm", "convolutions", "frozen statistics", "regression"],
)
def test_copies_at_once_are_those_one_after_another(make, options):
    risk = make()
    options = OPTIONS | options | ({"test": risk.on("test")} if risk.problem.test else {})
    parent = train(risk, start_of(risk, risk.problem.model), **options)
    before = risk.buffers()
    for one, other in both(risk, parent, at=["middle", "final"], copies=3, scale=0.1, **options):
        assert_same(one, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in risk.buffers().items())


def test_each_ends_by_itself_and_the_others_go_on(tmp_path):
    risk, model, *_ = classification()
    options = OPTIONS | {"epochs": 12, "stop_error": 0.09}
    parent = train(risk, start_of(risk, model), **OPTIONS)
    pairs = list(both(risk, parent, at=["final"], copies=4, scale=0.5, **options))
    for one, other in pairs:
        assert_same(one, other)
    assert len({other.result.step for _, other in pairs}) > 2


def test_what_was_stopped_goes_on_together_or_alone(tmp_path):
    risk, model, *_ = classification()
    parent = train(risk, start_of(risk, model), **OPTIONS)
    options = OPTIONS | {"at": ["final"], "copies": 3}
    whole = branch(risk, parent, **options)

    def stop(row, step):
        if step >= 10:
            raise KeyboardInterrupt

    for name, together in (("together", True), ("alone", False)):
        place = tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            branch(risk, parent, together=True, run=place, log=stop, evaluate_every=1, **options)
        # One copy is further than the others, which then meet it at other batches.
        kept = sorted(path.name for path in place.rglob("*.safetensors"))
        assert 0 < len(kept) < 3 * 4
        ended = branch(risk, parent, together=together, run=place, evaluate_every=1, **options)
        for one, other in zip(whole, ended, strict=True):
            torch.testing.assert_close(one.result.w, other.result.w, rtol=1e-10, atol=1e-12)
            about = read_checkpoint(other.result.checkpoints[-1])[1]
            assert about["copy"] == other.copy and about["status"] == "finished"


def test_what_cannot_be_trained_together_is_refused(tmp_path):
    bowl = Bowl([1.0])
    start = train(bowl, torch.ones(1).double(), steps=1)
    with pytest.raises(
        InvalidArgument, match=r"takes a Replicable landscape, and Bowl has no .*copies; write"
    ):
        branch(bowl, start, together=True, steps=1)

    risk, model, *_ = classification()
    parent = train(risk, start_of(risk, model), **OPTIONS)
    with pytest.raises(InvalidArgument, match=r"optimizer='gd'.*together=False"):
        branch(risk, parent, together=True, optimizer="gd", steps=2, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(TypeError, match="momentun"):
        branch(risk, parent, together=True, epochs=1, momentun=0.5)

    polynomial = regression()
    replaced = replace_activations(polynomial.model, 3, radius=2.0)
    watched = risk_of(Problem(replaced, nn.MSELoss(), polynomial.train))
    parent = train(watched, start_of(watched, replaced), **OPTIONS)
    with pytest.raises(InvalidProblem, match=r"one network at a time.*together=False"):
        branch(watched, parent, together=True, **OPTIONS)


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 2)

    def forward(self, x):
        y = self.linear(x)
        return y if float(self.linear.weight.detach().sum()) > 0 else -y


def test_a_model_that_decides_by_values_is_refused():
    _, _, x, y = classification()
    model = Decides().double()
    risk = risk_of(Problem(model, nn.CrossEntropyLoss(), (x, y)))
    parent = train(risk, start_of(risk, model), **OPTIONS)
    with pytest.raises(InvalidProblem, match=r"as one batch of models .*together=False"):
        branch(risk, parent, together=True, **OPTIONS)
