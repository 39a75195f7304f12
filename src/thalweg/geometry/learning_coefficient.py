"""The local learning coefficient: how fast the volume of low loss vanishes around a point."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.curvature_at import leading_curvature
from thalweg.geometry.ladder_fit import fit_ladder
from thalweg.landscape.protocols import Blocked, Landscape, placed, require, words_of
from thalweg.run.progress import Bar, Progress, silent
from thalweg.run.seeds import torch_generator
from thalweg.sampling import (
    Chains,
    Hamiltonian,
    Kernel,
    NewtonBlocks,
    Posterior,
    State,
    adapt,
    sample,
    whiten,
)
from thalweg.sampling.diagnostics import standard_error

_RATIO = math.sqrt(10)  # between neighbouring temperatures
_TOLERANCE = 0.05
_COLDEST = 1e9  # beta / localization of the last rung of blocks: rounding spoils colder ones
_RECORDED = 5
_CUBES = 6_000_000
# Of the highest rung: warmer ones lie outside of what is extrapolated from; and how much of it the
# last power of beta may take away there. Trajectories do not reach as cold as block draws.
_NEAR = {"blocks": (0.96, 0.05), "hmc": (0.85, 0.3)}
_DECIDED = 0.95  # probability from which a multiplicity is named
_FEWEST = 3  # rungs that an extrapolation needs


@dataclass(frozen=True)
class Rung:
    """
    One temperature and localization.

    Attributes
    ----------
    beta, localization : float
        Of the density ``exp(-beta (L - L0) - localization |w - w0|^2 / 2)``.
    value, stderr : float
        ``beta E[L - L0]`` and the sampler's standard error.
    virial, rhat, rhat_distance, bulk_ess, tail_ess, acceptance : float
        What the chains say of themselves, see `thalweg.sampling.Diagnosis`.
    step_size : float
        That was chosen; 1 for block draws, which have none.
    reasons : tuple of str
        Why the rung does not count; empty where it does.
    chain_means : tuple of float
        The value of each chain by itself.
    """

    beta: float
    localization: float
    value: float
    stderr: float
    virial: float
    rhat: float
    rhat_distance: float
    bulk_ess: float
    tail_ess: float
    acceptance: float
    step_size: float
    reasons: tuple[str, ...]
    chain_means: tuple[float, ...]


@dataclass(frozen=True)
class LearningCoefficient:
    """
    How fast the volume of low loss vanishes: like ``t^value (-log t)^(multiplicity - 1)``.

    Attributes
    ----------
    value, low, high : float or None
        The coefficient, extrapolated to infinite beta, and where it lies in 95 % of cases; None
        where it is refused.
    multiplicity : int or None
        Where one has a probability of at least 0.95.
    probabilities : tuple of float
        Of multiplicity 1, 2, ...
    status : {"converged", "refused"}
        Whether enough rungs passed their diagnostics.
    reasons : tuple of str
        Why it was refused, and what to do.
    sampler_error : float or None
        Standard error of the coldest rung that counts: what more draws would lessen.
    estimator_bias : float or None
        That rung's value minus the coefficient: what colder rungs would lessen.
    rungs : tuple of Rung
        All, those that do not count too.
    sampler : {"blocks", "hmc"}
        What drew.
    gradients : int
        Evaluations of the gradient, over all chains.
    described : dict
        Which function was measured.
    """

    value: float | None
    low: float | None
    high: float | None
    multiplicity: int | None
    probabilities: tuple[float, ...]
    status: Literal["converged", "refused"]
    reasons: tuple[str, ...]
    sampler_error: float | None
    estimator_bias: float | None
    rungs: tuple[Rung, ...]
    sampler: Literal["blocks", "hmc"]
    gradients: int
    described: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and words, as JSON takes them."""
        return asdict(self)


