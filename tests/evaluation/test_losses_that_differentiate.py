"""Losses that take derivatives themselves: in the weights, in the inputs, by torch.func."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thalweg as tw
from evaluation_models import LABELS, VECTORS, chain
from thalweg.landscape.differences import difference

Batch = tuple[Tensor, Tensor]
EPS = torch.finfo(torch.float64).eps


def gradient_penalty(model: nn.Module, batch: Batch) -> Tensor:
    loss = F.cross_entropy(model(batch[0]), batch[1])
    slopes = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    return loss + 0.1 * sum(slope.square().sum() for slope in slopes)


def after_a_step(model: nn.Module, batch: Batch) -> Tensor:
    """Of a model-agnostic meta-learner: the loss after a gradient step."""
    loss = F.cross_entropy(model(batch[0]), batch[1])
    named = dict(model.named_parameters())
    slopes = torch.autograd.grad(loss, list(named.values()), create_graph=True)
    moved = {name: p - 0.1 * g for (name, p), g in zip(named.items(), slopes, strict=True)}
    return F.cross_entropy(torch.func.functional_call(model, moved, (batch[0],)), batch[1])


def penalty_by_transforms(model: nn.Module, batch: Batch) -> Tensor:
    def loss(weights: dict[str, Tensor]) -> Tensor:
        outputs = torch.func.functional_call(model, weights, (batch[0],))
        return F.cross_entropy(outputs, batch[1])

    weights = dict(model.named_parameters())
    slopes = torch.func.grad(loss)(weights)
    return loss(weights) + 0.1 * sum(slope.square().sum() for slope in slopes.values())


def jacobian_penalty(model: nn.Module, batch: Batch) -> Tensor:
    """One value per sample, so that batches may be of any size."""
    slopes = torch.func.vmap(torch.func.jacrev(lambda x: model(x[None])[0]))(batch[0])
    losses = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    return losses + 0.1 * slopes.square().sum((1, 2))


LOSSES: dict[str, tuple[Callable[[nn.Module, Batch], Tensor], Callable[[Batch], Any]]] = {
    "penalty of the gradient": (gradient_penalty, tw.Whole),
    "after a step": (after_a_step, tw.Whole),
    "penalty by torch.func": (penalty_by_transforms, tw.Whole),
    "penalty of the Jacobian": (jacobian_penalty, lambda data: data),
}


@pytest.mark.parametrize(("loss", "given"), LOSSES.values(), ids=LOSSES)
def test_value_gradient_and_hessian_are_the_losss_own(loss, given):
    torch.manual_seed(0)
    model, data = chain().double(), (VECTORS.double(), LABELS)
    risk = tw.EmpiricalRisk(tw.Problem(model, loss, given(data)))
    assert not risk.checked.differences and not risk.checked.borrowed
    w = risk.space.pack(model)
    assert risk.value(w) == pytest.approx(float(loss(model, data).mean().detach()), rel=1e-12)
    v, step = torch.randn(len(w), dtype=w.dtype), 0.01
    slope = difference(lambda t: risk.value(w + t * v), step, EPS)
    assert float(slope.value) == pytest.approx(float(risk.gradient(w) @ v), rel=1e-7)
    curved = difference(lambda t: risk.gradient(w + t * v), step, EPS)
    for method in (None, "graph", "differences"):
        torch.testing.assert_close(
            risk.hessian(w, method=method) @ v, curved.value, rtol=1e-5, atol=1e-7
        )
    values, gradients = risk.values_and_gradients(torch.stack([w, w + 0.1 * v]))
    assert float(values[1]) == pytest.approx(risk.value(w + 0.1 * v), rel=1e-9)
    torch.testing.assert_close(gradients[0], risk.gradient(w), rtol=1e-8, atol=1e-10)
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in model.parameters()
    )
