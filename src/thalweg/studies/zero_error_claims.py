"""The claims of the study of zero error, judged by its saved cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.equations import RATIOS
from thalweg.studies.intervals import cluster_share
from thalweg.studies.parents import has_draws

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

# Stated before anything was measured.
MOST = Rule(low=0.5)
LABELS = ("true", "random")
_SOURCE = "Liao and Poggio, Theory II (2017), abstract: overparametrized networks reach zero error"
_INAPPLICABLE = (
    "The study varies widths and labels of the built-in image problems; this run's problem is its "
    "own."
)


def judge(cells: xr.Dataset | None, config: dict[str, Any]) -> list[Claim]:
    """
    Judge every network at full size that is no control, and the sweep for each kind of labels.

    Parameters
    ----------
    cells : xarray.Dataset or None
        ``zero_error/cells``; None where the study does not apply.
    config : dict
        As `thalweg.studies.configure` writes it.

    Returns
    -------
    list of Claim
        Those of the networks first.
    """
    own = [
        _network_claim(name, network["labels"], cells, config)
        for name, network in config["zero_error"]["networks"].items()
    ]
    return own + ([] if cells is None else [_sweep_claim(labels, cells) for labels in LABELS])


def chosen(cells: xr.Dataset, **wanted: str) -> xr.Dataset:
    """Pick the cells whose coordinates have the values wanted."""
    keep = np.all([cells[key].values == value for key, value in wanted.items()], axis=0)
    return cells.isel(cell=np.flatnonzero(keep))


def _network_claim(
    name: str, labels: str, cells: xr.Dataset | None, config: dict[str, Any]
) -> Claim:
    trainings = None if cells is None else _trained(cells, name)
    drawn = " of samples," if has_draws(config) else " of"
    return Claim(
        name=f"zero_error/{name}",
        statement=f"The network of the run, which has more weights than training samples, W > N, "
        f"reaches exactly zero training error on {labels} labels on most draws{drawn} labels and "
        f"initial weights.{_sizes(trainings)}",
        source=_SOURCE,
        protocol="Train by SGD from random weights until no training sample is misclassified, at "
        "most for the epochs of the preset; count all training samples misclassified at the end, "
        "batch-norm statistics re-estimated on the training set. Draws are the sample. Controls "
        "get as many epochs, on the same draws.",
        statistic=None if trainings is None or not _is_large(trainings) else _reached(trainings),
        rule=MOST,
        controls=() if cells is None else tuple(_narrow(cells, labels)),
        section="zero_error",
        why=_INAPPLICABLE if trainings is None else _remark(trainings),
    )


def _sweep_claim(labels: str, cells: xr.Dataset) -> Claim:
    sweep = chosen(cells, part="sweep", labels=labels)
    samples = int(sweep["samples"].values[0])
    ratio, inequality = sweep["per_sample"].values, sweep["per_inequality"].values
    just_more = ratio == ratio[ratio >= 1].min(initial=np.inf)
    near = [("just more weights than samples", _reached(sweep, just_more))]
    if labels == "random":
        just_fewer = inequality == inequality[inequality < 1].max(initial=0.0)
        near.append(("just fewer weights than inequalities", _reached(sweep, just_fewer)))
    return Claim(
        name=f"zero_error/sweep-{labels}-labels",
        statement="More weights than inequalities N (C - 1) are enough: most networks that have "
        f"them reach exactly zero training error on {labels} labels.",
        source=_SOURCE,
        protocol=f"Train networks of {len(set(sweep['weights'].values))} widths on each of several "
        f"draws of {samples} samples{', random labels' if labels == 'random' else ''} and initial "
        "weights, until none is misclassified or the epochs of the preset are over; the share of "
        "the networks with W > N (C - 1) that reach zero. Draws are the sample: networks of "
        "several widths on one draw are one trial.",
        statistic=_reached(sweep, inequality > 1),
        rule=MOST,
        controls=(
            Control(
                "Networks with fewer weights than samples, W < N: too few by every count.",
                _reached(sweep, ratio < 1),
            ),
            *(Control(f"Networks with {words}.", reached, near=True) for words, reached in near),
        ),
        section="zero_error",
        why="" if (inequality > 1).any() else "No network of the sweep is so large.",
    )


def _trained(cells: xr.Dataset, name: str) -> xr.Dataset:
    """Pick the trainings of one network: its seeds."""
    ends = [f"{name}-seed{seed}" for seed in cells["seed"].values]
    return cells.isel(cell=np.flatnonzero(cells["name"].values == ends))


def _is_large(trainings: xr.Dataset) -> bool:
    return bool((trainings["per_sample"].values > 1).all())


def _reached(trainings: xr.Dataset, among: NDArray[np.bool_] | None = None) -> Statistic | None:
    if among is not None:
        trainings = trainings.isel(cell=np.flatnonzero(among))
    if not trainings.sizes["cell"]:
        return None
    name = "share of draws on which networks reach zero training error"
    return cluster_share(name, trainings["misclassified"].values == 0, trainings["seed"].values)


def _narrow(cells: xr.Dataset, labels: str) -> Iterator[Control]:
    for kind in ("control", "near"):
        networks = chosen(cells, part=kind, labels=labels)
        for weights in dict.fromkeys(networks["weights"].values.tolist()):
            trainings = networks.isel(cell=np.flatnonzero(networks["weights"].values == weights))
            ratio, missed = (
                float(trainings["per_sample"].mean()),
                float(trainings["misclassified"].mean()),
            )
            far = "far fewer" if kind == "control" else "just fewer" if ratio < 1 else "just more"
            yield Control(
                f"The same training of a network of {weights:,} weights, {far} than samples "
                f"(W / N = {ratio:.3g}). It misclassifies {missed:,.1f} in the mean.",
                _reached(trainings) if kind == "near" or ratio < 1 else None,
                near=kind == "near",
            )


def _sizes(trainings: xr.Dataset | None) -> str:
    if trainings is None:
        return ""
    first = trainings.isel(cell=0)
    ratios = ", ".join(f"{words} = {float(first[key]):.3g}" for key, words in RATIOS.items())
    return f" Here W = {int(first['weights']):,} and N = {int(first['samples']):,}: {ratios}."


def _remark(trainings: xr.Dataset) -> str:
    if not _is_large(trainings):
        return "The network has no more weights than samples: the claim is not of it."
    most = int(trainings["misclassified"].max())
    tests = trainings["test_error"].values
    test = "" if np.isnan(tests).any() else f"; mean test error {float(tests.mean()):.3f}"
    return f"At most {most:,} of {int(trainings['samples'].values[0]):,} are misclassified{test}."
