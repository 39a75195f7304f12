"""The greatest rise over a ball of weights, bounded from above: closed forms, and never crossed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.certificates.rise import bound_rise
from thalweg.geometry.scales import perturbation_scales
from thalweg.landscape import Quadratic
from thalweg.polynomial import PolynomialActivation

F64 = torch.float64


def risk_of(model, loss, samples=12, outputs=3, shape=(4,)):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, *shape, generator=generator, dtype=F64)
    if isinstance(loss, nn.CrossEntropyLoss):
        y = torch.arange(samples) % outputs
    else:
        y = torch.rand(samples, outputs, generator=generator, dtype=F64)
    risk = tw.EmpiricalRisk(tw.Problem(model.double(), loss, (x, y)))
    return risk, risk.space.pack(risk.problem.model)


def dense(activation, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 5), activation, nn.Linear(5, 3))


def test_one_layer_and_one_sample_are_bounded_by_the_closed_form():
    torch.manual_seed(0)
    risk, w = risk_of(nn.Linear(4, 3), nn.MSELoss(), samples=1)
    x, y = risk.problem.train
    length = 0.7
    # Of all steps of one length, one along the residual moves the outputs most, and straight away.
    way = length * float((x.square().sum() + 1).sqrt())
    residual = float((risk.problem.model(x) - y).detach().norm())
    exact = (2 * residual * way + way**2) / 3
    bound = bound_rise(risk, w, torch.ones(len(w), dtype=F64), length)
    assert exact <= bound.value <= exact * (1 + 1e-5)
    half = bound_rise(risk, w, 0.5 * torch.ones(len(w), dtype=F64), 2 * length)
    assert half.value == pytest.approx(bound.value, rel=1e-6), "units and length are one thing"


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.MSELoss(), nn.BCEWithLogitsLoss()])
@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.Tanh(), PolynomialActivation.from_coefficients([0.0, 0.5, 0.25])]
)
@pytest.mark.parametrize("form", ["plain", "adaptive", "filter"])
def test_no_direction_rises_above_the_bound(loss, activation, form):
    risk, w = risk_of(dense(activation), loss)
    scales = perturbation_scales(risk.space, w, form)
    for length in (0.001, 0.3):
        bound = bound_rise(risk, w, scales, length).value
        way = scales * scales * risk.gradient(w)  # the steepest in these units
        highest = risk.value(w + length * way / (way / scales.clamp_min(1e-12)).norm())
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            drawn = torch.randn(len(w), generator=generator, dtype=F64)
            highest = max(highest, risk.value(w + scales * drawn * length / drawn.norm()))
        assert highest - risk.value(w) <= bound
        if length < 0.01 and not isinstance(activation, PolynomialActivation):
            assert bound < 40 * (highest - risk.value(w)), "close where the ball is small"


def test_a_convolution_and_weights_that_are_not_trained():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    risk, w = risk_of(model, nn.CrossEntropyLoss(), shape=(1, 3, 3))
    worst = tw.flatness(risk, w, pairs=2, copies=6)["worst", "plain"]
    assert worst.value <= worst.high < float("inf") and worst.note == ""
    model[0].requires_grad_(False)
    fewer, v = risk_of(model, nn.CrossEntropyLoss(), shape=(1, 3, 3))
    frozen, whole = (
        bound_rise(r, u, torch.ones(len(u), dtype=F64), 0.1).value
        for r, u in ((fewer, v), (risk, w))
    )
    assert frozen < whole


def test_flatness_says_both_ends_or_why_there_is_one():
    risk, w = risk_of(dense(nn.ReLU()), nn.CrossEntropyLoss())
    flat = tw.flatness(risk, w, pairs=2, copies=6)
    for form in ("plain", "adaptive", "filter"):
        worst = flat["worst", form]
        assert worst.low == worst.value <= worst.high < 100 * worst.value
    bowl = Quadratic(torch.ones(9, dtype=F64))
    alone = tw.flatness(bowl, bowl.centre, radius=0.1, noise=0.1, rise=4.0, pairs=2, copies=6)
    assert alone["worst", "plain"].high is None
    assert alone["worst", "plain"].note == "no upper bound: it is known for networks alone"


@pytest.mark.parametrize(
    ("model", "loss", "words"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), nn.MSELoss(), "LayerNorm"),
        (lambda: nn.Linear(4, 3), nn.L1Loss(), "the loss is not one of"),
        (lambda: nn.Linear(4, 3), nn.CrossEntropyLoss(label_smoothing=0.1), "the loss is not one"),
    ],
)
def test_what_is_not_bounded_says_so(model, loss, words):
    risk, w = risk_of(model(), loss)
    bound = bound_rise(risk, w, torch.ones(len(w), dtype=F64), 0.1)
    assert bound.value is None and words in bound.reason
