"""The verdicts on selection: trends of robustness over ladders of noise, volumes at the ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.intervals import cluster_mean
from thalweg.studies.invariant_measures import FLATNESS
from thalweg.studies.parents import cluster_words
from thalweg.studies.selection_landscapes import ALIKE, KNOWN, WIDENING
from thalweg.studies.trends import SHUFFLES, THIRD, trend_statistic

if TYPE_CHECKING:
    import xarray as xr

SMALL = "small"
LADDERS = {
    "batch": "smaller batches at one learning rate",
    "rate": "larger learning rates at one batch size",
    "langevin": "higher temperatures of Langevin dynamics on full gradients",
    "decay": "smaller batches at one learning rate, with weight decay",
}
# Stated before anything was judged. Volumes: in nats, and coefficients: in halves of a dimension.
RULES = {
    **dict.fromkeys(LADDERS, THIRD),
    "known-case": THIRD,
    "volume": Rule(low=1.0),
    "coefficient": Rule(high=-0.25),
}
_SOURCE = (
    "Liao and Poggio (2017), abstract: SGD selects the most robust minimizers, as the Langevin "
    "equation does"
)
_PROTOCOL = (
    "From the same initial weights, with the same order of data, a network is trained at each rung "
    "of the ladder until its loss has come to twice the level or time is over, and then by "
    "full-batch gradient descent to the level itself, within a hundredth. There robustness is "
    "measured by four numbers that rescaling of layers leaves alone: the mean and the greatest "
    "rise of the loss under relative noise, the relative noise that doubles the loss, and that "
    "which keeps the error. For each, the pairs of rungs of which the noisier is more robust, less "
    "those "
    "of which it is less so, by more than the measure's tolerance; the mean of the four. "
)


def judge(
    ladders: Mapping[str, xr.Dataset], volumes: xr.Dataset | None, config: dict[str, Any]
) -> list[Claim]:
    """
    Judge every ladder, the protocol itself, and what volumes there are.

    Parameters
    ----------
    ladders : mapping
        Ends by ``"case/ladder"``.
    volumes : xarray.Dataset or None
        ``sgd_selection/volumes``.
    config : dict
        As `thalweg.studies.configure` writes it.
    """
    return [
        *(_ladder(name, ladders, config) for name in LADDERS),
        _known_case(ladders, config),
        _volume(volumes, config),
        _coefficient(volumes, config),
    ]


def _of(ladders: Mapping[str, xr.Dataset], key: str, **how: int) -> Statistic | None:
    return trend_statistic(ladders[key], FLATNESS, **how) if key in ladders else None


def _shuffled(ladders: Mapping[str, xr.Dataset], key: str, seed: int) -> Control:
    return Control(
        f"The same ends with the ladder's labels shuffled, {SHUFFLES} times for each parent.",
        _of(ladders, key, shuffle=seed),
    )


def _alike(ladders: Mapping[str, xr.Dataset], ladder: str) -> Control:
    kind = "batch" if ladder == "decay" else ladder
    return Control(
        f"The same ladder on a landscape whose minima are all alike: {KNOWN[ALIKE]}.",
        _of(ladders, f"{ALIKE}/{kind}"),
    )


def _ladder(name: str, ladders: Mapping[str, xr.Dataset], config: dict[str, Any]) -> Claim:
    study, key = config["sgd_selection"], f"networks/{name}"
    found = _of(ladders, key)
    parents = cluster_words(config, study["parents"])
    return Claim(
        name=f"sgd_selection/{name}",
        statement=f"At equal training loss, {LADDERS[name]} end where the network is more robust: "
        "of the pairs of rungs, at least a third more go this way than the other.",
        source=_SOURCE,
        protocol=f"{_PROTOCOL}The level is {study['level']:g}. Parents are the sample: {parents}.",
        statistic=found,
        rule=RULES[name],
        controls=(_shuffled(ladders, key, config["seed"]), _alike(ladders, name)),
        section="sgd_selection",
        why=_reached(ladders.get(key), found),
    )


def _reached(ends: xr.Dataset | None, found: Statistic | None) -> str:
    if ends is None:
        return "The run has no such ladder."
    missed = int((ends["status"].values != "at level").sum())
    if found is None:
        return f"Fewer than two parents have two ends at the level: {missed} ends are not."
    return f"{missed} of {ends.sizes['end']} ends did not come to the level and do not count."


def _known_case(ladders: Mapping[str, xr.Dataset], config: dict[str, Any]) -> Claim:
    key = f"{WIDENING}/langevin"
    found = _of(ladders, key)
    return Claim(
        name="sgd_selection/known-case",
        statement="Where noise is known to select wide places, in a valley that widens, this "
        "protocol says so.",
        source="The Langevin equation's stationary density, integrated across the valley",
        protocol=f"{_PROTOCOL}The landscape: {KNOWN[WIDENING]}. Beginnings are the sample: "
        f"{config['sgd_selection']['known']['parents']} of them.",
        statistic=found,
        rule=RULES["known-case"],
        controls=(_shuffled(ladders, key, config["seed"]), _alike(ladders, "langevin")),
        section="sgd_selection",
        why="" if found else "Fewer than two trainings in the valley came to the level.",
    )


def _volume(volumes: xr.Dataset | None, config: dict[str, Any]) -> Claim:
    return _ends(
        volumes,
        config,
        "volume",
        "the volume of low loss is larger, by a nat or more",
        "Between brackets of the log-volume below a level, weighed by a Gaussian around the end",
        "nats",
    )


def _coefficient(volumes: xr.Dataset | None, config: dict[str, Any]) -> Claim:
    return _ends(
        volumes,
        config,
        "coefficient",
        "the learning coefficient is smaller, by half of half a dimension or more",
        "Between intervals of the local learning coefficient",
        "halves of a dimension",
    )


def _ends(
    volumes: xr.Dataset | None,
    config: dict[str, Any],
    name: str,
    said: str,
    how: str,
    units: str,
) -> Claim:
    small = config["sgd_selection"]["small"]
    found = None if volumes is None else end_difference(volumes, f"volume-{SMALL}", name, units)
    control = None if volumes is None else end_difference(volumes, f"volume-{ALIKE}", name, units)
    return Claim(
        name=f"sgd_selection/{name}",
        statement=f"On a network of {small['hidden']} tanh units, at the bottom below where the "
        f"smallest batches end, {said}, than where full batches end.",
        source=_SOURCE,
        protocol=f"{how} at the most and the least noise of each parent, both at zero squared "
        "loss: the mean over parents, from the interval of the least that the difference can be to "
        "that of the most. A refusal is no number. Parents, each with initial weights and "
        f"{small['samples']} samples of its own, are the sample: {small['parents']} of them.",
        statistic=found,
        rule=RULES[name],
        controls=(
            Control(
                "A linear model of as many weights on the same samples: its minima are all alike.",
                control,
            ),
        ),
        section="sgd_selection",
        why=_refused(volumes, name, found),
    )


def _refused(volumes: xr.Dataset | None, name: str, found: Statistic | None) -> str:
    if volumes is None:
        return (
            "Not asked for at this size: an answer takes minutes. Write"
            " --size sgd_selection.small.parents=6."
        )
    mine = volumes.isel(end=volumes["case"].values == f"volume-{SMALL}")
    refused = int((mine[f"{name}_status"].values == "refused").sum())
    told = f"{refused} of {mine.sizes['end']} ends were refused a number."
    return told if found else f"Fewer than two parents have numbers at both ends: {told}"


def end_difference(volumes: xr.Dataset, case: str, name: str, units: str) -> Statistic | None:
    """
    Estimate what the most noise has more than the least, over parents that have both.

    Parameters
    ----------
    volumes : xarray.Dataset
        Along ``end``: ``case``, ``parent``, ``rung``, and `name`, ``name_low``, ``name_high``.
    case, name : str
        Which ends, which of both instruments.
    units : str
        Of it.

    Returns
    -------
    Statistic or None
        Its interval reaches from that of the least differences to that of the most.
    """
    mine = volumes.isel(end=volumes["case"].values == case)
    rows = []
    for parent in np.unique(mine["parent"].values):
        own = mine.isel(end=mine["parent"].values == parent).sortby("rung")
        quiet, noisy = (
            {end: float(own[name + end].values[place]) for end in ("", "_low", "_high")}
            for place in (0, -1)
        )
        rows.append(
            (
                noisy["_low"] - quiet["_high"],
                noisy[""] - quiet[""],
                noisy["_high"] - quiet["_low"],
            )
        )
    known = [row for row in rows if np.isfinite(row).all()]
    if len(known) < 2:
        return None
    parents = np.arange(len(known))
    words = f"{name} at the most noise less that at the least"
    low, middle, high = (
        cluster_mean(words, column, parents, units=units) for column in zip(*known, strict=True)
    )
    method = f"least and most that it can be, each with {low.method}"
    return Statistic(words, middle.value, low.low, high.high, units, method, low.n)
