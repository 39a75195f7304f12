"""Reference densities: their integrals and draws, and which of them is fitted to what."""

import math

import pytest
import torch

from thalweg.sampling.reference import Gaussian, Powers, Radial, fitted_reference, powers_of

REFERENCES = [Gaussian(2), Powers(torch.tensor([2.0, 8.0]).double()), Radial(2, 0.1, 0.3)]


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda each: type(each).__name__)
def test_integral_gradient_and_draws_belong_together(reference):
    ends = torch.linspace(-7, 7, 1400, dtype=torch.float64)  # an even number: none at 0
    x, y = torch.meshgrid(ends, ends, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten()], 1)
    weights = (-reference.potential(points)[0]).exp()
    area = float(ends[1] - ends[0]) ** 2
    assert math.log(float(weights.sum()) * area) == pytest.approx(
        reference.log_integral(), abs=1e-3
    )
    draws = reference.draw(20000, generator())
    expected = (weights[:, None] * points.square()).sum(0) / weights.sum()
    assert draws.square().mean(0).tolist() == pytest.approx(expected.tolist(), rel=0.05)
    few = draws[:5].requires_grad_()
    potential, gradient = reference.potential(few)
    (slopes,) = torch.autograd.grad(potential.sum(), few)
    assert torch.allclose(gradient, slopes, rtol=1e-10)


@pytest.mark.parametrize(
    "truth",
    [Gaussian(20), Powers(torch.tensor([2.0, 8.0] * 10).double()), Radial(20, 1.5, 0.01)],
    ids=lambda each: type(each).__name__,
)
def test_the_right_one_is_fitted(truth):
    draws = truth.draw(4000, generator())
    kurtosis = draws.pow(4).mean(0) / draws.square().mean(0).square()
    assert type(fitted_reference(draws, kurtosis)) is type(truth)
    if isinstance(truth, Powers):
        assert torch.allclose(powers_of(kurtosis), truth.powers, rtol=0.4)
        assert type(fitted_reference(draws, None)) is not Powers