def learning_coefficient(
    landscape: Landscape,
    w: Tensor,
    *,
    seed: int = 0,
    chains: int | None = None,
    budget: int = 40_000,
    localization: float | None = None,
    progress: Progress = silent,
) -> LearningCoefficient:
    """
    Estimate the local learning coefficient at a minimum.

    ``beta E[L - L0]`` under the local posterior is taken at a ladder of temperatures, for two
    localizations, and extrapolated to infinite beta. At one temperature it is low by
    ``(m - 1) / log beta`` and by what the localization holds back; both are fitted. Each rung
    starts where the warmer one ended, at first from the Gaussian of the localization; steps are
    chosen from the share accepted. A rung whose virial is off by more than 5 % does not count.

    Landscapes that are quadratic in each tensor of weights (`Blocked`) are drawn block by block,
    which stiffness does not slow; all others by Hamiltonian Monte Carlo whitened by the curvature
    at ``w``.

    Parameters
    ----------
    landscape : Landscape
        An `EmpiricalRisk`, or anything with a gradient; with a Hessian it is whitened.
    w : Tensor
        Shape (W,): a minimum, or near one.
    seed : int
        Of all that is random.
    chains : int, optional
        By default 16, more in few dimensions.
    budget : int
        Gradients of each chain, over the whole ladder.
    localization : float, optional
        The tighter of the two, per squared weight; by default so tight that the Gaussian is about
        as wide as ``w`` is long. The other is a tenth of it.
    progress : Progress
        Shows the rungs.

    Returns
    -------
    LearningCoefficient
        ``value``, ``low``, ``high``, ``multiplicity``, ``status``, ``reasons``, ``rungs``.

    Raises
    ------
    InvalidArgument
        If a number cannot be used.

    Notes
    -----
    Intervals were tried on landscapes drawn block by block. Where trajectories draw, ``sampler`` is
    ``"hmc"``: on deep linear networks they were a fifth low at the temperatures that they reach, so
    that value and interval are a lower bound at best.

    References
    ----------
    Lau et al., The local learning coefficient (2023); Watanabe, Algebraic geometry and statistical
    learning theory (2009).

    Examples
    --------
    >>> from thalweg.landscape import DeepLinear
    >>> network = DeepLinear((4, 4, 4), 2)  # 7.5, multiplicity 1
    >>> answer = learning_coefficient(network, network.minimum)
    >>> answer.status, answer.low < 7.5 < answer.high
    ('converged', True)
    """
    require(landscape, Landscape, "learning_coefficient", "give an EmpiricalRisk(problem)")
    landscape.space.check(w)
    if budget < 1000 or (chains is not None and chains < 4):
        raise InvalidArgument(
            f"budget={budget}, chains={chains}; give 1000 gradients and 4 chains or more."
        )
    if localization is not None and not 0 < localization < math.inf:
        raise InvalidArgument(f"localization={localization}; give a positive number.")
    ladder = _Ladder(landscape, w, seed, chains, budget)
    tight = localization or _as_wide_as(w)
    with progress(2 * ladder.most, "rungs") as bar:
        rungs = [rung for share in (1.0, 0.1) for rung in ladder.climb(tight * share, bar)]
    return _answer(ladder, rungs)


def _as_wide_as(w: Tensor) -> float:
    square = float(w.double().square().mean())
    return 1 / square if square > 0 else 1.0


