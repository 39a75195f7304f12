"""Log-volumes against sets of known volume, and against integrals on a grid."""

from __future__ import annotations

import json
import math

import pytest
import torch

from planted_volumes import Ellipsoid, Shell, Tube, planted
from thalweg.errors import InvalidArgument
from thalweg.geometry.volume import log_volume
from thalweg.landscape import Quadratic

FEW = {"chains": 16}


@pytest.mark.parametrize(
    ("landscape", "truth"),
    [
        (
            Ellipsoid(torch.logspace(0, 4, 12, dtype=torch.float64)),
            6 * math.log(math.pi) - math.lgamma(7) - 12 * math.log(10),
        ),
        (Shell(12, 0.05), Shell(12, 0.05).log_volume(0.5)),
        (
            tube := Tube(torch.logspace(0, -2, 10).double(), torch.tensor([8.0, 2.0] * 5).double()),
            tube.log_volume(0.5),
        ),
    ],
    ids=["ellipsoid", "shell", "tube"],
)
def test_the_truth_is_in_the_bracket(landscape, truth):
    answer = log_volume(landscape, landscape.centre, level=0.5, **FEW)
    assert answer.status == "converged", answer.reasons
    assert answer.low < truth < answer.high and answer.high - answer.low <= 1
    assert answer.misses > -1
    assert json.loads(json.dumps(answer.to_dict()))["low"] == answer.low


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_planted_sets(seed):
    _, landscape, w, level, truth = planted(seed)
    answer = log_volume(landscape, w, level=level)
    assert answer.low - 0.5 < truth < answer.high + 0.5  # the list's count is in docs/volume.md
    assert answer.high - answer.low <= 1


def test_a_chain_that_starts_high_up_a_wall_does_not_spoil_the_rest():
    kind, landscape, w, level, truth = planted(
        61
    )  # was refused: one chain stayed at a rise of 7740
    answer = log_volume(landscape, w, level=level)
    assert kind == "tube" and answer.low < truth < answer.high <= answer.low + 1


def test_a_thin_shell_of_many_dimensions():
    shell = Shell(200, 0.03)  # its mean rise goes as beta^-2
    answer = log_volume(shell, shell.centre, level=0.5, **FEW)
    assert answer.low < shell.log_volume(0.5) < answer.high <= answer.low + 1


def test_the_radial_estimate_misses_what_is_not_round():
    bowl = Ellipsoid(torch.logspace(0, 4, 40, dtype=torch.float64))
    answer = log_volume(bowl, bowl.centre, level=0.5, **FEW)
    assert answer.misses > 10
    ball = Ellipsoid(torch.ones(40, dtype=torch.float64))
    answer = log_volume(ball, ball.centre, level=0.5, **FEW)
    assert abs(answer.misses) < 0.5


def test_a_set_without_end_is_refused_until_it_is_localized():
    trough = Quadratic(torch.tensor([0.0, 0.0, 1.0, 4.0], dtype=torch.float64))
    endless = log_volume(trough, trough.centre, level=0.5, **FEW)
    assert endless.status == "refused" and endless.low is None
    assert "localization" in endless.reasons[0] and endless.radial > 0
    held = log_volume(trough, trough.centre, level=0.5, localization=1.0, **FEW)
    # The flat plane weighs 2 pi; the rest, its weighed area below the level, by a grid.
    x, y = torch.meshgrid(*[torch.linspace(-1.1, 1.1, 1101).double()] * 2, indexing="ij")
    weight = torch.exp(-(x**2 + y**2) / 2) * (x**2 / 2 + 2 * y**2 < 0.5)
    truth = math.log(2 * math.pi * float(weight.sum()) * 0.002**2)
    assert held.low < truth < held.high


def test_what_is_no_minimum_is_refused():
    saddle = Quadratic(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    answer = log_volume(saddle, saddle.centre, level=0.5, localization=0.1, **FEW)
    assert answer.status == "refused" and answer.value is None


@pytest.mark.parametrize("options", [{"level": 0.0}, {"level": 1.0, "chains": 2}])
def test_options_that_cannot_be_used(options):
    bowl = Quadratic(torch.ones(3, dtype=torch.float64))
    with pytest.raises(InvalidArgument, match="give"):
        log_volume(bowl, bowl.centre, **options)
