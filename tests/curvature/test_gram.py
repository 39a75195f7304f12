"""The Gram matrix against J J^T with J dense, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.errors import InvalidArgument, NotDefined
from thalweg.polynomial import PolynomialActivation


class Shared(nn.Module):
    """One layer used twice, and one tensor that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.other = nn.Linear(6, 6)
        self.other.weight = self.twice.weight

    def forward(self, x):
        h = torch.tanh(self.first(x))
        h = torch.tanh(self.twice(torch.tanh(self.twice(h))))
        return self.last(torch.tanh(self.other(h)))


class Outside(nn.Module):
    """A layer's weight that is used behind the layer's back, and a weight of no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(4, 3), nn.Parameter(torch.ones(3))

    def forward(self, x):
        return torch.tanh(self.layer(x)) * self.scale + 0.5 * x[:, :3] @ self.layer.weight[:, :3]


class Sequence(nn.Module):
    """Samples of several positions, which go through a layer transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Linear(2, 5), nn.Linear(5, 5)
        self.norm, self.last = nn.LayerNorm(5), nn.Linear(5, 2)

    def forward(self, x):
        h = self.norm(torch.tanh(self.embed(x.view(-1, 2, 2))))
        h = torch.tanh(self.mix(h.transpose(0, 1))).transpose(0, 1)
        return self.last(h.sum(1))


def _conv(**options):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, padding=1, **options),
        PolynomialActivation.from_coefficients([0.1, 0.5, 0.3]),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def _frozen():
    model = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3))
    model[0].weight.requires_grad_(False)
    return model


MODELS = {
    "dense": (lambda: nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 3)), (4,), 3),
    "no bias": (
        lambda: nn.Sequential(nn.Linear(4, 9, bias=False), nn.Tanh(), nn.Linear(9, 1)),
        (4,),
        1,
    ),
    "frozen weight": (_frozen, (4,), 3),
    "convolution": (_conv, (2, 7, 7), 3),
    "grouped convolution": (lambda: _conv(groups=2), (2, 7, 7), 3),
    "padded by name": (lambda: nn.Sequential(_conv()[0], nn.Flatten()), (2, 3, 3), 16),
    "shared": (Shared, (4,), 3),
    "outside its layer": (Outside, (4,), 3),
    "sequence": (Sequence, (4,), 2),
    "weight norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 2)
        ),
        (4,),
        2,
    ),
}


def _risk(name, dtype=torch.float64, samples=6):
    make, shape, outputs = MODELS[name]
    torch.manual_seed(0)
    data = torch.randn(samples, *shape), torch.randn(samples, outputs)
    return tw.EmpiricalRisk(tw.Problem(make(), nn.MSELoss(), data), dtype=dtype)


def _dense(risk):
    """J, shape (N C, W): a backward pass over the whole network for each row."""
    model = risk.problem.model.double()
    given = [p for p in model.parameters() if p.requires_grad]
    rows = [
        torch.autograd.grad(entry, given, retain_graph=True)
        for entry in model(risk.problem.train[0].double()).reshape(-1)
    ]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


@pytest.mark.parametrize("name", MODELS)
def test_is_the_jacobian_times_its_transpose(name):
    risk = _risk(name)
    found = risk.gram(risk.space.pack(risk.problem.model))
    jacobian = _dense(risk)
    torch.testing.assert_close(found, jacobian @ jacobian.T, rtol=1e-12, atol=1e-12)
    assert torch.equal(found, found.T)


def test_selects_and_combines_outputs():
    risk = _risk("convolution")
    w = risk.space.pack(risk.problem.model)
    jacobian = _dense(risk).view(6, 3, -1)
    two = jacobian[:, [2, 0]].flatten(0, 1)
    torch.testing.assert_close(risk.gram(w, outputs=[2, 0]), two @ two.T)
    mix = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]], dtype=torch.float64)
    mixed = (mix @ jacobian).flatten(0, 1)
    torch.testing.assert_close(risk.gram(w, outputs=mix), mixed @ mixed.T)


def test_follows_the_order_of_the_jacobian_operator_and_takes_float32():
    risk = _risk("convolution")
    w = risk.space.pack(risk.problem.model).double()
    dense = risk.jacobian(w).to_dense()
    torch.testing.assert_close(risk.gram(w), dense @ dense.T)
    single = _risk("convolution", torch.float32)
    assert single.gram(w.float()).dtype == torch.float64
    torch.testing.assert_close(single.gram(w.float()), risk.gram(w), rtol=1e-5, atol=1e-5)


def test_is_assembled_in_blocks_of_rows_and_units(monkeypatch):
    risk = _risk("convolution", samples=11)
    w = risk.space.pack(risk.problem.model)
    whole = risk.gram(w)
    for name, value in (
        ("curvature.jacobian_factors._ROWS", 7),
        ("curvature.jacobian_factors._HELD", 1 << 9),
        ("curvature.jacobian_plan._HELD", 4000),
    ):
        monkeypatch.setattr(f"thalweg.{name}", value)
    torch.testing.assert_close(risk.gram(w), whole, rtol=1e-13, atol=1e-13)


def test_leaves_the_risk_as_it_was():
    risk = _risk("dense")
    w = risk.space.pack(risk.problem.model)
    before = risk.gradient(w)
    risk.gram(w + 1)
    assert torch.equal(risk.gradient(w), before)


def test_batch_norm_is_held_or_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))
    problem = tw.Problem(model, nn.MSELoss(), (torch.randn(9, 4), torch.randn(9, 2)))
    held = tw.EmpiricalRisk(problem, dtype=torch.float64, batchnorm="held")
    w = held.space.pack(model).double()
    dense = held.jacobian(w).to_dense()
    torch.testing.assert_close(held.gram(w), dense @ dense.T)
    single = tw.EmpiricalRisk(problem, batchnorm="held")
    torch.testing.assert_close(single.gram(w.float()), held.gram(w), rtol=1e-5, atol=1e-5)
    for policy in ("batch", "recalibrate"):
        with pytest.raises(NotDefined, match=rf"{policy}.*'frozen'\) or 'held'"):
            tw.EmpiricalRisk(problem, batchnorm=policy).gram(w.float())


def test_wrong_outputs_are_named():
    risk = _risk("dense")
    w = risk.space.pack(risk.problem.model)
    with pytest.raises(InvalidArgument, match="0 to 2"):
        risk.gram(w, outputs=[3])
    with pytest.raises(InvalidArgument, match=r"expected \(k, 3\)"):
        risk.gram(w, outputs=torch.eye(2))