class _Ladder:
    """Rungs of one landscape around one point."""

    def __init__(
        self, landscape: Landscape, w: Tensor, seed: int, chains: int | None, budget: int
    ) -> None:
        self.landscape, self.w = landscape, w
        size = len(w)
        self.chains = chains or min(256, max(16, 1024 // size))
        self.generator = torch_generator(seed, "learning coefficient")
        self.blocks = isinstance(landscape, Blocked)
        self.precise = placed(landscape, w).dtype == torch.float64
        self.most = 10
        self.budget = budget // (2 * self.most)
        self.curvature = None if self.blocks else leading_curvature(landscape, w, seed=seed)
        self.gradients = 0

    def climb(self, localization: float, bar: Bar) -> list[Rung]:
        """Go from the Gaussian to ever lower temperatures."""
        posterior = Posterior(self.landscape, self.w, beta=0.0, localization=localization)
        shape = self.chains, len(self.w)
        noise = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        points = posterior.centre + noise / math.sqrt(localization)
        warmest = 1.0 / max(float(posterior.evaluate(points)[2].abs().median()), 1e-12)
        if self.blocks:
            return self._climb_blocks(posterior, points, warmest, bar)
        rungs, step = [], 0.3
        for rung in range(self.most):
            there = posterior.at(warmest * _RATIO**rung)
            chains, kernel = self._draw(there, points, step)
            points, step = chains.state.points, kernel.step_size
            rungs.append(_judge(there, chains, kernel))
            bar.update()
        return rungs

    def _climb_blocks(
        self, posterior: Posterior, points: Tensor, warmest: float, bar: Bar
    ) -> list[Rung]:
        coldest, rungs = _COLDEST * posterior.localization, []
        sides = [side for p in self.landscape.space.parameters for side in (*p.shape, 1)[:2]]
        # Eigenvectors take nearly all of the time: small networks get more draws for it.
        draws = max(60, min(150, _CUBES // sum(side**3 for side in sides)))
        count = max(_RECORDED, math.ceil(math.log10(coldest / warmest)))
        for rung in range(count + 1):
            there = posterior.at(coldest * 10.0 ** (rung - count))
            recorded = rung > count - _RECORDED
            chains, kernel = self._draw_blocks(there, points, draws if recorded else 4)
            points = chains.state.points
            if recorded:
                rungs.append(_judge(there, chains, kernel))
                bar.update(self.most // _RECORDED)
        return rungs

    def _draw_blocks(
        self, posterior: Posterior, points: Tensor, draws: int
    ) -> tuple[Chains, Kernel]:
        kernel = NewtonBlocks(posterior)
        state = kernel.init(points)
        for _ in range(8):
            state, _ = kernel.step(state, self.generator)
        self.gradients += (draws + 8) * len(self.landscape.space.parameters) * len(points)
        look = lambda state: (kernel.smooth, kernel.virial)  # noqa: E731
        return sample(kernel, state, self.generator, draws=draws, observe=look), kernel

    def _draw(self, posterior: Posterior, points: Tensor, step: float) -> tuple[Chains, Kernel]:
        assert self.curvature is not None
        values, vectors = self.curvature
        beta = float(posterior.beta)
        whitening = whiten(values, vectors, beta=beta, localization=posterior.localization)
        trajectories = 120
        kernel = Hamiltonian(
            posterior,
            step_size=step,
            whitening=whitening,
            most=max(4, self.budget // trajectories),
        )
        state = _without_laggards(kernel.init(points))
        state = adapt(kernel, state, self.generator, steps=trajectories // 6)
        state = _without_laggards(state)
        state = adapt(kernel, state, self.generator, steps=trajectories // 6)
        answer = sample(kernel, state, self.generator, draws=2 * trajectories // 3)
        self.gradients += kernel.gradients * len(points)
        return answer, kernel


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
    rows[behind] = fine[: int(behind.sum())]
    return State(*(None if tensor is None else tensor[rows] for tensor in state))  # type: ignore[arg-type]


def _judge(posterior: Posterior, chains: Chains, kernel: Kernel) -> Rung:
    found = chains.diagnose()
    return Rung(
        float(posterior.beta),
        posterior.localization,
        float(chains.energy.mean()),
        standard_error(chains.energy),
        found.virial,
        found.rhat,
        found.rhat_distance,
        found.bulk_ess,
        found.tail_ess,
        found.acceptance,
        kernel.step_size,
        tuple(found.reasons(tolerance=_TOLERANCE)),
        tuple(chains.energy.mean(0).tolist()),
    )


def _answer(ladder: _Ladder, rungs: list[Rung]) -> LearningCoefficient:
    near, power_share = _NEAR["blocks" if ladder.blocks else "hmc"]
    used = _settled(rungs, near)
    common: dict[str, Any] = {
        "rungs": tuple(rungs),
        "sampler": "blocks" if ladder.blocks else "hmc",
        "gradients": ladder.gradients,
        "described": words_of(ladder.landscape),
    }
    reasons = _refusal(rungs, used)
    if reasons:
        nothing: dict[str, Any] = dict.fromkeys(
            ("value", "low", "high", "multiplicity", "sampler_error", "estimator_bias")
        )
        return LearningCoefficient(
            **nothing, probabilities=(), status="refused", reasons=reasons, **common
        )
    betas, localizations, means = np.array(
        [[rung.beta, rung.localization, rung.value] for rung in used]
    ).T
    fit = fit_ladder(betas, localizations, means, _covariance(used), power_share=power_share)
    coldest = max(used, key=lambda rung: rung.beta / rung.localization)
    return LearningCoefficient(
        fit.value,
        fit.low,
        fit.high,
        fit.multiplicity if max(fit.probabilities) >= _DECIDED else None,
        fit.probabilities,
        "converged",
        (),
        coldest.stderr,
        coldest.value - fit.value,
        **common,
    )


def _settled(rungs: list[Rung], near: float) -> list[Rung]:
    """Leave out what does not count, and the warm rungs where the estimate still climbs."""
    good = [rung for rung in rungs if not rung.reasons]
    highest = max((rung.value for rung in good), default=0.0)
    return [rung for rung in good if rung.value > near * highest]


def _covariance(rungs: list[Rung]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Give the covariance of the rungs' errors: what is common to a climb is told by its chains."""
    covariance = np.diag([rung.stderr**2 for rung in rungs])
    for own in {rung.localization for rung in rungs}:
        places = [i for i, rung in enumerate(rungs) if rung.localization == own]
        means = np.array([rungs[i].chain_means for i in places])
        if len(places) > 1:
            between = np.cov(means) / means.shape[1]
            common = (between.sum() - between.trace()) / (len(places) * (len(places) - 1))
            covariance[np.ix_(places, places)] += max(common, 0.0)
    return covariance


def _refusal(rungs: list[Rung], used: list[Rung]) -> tuple[str, ...]:
    if any(rung.value < -3 * rung.stderr - 1e-9 for rung in rungs):
        return (
            "the loss falls around w, which is no minimum; train to convergence first"
            " (optimizer='gauss-newton', or a small learning rate at the end).",
        )
    if len(used) >= _FEWEST:
        return ()
    told = next((reason for rung in rungs for reason in rung.reasons), "")
    return (
        f"{len(used)} rungs of {len(rungs)} count, and {_FEWEST} are needed"
        + (f"; {told}" if told else "")
        + ". Give a larger budget, or a larger localization.",
    )
