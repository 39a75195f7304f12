"""Proofs are about the module that is there: all of its code, on all samples."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg as tw
from certificates.cases import solved
from thalweg.certificates.margin import certify_margin
from thalweg.certificates.zero import certify_zero
from thalweg.errors import NotDefined

OUTLIER = 12


def samples(count=16, width=3):
    """Give random samples, two of them far out and alike once they are clipped to 3."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, width, generator=generator, dtype=torch.float64).clamp(-2.5, 2.5)
    far = torch.tensor([9.0, -8.0, 7.0], dtype=torch.float64)
    x[OUTLIER], x[OUTLIER + 1] = far, far * torch.tensor([2.0, 1.0, 1.0])
    return x, torch.randn(count, 1, generator=generator, dtype=torch.float64)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.bend, self.last = nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 1)

    def network(self, x):
        return self.last(self.bend(self.first(x)))

    def forward(self, x):
        return self.network(x)


class ByValue(Plain):
    def forward(self, x):
        return self.network(x.clamp(-3, 3) if bool((x.abs() > 3).any()) else x)


class ByWeight(Plain):
    def forward(self, x):
        return self.network(x) * (2.0 if float(self.first.weight.detach().norm()) > 1e6 else 1.0)


class ByNumpy(Plain):
    """Steps out of torch, where nobody can follow it."""

    def forward(self, x):
        far = x.detach().abs().amax(1).numpy() > 3
        return self.network(torch.where(torch.from_numpy(far)[:, None], x.clamp(-3, 3), x))


class ByType(Plain):
    """Another network for whoever asks with symbols."""

    def forward(self, x):
        if isinstance(x, torch.Tensor):
            x = torch.where(x.abs() > 3, x.clamp(-3, 3), x)
        return self.network(x)


class Elsewhere(Plain):
    """Another network away from the weights that it was given first."""

    start = None

    def forward(self, x):
        y = self.network(x)
        if type(x) is torch.Tensor:
            y = y + 100 * (self.first.weight - Elsewhere.start).sum()
        return y


class Clipping(nn.Tanh):
    def forward(self, x):
        return super().forward(x.clamp(-2, 2))


class ByActivation(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.bend = Clipping()


@pytest.fixture(scope="module")
def zero():
    """Weights at which the plain network is zero on all samples."""
    torch.manual_seed(0)
    risk = tw.EmpiricalRisk(tw.Problem(Plain().double(), nn.MSELoss(), samples()))
    return solved(risk)


def test_the_plain_network_is_certified(zero):
    risk = tw.EmpiricalRisk(tw.Problem(Plain().double(), nn.MSELoss(), samples()))
    assert certify_zero(risk, zero).verdict == "certified"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (ByValue, "branch on values"),
        (ByWeight, "branch on values"),
        (ByNumpy, "cannot be read"),
        (ByType, f"sample {OUTLIER}: at w, the network's outputs are"),
        (ByActivation, "clamp"),
    ],
)
def test_a_network_that_does_more_for_some_samples_is_not(kind, says, zero):
    x, y = samples()
    risk = tw.EmpiricalRisk(tw.Problem(kind().double(), nn.MSELoss(), (x, y)))
    found = certify_zero(risk, zero)
    assert found.verdict == "refused" and says in found.reasons[0]
    labels = tw.Problem(kind().double(), nn.BCEWithLogitsLoss(), (x, (y > 0).double()))
    with pytest.raises(NotDefined, match=says):
        certify_margin(tw.EmpiricalRisk(labels), zero)


def test_a_network_that_is_another_at_other_weights_is_refused(zero):
    """At w its outputs are those of its layers; in a box around w they are not."""
    x, y = samples()
    Elsewhere.start = zero[: 40 * 3].reshape(40, 3).clone()
    model = Elsewhere().double()
    nn.utils.vector_to_parameters(zero, model.parameters())
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), (x, y)), check=False)
    found = certify_zero(risk, zero)
    assert found.verdict == "refused" and "elsewhere, the network's outputs" in found.reasons[0]
    with torch.no_grad():
        labels = (model(x) > 0).double()
    problem = tw.Problem(model, nn.BCEWithLogitsLoss(), (x, labels))
    with pytest.raises(NotDefined, match="away from w, the network's outputs"):
        certify_margin(tw.EmpiricalRisk(problem, check=False), zero)


def _shift(module, inputs, output):
    return output + 1


def _wrap(model):
    forward = model.bend.forward
    model.bend.forward = lambda x: forward(x) + 1


@pytest.mark.parametrize(
    ("touch", "says"),
    [
        (lambda m: m.bend.register_forward_hook(_shift), "bend has a forward hook"),
        (_wrap, "bend has a forward of its own"),
        (
            lambda m: nn.utils.parametrizations.weight_norm(m.first),
            r"first has parametrized tensors \(weight\)",
        ),
    ],
)
def test_what_acts_on_a_module_from_outside_is_named(touch, says):
    model = Plain().double()
    touch(model)
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.BCEWithLogitsLoss(), _labelled()))
    with pytest.raises(NotDefined, match=says):
        certify_margin(risk, risk.space.pack(model))


def _labelled():
    x, y = samples()
    return x, (y > 0).double()


class Functions(nn.Module):
    """Layers written as functions, and questions about shapes."""

    def __init__(self, ask: bool) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(1, 3, 3), nn.Linear(12, 16), nn.Linear(16, 2)
        self.ask = ask

    def forward(self, x):
        if self.ask and x.dim() == 3:
            x = x.unsqueeze(1)
        h = F.softplus(self.conv(x))
        return self.two(torch.tanh(self.one(h.reshape(h.shape[0], -1))))


