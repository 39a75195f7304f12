"""Sharpness against closed forms, trust regions solved densely, and many restarts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.errors import InvalidArgument
from thalweg.geometry.scales import Scaled, perturbation_scales
from thalweg.geometry.sharpness import average_sharpness, worst_sharpness
from thalweg.landscape import ParameterSpace, Quadratic

F64 = torch.float64


def spectrum(name: str, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    uniform = torch.rand(size, generator=generator, dtype=F64)
    return {
        "uniform": uniform,
        "six decades": 10 ** (-6 * uniform),
        "trough": (uniform > 0.5).to(F64),
        "saddle": 2 * uniform - 1,
    }[name]


def trust_region(matrix, slope, radius):
    """Maximize slope'd + d'Ad/2 on |d| = radius by the secular equation in the eigenbasis."""
    values, vectors = torch.linalg.eigh(matrix)
    shares = vectors.T @ slope
    low, high = float(values[-1]), float(values.abs().max() + slope.norm() / radius) + 1
    if float((shares / (low + 1e-12 - values)).norm()) < radius:
        d = torch.where(values < low - 1e-9, shares / (low - values), 0.0)
        d[-1] = 0
        d[-1] = math.sqrt(radius**2 - float(d.norm()) ** 2)
    else:
        for _ in range(200):
            middle = (low + high) / 2
            inside = float((shares / (middle - values)).norm()) < radius
            low, high = (low, middle) if inside else (middle, high)
        d = shares / (high - values)
    d = vectors @ d
    return float(slope @ d + d @ (matrix @ d) / 2)


@pytest.mark.parametrize("offset", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("size", [10, 200])
@pytest.mark.parametrize("name", ["uniform", "six decades", "trough", "saddle"])
def test_the_worst_of_a_quadratic_is_the_solution_of_its_trust_region(name, size, offset):
    bowl = Quadratic.of_spectrum(spectrum(name, size), seed=1)
    w = bowl.centre + offset * torch.linspace(-1, 1, size, dtype=F64)
    answer = worst_sharpness(bowl, w, radius=0.1)
    expected = trust_region(bowl.curvature, bowl.gradient(w), 0.1 * float(w.norm()))
    assert answer.value == pytest.approx(expected, rel=1e-6)
    assert answer.gradients <= 60
    assert float(answer.displacement.norm()) == pytest.approx(0.1 * float(w.norm()))
    assert bowl.value(w + answer.displacement) - bowl.value(w) == pytest.approx(answer.value)


@pytest.mark.parametrize("form", ["plain", "adaptive"])
def test_the_mean_rise_of_a_quadratic_is_half_its_scaled_trace(form):
    bowl = Quadratic(spectrum("six decades", 300), centre=torch.linspace(-2, 3, 300, dtype=F64))
    answer = average_sharpness(bowl, bowl.centre, noise=0.1, form=form, pairs=400)
    scales = perturbation_scales(bowl.space, bowl.centre, form)
    expected = 0.01 * float((bowl.curvature * scales**2).sum()) / 2
    assert answer.value == pytest.approx(expected, abs=4 * answer.stderr)
    assert answer.stderr < 0.2 * expected


def test_the_slope_adds_nothing_to_the_scatter_of_pairs():
    line = Quadratic(torch.zeros(5, dtype=F64))
    line.gradient = lambda w, batch=None: torch.ones(5, dtype=F64)
    line.value = lambda w: float(w.sum())
    assert abs(average_sharpness(line, torch.ones(5, dtype=F64)).value) < 1e-12


@pytest.fixture(scope="module")
def trained():
    problem = tw.load_problem("digits", network="mlp", widths=(32, 32), train_size=300)
    risk = tw.EmpiricalRisk(problem)
    return risk, tw.train(risk, risk.space.pack(problem.model), epochs=15, lr=0.1, seed=0).w


MANY = [pytest.param(10, 60), pytest.param(50, 300, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("restarts", "steps"), MANY)
@pytest.mark.parametrize(
    ("radius", "form", "hills"), [(0.01, "plain", False), (0.05, "adaptive", True)]
)
def test_the_worst_of_a_network_is_that_of_many_restarts(
    trained, radius, form, hills, restarts, steps
):
    risk, w = trained
    answer = worst_sharpness(risk, w, radius=radius, form=form)
    scales = perturbation_scales(risk.space, w, form)
    length = radius * math.sqrt(len(w))
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(restarts):
        d = torch.randn(len(w), generator=generator, dtype=F64)
        for _ in range(steps):
            d = d * (length / float(d.norm()))
            value, gradient = risk.value_and_gradient(w + (scales * d).float())
            d = gradient.double() * scales
        found.append(value - risk.value(w))
    assert answer.gradients <= 60 and answer.products == 10
    assert answer.value >= 0.98 * max(found)
    # Where there are several hills one restart would not have done.
    assert (answer.value > 1.05 * min(found)) is hills
    inside = answer.displacement.double() / scales.clamp_min(1e-300)
    assert float(inside.norm()) <= length * (1 + 1e-5)


def test_a_landscape_of_values_and_gradients_alone_is_enough():
    class Peak:
        space = ParameterSpace.euclidean(2)

        def value(self, w):
            return float(w[0] ** 2 + 3 * w[1] ** 2)

        def gradient(self, w, batch=None):
            return torch.stack([2 * w[0], 6 * w[1]])

    w = torch.tensor([1.0, 1e-9], dtype=F64)
    assert worst_sharpness(Peak(), w, radius=5.0).value == pytest.approx(75.0, rel=0.05)


def rescaled(w, space, layer, factor):
    """Multiply a hidden layer by a factor and divide the next one's kernel by it."""
    moved = w.clone()
    names = {parameter.name: parameter.slice for parameter in space.parameters}
    first, second = layer
    for name in (f"{first}.weight", f"{first}.bias"):
        moved[names[name]] *= factor
    moved[names[f"{second}.weight"]] /= factor
    return moved


