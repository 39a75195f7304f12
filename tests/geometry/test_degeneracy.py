"""Rank, nullity and its causes: closed forms, dense float64 singular values, planted deaths."""

from __future__ import annotations

import importlib
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from thalweg import EmpiricalRisk, Problem
from thalweg.errors import InvalidArgument
from thalweg.geometry.degeneracy import degeneracy
from thalweg.polynomial import PolynomialActivation
from thalweg.problems import MLP, AllConv


def data(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)).double()


def measured(model: nn.Module, x: Tensor, outputs: int, **options):
    model = model.double()
    y = data(len(x), outputs, seed=1)
    risk = EmpiricalRisk(Problem(model, nn.MSELoss(), (x, y)), dtype=torch.float64)
    return degeneracy(risk, risk.space.pack(model), **options), model


def dense_rank(model: nn.Module, x: Tensor) -> int:
    named = {name: p.detach() for name, p in model.named_parameters()}
    rows = jacrev(lambda p: functional_call(model, p, (x,)).flatten())(named)
    dense = torch.cat([block.flatten(1) for block in rows.values()], 1)
    return int(torch.linalg.matrix_rank(dense, rtol=1e-9))


def causes(found) -> dict[str, int]:
    assert sum(found.split.values()) == found.nullity == found.weights - found.rank
    return {kind: count for kind, count in found.split.items() if count}


def test_linear_network_with_dead_inputs():
    x = data(40, 6)
    x[:, 2], x[:, 4] = 0.0, 1.5
    found, model = measured(nn.Linear(6, 3), x, 3)
    # A column of zeros, and one that the bias can stand for.
    assert found.rank == 15 == dense_rank(model, x) and found.clear
    assert causes(found) == {"dead inputs": 6}
    assert found.method == "dense" and (found.rank_low, found.rank_high) == (15, 15)


def test_deep_linear_network_has_the_nullity_of_its_mixings():
    model = nn.Sequential(nn.Linear(7, 4, bias=False), nn.Linear(4, 5, bias=False))
    found, model = measured(model, data(30, 7), 5)
    # Matrices of rank h have dimension h (d + k - h): h squared of the weights go nowhere.
    assert found.rank == 4 * (7 + 5 - 4) == dense_rank(model, data(30, 7))
    assert causes(found) == {"rescaling": 16}
    with_bias, _ = measured(nn.Sequential(nn.Linear(7, 4), nn.Linear(4, 5)), data(30, 7), 5)
    assert causes(with_bias) == {"rescaling": 16 + 4}


def test_dead_units_and_inputs_of_a_relu_network():
    x = data(200, 6).abs()
    x[:, 3] = 0.0
    model = MLP(6, (8,), 2)
    with torch.no_grad():
        model[1].bias[:3] = -100.0
        model[1].bias[3:] = 100.0  # on for all samples: linear units, of which some are redundant
        model[1].weight[5:] *= 3
    model[1].bias.data[5] = 0.1
    found, model = measured(model, x, 2)
    assert found.rank == dense_rank(model, x)
    assert found.split["dead units"] == 3 * (7 + 2)
    assert found.split["dead inputs"] == 5  # one a living unit
    assert found.split["rescaling"] == 5


def test_more_weights_than_equations():
    found, _ = measured(MLP(5, (20,), 2, "tanh"), data(9, 5), 2)
    assert (found.equations, found.rank, found.method) == (18, 18, "gram")
    assert causes(found) == {"more weights than equations": found.weights - 18}
    assert found.estimators["agree"] and found.estimators["learning_coefficient"] == "not available"


def test_repeated_samples_lower_the_rank_and_are_named():
    x = data(9, 5)
    found, _ = measured(MLP(5, (20,), 2, "tanh"), torch.cat([x, x[:4]]), 2)
    assert found.rank == 18 and found.equations == 26
    assert causes(found) == {
        "more weights than equations": found.weights - 26,
        "repeated samples": 8,
    }


def test_monomial_activation_rescales_by_its_degree():
    cube = PolynomialActivation.from_coefficients([0, 0, 0, 1])
    found, model = measured(MLP(2, (2,), 1, cube, bias=False), data(30, 2), 1)
    assert found.rank == dense_rank(model, data(30, 2))
    assert causes(found) == {"rescaling": 2} and not found.broken


@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_batch_norm_takes_a_scale_from_each_filter_whatever_its_eps(eps):
    model = AllConv((1, 8, 8), 3, (3, 4))
    model.norm1.eps = model.norm2.eps = eps
    # A smooth activation: then nothing else explains anything.
    model.activation1, model.activation2 = nn.Tanh(), nn.Tanh()
    x = data(40, 1, 8, 8)
    y = data(40, 3, seed=1)
    risk = EmpiricalRisk(Problem(model, nn.MSELoss(), (x, y)), batchnorm="batch")
    found = degeneracy(risk, risk.space.pack(model))
    assert causes(found)["batch norm"] == 7 and not found.broken and not found.split["rest"]
    frozen = EmpiricalRisk(risk.problem, batchnorm="frozen")
    assert degeneracy(frozen, risk.space.pack(model)).split["batch norm"] == 0


