"""The verdicts on flatness: whether what is left of the noise is left for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.displacement import ELSEWHERE
from thalweg.studies.known_landscapes import CONTROLS, KNOWN
from thalweg.studies.limits import RESOLUTION, left_in_the_limit
from thalweg.studies.parents import cluster_words
from thalweg.studies.returns import MAIN, NARROW, PARENT, SIBLINGS, SQUARED

if TYPE_CHECKING:
    import xarray as xr

CLAIMS = ("flat", "apart", "flat-squared", "apart-squared")
RULE = Rule(low=ELSEWHERE)
_SOURCE = "Liao and Poggio (2017): perturbed at a zero-minimizer, copies return to zero error"
_PAIRS = {
    PARENT: ("flat", "each copy and its parent"),
    SIBLINGS: ("apart", "copies of one parent"),
}
_NO_SQUARED = (
    "Fewer than two parents at zeros of the squared loss: digits and images in CIFAR-10's layout "
    "have them, problems of one's own not."
)
_BOUNDS = (
    "The noise is Gaussian, proportional to each layer's weight scale. Two points of losses L and "
    "L' in a landscape nowhere below zero and of curvature at least m everywhere are at most "
    "sqrt(2 L / m) + sqrt(2 L' / m) apart; descent that the slope drives as there goes no further "
    f"than that. With m = {RESOLUTION:g} of the largest curvature at the parent, what is left in "
    "the limit is the measured distance, give or take this sum; nothing of a copy that did not "
    "come back. So a bowl is not called flat, however slow, unless its least curvature is below m."
)


def judge(limits: xr.Dataset, config: dict[str, Any]) -> list[Claim]:
    """
    Judge both kinds of pairs, of the run's own network and of zeros of the squared loss.

    Parameters
    ----------
    limits : xarray.Dataset
        Of `thalweg.studies.returns.gather_limits`.
    config : dict
        As `thalweg.studies.configure` writes it.
    """
    return [
        make(limits, config, kind) for make in (_own_claim, _squared) for kind in (PARENT, SIBLINGS)
    ]


def statistic(limits: xr.Dataset, landscape: str, kind: str) -> Statistic | None:
    """Estimate what is left in the limit on one landscape, over its clusters."""
    chosen = (limits["landscape"].values == landscape) & (limits["between"].values == kind)
    columns = (limits[name].values[chosen] for name in ("low", "left", "high", "cluster"))
    low, value, high, cluster = columns
    if not np.isfinite(np.concatenate([low, value, high]).astype(float)).all():
        return None
    return left_in_the_limit(low, value, high, cluster) if chosen.any() else None


def _own_claim(limits: xr.Dataset, config: dict[str, Any], kind: str) -> Claim:
    study = config["perturb_and_return"]
    name, words = _PAIRS[kind]
    # Parents that did not come to zero error have nothing for copies to return to.
    reached = (limits["landscape"].values != MAIN) | (
        limits["parent_error"].values <= study["zero_error"]
    )
    limits = limits.isel(pair=reached)
    measured = statistic(limits, MAIN, kind)
    narrow = Control(
        f"a network of widths {study['narrow']['widths']}, whose parent never was at zero error",
        statistic(limits, NARROW, kind),
    )
    return Claim(
        name=f"perturb_and_return/{name}",
        statement=f"At least {ELSEWHERE:g} of a perturbation of {study['scale']:g} times each "
        f"layer's weight scale, between {words}, is left in the limit of ever longer training: the "
        "network at zero training error, as the run trains it, is flat along it.",
        source=_SOURCE,
        protocol=f"Perturbed at the end of a training and trained on for {study['branch_epochs']} "
        f"epochs of SGD, to at most {study['zero_error']:.2%} misclassified. {_BOUNDS} Parents are "
        f"the sample: {cluster_words(config, study['parents'])}.",
        statistic=measured,
        rule=RULE,
        controls=(*_known_claim(limits, kind), narrow),
        section="perturb_and_return",
        why=_why_own(limits, measured, kind),
    )


def _why_own(limits: xr.Dataset, measured: Statistic | None, kind: str) -> str:
    if measured is None:
        return (
            "Fewer than two parents reached zero training error: there is nothing to return to, or "
            "no spread of parents."
        )
    if RULE.verdict(measured) != "undecided":
        return ""
    of_network = (limits["landscape"].values == MAIN) & (limits["between"].values == kind)
    condition = float(np.min(limits["condition"].values[of_network]))
    return (
        f"The losses at the ends exclude bowls of condition number up to {condition:.2g}, and no "
        "flatter one: training at this length cannot tell a valley from a slower bowl."
    )


def _squared(limits: xr.Dataset, config: dict[str, Any], kind: str) -> Claim:
    study = config["perturb_and_return"]
    name, words = _PAIRS[kind]
    measured = statistic(limits, SQUARED, kind)
    pairs = limits.isel(pair=limits["landscape"].values == SQUARED)
    sizes = (
        f"{int(pairs['weights'].values[0]):,} weights and {int(pairs['equations'].values[0]):,} "
        "equations, one for each output of each sample"
        if pairs.sizes["pair"]
        else "more weights than equations"
    )
    return Claim(
        name=f"perturb_and_return/{name}-squared",
        statement=f"At least {ELSEWHERE:g} of a perturbation of {study['scale']:g} times each "
        f"layer's weight scale, between {words}, is left in the limit of ever longer training, at "
        f"exact zeros of the squared loss: {sizes}.",
        source="Liao and Poggio (2017): with more weights than equations zero-minimizers are "
        "degenerate",
        protocol="A network is trained by damped Gauss-Newton to a residual of rounding size, "
        f"perturbed, and brought back by gradient flow. {_BOUNDS} Parents, each on samples of its "
        "own, are the sample.",
        statistic=measured,
        rule=RULE,
        controls=_known_claim(limits, kind),
        section="perturb_and_return",
        why="" if measured else _NO_SQUARED,
    )


def _known_claim(limits: xr.Dataset, kind: str) -> tuple[Control, ...]:
    return tuple(Control(KNOWN[name].words, statistic(limits, name, kind)) for name in CONTROLS)
