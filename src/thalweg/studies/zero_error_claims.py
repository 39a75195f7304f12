"""The claims of the study of zero error, judged by its saved cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.equations import COUNTS, RATIOS
from thalweg.studies.intervals import exact, share

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

# Stated before anything was measured.
ZERO = Rule(high=0)
MOST = Rule(low=0.5)
LABELS = ("true", "random")
_SOURCE = "Liao and Poggio, Theory II (2017), abstract: overparametrized networks reach zero error"
_INAPPLICABLE = (
    "The study varies widths and labels of the built-in image problems; this run's problem is its "
    "own."
)


def judge(cells: xr.Dataset | None, networks: Mapping[str, dict[str, Any]]) -> list[Claim]:
    """
    Judge every network at full size that is no control, and the sweep for each kind of labels.

    Parameters
    ----------
    cells : xarray.Dataset or None
        ``zero_error/cells``; None where the study does not apply.
    networks : mapping
        Of the configuration.

    Returns
    -------
    list of Claim
        Those of the networks first.
    """
    own = [
        _network_claim(name, network["labels"], cells)
        for name, network in networks.items()
        if "control" not in network
    ]
    return own + ([] if cells is None else [_sweep_claim(labels, cells) for labels in LABELS])


def chosen(cells: xr.Dataset, **wanted: str) -> xr.Dataset:
    """Pick the cells whose coordinates have the values wanted."""
    keep = np.all([cells[key].values == value for key, value in wanted.items()], axis=0)
    return cells.isel(cell=np.flatnonzero(keep))


def _network_claim(name: str, labels: str, cells: xr.Dataset | None) -> Claim:
    mine = None if cells is None else _trained(cells, name)
    return Claim(
        name=f"zero_error/{name}",
        statement="A network with more weights than training samples, W > N, reaches exactly "
        f"zero training error on {labels} labels.{_sizes(mine)}",
        source=_SOURCE,
        protocol="Train by SGD from random weights until no training sample is misclassified, at "
        "most for the epochs of the preset; count all training samples misclassified at the end, "
        "batch-norm statistics re-estimated on the training set.",
        statistic=None if mine is None or not _is_large(mine) else _missed(mine),
        rule=ZERO,
        controls=() if cells is None else tuple(_narrow(cells, labels)),
        section="zero_error",
        why=_INAPPLICABLE if mine is None else _remark(mine),
    )


def _sweep_claim(labels: str, cells: xr.Dataset) -> Claim:
    mine = chosen(cells, part="sweep", labels=labels)
    ratios = {key: mine[key].values for key in COUNTS}
    samples = int(mine["samples"].values[0])
    return Claim(
        name=f"zero_error/sweep-{labels}-labels",
        statement="More weights than inequalities N (C - 1) are enough: most networks that have "
        f"them reach exactly zero training error on {labels} labels.",
        source=_SOURCE,
        protocol=f"Train networks of {len(set(mine['weights'].values))} widths on {samples} "
        "samples, each width from several seeds, each seed with its own samples"
        f"{' and random labels' if labels == 'random' else ''}, until none is misclassified or "
        "the epochs of the preset are over; count the networks with W > N (C - 1) that reach zero.",
        statistic=_reached(mine, ratios["per_inequality"] > 1),
        rule=MOST,
        controls=(
            Control(
                "Networks with fewer weights than samples, W < N: too few by every count.",
                _reached(mine, ratios["per_sample"] < 1),
            ),
        ),
        section="zero_error",
        why="" if (ratios["per_inequality"] > 1).any() else "No network of the sweep is so large.",
    )


def _trained(cells: xr.Dataset, name: str) -> xr.Dataset:
    """Pick the trainings of one network: its seeds."""
    ends = [f"{name}-seed{seed}" for seed in cells["seed"].values]
    return cells.isel(cell=np.flatnonzero(cells["name"].values == ends))


def _is_large(mine: xr.Dataset) -> bool:
    return bool((mine["per_sample"].values > 1).all())


def _missed(mine: xr.Dataset) -> Statistic:
    seen = int(mine["samples"].sum())
    missed = int(mine["misclassified"].sum())
    return exact("training samples misclassified", missed, units=f"of {seen:,} samples", n=seen)


def _reached(mine: xr.Dataset, among: NDArray[np.bool_]) -> Statistic | None:
    if not among.any():
        return None
    zero = mine["misclassified"].values[among] == 0
    return share("networks that reach zero training error", int(zero.sum()), zero.size)


def _narrow(cells: xr.Dataset, labels: str) -> Iterator[Control]:
    networks = chosen(cells, part="control", labels=labels)
    for weights in dict.fromkeys(networks["weights"].values.tolist()):
        mine = networks.isel(cell=np.flatnonzero(networks["weights"].values == weights))
        few = bool((mine["per_sample"].values < 1).all())
        yield Control(
            f"The same training of a network of {weights:,} weights, fewer than samples.",
            _missed(mine) if few else None,
        )


def _sizes(mine: xr.Dataset | None) -> str:
    if mine is None:
        return ""
    first = mine.isel(cell=0)
    ratios = ", ".join(f"{words} = {float(first[key]):.3g}" for key, words in RATIOS.items())
    return f" Here W = {int(first['weights']):,} and N = {int(first['samples']):,}: {ratios}."


def _remark(mine: xr.Dataset) -> str:
    if not _is_large(mine):
        return "The network has no more weights than samples: the claim is not of it."
    tests = mine["test_error"].values
    return "" if np.isnan(tests).any() else f"Test error {float(tests.mean()):.3f}."
