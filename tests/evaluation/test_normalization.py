"""Moments of batch norm's inputs: torch's own, and their gradient, in either layout."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from thalweg.errors import NotDefined
from thalweg.evaluation.normalization import Normalization
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def collected(x: Tensor) -> tuple[Tensor, Tensor]:
    norms = Normalization(layer := nn.BatchNorm2d(x.shape[1], affine=False).to(x.dtype))
    with norms.mode("collect"):
        layer(x)
        ((mean, var, count),) = norms.norms[0].moments
    assert count == x.numel() // x.shape[1]
    return mean, var


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_moments_are_those_of_the_population(layout: torch.memory_format, scale: float) -> None:
    # Variances far below batch norm's eps of 1e-5 among them: they are not read off its output.
    x = scale * (3 + torch.randn(20, 5, 4, 4, generator=torch.Generator().manual_seed(0)))
    mean, var = collected(x.contiguous(memory_format=layout))
    exact_var, exact_mean = torch.var_mean(x.double(), [0, 2, 3], correction=0)
    torch.testing.assert_close(mean.double(), exact_mean, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(var.double(), exact_var, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_moments_have_the_gradient_of_the_definition(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 3, 2, 4, generator=generator, dtype=torch.float64)
    x = (x + 2).contiguous(memory_format=layout).requires_grad_()
    by_mean, by_var = torch.randn(2, 3, generator=generator, dtype=torch.float64)

    def paired(mean: Tensor, var: Tensor) -> Tensor:
        return (by_mean * mean).sum() + (by_var * var).sum()

    var, mean = torch.var_mean(x, [0, 2, 3], correction=0)
    (expected,) = torch.autograd.grad(paired(mean, var), x)
    (found,) = torch.autograd.grad(paired(*collected(x)), x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_that_no_weight_moves_have_no_slope(frozen: bool) -> None:
    """Batch norm on the inputs themselves, or behind frozen layers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = [nn.Linear(3, 3).requires_grad_(False)] if frozen else []
        model = nn.Sequential(*first, nn.BatchNorm1d(3), nn.Linear(3, 2)).double()
        x, y = torch.randn(30, 3).double(), torch.randint(2, (30,))
    risk = EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), (x, y)), batchnorm="recalibrate")
    w = risk.space.pack(model)
    loss = nn.functional.cross_entropy(model.train()(x), y)
    slopes = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(risk.gradient(w), torch.cat([s.flatten() for s in slopes]))
    whole = EmpiricalRisk(Problem(model, nn.CrossEntropyLoss(), (x, y)), batchnorm="batch")
    torch.testing.assert_close(risk.hessian(w).to_dense(), whole.hessian(w).to_dense())


def test_a_mean_over_one_whole_batch_has_a_value_and_no_samples() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3), nn.Flatten()).double()
    batch = {"x": torch.randn(9, 2, 4, 4).double()}

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(batch["x"]).square().mean()

    risk = EmpiricalRisk(Problem(model, loss, batch), batchnorm="batch", batch_size=2)
    w = risk.space.pack(model)
    wanted = loss(model.train(), batch)
    assert risk.value(w) == pytest.approx(float(wanted.detach()), rel=1e-12)
    with pytest.raises(NotDefined, match="gives only their mean"):
        risk.sample_losses(w)


def test_a_model_with_batch_norm_is_freed_with_its_last_use() -> None:
    # A layer that held itself would keep its weights, which are views into the vector of all, until
    # the collector of cycles comes by, which is seldom.
    x, y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    problem = Problem(model, nn.CrossEntropyLoss(), (x, y))
    risk = EmpiricalRisk(problem)
    risk.gradient(risk.space.pack(model))
    layer = weakref.ref(risk._measured.model[1])
    gc.collect()
    gc.disable()
    try:
        del risk
        assert layer() is None
    finally:
        gc.enable()
