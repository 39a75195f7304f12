"""Left in the limit: no bowl is called flat, however slow; a degenerate landscape is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from thalweg.landscape import ParameterSpace
from thalweg.landscape.quadratic import Quadratic
from thalweg.studies.claim import Verdict
from thalweg.studies.flow_copies import perturb_landscape
from thalweg.studies.known_landscapes import CONTROLS, KNOWN, perturb_known
from thalweg.studies.limits import RESOLUTION, Limit, hidden, left_in_the_limit
from thalweg.studies.perturb_and_return_claims import RULE


def flowed(landscape: Any, home: torch.Tensor, *, top: float = 1.0, seed: int = 0, **size: int):
    size = {"copies": 4, "max_gradients": 20_000} | size
    return perturb_landscape(landscape, home, top=top, seed=seed, scale=0.25, **size)


def verdicts(found: dict[str, Any]) -> tuple[Verdict, Verdict]:
    """Judge copies against their parent, and siblings, by the study's rule."""
    return tuple(
        RULE.verdict(
            left_in_the_limit(
                *([row[key] for row in found[kind]] for key in ("low", "left", "high")),
                range(len(found[kind])),
            )
        )
        for kind in ("copies", "siblings")
    )  # type: ignore[return-value]


def steep_and(slow: float, size: int = 2000, steep: int = 50) -> torch.Tensor:
    return torch.cat([torch.ones(steep), torch.full((size - steep,), slow)]).double()


BOWLS = {
    "curvatures 0.5 to 2": torch.linspace(0.5, 2.0, 64, dtype=torch.float64),
    "50 of 1, thousands of 1e-4": steep_and(1e-4, 5000),
    "50 of 1, the rest of 1e-5": steep_and(1e-5),
    "log-uniform over six decades": torch.logspace(-6, 0, 5000, dtype=torch.float64),
    "log-uniform over four, another scale": 30 * torch.logspace(-4, 0, 1000, dtype=torch.float64),
}


@pytest.mark.parametrize("name", BOWLS)
def test_strictly_convex_bowls_are_refuted(name):
    """The case that the paper's protocol calls flat: it cannot tell them from a valley."""
    bowl = Quadratic(BOWLS[name])
    found = flowed(bowl, bowl.centre, top=float(BOWLS[name].max()))
    assert verdicts(found) == (Verdict.REFUTED, Verdict.REFUTED)


def test_rotated_bowls_are_refuted_too():
    bowl = Quadratic.of_spectrum(torch.logspace(-5, 0, 150, dtype=torch.float64))
    assert verdicts(flowed(bowl, bowl.centre)) == (Verdict.REFUTED, Verdict.REFUTED)


@pytest.mark.parametrize("slowest", [1e-6, 3e-7])
def test_the_slowest_bowls_are_never_supported(slowest):
    bowl = Quadratic(steep_and(slowest))
    long = verdicts(flowed(bowl, bowl.centre))
    assert long == (Verdict.REFUTED, Verdict.REFUTED)
    for budget in (50, 300, 1000):
        short = flowed(bowl, bowl.centre, max_gradients=budget)
        assert Verdict.SUPPORTED not in verdicts(short)


def test_no_point_of_a_bowl_can_be_called_flat_whatever_training_led_there():
    """The inequality itself: the lower bound is zero at every point of every bowl above m."""
    generator = np.random.default_rng(0)
    for _ in range(300):
        curvature = 10 ** generator.uniform(math.log10(RESOLUTION), 0, size=20)
        curvature[0] = 1.0
        one, other = generator.normal(size=(2, 20)) * 10 ** generator.uniform(-6, 3, size=(2, 1))
        values = tuple(float((curvature * v**2).sum() / 2) for v in (one, other))
        noise = float(generator.uniform(0.1, 10))
        left = float(np.linalg.norm(one - other)) / noise
        assert Limit(left, hidden(values, noise, 1.0), back=True).low == 0.0


