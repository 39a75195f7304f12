"""The local learning coefficient: how fast the volume of low loss vanishes around a point."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.ladder import RUNGS, Ladder, Sampler, make_ladder
from thalweg.geometry.ladder_fit import MOST, LadderFit, fit_ladder
from thalweg.geometry.rung import NO_MINIMUM, Rung, falls, hopeless, risen
from thalweg.landscape.protocols import Landscape, require, words_of
from thalweg.result import Result
from thalweg.run.progress import Progress, silent

# What is extrapolated from, calibrated on exact draws of 24 deep linear networks whose ladders end
# where trajectories do: rungs above this share of the climb's highest; the share of the value that
# the last power of beta may take away at the warmest, and its slowest power; how much the value may
# still rise in a decade at the end. Those of slices: on exact means of normal crossings.
_EXTRAPOLATED = {
    "blocks": (0.96, 0.05, 0.25, 0.04),
    "slices": (0.8, 0.1, 0.25, 0.05),
    "hmc": (0.9, 0.3, 0.15, 0.05),
}
# Probability from which a multiplicity is named; errors that chains share are not in that of slices
# and trajectories.
_DECIDED = {"blocks": 0.5, "slices": 0.95, "hmc": 0.95}
_FEWEST = 3  # rungs that an extrapolation needs
_STILL_RISES = (
    "the estimate still rises at the lowest temperatures that the budget reaches, so that nothing"
    " can be extrapolated; give a larger budget."
)


@dataclass(frozen=True)
class LearningCoefficient(Result):
    """
    How fast the volume of low loss vanishes: like ``t^value (-log t)^(multiplicity - 1)``.

    Attributes
    ----------
    value, low, high : float or None
        The coefficient, extrapolated to infinite beta, and where it lies in 95 % of cases; None
        where it is refused.
    multiplicity : int or None
        Where one has a probability of at least 0.5, or 0.95 where there are no exact blocks.
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
    sampler : {"blocks", "slices", "hmc"}
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
    sampler: Sampler
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
    which stiffness does not slow; landscapes of up to 4 weights by slices along the axes and along
    lines of the offsets' logarithms, to temperatures as low as rounding allows; all others by
    Hamiltonian Monte Carlo whitened by the curvature at ``w``.

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
    But for blocks, chains come from two sides, and half of the gap between these goes into the
    interval.

    References
    ----------
    Lau et al., The local learning coefficient (2023); Watanabe, Algebraic geometry and statistical
    learning theory (2009).

    Examples
    --------
    >>> from thalweg.landscape import DeepLinear
    >>> network = DeepLinear((3, 2, 3), 2)  # 4, multiplicity 1
    >>> answer = learning_coefficient(network, network.minimum, chains=8)
    >>> answer.status, answer.low < 4 < answer.high
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
    value = landscape.value(w)
    if not math.isfinite(value):
        raise InvalidArgument(f"the loss at w is {value}; give a point where it is finite.")
    ladder = make_ladder(landscape, w, chains=chains, budget=budget, seed=seed)
    tight = localization or _as_wide_as(w)
    with progress(2 * RUNGS, "rungs") as bar:
        rungs = ladder.climb(tight, bar)
        vain = hopeless(rungs)
        if not vain:
            rungs += ladder.climb(0.1 * tight, bar)
    return _answer(ladder, rungs, words_of(landscape), vain, most=min(MOST, len(w)))


def _as_wide_as(w: Tensor) -> float:
    square = float(w.double().square().mean())
    return 1 / square if square > 0 else 1.0


def _answer(
    ladder: Ladder, rungs: list[Rung], words: dict[str, Any], vain: str, *, most: int
) -> LearningCoefficient:
    used = _settled(rungs, ladder.sampler)
    common: dict[str, Any] = {
        "rungs": tuple(rungs),
        "sampler": ladder.sampler,
        "gradients": ladder.gradients,
        "described": words,
    }
    reasons = (vain,) if vain else _refusal(rungs, used)
    if reasons:
        return _refused(reasons, common)
    fit = _fit(used, ladder.sampler, most)
    higher = [rung for rung in rungs if not rung.reasons and rung.value - rung.stderr > fit.high]
    if any(rung not in used for rung in higher):
        return _refused((_STILL_RISES,), common)
    coldest = max(used, key=lambda rung: rung.beta / rung.localization)
    return LearningCoefficient(
        fit.value,
        fit.low,
        fit.high,
        fit.multiplicity if max(fit.probabilities) >= _DECIDED[ladder.sampler] else None,
        fit.probabilities,
        "converged",
        (),
        coldest.stderr,
        coldest.value - fit.value,
        **common,
    )


def _refused(reasons: tuple[str, ...], common: dict[str, Any]) -> LearningCoefficient:
    nothing: dict[str, Any] = dict.fromkeys(
        ("value", "low", "high", "multiplicity", "sampler_error", "estimator_bias")
    )
    return LearningCoefficient(
        **nothing, probabilities=(), status="refused", reasons=reasons, **common
    )


def _fit(used: list[Rung], sampler: Sampler, most: int) -> LadderFit:
    """Extrapolate the rungs that count; multiplicities up to ``most`` are thought of."""
    _, power_share, slowest, _ = _EXTRAPOLATED[sampler]
    betas, localizations, means = np.array(
        [[rung.beta, rung.localization, rung.value] for rung in used]
    ).T
    return fit_ladder(
        betas,
        localizations,
        means,
        _covariance(used),
        power_share=power_share,
        slowest=slowest,
        most=most,
        near_poles=sampler == "slices",  # the others' rungs are not exact enough
    )


def _settled(rungs: list[Rung], sampler: Sampler) -> list[Rung]:
    """Leave out what does not count, climbs that still rise, and the warm rungs of the others."""
    near, _, _, rise = _EXTRAPOLATED[sampler]
    used: list[Rung] = []
    for localization in {rung.localization: None for rung in rungs}:
        climb = [r for r in rungs if r.localization == localization and not r.reasons]
        highest = max((rung.value for rung in climb), default=0.0)
        if risen(climb) <= rise * highest:
            used += [rung for rung in climb if rung.value > near * highest]
    return used


def _covariance(rungs: list[Rung]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Give the covariance of the rungs' errors: what is common to a climb is told by its chains."""
    # What both sides are apart is an error of one sign on all rungs of a climb.
    gaps = np.array([rung.gap / 2 for rung in rungs])
    covariance = np.diag([rung.stderr**2 for rung in rungs]) + np.outer(gaps, gaps)
    for own in {rung.localization for rung in rungs}:
        places = [i for i, rung in enumerate(rungs) if rung.localization == own]
        means = np.array([rungs[i].chain_means for i in places])
        if len(places) > 1:
            between = np.cov(means) / means.shape[1]
            common = (between.sum() - between.trace()) / (len(places) * (len(places) - 1))
            covariance[np.ix_(places, places)] += max(common, 0.0)
    return covariance


def _refusal(rungs: list[Rung], used: list[Rung]) -> tuple[str, ...]:
    if falls(rungs):
        return (NO_MINIMUM,)
    if len(used) >= _FEWEST:
        return ()
    if sum(not rung.reasons for rung in rungs) >= 2 * _FEWEST:
        return (_STILL_RISES,)
    first_reason = next((reason for rung in rungs for reason in rung.reasons), "")
    return (
        f"{len(used)} rungs of {len(rungs)} count, and {_FEWEST} are needed"
        + (f"; {first_reason}" if first_reason else "")
        + ". Give a larger budget, or a larger localization.",
    )
