"""Kernels against Gaussians, whose every moment is known, and what diagnostics say of bad steps."""

from __future__ import annotations

import math

import pytest
import torch

from thalweg.errors import InvalidArgument
from thalweg.landscape import DeepLinear, Quadratic
from thalweg.sampling import (
    Hamiltonian,
    Langevin,
    Metropolis,
    NewtonBlocks,
    Posterior,
    Slices,
    Tempering,
    Underdamped,
    Whitening,
    adapt,
    sample,
    whiten,
    without_scatter_of,
)

CURVATURE = torch.logspace(0, 2, 10, dtype=torch.float64)


def bowl():
    return Quadratic(CURVATURE)


def posterior(beta=2.0, localization=1.0):
    landscape = bowl()
    return Posterior(landscape, landscape.centre, beta=beta, localization=localization)


def whitening(beta=2.0, localization=1.0):
    return whiten(CURVATURE, torch.eye(10).double(), beta=beta, localization=localization)


def expected(beta=2.0, localization=1.0):
    stiff = beta * CURVATURE
    return float((stiff / (stiff + localization)).sum() / 2)


def draw(kernel, *, draws=250, warm=60, chains=32, target=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(chains, 10, generator=generator, dtype=torch.float64)
    state = kernel.init(kernel.posterior.centre + 0.1 * noise)
    if target:
        state = adapt(kernel, state, generator, steps=warm, target=target)
    else:
        state = sample(kernel, state, generator, draws=warm).state
    return sample(kernel, state, generator, draws=draws)


KERNELS = {
    "langevin": lambda p: Langevin(p, step_size=0.2, preconditioner=whitening()),
    "metropolis": lambda p: Metropolis(p, step_size=0.5, whitening=whitening()),
    "hamiltonian": lambda p: Hamiltonian(p, step_size=0.5, whitening=whitening()),
    "underdamped": lambda p: Underdamped(p, step_size=0.5, whitening=whitening()),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_mean_energy_of_a_gaussian_is_known(name):
    target = {"metropolis": 0.57, "hamiltonian": 0.8}.get(name)
    chains = draw(KERNELS[name](posterior()), target=target)
    found = chains.diagnose()
    # Langevin's own error at this step: 1 / (1 - 0.2 / 2).
    exact = expected() * (1 / (1 - 0.1) if name == "langevin" else 1)
    assert float(chains.energy.mean()) == pytest.approx(exact, rel=0.05)
    assert found.virial == pytest.approx(1 / 0.9 if name == "langevin" else 1, abs=0.04)
    assert found.rhat < 1.03
    assert bool(found.reasons()) == (name == "langevin")


def test_slices_have_no_step_and_meet_all_scales():
    target = posterior(beta=1e4)
    chains = draw(Slices(target), draws=25, warm=12, chains=64)
    assert float(chains.energy.mean()) == pytest.approx(expected(beta=1e4), rel=0.04)
    assert chains.diagnose().reasons() == [] and chains.acceptance == 1


class Cross:
    """``w1^2 w2^2``, of which the integral is a Bessel function."""

    space = Quadratic(torch.ones(2)).space

    def value(self, w):
        return float(w.square().prod())

    def gradient(self, w, batch=None):
        return self.values_and_gradients(w[None])[1][0]

    def values_and_gradients(self, points):
        squares = points.square()
        return squares.prod(1), 2 * points * squares.flip(1)


def test_lines_of_logarithms_leave_a_cross_as_it_is():
    from scipy.special import k0, k1

    beta = 1e8
    kernel = Slices(Posterior(Cross(), torch.zeros(2).double(), beta=beta, localization=1.0))
    generator = torch.Generator().manual_seed(0)
    # All on one arm: along the axes alone, twelve sweeps leave the other nearly empty.
    scales = torch.rand(1500, 1, generator=generator, dtype=torch.float64) * 8
    state = kernel.init(torch.cat([10.0**-scales, 10.0 ** (scales - 4)], 1).clamp(max=1))
    kernel.fit(state.points)
    virials = []

    def observe(state):
        virials.append(state.points * state.gradient)
        return beta * state.rise, virials[-1].mean(1)

    state = sample(kernel, state, generator, draws=6).state
    energy = sample(kernel, state, generator, draws=6, observe=observe).energy
    better = without_scatter_of(torch.stack(virials) - 1, energy)
    z = 1 / (8 * beta)  # the integral is e^z K0(z) / sqrt(2 beta)
    exact = 0.5 + z - z * k1(z) / k0(z)
    assert float(energy.mean()) == pytest.approx(exact, rel=0.06)
    assert float(better.mean()) == pytest.approx(exact, rel=0.02)
    assert float(better.std()) < 0.4 * float(energy.std())


def test_running_squares_precondition_langevin():
    # All stiffnesses are met by one step size, of which the same without them would diverge.
    chains = draw(Langevin(posterior(), step_size=0.05, preconditioner="rmsprop"), warm=300)
    assert float(chains.energy.mean()) == pytest.approx(expected(), rel=0.3)


class Targets:
    """``mean (w - y_i)^2 / 2`` in one dimension: gradients of batches scatter like the y."""

    samples = 50

    def __init__(self):
        self.space = Quadratic(torch.ones(1)).space
        self.y = torch.linspace(-3, 3, self.samples, dtype=torch.float64)

    def value(self, w):
        return float((w - self.y).square().mean() / 2)

    def gradient(self, w, batch=None):
        return w - (self.y if batch is None else self.y[batch]).mean()


def test_batches_add_their_noise_to_langevins():
    beta, step, size = 4.0, 0.05, 2
    targets = Targets()
    target = Posterior(targets, torch.zeros(1).double(), beta=beta, localization=0.0)
    kernel = Langevin(target, step_size=step, batch_size=size)
    generator = torch.Generator().manual_seed(0)
    warm = sample(kernel, kernel.init(torch.zeros(40, 1).double()), generator, draws=40).state
    chains = sample(kernel, warm, generator, draws=150)
    # w' = (1 - h b) w + h b mean(y) + sqrt(2 h) noise
    scatter = float(targets.y.var(unbiased=False)) / size
    variance = (2 * step + (step * beta) ** 2 * scatter) / (1 - (1 - step * beta) ** 2)
    assert float(chains.distance.mean()) == pytest.approx(variance, rel=0.12)
    assert variance > 1.5 / beta and chains.diagnose().reasons()
    with pytest.raises(InvalidArgument, match="Batched"):
        Langevin(posterior(), step_size=0.1, batch_size=2)


def test_a_large_stable_step_is_told_by_the_virial_and_not_by_rhat():
    step = 1.2 / (2 * 100.0 + 1)  # the variance of the stiffest weight is 1 / (1 - 0.6) too large
    found = draw(Langevin(posterior(), step_size=step), draws=500).diagnose()
    assert found.rhat < 1.05
    assert found.virial == pytest.approx(
        float((1 / (1 - step * (2 * CURVATURE + 1) / 2)).mean()), rel=0.03
    )
    assert any("virial" in reason for reason in found.reasons())


def test_chains_that_have_not_moved_are_refused():
    found = draw(Langevin(posterior(), step_size=1e-6), draws=100, warm=1).diagnose()
    assert found.virial < 0.9 and found.reasons()


def test_a_diverged_chain_is_refused():
    found = draw(Langevin(posterior(), step_size=0.1), draws=200).diagnose()
    assert found.reasons()


def test_metropolis_rejects_what_is_not_finite():
    kernel = Metropolis(posterior(), step_size=1e200)
    chains = draw(kernel, draws=10, warm=1)
    assert chains.acceptance == 0 and bool(torch.isfinite(chains.energy).all())


@pytest.mark.parametrize("step", [0.0, -1.0, math.inf, math.nan])
def test_a_step_must_be_positive(step):
    with pytest.raises(InvalidArgument, match="step_size"):
        Metropolis(posterior(), step_size=step)


class TwoWells:
    """Wells of equal depth along one weight, with a barrier of ``height`` between them."""

    def __init__(self, size=4, height=16.0):
        self.space = Quadratic(torch.ones(size)).space
        self.height = height

    def value(self, w):
        return float(self.values_and_gradients(w[None])[0][0])

    def gradient(self, w, batch=None):
        return self.values_and_gradients(w[None])[1][0]

    def values_and_gradients(self, points):
        points = points.double()
        x, rest = points[:, 0], points[:, 1:]
        gradients = points.clone()
        gradients[:, 0] = 4 * self.height * x * (x**2 - 1)
        return self.height * (x**2 - 1) ** 2 + rest.square().sum(1) / 2, gradients


def test_tempering_crosses_a_barrier_that_one_temperature_does_not():
    wells = TwoWells()
    centre = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    target = Posterior(wells, centre, beta=1.0, localization=0.0)
    betas = [0.06, 0.13, 0.25, 0.5, 1.0]
    kernel = Tempering(target, betas=betas, make=lambda p: Hamiltonian(p, step_size=0.2))
    generator = torch.Generator().manual_seed(0)
    state = kernel.init(centre.repeat(8 * len(betas), 1))
    right = []
    for _ in range(250):
        state, _ = kernel.step(state, generator)
        right.append((kernel.part(state, 4).points[:, 0] > 0).double())
    assert float(torch.stack(right[50:]).mean()) == pytest.approx(0.5, abs=0.2)
    assert sum(kernel.exchanged) / len(kernel.exchanged) > 0.3
    evaluated = kernel.init(state.points)
    assert torch.allclose(evaluated.potential, state.potential)
    assert torch.allclose(evaluated.gradient, state.gradient)

    cold = Hamiltonian(target, step_size=0.2)
    alone = cold.init(centre.repeat(8, 1))
    there = []
    for _ in range(250):
        alone, _ = cold.step(alone, generator)
        there.append((alone.points[:, 0] > 0).double())
    assert _crossings(there) < 0.1 * _crossings(right)


def _crossings(sides):
    """Count how often chains change sides."""
    return int(torch.stack(sides).diff(dim=0).abs().sum())


@pytest.mark.parametrize(("beta", "localization"), [(1e2, 1.0), (1e3, 10.0)])
def test_blocks_and_trajectories_agree_on_a_deep_linear_network(beta, localization):
    network = DeepLinear((3, 2, 3), 1)
    target = Posterior(network, network.minimum, beta=beta, localization=localization)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 12, generator=generator, dtype=torch.float64) / math.sqrt(localization)
    blocks = NewtonBlocks(target)
    state = sample(blocks, blocks.init(network.minimum + noise), generator, draws=50).state
    exact = sample(blocks, state, generator, draws=200)
    smooth = sample(blocks, state, generator, draws=200, observe=lambda _: (blocks.smooth,) * 2)
    values, vectors = torch.linalg.eigh(network.hessian(network.minimum).matrix)
    hmc = Hamiltonian(
        target,
        step_size=0.1,
        whitening=whiten(values, vectors, beta=beta, localization=localization),
    )
    state = adapt(hmc, hmc.init(exact.state.points), generator, steps=40)
    moved = sample(hmc, state, generator, draws=200)
    assert exact.acceptance > 1 - 1e-9
    assert float(exact.energy.mean()) == pytest.approx(float(moved.energy.mean()), rel=0.06)
    assert float(smooth.energy.mean()) == pytest.approx(float(exact.energy.mean()), rel=0.04)
    assert float(smooth.energy.std()) < float(exact.energy.std())


def test_blocks_ask_for_a_landscape_that_has_them():
    with pytest.raises(InvalidArgument, match="Blocked"):
        NewtonBlocks(posterior())


def test_whitening_multiplies_and_divides():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.linalg.qr(torch.randn(6, 2, generator=generator).double())[0]
    whitening = Whitening(0.5, vectors, torch.tensor([0.1, 3.0], dtype=torch.float64))
    matrix = whitening.multiply(torch.eye(6).double())
    assert torch.allclose(whitening.divide(matrix), torch.eye(6).double(), atol=1e-12)
    assert whitening.log_determinant() == pytest.approx(float(torch.logdet(matrix)))
