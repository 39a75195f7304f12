"""Climbs from the Gaussian of a localization to ever lower temperatures, and judges each rung."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from thalweg.geometry.curvature_at import leading_curvature
from thalweg.geometry.rung import Rung, hopeless
from thalweg.landscape.protocols import Blocked, Landscape
from thalweg.run.progress import Bar
from thalweg.run.seeds import torch_generator
from thalweg.sampling import (
    Chains,
    Hamiltonian,
    Kernel,
    NewtonBlocks,
    Posterior,
    Slices,
    State,
    adapt,
    sample,
    whiten,
    without_scatter_of,
)
from thalweg.sampling.diagnostics import diagnose, standard_error
from thalweg.sampling.posterior import evaluate_many

RUNGS = 14  # of a climb at most
_TOLERANCE = 0.05
_RATIO = math.sqrt(10)  # between neighbouring temperatures
# Trajectories of a rung: while the step is fitted, not kept, and kept. Short ones: on deep linear
# networks 0.5 gives 2.4 times as many effective draws of the energy a gradient as 1.5.
_FITTING, _SETTLING, _KEPT, _LENGTH = 14, 7, 90, 0.7
# beta / localization of the last rung of blocks: rounding spoils colder ones. Slices go on to where
# what is to be extrapolated has nearly died out, or where beta times the rounding is this.
_COLDEST, _COLDEST_OF_SLICES, _ROUNDED = 1e9, 1e30, 1e-3
_RUNGS_OF_SLICES, _SWEEPS_BETWEEN_FITS = 10, (2, 3, 3)
_RECORDED = 5
_CUBES = 6_000_000
_FEW = 4  # weights that are drawn by slices
_OF_A_SLICE = 40  # evaluations, about


Sampler = Literal["blocks", "slices", "hmc"]


class Ladder(Protocol):
    """Draws the rungs of one landscape around one point."""

    sampler: Sampler
    gradients: int

    def climb(self, localization: float, bar: Bar) -> list[Rung]:
        """Go from the Gaussian of a localization to ever lower temperatures."""


def make_ladder(
    landscape: Landscape, w: Tensor, *, chains: int | None, budget: int, seed: int
) -> Ladder:
    """Draw by blocks where the landscape has them, by slices few weights; else by trajectories."""
    generator = torch_generator(seed, "learning coefficient")
    if isinstance(landscape, Blocked):
        count = chains or min(256, max(16, 1024 // len(w)))
        return _Blocks(landscape, w, count, generator)
    if len(w) <= _FEW:
        return _Slices(landscape, w, chains or 8192 // len(w), generator, budget)
    # So many that the scatter of flat directions leaves the virial within half its tolerance.
    count = chains or min(256, max(16, 4096 // len(w)))
    curvature = leading_curvature(landscape, w, seed=seed)
    return _Trajectories(landscape, w, count, generator, budget, curvature)


def _begin(
    landscape: Landscape,
    w: Tensor,
    localization: float,
    chains: int,
    generator: torch.Generator,
) -> tuple[Posterior, Tensor, float]:
    """Give the posterior, draws of its Gaussian, and the beta under which they rise by one."""
    posterior = Posterior(landscape, w, beta=0.0, localization=localization)
    noise = torch.randn(chains, len(w), generator=generator, dtype=torch.float64)
    points = posterior.centre + noise / math.sqrt(localization)
    return posterior, points, 1.0 / max(float(posterior.evaluate(points)[2].abs().median()), 1e-12)


class _Blocks:
    """Exact draws, to temperatures as low as rounding allows."""

    sampler: Sampler = "blocks"

    def __init__(
        self, landscape: Landscape, w: Tensor, chains: int, generator: torch.Generator
    ) -> None:
        self.landscape, self.w, self.chains, self.generator = landscape, w, chains, generator
        self.gradients = 0

    def climb(self, localization: float, bar: Bar) -> list[Rung]:
        """Go down in decades, and keep the last."""
        posterior, points, warmest = _begin(
            self.landscape, self.w, localization, self.chains, self.generator
        )
        coldest, rungs = _COLDEST * localization, []
        sides = [side for p in self.landscape.space.parameters for side in (*p.shape, 1)[:2]]
        # Eigenvectors take nearly all of the time: small networks get more draws for it.
        draws = max(60, min(150, _CUBES // sum(side**3 for side in sides)))
        count = max(_RECORDED, math.ceil(math.log10(coldest / warmest)))
        for rung in range(count + 1):
            there = posterior.at(coldest * 10.0 ** (rung - count))
            recorded = rung > count - _RECORDED
            chains, kernel = self._draw(there, points, draws if recorded else 4)
            points = chains.state.points
            if recorded:
                rungs.append(_judge(there, [chains], kernel))
                bar.update(RUNGS // _RECORDED)
        return rungs

    def _draw(self, posterior: Posterior, points: Tensor, draws: int) -> tuple[Chains, Kernel]:
        kernel = NewtonBlocks(posterior)
        state = kernel.init(points)
        for _ in range(8):
            state, _ = kernel.step(state, self.generator)
        self.gradients += (draws + 8) * len(self.landscape.space.parameters) * len(points)
        look = lambda state: (kernel.smooth, kernel.virial)  # noqa: E731
        return sample(kernel, state, self.generator, draws=draws, observe=look), kernel


class _TwoSided(ABC):
    """
    Chains that come from two sides.

    Half of them come down from the Gaussian, where flat directions are wide and more directions are
    stiff than at low temperatures; the others come up from the point itself, the most singular
    place. Where flat directions have not been crossed, the first read high and the others low: what
    is between them tells an error that the chains of one side have in common, which R-hat does not
    see.
    """

    groups: int | None = None  # in which each side's chains are judged by R-hat; else one by one

    def __init__(
        self, landscape: Landscape, w: Tensor, chains: int, generator: torch.Generator, budget: int
    ) -> None:
        self.landscape, self.w, self.half, self.generator = landscape, w, chains // 2, generator
        self.budget = budget // 2
        self.gradients = 0

    def climb(self, localization: float, bar: Bar) -> list[Rung]:
        """Go down to low temperatures, and, unless that was in vain, up again from the point."""
        begun = _begin(self.landscape, self.w, localization, self.half, self.generator)
        from_above = self._descend(*begun, bar)
        bar.update(RUNGS - len(from_above))
        self.gradients += sum(kernel.gradients for kernel, _ in from_above) * self.half
        one_sided = [self._judge([chains], kernel) for kernel, chains in from_above]
        if hopeless(one_sided):
            return one_sided
        points = self.w.detach().double().repeat(self.half, 1)
        rungs = []
        for kernel, above in reversed(from_above):
            spent = kernel.gradients
            below, points = self._draw(kernel, points)
            rungs.append(self._judge([above, below], kernel))
            self.gradients += (kernel.gradients - spent) * self.half
        return rungs[::-1]

    def _judge(self, sides: list[Chains], kernel: Any) -> Rung:
        together = max(1, self.half // self.groups) if self.groups else 1
        return _judge(kernel.posterior, sides, kernel, together=together)

    @abstractmethod
    def _descend(
        self, posterior: Posterior, points: Tensor, warmest: float, bar: Bar
    ) -> list[tuple[Any, Chains]]:
        """Draw from the Gaussian on to ever lower temperatures: kernels and their chains."""

    @abstractmethod
    def _draw(self, kernel: Any, points: Tensor) -> tuple[Chains, Tensor]:
        """Settle and draw at one temperature: chains, and where they end."""


class _Slices(_TwoSided):
    """
    Slices, for few weights, to temperatures as low as the rounding of the loss allows.

    Each weight has a virial of its own, ``(w_i - w0_i) dU/dw_i``, whose mean is one. The energy is
    kept without what these explain of it: around normal crossings that is nearly all, so that a
    rung is hundreds of times more exact than its draws are many.
    """

    sampler: Sampler = "slices"
    groups = 8

    def _descend(
        self, posterior: Posterior, points: Tensor, warmest: float, bar: Bar
    ) -> list[tuple[Any, Chains]]:
        descent: list[tuple[Any, Chains]] = []
        coldest = min(
            _COLDEST_OF_SLICES * posterior.localization,
            _ROUNDED / max(_rounding(self.landscape, self.w, self.generator), 1e-300),
        )
        decades = max(1.0, math.log10(max(coldest / warmest, 1.0)) / (_RUNGS_OF_SLICES - 1))
        for rung in range(_RUNGS_OF_SLICES):
            if warmest * 10.0 ** (decades * rung) > 1.01 * coldest:
                break
            kernel = Slices(posterior.at(warmest * 10.0 ** (decades * rung)))
            chains, points = self._draw(kernel, points)
            descent.append((kernel, chains))
            bar.update()
        return descent

    def _draw(self, kernel: Any, points: Tensor) -> tuple[Chains, Tensor]:
        sweeps = self.budget // (2 * _RUNGS_OF_SLICES * _OF_A_SLICE * len(self.w))
        state = kernel.init(points)
        for settling in _SWEEPS_BETWEEN_FITS:
            for _ in range(settling):
                state, _ = kernel.step(state, self.generator)
            kernel.fit(state.points)
        virials: list[Tensor] = []

        def observe(state: State) -> tuple[Tensor, Tensor]:
            virials.append((state.points - kernel.posterior.centre) * state.gradient)
            return kernel.posterior.beta * state.rise, virials[-1].mean(1)

        chains = sample(kernel, state, self.generator, draws=max(10, sweeps), observe=observe)
        known = torch.stack(virials) - 1
        if float(known.mean().abs()) <= _TOLERANCE:  # else these are no draws of the density
            chains = replace(chains, energy=without_scatter_of(known, chains.energy))
        return chains, chains.state.points


def _rounding(landscape: Landscape, w: Tensor, generator: torch.Generator) -> float:
    """Give by how much the loss at w is uncertain: as its last digit, and those of w, are."""
    centre = w.detach().double()
    digit = torch.finfo(w.dtype).eps
    noise = torch.randn(32, len(w), generator=generator, dtype=torch.float64)
    values = evaluate_many(landscape, torch.cat([centre[None], centre * (1 + digit * noise)]))[0]
    return max(float((values - values[0]).abs().max()), digit * abs(float(values[0])))


class _Trajectories(_TwoSided):
    """
    Hamiltonian Monte Carlo whitened by the curvature at the point.

    In singular directions the curvature away from the point grows with beta and that at the point
    does not, so that the step, and with it the reach, falls like the root of beta: the climb ends
    where the next rung would cost more gradients than are left.
    """

    sampler: Sampler = "hmc"

    def __init__(
        self,
        landscape: Landscape,
        w: Tensor,
        chains: int,
        generator: torch.Generator,
        budget: int,
        curvature: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__(landscape, w, chains, generator, budget)
        self.curvature = curvature

    def _descend(
        self, posterior: Posterior, points: Tensor, warmest: float, bar: Bar
    ) -> list[tuple[Any, Chains]]:
        descent: list[tuple[Any, Chains]] = []
        step, left = 0.3, self.budget
        for rung in range(RUNGS):
            if (_FITTING + _SETTLING + _KEPT) * max(1.0, _LENGTH / step) > left:
                break
            kernel = self._kernel(posterior.at(warmest * _RATIO**rung), step)
            points = self._fit(kernel, points)
            chains, points = self._draw(kernel, points)
            left -= kernel.gradients
            descent.append((kernel, chains))
            bar.update()
            step = kernel.step_size / math.sqrt(_RATIO)  # what the next rung is likely to allow
        return descent

    def _kernel(self, posterior: Posterior, step: float) -> Hamiltonian:
        whitening = whiten(
            *self.curvature, beta=float(posterior.beta), localization=posterior.localization
        )
        return Hamiltonian(
            posterior, step_size=step, length=_LENGTH, whitening=whitening, most=self.budget // 10
        )

    def _fit(self, kernel: Hamiltonian, points: Tensor) -> Tensor:
        state = kernel.init(points)
        for _ in range(2):
            state = _without_laggards(state)
            state = adapt(kernel, state, self.generator, steps=_FITTING // 2)
        return state.points

    def _draw(self, kernel: Any, points: Tensor) -> tuple[Chains, Tensor]:
        state = kernel.init(points)
        for _ in range(_SETTLING):
            state, _ = kernel.step(state, self.generator)
        chains = sample(kernel, state, self.generator, draws=_KEPT)
        return chains, chains.state.points


def _without_laggards(state: State) -> State:
    """
    Start chains anew from others where they lie far above them.

    A chain that comes from a warmer rung may be left on a slope where the others' step is too
    large; it would stay there, rejected for ever. This happens before any draw is kept.
    """
    energy = state.potential
    median = energy.nanmedian()
    spread = 1 + (energy - median).abs().nanmedian()
    behind = ~(energy <= median + 10 * spread)
    fine = (~behind).nonzero()[:, 0]
    rows = torch.arange(len(energy))
    # Where fewer lie low than far above, each is taken several times; where none does, none is.
    if len(fine):
        rows[behind] = fine[torch.arange(int(behind.sum())) % len(fine)]
    return State(*(None if tensor is None else tensor[rows] for tensor in state))  # type: ignore[arg-type]


def _judge(posterior: Posterior, sides: list[Chains], kernel: Kernel, *, together: int = 1) -> Rung:
    """Judge chains that come from one side, or from above and from below."""
    energy, distance, virial = (
        torch.cat([getattr(chains, name) for chains in sides], dim=1)
        for name in ("energy", "distance", "virial")
    )
    acceptance = sum(chains.acceptance for chains in sides) / len(sides)
    diagnosis = diagnose(energy, distance, virial, acceptance, together=together)
    means = [float(chains.energy.mean()) for chains in sides]
    means_of_chains = energy.mean(0)  # they are independent: their scatter tells all of the error
    gap, value = means[0] - means[-1], float(energy.mean())
    reasons = diagnosis.reasons(tolerance=_TOLERANCE)
    # Two standard errors of the difference of two halves.
    if not abs(gap) <= _TOLERANCE * abs(value) + 4 * standard_error(energy) * (len(sides) > 1):
        reasons.append(
            f"chains from above and from below are {abs(gap / value):.2g} of the value apart: flat"
            " directions have not been crossed; take more draws"
        )
    return Rung(
        float(posterior.beta),
        posterior.localization,
        value,
        max(standard_error(energy), float(means_of_chains.std()) / math.sqrt(len(means_of_chains))),
        gap,
        diagnosis.virial,
        diagnosis.rhat,
        diagnosis.rhat_distance,
        diagnosis.bulk_ess,
        diagnosis.tail_ess,
        diagnosis.acceptance,
        kernel.step_size,
        tuple(reasons),
        tuple(means_of_chains.tolist()),
    )