@pytest.mark.parametrize(("flat", "size"), [(1950, 2000), (900, 1000), (300, 500)])
@pytest.mark.parametrize("slow", [1.0, 1e-3])
def test_degenerate_landscapes_of_known_dimension_are_supported(flat, size, slow):
    curvature = torch.cat(
        [torch.ones(10), torch.full((size - flat - 10,), slow), torch.zeros(flat)]
    )
    trough = Quadratic(curvature.double())
    found = flowed(trough, trough.centre, copies=8)
    assert verdicts(found) == (Verdict.SUPPORTED, Verdict.SUPPORTED)
    # What is left is the flat part of the noise, and the shares say so.
    row = found["copies"][0]
    assert row["left"] == pytest.approx(math.sqrt(flat / size), abs=0.05)
    assert found["shares"]["noise"]["flat_low"] == pytest.approx(flat / size, abs=0.05)
    assert found["shares"]["left"]["flat_low"] > 0.999


class Product:
    """``sum of (x_i y_i - 1)^2 / 2``: zeros are hyperbolas, of dimension W / 2, curved."""

    def __init__(self, size: int) -> None:
        self.space = ParameterSpace.euclidean(size)
        self.half = size // 2

    def value(self, w: torch.Tensor) -> float:
        return float((w[: self.half] * w[self.half :] - 1).square().sum() / 2)

    def gradient(self, w: torch.Tensor, batch: object = None) -> torch.Tensor:
        x, y = w[: self.half], w[self.half :]
        return torch.cat([(x * y - 1) * y, (x * y - 1) * x])

    def hessian(self, w: torch.Tensor) -> torch.Tensor:
        return torch.autograd.functional.hessian(
            lambda v: (v[: self.half] * v[self.half :] - 1).square().sum() / 2, w
        )


def test_a_curved_valley_is_supported():
    """Of hyperbolas the flow conserves x^2 - y^2; half of the noise, in square, is along them."""
    valley = Product(200)
    found = flowed(valley, torch.ones(200, dtype=torch.float64), top=2.0, copies=8)
    assert verdicts(found) == (Verdict.SUPPORTED, Verdict.SUPPORTED)
    assert found["copies"][0]["left"] == pytest.approx(math.sqrt(0.5), abs=0.06)


def test_a_valley_along_which_little_of_the_noise_lies_is_refuted():
    curvature = torch.cat([torch.ones(980), torch.zeros(20)]).double()
    trough = Quadratic(curvature)
    assert verdicts(flowed(trough, trough.centre))[0] is Verdict.REFUTED


@pytest.mark.parametrize("name", KNOWN)
def test_the_studys_landscapes_come_out_as_known(name):
    """Read as the paper reads them, slow bowls are as flat as a trough: four of four copies."""
    found = perturb_known(
        None,  # type: ignore[arg-type]
        {"landscape": name, "seed": 5, "scale": 0.25, "copies": 4, "max_gradients": 20_000},
        lambda done: None,
    )
    right = Verdict.REFUTED if name in CONTROLS else Verdict.SUPPORTED
    assert verdicts(found) == (right, right)
    assert found["naive"]["hits"] == (0 if name in ("round", "raised") else 4)


def test_what_is_hidden_falls_with_the_loss_and_rises_with_the_resolution():
    assert hidden((0.5e-8, 0.5e-8), noise=1.0, top=1.0) == pytest.approx(2.0)
    assert hidden((0.0, 0.0), noise=1.0, top=1.0) == 0.0
    assert hidden((1.0, 0.0), noise=1.0, top=0.0) == math.inf


def test_a_copy_that_did_not_come_back_leaves_nothing_and_a_short_training_decides_nothing():
    assert (Limit(0.9, 0.1, back=False).low, Limit(0.9, 0.1, back=False).high) == (0.0, 0.0)
    assert Limit(0.9, 0.1, back=False, over=False).high == 1.0
    assert Limit(0.9, 0.09, back=True).condition == pytest.approx(100 / RESOLUTION)
    assert left_in_the_limit([0.9], [0.9], [0.9], ["one parent"]) is None
