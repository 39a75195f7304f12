"""Models that keep what they compute from their weights, and read it at the next call."""

from __future__ import annotations

from typing import Self

import pytest
import torch
from torch import Tensor, nn

import thalweg as tw
from evaluation_models import LABELS, VECTORS
from thalweg.landscape.differences import difference

CRITERION = nn.CrossEntropyLoss()
EPS = torch.finfo(torch.float64).eps


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)
        self.biases = nn.Parameter(torch.randn(12))
        self.table: dict[str, Tensor] = {}
        self.kept: Tensor | None = None

    def made(self) -> Tensor:
        return self.biases[:6] * self.biases[6:]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x) + self.made()))


class KeepsInAttribute(Plain):
    def made(self) -> Tensor:
        if self.kept is None:
            self.kept = super().made()
        return self.kept


class KeepsInTable(Plain):
    """As attention biases of LeViT and its kin: forgotten where a training begins."""

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode:
            self.table.clear()
        return self

    def made(self) -> Tensor:
        if self.training:
            return super().made()
        if "biases" not in self.table:
            self.table["biases"] = super().made()
        return self.table["biases"]


@pytest.mark.parametrize(
    ("kind", "called"), [(KeepsInAttribute, False), (KeepsInTable, False), (KeepsInTable, True)]
)
def test_what_is_kept_is_computed_anew_at_each_point(kind, called):
    torch.manual_seed(0)
    model, plain = kind().double().eval(), Plain().double().eval()
    plain.load_state_dict(model.state_dict())
    data = VECTORS.double(), LABELS
    if called:
        with torch.no_grad():
            model(data[0])
    before = dict(model.table), model.kept
    risk, expected = (tw.EmpiricalRisk(tw.Problem(m, CRITERION, data)) for m in (model, plain))
    w = risk.space.pack(model)
    v = torch.randn(len(w), dtype=w.dtype)
    for point in (w, w + 0.3 * v, w):
        assert risk.value(point) == pytest.approx(expected.value(point), rel=1e-12)
        torch.testing.assert_close(risk.gradient(point), expected.gradient(point))
    for method in ("graph", "recompute", "trace", "differences"):
        product = risk.hessian(w, method=method) @ v
        torch.testing.assert_close(product, expected.hessian(w) @ v, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(risk.gram(w), expected.gram(w))
    points = torch.stack([w, w + 0.3 * v])
    torch.testing.assert_close(
        risk.values_and_gradients(points)[1], expected.values_and_gradients(points)[1]
    )
    slope = difference(lambda t: risk.value(w + t * v), 0.01, EPS)
    assert float(slope.value) == pytest.approx(float(risk.gradient(w) @ v), rel=1e-8)
    assert model.table == before[0] and model.kept is before[1]


class MergesInEvaluation(Plain):
    """As adapters of low rank that write themselves into a weight when they are not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.merged = False

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode == self.merged:
            self.first.weight.data += (-1 if mode else 1) * self.biases[0].detach()
            self.merged = not mode
        return self


def test_a_model_that_writes_to_its_weights_as_it_changes_its_mode_is_left_alone():
    torch.manual_seed(0)
    model = MergesInEvaluation().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tw.EmpiricalRisk(tw.Problem(model, CRITERION, (VECTORS, LABELS)), check=False)
    assert model.training and not model.merged
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_orders_of_units_are_tried_on_what_is_computed_anew():
    """Outputs that are read from a table would be those of another order."""
    torch.manual_seed(0)
    model, plain = KeepsInTable().eval(), Plain().eval()
    risk, expected = (
        tw.EmpiricalRisk(tw.Problem(m, CRITERION, (VECTORS, LABELS))) for m in (model, plain)
    )
    w = torch.randn(2, risk.space.size)
    one, other = (tw.align(r, *w, seconds=1) for r in (risk, expected))
    assert one.left == other.left and one.difference < 1e-12
    assert risk.value(one.w) == pytest.approx(risk.value(w[1]), rel=1e-4)
