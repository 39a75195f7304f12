"""The check before the first number: each fault is found, by its name, and its absence is not."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thalweg as tw
from evaluation_models import LABELS, TOKENS, VECTORS, Applies, TanhOnce, TanhWrong, chain
from thalweg.errors import InvalidArgument, SelfCheckFailed

CRITERION = nn.CrossEntropyLoss()


class Cached(nn.Module):
    """Computes from its weights once, and reads what it kept ever after."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.kept = nn.Linear(5, 3), None

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = self.line.weight.T.clone()
        return x @ self.kept


def called() -> nn.Module:
    """A model that has kept what it computed before it is measured."""
    model = Cached()
    model(VECTORS)
    return model


class WithoutGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(5, 3)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.line(x)


class ThroughNumpy(WithoutGradient):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.line(x).detach().numpy())


class StraightThrough(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(hidden + (hidden.round() - hidden).detach())


class Detaching(StraightThrough):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)).detach())


class PartDetaches(nn.Module):
    """A hundredth of it scales the rows of its weights by lengths that it detaches (DoRA)."""

    def __init__(self, detaches: bool) -> None:
        super().__init__()
        self.most, self.detaches = (
            nn.Sequential(nn.Linear(5, 200), nn.Tanh(), nn.Linear(200, 3)),
            detaches,
        )
        self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)
        self.size = nn.Parameter(self.first.weight.norm(dim=1).detach())

    def forward(self, x: Tensor) -> Tensor:
        lengths = self.first.weight.norm(dim=1)
        scales = self.size / (lengths.detach() if self.detaches else lengths)
        return self.most(x) + 0.1 * self.last(torch.tanh(scales * self.first(x)))


