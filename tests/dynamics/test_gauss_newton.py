"""Gauss-Newton: exact where the answer is known, to rounding size, and to the bit on resume."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.errors import InvalidArgument
from thalweg.run import create_run


def _risk(model, inputs, outputs, samples, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(samples, *inputs, generator=generator)
    y = torch.randn(samples, outputs, generator=generator)
    return tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), (x, y)), dtype=dtype)


def _mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 2))


def _train(risk, **options):
    w = risk.space.pack(risk.problem.model).to(risk.dtype)
    return tw.train(risk, w, optimizer="gauss-newton", **options)


def test_a_linear_model_of_enough_weights_is_solved_by_its_nearest_solution():
    torch.manual_seed(0)
    risk = _risk(nn.Linear(6, 1), (6,), 1, 4)
    w0 = risk.space.pack(risk.problem.model).double()
    x, y = (t.double() for t in risk.problem.train)
    rows = torch.cat([x, torch.ones(4, 1)], 1)
    nearest = w0 + torch.linalg.pinv(rows) @ (y[:, 0] - rows @ w0)
    torch.testing.assert_close(_train(risk, steps=12).w, nearest, rtol=1e-12, atol=1e-12)


def test_too_few_weights_come_to_the_least_squares_minimum():
    torch.manual_seed(0)
    risk = _risk(nn.Linear(3, 1), (3,), 1, 20)
    x, y = (t.double() for t in risk.problem.train)
    rows = torch.cat([x, torch.ones(20, 1)], 1)
    best = torch.linalg.lstsq(rows, y).solution[:, 0]
    torch.testing.assert_close(_train(risk, steps=40).w, best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        _mlp,
        lambda: nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(24, 2)
        ),
    ],
    ids=["dense", "convolution"],
)
def test_reaches_rounding_size_and_stays(model):
    torch.manual_seed(0)
    inputs = (1, 2, 2) if model is not _mlp else (4,)
    risk = _risk(model(), inputs, 2, 10)
    result = _train(risk, steps=40)
    assert result.status == "finished"
    assert risk.residuals(result.w).norm() < 2e-14
    assert torch.equal(_train(risk, steps=80).w, result.w)


def test_never_goes_uphill():
    risk = _risk(_mlp(), (4,), 2, 40)
    losses = [row["loss"] for row in _train(risk, steps=30, evaluate_every=1).history]
    assert all(after <= before for before, after in itertools.pairwise(losses))
    assert losses[-1] < 0.1 * losses[0]


def test_resumes_to_the_same_bits_with_the_factor_of_another_place(tmp_path):
    risk = _risk(_mlp(), (4,), 2, 10)
    whole = _train(risk, steps=9)
    run = create_run(tmp_path / "run", {})
    _train(risk, steps=9, every=1, run=run)
    kept = sorted((run.path / "checkpoints" / "main").glob("*.safetensors"))
    for left in range(1, len(kept)):
        for path in kept[left:]:
            path.unlink(missing_ok=True)
        resumed = _train(risk, steps=9, every=1, run=run)
        assert torch.equal(resumed.w, whole.w)


def test_says_what_it_needs():
    single = _risk(_mlp(), (4,), 2, 10, dtype=torch.float32)
    with pytest.raises(InvalidArgument, match=r"dtype=torch\.float64"):
        _train(single, steps=1)
    with pytest.raises(InvalidArgument, match="leave them out"):
        _train(_risk(_mlp(), (4,), 2, 10), steps=1, weight_decay=0.1)
