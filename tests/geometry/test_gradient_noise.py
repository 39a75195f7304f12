"""Gradient noise of least squares, whose covariance is known, and what a step of it does."""

from __future__ import annotations

import json

import pytest
import torch

import thalweg as tw
from thalweg.errors import InvalidArgument
from thalweg.geometry.gradient_noise import gradient_noise
from thalweg.landscape import ParameterSpace
from thalweg.landscape.quadratic import QuadraticForm

SPREAD = torch.logspace(0, -2, 12, dtype=torch.float64)


class Regression:
    """Linear least squares on given inputs: samples' gradients are ``x (x w - y)``."""

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, x, y):
        self.x, self.y, self.samples = x, y, len(x)
        self.space = ParameterSpace.euclidean(x.shape[1])

    def value(self, w):
        return float((self.x @ w - self.y).square().mean() / 2)

    def gradient(self, w, batch=None):
        x, y = (self.x, self.y) if batch is None else (self.x[batch], self.y[batch])
        return x.T @ (x @ w - y) / len(x)

    def hessian(self, w):
        return QuadraticForm(self.x.T @ self.x / self.samples)


@pytest.fixture(scope="module")
def regression():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 12, generator=generator, dtype=torch.float64) * SPREAD.sqrt()
    return Regression(x, torch.randn(400, generator=generator, dtype=torch.float64))


@pytest.fixture(scope="module")
def minimum(regression):
    return torch.linalg.lstsq(regression.x, regression.y).solution


def test_the_noise_of_least_squares_is_that_of_its_hessian(regression, minimum):
    noise = gradient_noise(regression, minimum)
    # C = var(y) H at the minimum, for noise of y that is independent of x.
    assert noise.trace == pytest.approx(float(SPREAD.sum()), rel=0.15)
    assert noise.alignment == pytest.approx(
        float(SPREAD.square().sum() / SPREAD.sum() ** 2 * 12), abs=4 * noise.stderr
    )
    assert 0 < noise.stderr < 0.2 * noise.alignment
    assert json.loads(json.dumps(noise.to_dict()))["weights"] == 12
    dense = torch.stack([regression.gradient(minimum, torch.tensor([i])) for i in range(400)])
    eigenvalues = torch.linalg.eigvalsh(torch.cov(dense.T))
    assert noise.effective_rank == pytest.approx(
        float(eigenvalues.sum() ** 2 / eigenvalues.square().sum())
    )
    assert noise.largest == pytest.approx(float(eigenvalues[-1] / eigenvalues.sum()))


def test_the_alignment_is_the_ratio_of_what_steps_lift(regression, minimum):
    noise = gradient_noise(regression, minimum)
    gradients = torch.stack([regression.gradient(minimum, torch.tensor([i])) for i in range(400)])
    generator = torch.Generator().manual_seed(1)
    isotropic = torch.randn(4000, 12, generator=generator, dtype=torch.float64)
    isotropic *= (noise.trace / 12) ** 0.5

    def lift(steps):
        rises = [regression.value(minimum - step) - regression.value(minimum) for step in steps]
        return sum(rises) / len(rises)

    assert lift(gradients) / lift(isotropic) == pytest.approx(noise.alignment, rel=0.05)


def test_isotropic_noise_is_not_aligned():
    generator = torch.Generator().manual_seed(0)
    plain = Regression(torch.eye(12).double().repeat(50, 1), torch.randn(600, generator=generator))
    plain.y = plain.y.double()
    noise = gradient_noise(plain, torch.zeros(12).double(), samples=600)
    assert noise.alignment == pytest.approx(1.0) and noise.effective_rank > 10


def test_what_has_no_noise_is_refused(regression, minimum):
    exact = Regression(regression.x, 0 * regression.y)
    with pytest.raises(InvalidArgument, match="no noise"):
        gradient_noise(exact, 0 * minimum)
    with pytest.raises(InvalidArgument, match="two or more"):
        gradient_noise(regression, minimum, samples=1)
    with pytest.raises(InvalidArgument, match="gradient_noise"):
        gradient_noise(tw.landscape.Quadratic(torch.ones(2).double()), torch.zeros(2).double())
