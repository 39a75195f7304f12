"""Flatness as a whole: numbers of a bowl, invariance by doing it, and the sharper of two."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.errors import InvalidArgument
from thalweg.geometry import noise_level
from thalweg.landscape import Quadratic

F64 = torch.float64


def test_every_number_of_a_bowl_is_the_closed_form():
    curvature = torch.linspace(1, 3, 500, dtype=F64)
    bowl = Quadratic(curvature)
    found = tw.flatness(bowl, bowl.centre, noise=0.1, radius=0.1, rise=5.0)
    half = 0.01 * float(curvature.sum()) / 2
    for form in ("plain", "adaptive", "filter"):  # all weights are 1, so that units agree
        average = found["average", form]
        assert average.low < half < average.high
        assert found["worst", form].value == pytest.approx(0.01 * 500 * 3 / 2, rel=1e-6)
        assert found["eigenvalue", form].value == pytest.approx(3, rel=1e-3)
    assert found["trace", "plain"].low < float(curvature.sum()) < found["trace", "plain"].high
    level = found["loss noise", "adaptive"]
    assert level.low < 0.1 * math.sqrt(5.0 / half) < level.high
    assert ("error noise", "adaptive") not in {(m.name, m.form) for m in found.measures}
    json.dumps(found.to_dict())


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = torch.randn(60, 4, dtype=F64)
    problem = tw.Problem(model, nn.CrossEntropyLoss(), (x, x[:, :3].argmax(1)))
    risk = tw.EmpiricalRisk(problem)
    return risk, tw.train(risk, risk.space.pack(model), epochs=40, lr=0.2, seed=0).w


def rescaled(risk, w):
    named = {name: tensor.clone() for name, tensor in risk.space.unpack(w).items()}
    for name, factor in (("0.weight", 8.0), ("0.bias", 8.0), ("2.weight", 1 / 8)):
        named[name] *= factor
    return risk.space.pack(named)


def permuted(risk, w):
    named = {name: tensor.clone() for name, tensor in risk.space.unpack(w).items()}
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    named["0.weight"], named["0.bias"] = named["0.weight"][order], named["0.bias"][order]
    named["2.weight"] = named["2.weight"][:, order]
    return risk.space.pack(named)


@pytest.mark.parametrize(("name", "change"), [("rescaling", rescaled), ("permutation", permuted)])
def test_what_is_said_to_be_invariant_is(network, name, change):
    risk, w = network
    moved = change(risk, w)
    assert risk.value(moved) == pytest.approx(risk.value(w), rel=1e-12)
    before, after = (tw.flatness(risk, point, pairs=60, copies=12) for point in (w, moved))
    differs = False
    for one, other in zip(before.measures, after.measures, strict=True):
        if name in one.invariant:
            estimated = one.name in ("average", "loss noise", "error noise", "trace")
            if name == "permutation" and estimated:  # the noise is not permuted with the units
                assert one.low <= other.high and other.low <= one.high, one.name
            else:
                assert other.value == pytest.approx(one.value, rel=1e-5), one.name
        else:
            differs |= other.value != pytest.approx(one.value, rel=0.05)
    assert differs is (name == "rescaling")


def test_error_noise_is_where_copies_begin_to_err(network):
    risk, w = network
    level = noise_level(risk, w, quantity="error", rise=0.05, copies=12, seed=3)
    assert level.low <= level.value <= level.high and level.status == "converged"
    base = risk.evaluate(w)["error"]
    generator = torch.Generator().manual_seed(9)

    def share(size):
        kept = 0
        for _ in range(40):
            noise = torch.randn(len(w), generator=generator, dtype=F64)
            kept += risk.evaluate(w * (1 + size * noise))["error"] - base <= 0.05
        return kept / 40

    assert share(level.value / 3) > 0.8 and share(level.value * 3) < 0.2


def test_levels_out_of_reach_say_so():
    flat = Quadratic(torch.zeros(5, dtype=F64))
    level = noise_level(flat, flat.centre, copies=6)
    assert level.status == "above" and math.isinf(level.value)
    steep = Quadratic(torch.full((5,), 1e12, dtype=F64))
    assert noise_level(steep, steep.centre, copies=6).status == "below"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"copies": 5}, "at least 6 copies"),
        ({"rise": 0.0}, "positive rise"),
        ({"quantity": "error"}, "quantity='error' is not counted here; write one of loss"),
    ],
)
def test_levels_that_cannot_be_found_are_refused(options, words):
    bowl = Quadratic(torch.ones(3, dtype=F64))
    with pytest.raises(InvalidArgument, match=words):
        noise_level(bowl, bowl.centre, **options)