def test_relative_forms_do_not_see_a_rescaling_of_layers_and_the_plain_one_does():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = torch.randn(40, 4, dtype=F64), torch.randint(3, (40,))
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.CrossEntropyLoss(), (x, y)))
    w = risk.space.pack(model)
    moved = rescaled(w, risk.space, ("0", "2"), 4.0)
    assert risk.value(moved) == pytest.approx(risk.value(w), rel=1e-12)
    for form, same in (("adaptive", True), ("filter", True), ("plain", False)):
        average = [average_sharpness(risk, p, form=form).value for p in (w, moved)]
        worst = [worst_sharpness(risk, p, form=form).value for p in (w, moved)]
        assert (average[0] == pytest.approx(average[1], rel=1e-9)) is same
        assert (worst[0] == pytest.approx(worst[1], rel=1e-6)) is same


def test_the_scaled_operator_is_the_product_of_three_matrices():
    bowl = Quadratic.of_spectrum(spectrum("saddle", 12))
    scales = spectrum("uniform", 12)
    dense = scales[:, None] * bowl.curvature * scales
    assert torch.allclose(Scaled(bowl.hessian(bowl.centre), scales) @ torch.eye(12).double(), dense)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda b: average_sharpness(b, b.centre, noise=0.0), "noise=0.0"),
        (lambda b: average_sharpness(b, b.centre, pairs=1), "at least 2 pairs"),
        (lambda b: worst_sharpness(b, b.centre, radius=-1.0), "positive radius"),
        (lambda b: worst_sharpness(b, b.centre, max_gradients=3), "at least 10 gradients"),
        (lambda b: worst_sharpness(b, b.centre, form="layer"), "plain, adaptive, filter"),
        (lambda b: worst_sharpness(b, 0 * b.centre), "all weights are zero"),
    ],
)
def test_what_cannot_be_used_is_refused(call, words):
    with pytest.raises(InvalidArgument, match=words):
        call(Quadratic(torch.ones(3, dtype=F64)))
