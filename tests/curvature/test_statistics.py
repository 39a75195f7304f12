"""Derivatives through re-estimated batch-norm statistics: one function, whatever is asked of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thalweg as tw

SAMPLES = 600  # three calibration batches of 250 and less


class NormAct(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


class Shared(nn.Module):
    """One norm that is called twice, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.norm, self.unused = nn.BatchNorm1d(4), nn.BatchNorm1d(7)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.norm(self.first(x)))
        return self.last(torch.tanh(self.norm(self.middle(hidden))))


def dense() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh()),
        *(nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False), nn.Tanh(), nn.Linear(4, 3)),
    )


def convolutional() -> nn.Module:
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3), nn.SiLU()),
        *(nn.Flatten(), nn.Linear(9, 3)),
    )


MODELS = {
    "dense": dense,
    "convolutional": convolutional,
    "fused": lambda: nn.Sequential(nn.Linear(5, 4), NormAct(4), nn.Linear(4, 3)),
    "without running statistics": lambda: nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Tanh(), nn.Linear(4, 3)
    ),
    "shared, and one unused": Shared,
}


@pytest.fixture(params=MODELS)
def risk(request) -> tw.EmpiricalRisk:
    torch.manual_seed(0)
    model = MODELS[request.param]().double()
    x, y = torch.randn(SAMPLES, 5, dtype=torch.float64), torch.randint(0, 3, (SAMPLES,))
    test = x[:100] + 1, y[:100]
    return tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (x, y), test), batch_size=128)


def weights(risk: tw.EmpiricalRisk) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    w = risk.space.pack(risk.problem.model)
    noise = torch.randn(2, len(w), dtype=torch.float64, generator=generator)
    return w + 0.1 * noise[0], noise[1]


def slope_of(function, w: Tensor, v: Tensor, step: float = 1e-4) -> Tensor:
    """Differentiate along v by a rule of fourth order."""
    near = function(w + step * v) - function(w - step * v)
    far = function(w + 2 * step * v) - function(w - 2 * step * v)
    return (8 * near - far) / (12 * step)


def assert_near(found: Tensor, expected: Tensor, tolerance: float = 1e-8) -> None:
    assert float((found - expected).norm()) <= tolerance * float(expected.norm())


@pytest.mark.parametrize("split", ["train", "test"])
def test_hessian_is_the_derivative_of_the_gradient(risk, split):
    risk = risk.on(split)
    w, v = weights(risk)
    hessian = risk.hessian(w)
    product = hessian @ v
    assert_near(product, slope_of(risk.gradient, w, v))
    risk.value(w + 1)
    assert_near(hessian @ v, product, 1e-12)
    assert "statistics" not in hessian.described


@pytest.mark.parametrize("method", ["graph", "recompute", "trace", "differences"])
def test_every_way_goes_through_the_statistics(risk, method):
    w, v = weights(risk)
    expected = slope_of(risk.gradient, w, v)
    tolerance = 1e-6 if method == "differences" else 1e-8
    assert_near(risk.hessian(w, method=method) @ v, expected, tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_where_torch_has_no_second_derivative_statistics_have_one_too(dtype):
    """Bags of embeddings before batch norm: differences, with an error that is stated."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(7, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
    x, y = torch.randint(0, 7, (SAMPLES, 3)), torch.randint(0, 3, (SAMPLES,))
    problem = tw.Problem(model, nn.CrossEntropyLoss(), (x, y))
    precise = tw.EmpiricalRisk(problem, dtype=torch.float64, batch_size=128)
    risk = tw.EmpiricalRisk(problem, dtype=dtype, batch_size=128)
    w, v = (t.double() for t in weights(precise))
    expected = slope_of(precise.gradient, w, v)
    hessian = risk.hessian(w.to(dtype))
    assert_near((hessian @ v).double(), expected, 1e-6 if dtype == torch.float64 else 1e-4)
    assert hessian.method == "differences" and 0 < hessian.error < 1e-4
    assert "differences, relative error" in hessian.described["products"]


def test_jacobian_and_gauss_newton_go_through_them_too(risk):
    problem = risk.problem
    x, labels = problem.train
    targets = F.one_hot(labels, 3).double()
    squared = tw.EmpiricalRisk(tw.Problem(problem.model, nn.MSELoss(), (x, targets)))
    w, v = weights(squared)
    jacobian = squared.jacobian(w)
    pushed = jacobian @ v
    assert_near(pushed, slope_of(lambda at: squared.residuals(at).reshape(-1), w, v))
    u = torch.randn(len(pushed), dtype=torch.float64)
    assert float(u @ pushed) == pytest.approx(float((jacobian.T @ u) @ v), rel=1e-9)
    expected = jacobian.T @ pushed * (2 / len(pushed))
    assert_near(squared.gauss_newton(w) @ v, expected)


def test_a_layers_block_is_the_block(risk):
    w, _ = weights(risk)
    layer = next(iter(risk.space.layers))
    block = risk.hessian(w, layers=[layer])
    whole = risk.hessian(w).to_dense()
    assert_near(block.to_dense(), whole[block.entries][:, block.entries])
    assert_near(whole, whole.T)


def test_graphs_beyond_the_memory_are_made_anew(risk):
    w, v = weights(risk)
    small = tw.EmpiricalRisk(risk.problem, memory=1, batch_size=128)
    assert_near(small.hessian(w) @ v, risk.hessian(w) @ v, 1e-12)


def test_held_statistics_are_those_of_one_point_everywhere(risk):
    w, v = weights(risk)
    held = risk.held(w)
    assert held.value(w) == pytest.approx(risk.value(w), rel=1e-12)
    assert held.value(w + v) != pytest.approx(risk.value(w + v), rel=1e-6)
    assert_near(held.hessian(w) @ v, slope_of(held.gradient, w, v))
    assert "held" in held.described["batchnorm"]
    other = tw.EmpiricalRisk(risk.problem, batchnorm="held")
    other.set_fixed(held.fixed())
    assert other.value(w + v) == pytest.approx(held.value(w + v), rel=1e-12)


def test_held_by_name_are_those_at_the_models_own_weights():
    torch.manual_seed(0)
    model = dense().double()
    x, y = torch.randn(40, 5, dtype=torch.float64), torch.randint(0, 3, (40,))
    problem = tw.Problem(model, nn.CrossEntropyLoss(), (x, y))
    own = model.train()(x)  # the statistics of all samples, as one batch
    held = tw.EmpiricalRisk(problem, batchnorm="held")
    w = held.space.pack(model)
    expected = nn.functional.cross_entropy(own, y).item()
    assert held.value(w) == pytest.approx(expected, rel=1e-12)