class PartInFloat32(nn.Module):
    """Differences of its loss are 0 by short steps, and rough by long ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 40), nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.layer_norm(self.first(x).float(), (40,))
        return self.last(torch.tanh(hidden).to(x.dtype))


class PaddedByFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Parameter(torch.randn(9, 4)), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(torch.tanh(F.embedding(ids, self.table, padding_idx=0)).mean(1))


class WithOptions(PaddedByFunction):
    def __init__(self, **options) -> None:
        super().__init__()
        self.options = options

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(torch.tanh(F.embedding(ids, self.table, **self.options)).mean(1))


FAULTS = {
    "max_norm": (
        lambda: WithOptions(max_norm=1.0),
        TOKENS,
        r"F.embedding\(max_norm=1.0\) shortens",
    ),
    "by frequency": (
        lambda: WithOptions(scale_grad_by_freq=True),
        TOKENS,
        r"\(scale_grad_by_freq=True\) divides the gradient",
    ),
    "kept from the weights": (called, VECTORS, "does not depend on the model's weights"),
    "no_grad": (WithoutGradient, VECTORS, "has no gradient"),
    "NumPy": (ThroughNumpy, VECTORS, "has no gradient"),
    "straight through": (StraightThrough, VECTORS, "the gradient is not that of the loss"),
    "detach": (Detaching, VECTORS, "the gradient is not that of the loss"),
    "detach in a small part": (
        lambda: PartDetaches(True),
        VECTORS,
        "the gradient is not that of the loss",
    ),
    "wrong backward": (lambda: Applies(TanhWrong.apply), VECTORS, "not that of the loss"),
    "F.embedding(padding_idx=0)": (PaddedByFunction, TOKENS, r"\(padding_idx=0\) leaves row 0"),
}


@pytest.mark.parametrize(("make", "inputs", "words"), FAULTS.values(), ids=FAULTS)
def test_each_fault_is_named(make, inputs, words):
    torch.manual_seed(0)
    problem = tw.Problem(make(), CRITERION, (inputs, LABELS))
    with pytest.raises(SelfCheckFailed, match=words):
        tw.EmpiricalRisk(problem)
    assert tw.EmpiricalRisk(problem, check=False).checked is None


@pytest.mark.parametrize("level", ["quick", "full"])
def test_what_is_right_passes_and_says_so(level):
    torch.manual_seed(0)
    risk = tw.EmpiricalRisk(tw.Problem(chain(), CRITERION, (VECTORS, LABELS)), check=level)
    assert risk.checked.level == level and not risk.checked.borrowed
    assert risk.checked.copy < 1e-6
    assert risk.checked.gradient < 1e-6 and risk.checked.hessian < 1e-6
    assert "losses equal your model's" in risk.described["self-check"]
    assert tw.barrier(risk, *torch.randn(2, risk.space.size), points=3).attrs["self-check"]


@pytest.mark.parametrize("make", [lambda: PartDetaches(False), PartInFloat32])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_rough_or_small_is_no_fault(make, seed, caplog):
    torch.manual_seed(seed)
    data = VECTORS.double(), LABELS
    checked = tw.EmpiricalRisk(tw.Problem(make().double(), CRITERION, data)).checked
    assert not checked.differences and not caplog.text
    assert checked.gradient is not None and checked.gradient < 0.01


def test_a_closed_over_network_follows_the_weights(caplog):
    net = chain()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(net(batch[0]), batch[1], reduction="none")

    with caplog.at_level(logging.WARNING, "thalweg"):
        risk = tw.EmpiricalRisk(tw.Problem(net, loss, (VECTORS, LABELS)))
    assert "No copy of it is the model" in caplog.text
    w = risk.space.pack(net)
    other = tw.EmpiricalRisk(tw.Problem(net, CRITERION, (VECTORS, LABELS)))
    for point in (w, w + 0.3):
        assert risk.value(point) == pytest.approx(other.value(point), rel=1e-6)
        torch.testing.assert_close(risk.gradient(point), other.gradient(point))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_frozen_tables_and_modules_may_have_options():
    torch.manual_seed(0)
    model = WithOptions(padding_idx=0)
    model.table.requires_grad_(False)
    assert tw.EmpiricalRisk(tw.Problem(model, CRITERION, (TOKENS, LABELS))).checked
    layer = nn.Embedding(9, 4, padding_idx=0, scale_grad_by_freq=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(4 * TOKENS.shape[1], 3))
    assert tw.EmpiricalRisk(tw.Problem(model, CRITERION, (TOKENS, LABELS))).checked


def test_what_fails_either_way_says_nothing_of_copies(caplog):
    class Failing(WithOptions):
        def forward(self, ids: Tensor) -> Tensor:
            raise RuntimeError("out of tokens")

    problem = tw.Problem(Failing(), CRITERION, (TOKENS, LABELS))
    words = pytest.raises(RuntimeError, match="out of tokens")
    with caplog.at_level(logging.WARNING, "thalweg"), words:
        tw.EmpiricalRisk(problem)
    assert "No copy" not in caplog.text


def test_a_network_that_is_not_the_models_is_refused():
    net, another = chain(), chain()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(another(batch[0]), batch[1], reduction="none")

    with pytest.raises(SelfCheckFailed, match="must call `model`"):
        tw.EmpiricalRisk(tw.Problem(net, loss, (VECTORS, LABELS)))


def test_wrong_second_derivatives_become_differences(caplog):
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING, "thalweg"):
        risk = tw.EmpiricalRisk(
            tw.Problem(Applies(TanhOnce.apply), CRITERION, (VECTORS, LABELS)), dtype=torch.float64
        )
    assert risk.checked.differences and "taken from differences" in caplog.text
    right = tw.EmpiricalRisk(
        tw.Problem(Applies(torch.tanh), CRITERION, (VECTORS, LABELS)), dtype=torch.float64
    )
    w = torch.randn(risk.space.size, dtype=torch.float64)
    hessian = risk.hessian(w)
    torch.testing.assert_close(
        hessian.to_dense(), right.hessian(w).to_dense(), rtol=1e-7, atol=1e-9
    )
    assert hessian.method == "differences" and 0 < hessian.error < 1e-4
    assert "differences" in hessian.described["products"]


def test_float32_on_a_float64_model_is_said_where_it_shows(caplog):
    class Since(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(1, 1).double()

        def forward(self, seconds: Tensor) -> Tensor:
            return self.line(seconds - 1.7e9)

    model, times = Since(), 1.7e9 + torch.arange(30.0, dtype=torch.float64)[:, None]
    problem = tw.Problem(model, nn.MSELoss(), (times, model(times).detach() + 0.5))
    risk = tw.EmpiricalRisk(problem)
    assert risk.dtype == torch.float64 and not caplog.text
    assert risk.value(risk.space.pack(model)) == pytest.approx(0.25)
    tw.EmpiricalRisk(problem, dtype=torch.float32, check="full")
    assert "leave out dtype" in caplog.text


def test_an_evaluation_that_changes_the_users_model_is_refused():
    calls = []

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = chain()

        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            victim.weight.data.add_(1.0)
            return self.line(x)

    victim = nn.Linear(5, 3)
    model = Counts()
    model.line[2].register_module("victim", victim)
    with pytest.raises(tw.ThalwegError):
        tw.EmpiricalRisk(tw.Problem(model, CRITERION, (VECTORS, LABELS)))


def test_is_not_repeated_for_the_same_content(monkeypatch):
    from thalweg.risk import self_check

    problem = tw.Problem(chain(), CRITERION, (VECTORS, LABELS))
    first = tw.EmpiricalRisk(problem).checked
    monkeypatch.setattr(self_check, "_Check", None)
    assert tw.EmpiricalRisk(problem).checked is first
    with torch.no_grad():
        problem.model[0].weight.add_(1.0)
    with pytest.raises(TypeError):
        tw.EmpiricalRisk(problem)


def test_bad_levels_are_refused():
    with pytest.raises(InvalidArgument, match="'quick', 'full' or False"):
        tw.EmpiricalRisk(tw.Problem(chain(), CRITERION, (VECTORS, LABELS)), check="thorough")


@pytest.mark.parametrize(
    ("steps", "agrees", "differences"),
    [
        ([(0.03, 0.008), (1e-6, 1e-7)], True, False),  # the long step crosses a kink
        ([(0.03, 0.008), (0.03, 0.009)], False, False),  # no step tells
        ([(0.03, 0.008), (0.03, 1e-7)], False, True),  # a short step tells, and it is wrong
    ],
)
def test_kinks_that_a_step_crosses_are_no_fault_of_the_product(
    monkeypatch, caplog, steps, agrees, differences
):
    """Differences off by ``share`` that state an error each: as ReLUs near zero make them."""
    from thalweg.risk import derivative_check

    exact = derivative_check._differences

    def crossing(function, fixed, direction):
        found = next(iter(exact(function, fixed, direction)))[0]
        if len(found) == 1 and found[0].dim() == 0:  # of the value
            yield found, 1e-9
            return
        for share, error in steps:
            yield tuple(part * (1 + share) for part in found), error

    monkeypatch.setattr(derivative_check, "_differences", crossing)
    torch.manual_seed(0)
    problem = tw.Problem(chain().double(), CRITERION, (VECTORS.double(), LABELS))
    with caplog.at_level(logging.WARNING, "thalweg"):
        checked = tw.EmpiricalRisk(problem).checked
    assert (checked.hessian is not None) == agrees
    assert checked.differences == differences == ("products are taken" in caplog.text)
