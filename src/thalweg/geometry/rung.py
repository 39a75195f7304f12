"""One rung of a ladder of temperatures, and what those of a climb say of an extrapolation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A climb that still rises by this share of its highest in a decade is far from its end: the other,
# from a tenth of the localization, gets as far with as many gradients.
_FAR = 0.25
_FEWEST = 2
NO_MINIMUM = (
    "the loss falls around w, which is no minimum; train to convergence first"
    " (optimizer='gauss-newton', or a small learning rate at the end)."
)


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
    gap : float
        What chains that came from above, at higher temperatures, read more than those from below.
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
    gap: float
    virial: float
    rhat: float
    rhat_distance: float
    bulk_ess: float
    tail_ess: float
    acceptance: float
    step_size: float
    reasons: tuple[str, ...]
    chain_means: tuple[float, ...]


def risen(climb: Sequence[Rung]) -> float:
    """Say by how much a climb rises in a decade at its end, less the error; rungs in order."""
    if len(climb) < 2:
        return math.inf
    last = [rung for rung in climb if rung.beta > 0.09 * climb[-1].beta]
    if len(last) < 2:  # more than a decade apart
        last = list(climb[-2:])
    half = len(last) // 2
    before, after = last[:half], last[-half:]
    decades = np.log10(after[0].beta / before[0].beta)
    difference = sum(rung.value for rung in after) - sum(rung.value for rung in before)
    error = math.sqrt(sum(rung.stderr**2 for rung in last))
    return float((difference - error) / half / decades)


def falls(rungs: Sequence[Rung]) -> bool:
    """Say whether the loss falls around the point, which is no minimum then."""
    # Where chains run away their scatter is as large as their mean; most of them are low, still.
    return any(
        min(rung.value + 3 * rung.stderr, float(np.median(rung.chain_means))) < -1e-9
        for rung in rungs
    )


def hopeless(climb: Sequence[Rung]) -> str:
    """
    Say why a climb leaves no hope of an answer, so that no more is drawn; empty where it does.

    Parameters
    ----------
    climb : sequence of Rung
        Of one localization, in order; chains of one side are enough.
    """
    if falls(climb):
        return NO_MINIMUM
    fine = [rung for rung in climb if not rung.reasons]
    if len(fine) < _FEWEST:
        first_reason = next((f"; {rung.reasons[0]}" for rung in climb if rung.reasons), "")
        return (
            f"{len(fine)} of the first {len(climb)} rungs count, so that nothing more was drawn"
            f"{first_reason}. Give a larger budget, or a larger localization."
        )
    highest = max(rung.value for rung in fine)
    if risen(fine) > _FAR * highest:
        return (
            f"the estimate is {highest:.3g} at the lowest temperature that the budget reaches and"
            f" still rises by {risen(fine) / highest:.0%} of that in a decade, so that nothing more"
            " was drawn; give ten times the budget, which reaches two decades further down."
        )
    return ""
