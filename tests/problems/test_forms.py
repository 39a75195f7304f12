"""Losses told apart by the names of their parameters, or by trying."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from thalweg.errors import InvalidProblem
from thalweg.problems import Problem

G = torch.Generator().manual_seed(0)
X = torch.randn(12, 5, generator=G)
Y = torch.randint(0, 3, (12,), generator=G)


class Normed(nn.Module):
    """Keeps what it computed from its weights, and counts its calls, as people's modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.norm = nn.Linear(5, 3), nn.BatchNorm1d(3)
        self.register_buffer("calls", torch.zeros(()))
        self.seen = None

    def forward(self, x):
        self.calls += 1
        self.seen = self.last.weight * 2
        x.mul_(1.0)
        return self.norm(F.linear(x, self.seen / 2, self.last.bias))


class Criterion(nn.Module):
    def forward(self, a, b):
        return F.cross_entropy(a, b, reduction="none")


LOSSES = {
    "(m, batch)": lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]),
    "(policy, data)": lambda policy, data: F.cross_entropy(policy(data[0]), data[1]),
    "(net, batch)": lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]),
    "(batch, model)": lambda batch, model: F.cross_entropy(model(batch[0]), batch[1]),
    "(data, f)": lambda data, f: F.cross_entropy(f(data[0]), data[1], reduction="none"),
    "(model, x, weight=1)": lambda model, x, weight=1: weight * F.cross_entropy(model(x[0]), x[1]),
    "(outputs, targets)": lambda outputs, targets: F.cross_entropy(outputs, targets),
    "(a, b)": lambda a, b: F.cross_entropy(a, b),
    "(y_true, y_pred)": lambda y_true, y_pred: F.cross_entropy(y_pred, y_true),
    "(x, y)": lambda x, y: F.cross_entropy(x(y[0]), y[1]),
    "*args": lambda *args: F.cross_entropy(*args),
    "a module's": Criterion(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_form_is_evaluated_as_it_is_meant(name: str) -> None:
    torch.manual_seed(0)
    model = Normed()
    problem = Problem(model, LOSSES[name], (X, Y))
    before = copy.deepcopy(model.state_dict()), X.clone(), dict(vars(model))
    found = float(problem.evaluate(copy.deepcopy(model).eval(), (X.clone(), Y)).mean().detach())
    problem.samples("train")
    assert all(torch.equal(model.state_dict()[k], t) for k, t in before[0].items())
    assert torch.equal(X, before[1]) and model.seen is None and vars(model) == before[2]
    assert model.training
    expected = float(F.cross_entropy(model.eval()(X.clone()), Y).detach())
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda a, b: torch.zeros(()), ["(a, b)", "works as (outputs, targets) and as (model,"]),
        (lambda a, b: a["x"] + b.nothing, ["fails as (outputs, targets): TypeError", "as (batch"]),
        (lambda a: a.sum(), ["takes 1 arguments (a), expected 2"]),
        (lambda model, x, y: x, ["takes 3 arguments (model, x, y)", "loss(model, *batch)"]),
    ],
)
def test_a_loss_that_cannot_be_told_says_the_rule(loss, words) -> None:
    with pytest.raises(InvalidProblem) as caught:
        Problem(nn.Linear(5, 3), loss, (X, Y)).samples("train")
    rule = "A loss is a criterion (outputs, targets), with a parameter of such a name, or a loss"
    assert all(word in str(caught.value) for word in [*words, rule, "named 'model'"])


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 3)

    def forward(self, a, b):
        return self.last(torch.cat([a, b], 1))


class Optional(Two):
    def forward(self, a, b=None):
        return super().forward(a, torch.zeros(len(a), 3) if b is None else b)


class OfPair(Two):
    def forward(self, both):
        return super().forward(*both)


class OfDict(Two):
    def forward(self, both):
        return super().forward(both["a"], both["b"])


def test_inputs_that_the_model_does_not_take_say_what_to_write() -> None:
    problem = Problem(nn.Linear(5, 3), nn.CrossEntropyLoss(), (A, B, Y))
    with pytest.raises(
        InvalidProblem, match=r"Linear does not take 2 inputs.*model\(\*batch\[:-1\]"
    ):
        problem.samples("train")


A, B = torch.randn(12, 5, generator=G), torch.randn(12, 3, generator=G)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (Two, ((A, B), Y)),
        (Two, (A, B, Y)),
        (Two, [((A[:7], B[:7]), Y[:7]), ((A[7:], B[7:]), Y[7:])]),
        (Two, torch.utils.data.TensorDataset(A, B, Y)),
        (Two, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(A, B, Y), batch_size=5)),
        (Two, ({"a": A, "b": B}, Y)),
        (Two, ({"b": B, "a": A}, Y)),
        (Optional, ((A, B), Y)),
        (Optional, (A, B, Y)),
        (OfPair, ((A, B), Y)),
        (OfDict, ({"a": A, "b": B}, Y)),
    ],
)
def test_several_inputs_are_given_as_the_model_takes_them(model, data) -> None:
    torch.manual_seed(0)
    net = model()
    problem = Problem(net, nn.CrossEntropyLoss(), data)
    samples = problem.samples("train")
    expected = F.cross_entropy(Two.forward(net, A, B), Y)
    found = problem.evaluate(net, samples.slice(0, 12))
    torch.testing.assert_close(found.mean(), expected)
    assert len(samples) == 12 and torch.equal(samples.targets, Y)
