"""Activations in place: the same numbers to the last bit, and only where nothing else looks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg.evaluation.inplace import InPlaceActivations
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk


class Skipping(nn.Sequential):
    """Adds what is before an activation to what is behind it: no place to act in place."""

    def forward(self, x: Tensor) -> Tensor:
        before = self[0](x)
        after: Tensor = self[1](before)
        return self[2](before + after)


def layers() -> list[nn.Module]:
    return [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)]


class Looping(nn.Module):
    """Calls a sequence's layers itself and holds what is between them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers())

    def forward(self, x: Tensor) -> Tensor:
        held = [x]
        for layer in self.body:
            held.append(layer(held[-1]))
        return held[3] + held[1].sum(1, keepdim=True)


def plain() -> nn.Module:
    shared = nn.ReLU()
    inner = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.LeakyReLU(0.3), nn.Linear(6, 6))
    return nn.Sequential(nn.Linear(4, 6), shared, inner, shared, nn.Dropout(0.0), nn.Linear(6, 3))


@pytest.mark.parametrize("make", [plain, lambda: Skipping(*layers()), Looping])
def test_values_are_those_of_the_model_to_the_last_bit(make: Any) -> None:
    torch.manual_seed(0)
    model = make().eval()
    x, y = torch.randn(30, 4), torch.randint(3, (30,))
    risk = EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), (x, y)), batchnorm="frozen")
    with torch.no_grad():
        expected = nn.functional.cross_entropy(model(x), y, reduction="none")
    w = risk.space.pack(model)
    assert risk.value(w) == float(expected.double().mean())
    assert torch.equal(risk.sample_losses(w), expected)
    assert all(not getattr(module, "inplace", False) for module in model.modules())


class Remembering(nn.Linear):
    """Keeps its last output, as a hook would, without being one."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


def run_leanly(model: nn.Module) -> None:
    lean = InPlaceActivations(model)
    with torch.no_grad(), lean.pass_():
        model(torch.randn(30, 4))


def test_an_activation_writes_over_what_a_layer_made() -> None:
    model = nn.Sequential(Remembering(4, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        model(torch.randn(30, 4))
        assert float(model[0].last.min()) < 0, "as usual, outside"
    run_leanly(model)
    assert float(model[0].last.min()) == 0.0


def test_an_activation_leaves_alone_what_others_may_hold() -> None:
    inner = nn.Sequential(Remembering(4, 5))
    run_leanly(nn.Sequential(inner, nn.ReLU(), nn.Linear(5, 3)))
    assert float(inner[0].last.min()) < 0, "behind a module that is no known layer"
    watched = nn.Sequential(*layers())
    seen: list[Tensor] = []
    watched[0].register_forward_hook(lambda _, __, out: seen.append(out))
    run_leanly(watched)
    assert float(seen[0].min()) < 0, "a hook has it"