def test_bias_before_batch_norm_does_nothing():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2))
    found, _ = measured(model, data(60, 4), 2)
    # Scale and shift of each of three units.
    assert causes(found) == {"batch norm": 6}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(x + torch.tanh(self.one(x)))


def test_any_network_has_a_rank():
    found, model = measured(Residual(), data(50, 4), 2)
    assert found.rank == dense_rank(model, data(50, 4)) and not found.broken


def test_threshold_of_the_users_own():
    scales = torch.tensor([1.0, 1e-2, 1e-4, 1e-6], dtype=torch.float64)
    x = torch.diag(scales)
    model = nn.Linear(4, 1, bias=False)
    assert [measured(model, x, 1, rtol=t)[0].rank for t in (1e-7, 1e-5, 1e-3)] == [4, 3, 2]
    found = measured(model, x, 1, rtol=1e-3)[0]
    assert found.above == pytest.approx(1e-4) and found.below == pytest.approx(1e-8)
    assert found.threshold == pytest.approx(1e-6)
    with pytest.raises(InvalidArgument, match="rtol"):
        measured(model, x, 1, rtol=0.0)


def test_quadrature_brackets_the_rank_where_a_matrix_is_too_large(monkeypatch):
    x = data(60, 12)
    x[:, 4:] = 0.0
    exact, _ = measured(nn.Linear(12, 3), x, 3)
    module = importlib.import_module("thalweg.geometry.degeneracy")
    monkeypatch.setattr(module, "LARGEST", 10)
    found, _ = measured(nn.Linear(12, 3), x, 3, probes=20)
    assert found.method == "lanczos" and len(found.eigenvalues) == 0
    assert found.rank_low <= exact.rank == 15 <= found.rank_high
    assert found.split["dead inputs"] == 24


def test_as_plain_values():
    found, _ = measured(nn.Linear(3, 1), data(5, 3), 1)
    answer = found.to_dict()
    assert answer["rank"] == 4 and "eigenvalues" not in answer
    np.testing.assert_array_equal(np.sort(found.eigenvalues)[::-1], found.eigenvalues)


class Recorded:
    """Progress that keeps what it was told: total and sum of units by label."""

    def __init__(self) -> None:
        self.told: dict[str, list[int]] = {}

    def __call__(self, total: int, label: str) -> Recorded:
        self.now = self.told[label] = [total]
        return self

    def update(self, n: int = 1) -> None:
        self.now.append(n)

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None: ...


class Branched(nn.Module):
    """A convolution beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.skip, self.head = nn.Conv2d(1, 3, 1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x)) + self.skip(x)).mean((2, 3)))


@pytest.mark.parametrize(("policy", "first"), [("frozen", "Gram matrix"), ("batch", "Jacobian")])
def test_each_long_phase_of_a_branched_network_tells_how_far_it_is(monkeypatch, policy, first):
    monkeypatch.setattr("thalweg.geometry.symmetric_eigenvalues._SHORT", 10)
    monkeypatch.setattr("thalweg.geometry.symmetric_eigenvalues._FIRST", 10)
    for place in ("jacobian_plan", "gram"):
        monkeypatch.setattr(f"thalweg.curvature.{place}.UNIT", 100)
    torch.manual_seed(0)
    x = torch.randn(24, 1, 4, 4)
    problem = Problem(Branched(), nn.MSELoss(), (x, torch.zeros(24, 2)))
    risk = EmpiricalRisk(problem, batchnorm=policy)
    progress = Recorded()
    w = risk.space.pack(problem.model)
    found = degeneracy(risk, w, probes=3, steps=10, progress=progress)
    assert found.rank == degeneracy(risk, w).rank
    matrix = [first, "eigenvalues"] if policy == "frozen" else [first]
    assert list(progress.told) == [*matrix, "spectral density", "symmetries"]
    for label, (total, *units) in progress.told.items():
        assert sum(units) == pytest.approx(total, rel=0.05), (label, total, units)
    assert len(progress.told[first]) > 2 and progress.told["spectral density"][0] == 30


def test_a_bar_by_the_clock_goes_on_while_the_call_lasts_and_ends_with_it():
    from thalweg.geometry.symmetric_eigenvalues import _by_the_clock

    for seconds in (0.8, 0.01):  # as long as it takes, and far too short
        progress = Recorded()
        with progress(1000, "eigenvalues") as bar, _by_the_clock(bar, seconds):
            time.sleep(0.5)
        _, *units = progress.told["eigenvalues"]
        assert sum(units) == 1000 and len(units) >= 2 and units[-1] >= 20
