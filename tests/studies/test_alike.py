"""Of networks that differ by their seeds alone, the first is looked at for all of its process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg.errors import DependsOnBatches
from thalweg.problems import MLP, Problem, load_problem
from thalweg.risk import EmpiricalRisk
from thalweg.risk import self_check as self_check_module
from thalweg.studies import alike
from thalweg.studies.alike import load_risk, risk_alike

SMALL: dict[str, Any] = {"network": "mlp", "widths": [3], "train_size": 40}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Count self-checks and evaluations of the user's own model, from a process's beginning."""
    counts = {"checks": 0, "looks": 0}
    check, look = self_check_module._Check.run, Problem._look

    def counted_check(*args: Any, **kwargs: Any) -> Any:
        counts["checks"] += 1
        return check(*args, **kwargs)

    def counted_look(*args: Any, **kwargs: Any) -> Any:
        counts["looks"] += 1
        return look(*args, **kwargs)

    monkeypatch.setattr(alike, "_LOOKED", {})
    monkeypatch.setattr(self_check_module._Check, "run", counted_check)
    monkeypatch.setattr(Problem, "_look", counted_look)
    yield counts


def _digits(**settings: Any) -> dict[str, Any]:
    return {"problem": {"entry": "digits", "settings": SMALL | settings}, "evaluation_batch": None}


def test_a_second_seed_is_neither_checked_nor_looked_at(looks: dict[str, int]) -> None:
    first = load_risk(_digits(), seed=0)
    first.on("test")
    before = dict(looks)
    assert before["checks"] == 1
    assert before["looks"] > 0
    second = load_risk(_digits(), seed=1)
    second.on("test")
    assert looks == before
    assert second.checked == first.checked
    for risk in (first, second):
        assert "of the first network of this code" in risk.described["self-check"]
    plain = EmpiricalRisk(load_problem("digits", **SMALL, seed=1))
    w = plain.space.pack(plain.problem.model)
    assert second.value(w) == plain.value(w)
    assert second.on("test").value(w) == plain.on("test").value(w)
    assert torch.equal(second.gradient(w), plain.gradient(w))


def test_another_width_and_other_data_are_no_other_code(looks: dict[str, int]) -> None:
    for settings in ({}, {"widths": [4]}, {"train_size": 30, "data_seed": 1}):
        load_risk(_digits(**settings), seed=0)
    assert looks["checks"] == 1


@pytest.mark.parametrize(
    "other",
    [{"widths": [3, 3]}, {"activation": "tanh"}, {"target": "onehot"}, {"network": "allconv"}],
)
def test_other_layers_and_another_loss_are_looked_at(
    looks: dict[str, int], other: dict[str, Any]
) -> None:
    load_risk(_digits(), seed=0)
    before = dict(looks)
    load_risk(_digits(**other), seed=0)
    assert looks["checks"] == before["checks"] + 1
    assert looks["looks"] > before["looks"]


def test_another_precision_is_checked(looks: dict[str, int]) -> None:
    for dtype in (torch.float32, torch.float64, torch.float64):
        risk_alike(load_problem("digits", **SMALL), dtype=dtype)
    assert looks["checks"] == 2


class Cube(torch.autograd.Function):
    """The cube, whose derivative is a lie."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope


class Cubed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y**3


def test_models_of_other_classes_that_print_the_same_are_checked(looks: dict[str, int]) -> None:
    honest = Problem(Cubed(), nn.MSELoss(), (torch.randn(8, 3), torch.randn(8, 1)))
    risk_alike(honest, code="cubes")

    class Lying(Cubed):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = Cube.apply(self.linear(x))
            return y

    Lying.__name__ = Cubed.__name__
    lying = Problem(Lying(), nn.MSELoss(), honest.train)
    assert str(lying.model) == str(honest.model)
    with pytest.raises(Exception, match="gradient is not that of the loss"):
        risk_alike(lying, code="cubes")


FILE = """
import torch
from torch import nn
from thalweg.problems import Problem

def make(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 2))
    return Problem(model, nn.CrossEntropyLoss(), (torch.randn(9, 3), torch.arange(9) % 2))
"""


def test_a_file_that_may_have_changed_is_checked_each_time(
    looks: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    for seed in (0, 1):
        risk_alike(load_problem(f"{tmp_path}/mine.py:make", seed=seed))
    assert looks["checks"] == 2


class Noisy(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + 0.1 * torch.randn_like(y)


def test_noise_is_held_on_every_network(looks: dict[str, int]) -> None:
    """The second is found noisy, too: what is plain is taken over, and nothing else."""
    x, labels = torch.randn(12, 3), torch.arange(12) % 2
    for _ in range(2):
        noisy = Problem(Noisy(3, 2), nn.CrossEntropyLoss(), (x, labels))
        risk = risk_alike(noisy, code="noise")
        w = risk.space.pack(risk.problem.model)
        assert risk.value(w) == risk.value(w)
        assert "draw" in str(risk.described)


def test_ignored_targets_of_other_data_are_found(looks: dict[str, int]) -> None:
    x, labels = torch.randn(12, 3), torch.arange(12) % 2
    ignoring = torch.where(torch.arange(12) < 5, -100, labels)
    for targets in (labels, ignoring):
        problem = Problem(MLP(3, (4,), 2), nn.CrossEntropyLoss(), (x, targets))
        risk = risk_alike(problem, batch_size=5)
        w = risk.space.pack(problem.model)
        expected = nn.functional.cross_entropy(problem.model(x), targets)
        assert float(risk.value(w)) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert looks["checks"] == 1


def test_what_a_user_adds_to_a_network_of_ours_is_looked_at(looks: dict[str, int]) -> None:
    x, labels = torch.randn(12, 3), torch.arange(12) % 2

    def problem(weight: Any = None) -> Problem:
        return Problem(MLP(3, (4,), 2), nn.CrossEntropyLoss(), (x, labels), weight=weight)

    risk_alike(problem())
    with pytest.raises(DependsOnBatches):
        risk_alike(problem(weight=lambda batch: torch.full((len(batch[1]),), len(batch[1]))))
    hooked = problem()
    hooked.model.register_forward_hook(lambda module, inputs, outputs: outputs * 2)
    checks = looks["checks"]
    assert "first network" not in risk_alike(hooked).described["self-check"]
    assert looks["checks"] == checks + 1