@pytest.mark.parametrize("ask", [False, True])
def test_functions_are_layers(ask):
    torch.manual_seed(0)
    shape = (6, 4, 4) if ask else (6, 1, 4, 4)
    model = Functions(ask).double()
    data = torch.randn(*shape).double(), torch.randn(6, 2).double()
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), data))
    found = certify_zero(risk, solved(risk))
    assert found.verdict == "certified", found.reasons
    assert found.nullity == risk.space.size - 12
    kinds = [layer.activation.kind for layer in found.statement.chain.layers]
    assert kinds == ["softplus", "tanh", "identity"]


def test_frozen_weights_of_a_point_are_what_is_proved_about(zero):
    """The statement holds the state that is measured, not the one that the model was made with."""
    model = Plain().double()
    model.first.requires_grad_(False)
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), samples()))
    other = torch.randn(40, 3, dtype=torch.float64)
    risk.set_fixed({"first.weight": other})
    found = certify_zero(risk, solved(risk))
    assert torch.equal(torch.from_numpy(found.statement.chain.layers[0].weight), other)
    assert found.statement.chain.layers[0].trained == (False, False)


class Tokens(nn.Module):
    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        self.words, self.recurrent = nn.Embedding(9, 4), nn.LSTM(4, 6, batch_first=True)
        self.last, self.read = nn.Linear(6 if recurrent else 12, 2), recurrent

    def forward(self, tokens):
        h = self.words(tokens)
        return self.last(self.recurrent(h)[0][:, -1] if self.read else h.flatten(1))


def _tokens(recurrent):
    torch.manual_seed(0)
    model = Tokens(recurrent).double()
    if not recurrent:
        del model.recurrent
    tokens = torch.randint(0, 9, (8, 3), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(tokens).argmax(1)
    return tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (tokens, labels)))


def test_a_box_of_embeddings_holds_what_it_says():
    risk = _tokens(recurrent=False)
    w = risk.space.pack(risk.problem.model)
    found = certify_margin(risk, w)
    assert found.verdict == "certified" and 0 < found.half_width <= found.attacked < math.inf
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        signs = torch.randint(0, 2, w.shape, generator=generator) * 2 - 1
        assert risk.error(w + signs * found.half_width) == 0


def test_what_has_no_meaning_for_tokens_is_refused_by_name():
    risk = _tokens(recurrent=True)
    with pytest.raises(NotDefined, match=r"recurrent \(LSTM\) is no layer that is known"):
        certify_margin(risk, risk.space.pack(risk.problem.model))
    table = _tokens(recurrent=False)
    squared = tw.Problem(
        table.problem.model, nn.MSELoss(), (table.problem.train[0], torch.randn(8, 2).double())
    )
    found = certify_zero(tw.EmpiricalRisk(squared), table.space.pack(table.problem.model))
    assert found.verdict == "refused" and "words is a Embedding" in found.reasons[0]


def _put(number, where):
    """Give a risk whose numbers are finite but for one."""
    x, y = samples()
    model = Plain().double()
    if where == "frozen":
        model.first.requires_grad_(False)
        model.first.weight.data[0, 0] = number
    else:
        {"inputs": x, "targets": y}[where][1, 0] = number
    return tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), (x, y)), check=False)


@pytest.mark.parametrize("where", ["frozen", "inputs", "targets"])
@pytest.mark.parametrize(
    ("number", "says"), [(math.nan, "NaN or infinite"), (math.inf, "NaN"), (1e-310, "underflow")]
)
def test_what_is_no_number_is_refused_by_name(where, number, says):
    risk = _put(number, where)
    found = certify_zero(risk, risk.space.pack(risk.problem.model))
    assert found.verdict == "refused" and says in found.reasons[0]
    assert ("0.weight" if where == "frozen" else where) in found.reasons[0]


def test_a_box_of_what_is_no_number_is_refused():
    x, y = _labelled()
    model = Plain().double()
    model.first.requires_grad_(False)
    model.first.weight.data[0, 0] = math.nan
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.BCEWithLogitsLoss(), (x, y)), check=False)
    with pytest.raises(NotDefined, match="outputs of the network are NaN"):
        certify_margin(risk, risk.space.pack(model))


class Shifted(nn.MSELoss):
    def __call__(self, outputs, targets):
        return super().__call__(outputs, targets) + 1.0


class Turned(nn.MSELoss):
    def forward(self, outputs, targets):
        return super().forward(-outputs, targets)


def _hooked():
    loss = nn.MSELoss()
    loss.register_forward_hook(lambda module, inputs, output: output + 1.0)
    return loss


def _before():
    loss = nn.MSELoss()
    loss.register_forward_pre_hook(lambda module, inputs: (inputs[0].clamp(-0.1, 0.1), inputs[1]))
    return loss


def _replaced():
    loss = nn.MSELoss()
    loss.forward = lambda outputs, targets: ((outputs - targets) ** 2).mean() + 1.0
    return loss


@pytest.mark.parametrize("loss", [Shifted, Turned, _hooked, _before, _replaced])
def test_a_loss_that_does_more_than_square_is_another_loss(loss, zero):
    """At a zero of the network's residuals its value is not zero, and nothing is certified."""
    x, y = samples()
    problem = tw.Problem(Plain().double(), loss(), (x, y))
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    model = Plain().double()
    nn.utils.vector_to_parameters(zero, model.parameters())
    with torch.no_grad():
        assert risk.value(zero) == pytest.approx(float(loss()(model(x), y)), rel=1e-12)
    assert risk.value(zero) > 0.1
    with pytest.raises(NotDefined, match="the squared loss, and the loss is"):
        certify_zero(risk, zero)
