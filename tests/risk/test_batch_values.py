"""The loss of a mini-batch, against the losses of its samples and a network written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg as tw

BATCH = torch.tensor([3, 17, 4, 11, 8, 20, 1])


def made(*norm: nn.Module) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), *norm, nn.Tanh(), nn.Linear(6, 3)).double()
    return model, torch.randn(24, 5, dtype=torch.float64), torch.arange(24) % 3


@pytest.mark.parametrize("norm", [[], [nn.BatchNorm1d(6)]])
def test_where_statistics_stay_it_is_the_mean_of_the_samples(norm) -> None:
    model, x, y = made(*norm)
    problem = tw.Problem(model, nn.CrossEntropyLoss(), (x, y))
    risk = tw.EmpiricalRisk(problem, batchnorm="frozen")
    w = risk.space.pack(model)
    expected = float(risk.sample_losses(w)[BATCH].mean())
    assert risk.value(w, BATCH) == pytest.approx(expected, rel=1e-12)
    assert risk.value(w, BATCH) != pytest.approx(risk.value(w), rel=1e-6)
    assert risk.value_and_gradient(w, BATCH)[0] == pytest.approx(expected, rel=1e-12)


def test_where_they_are_re_estimated_they_are_the_batchs_own() -> None:
    model, x, y = made(nn.BatchNorm1d(6))
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (x, y)))
    w = risk.space.pack(model)
    whole = risk.value(w)
    expected = float(F.cross_entropy(model.train()(x[BATCH]), y[BATCH]).detach())
    assert risk.value(w, BATCH) == pytest.approx(expected, rel=1e-12)
    assert risk.value(w) == whole  # nothing of the batch is left behind


def test_classes_weigh_as_torch_weighs_them_in_a_batch() -> None:
    model, x, y = made()
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64))
    risk = tw.EmpiricalRisk(tw.Problem(model, loss, (x, y)))
    expected = float(loss(model(x[BATCH]), y[BATCH]).detach())
    assert risk.value(risk.space.pack(model), BATCH) == pytest.approx(expected, rel=1e-12)
