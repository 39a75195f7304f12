"""Integrals along rays against closed forms."""

import math

import pytest
import torch

from planted_volumes import Ellipsoid, Shell
from thalweg.geometry.rays import ray_log_ratios
from thalweg.sampling import Posterior


def ball(size, beta, offset=0.0):
    bowl = Ellipsoid(torch.ones(size, dtype=torch.float64))
    generator = torch.Generator().manual_seed(size)
    noise = torch.randn(10, 32, size, generator=generator, dtype=torch.float64)
    posterior = Posterior(bowl, bowl.centre, beta=beta, localization=0.0)
    centre = bowl.centre + offset / math.sqrt(size)
    return ray_log_ratios(posterior, bowl.centre + noise / math.sqrt(beta), centre, level=0.5)


def truth(size, beta):
    unit = size / 2 * math.log(math.pi) - math.lgamma(size / 2 + 1)
    return unit - size / 2 * math.log(2 * math.pi / beta)


@pytest.mark.parametrize("size", [10, 100, 1000])
def test_every_ray_of_a_homogeneous_landscape_is_right(size):
    logs = ball(size, 1.03 * size)
    assert float((logs - truth(size, 1.03 * size)).abs().max()) < 1e-2
    assert float(logs.mean()) == pytest.approx(truth(size, 1.03 * size), abs=1e-4)


def test_rays_from_another_centre_are_right_in_the_mean():
    logs = ball(50, 50.0, offset=0.1)
    mean = float(logs.flatten().logsumexp(0)) - math.log(logs.numel())
    assert float(logs.std()) > 1e-4
    assert mean == pytest.approx(truth(50, 50.0), abs=0.02)


def test_a_grid_that_does_not_hold_the_level_gives_nothing():
    assert ball(100, 1.0) is None  # the draws lie far above the level


def test_a_shell_is_entered_and_left():
    shell = Shell(20, 0.05)
    posterior = Posterior(shell, shell.centre, beta=4.0, localization=0.0)
    directions = torch.randn(
        10, 32, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    directions /= directions.norm(dim=2, keepdim=True)
    logs = ray_log_ratios(posterior, directions, torch.zeros(20).double(), level=0.5)
    radii = torch.linspace(0, 1.6, 200001, dtype=torch.float64)[1:]
    weights = radii**19 * (-4.0 * (radii**2 - 1) ** 2 / (8 * 0.05**2)).exp()
    area = math.log(2) + 10 * math.log(math.pi) - math.lgamma(10)
    whole = area + math.log(float(weights.sum()) * 1.6 / 200000)
    assert float(logs.mean()) == pytest.approx(shell.log_volume(0.5) - whole, abs=1e-3)
