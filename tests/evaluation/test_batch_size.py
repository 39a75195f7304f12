"""Batch sizes follow from what a sample keeps: the same on every machine."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thalweg.evaluation.batch_size import measure_activations
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk

IMAGE, MAP = 16 * 16 * 4, 64 * 16 * 16 * 4  # bytes of an input, and of what the convolution gives


class Functional(nn.Module):
    """No layer of it but two is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(64, 1, 3, 3))
        self.matrix = nn.Parameter(torch.zeros(2, 16384))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.relu(F.conv2d(x, self.kernel, padding=1)).flatten(1), self.matrix)


def layers() -> nn.Module:
    convolution = nn.Conv2d(1, 64, 3, padding=1)
    return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(16384, 2))


def risk_of(model: nn.Module, samples: int = 300, **options: object) -> EmpiricalRisk:
    data = torch.zeros(samples, 1, 16, 16), torch.zeros(samples, dtype=torch.long)
    return EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), data), check=False, **options)


@pytest.mark.parametrize("model", [layers, Functional])
def test_what_a_sample_keeps_is_counted_once(model):
    """The convolution keeps its input; ReLU and the linear layer one and the same map."""
    risk = risk_of(model())
    kept = measure_activations(risk._measured, risk.data)
    assert kept.largest == MAP
    assert IMAGE + MAP <= kept.total <= IMAGE + MAP + 100  # and some numbers of the loss


@pytest.mark.parametrize(
    ("samples", "memory", "size"),
    [
        (300, 1 << 30, 100),  # 64 would fill 4 MB, and a hundred no more than 8
        (90, 1 << 30, 90),  # bound by the data
        (300, 1 << 20, (1 << 20) // (IMAGE + MAP)),  # by the budget
        (300, 10, 1),
    ],
)
def test_batches_are_as_large_as_caches_budget_and_data_allow(samples, memory, size):
    risk = risk_of(layers(), samples, memory=memory)
    risk.value(risk.space.pack(risk.problem.model))  # which asks for the size inside of a pass
    assert risk.batch_size == size


@pytest.mark.parametrize(
    ("memory", "size"), [(1 << 30, (16 << 20) // MAP), (4 << 20, (1 << 20) // (IMAGE + MAP))]
)
def test_products_have_larger_batches_within_a_fourth_of_the_budget(memory, size):
    risk = risk_of(layers(), memory=memory)
    assert risk._product_batch == size
    w = risk.space.pack(risk.problem.model)
    assert risk.hessian(w)._functions.bounds[0][1] <= size


def test_a_given_size_holds():
    risk = risk_of(layers(), batch_size=7)
    assert (risk.batch_size, risk._product_batch) == (7, 3)


@pytest.mark.parametrize(
    ("side", "size"),
    [(4, (4 << 20) // (MAP // 16)), (16, 100), (24, (8 << 20) // (64 * 24 * 24 * 4))],
)
def test_small_activations_fill_four_megabytes_and_large_ones_eight(side, size):
    model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * side**2, 2))
    data = torch.zeros(2000, 1, side, side), torch.zeros(2000, dtype=torch.long)
    risk = EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), data), check=False)
    assert risk.batch_size == size
