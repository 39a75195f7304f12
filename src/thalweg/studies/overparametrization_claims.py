"""The verdicts on overparametrization: what more weights change, on true and on random labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.intervals import cluster_share, exact
from thalweg.studies.invariant_measures import FLATNESS
from thalweg.studies.trends import SHUFFLES, THIRD, trend_statistic

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

LABELS = ("true", "random")
# Stated before anything was judged.
RULES = {
    "zero-error": Rule(low=0.5),
    "full-rank": Rule(low=0.0, high=0.0),
    "flatter": THIRD,
    "margin": THIRD,
    "test-error": THIRD,
}
_SECTION = "overparametrization"
_SOURCE = (
    "Liao and Poggio (2017): overparametrized networks reach zero error at degenerate, robust "
    "minimizers"
)
_TRAINED = (
    "Networks of several widths are trained by SGD with the same settings on each draw of samples, "
    "labels and initial weights, until their loss is at one level, or time is over. "
)
_TREND = (
    "Of the pairs of widths that came to the level, those of which the wider is better by more "
    "than the measure's tolerance, less those of which it is worse. "
)
_DRAWS = "Draws are the sample: networks of several widths on one are not independent."
_INAPPLICABLE = (
    "The study varies widths and labels of the built-in image problems; this run's problem is its "
    "own."
)


def judge(own: Mapping[str, xr.Dataset], config: dict[str, Any]) -> list[Claim]:
    """
    Judge all claims.

    Parameters
    ----------
    own : mapping
        The networks by labels, ``"true"`` and ``"random"``; empty where the study does not apply.
    config : dict
        As `thalweg.studies.configure` writes it.
    """
    return [
        _zero_error(own.get("random")),
        _full_rank(own.get("true")),
        _trend("flatter", own, config),
        _trend("margin", own, config),
        _trend("test-error", own, config),
    ]


def _zero_error(cells: xr.Dataset | None) -> Claim:
    large = None if cells is None else cells["weights"].values > 2 * cells["inequalities"].values
    few = None if cells is None else cells["weights"].values < cells["samples"].values
    return Claim(
        name="overparametrization/zero-error",
        statement="Networks with more than twice as many weights as inequalities, "
        "W > 2 N (C - 1), reach exactly zero training error on random labels, on most draws.",
        source=_SOURCE,
        protocol=_TRAINED + "Counted are misclassified training samples at the end. " + _DRAWS,
        statistic=_reached(cells, large),
        rule=RULES["zero-error"],
        controls=(
            Control("Networks with fewer weights than samples, W < N.", _reached(cells, few)),
        ),
        section=_SECTION,
        why=_INAPPLICABLE if cells is None else "" if np.any(large) else "No network is so large.",
    )


def _reached(cells: xr.Dataset | None, among: NDArray[np.bool_] | None) -> Statistic | None:
    if cells is None or among is None or not among.any():
        return None
    mine = cells.isel(end=among)
    name = "share of draws on which networks reach zero training error"
    return cluster_share(name, mine["misclassified"].values == 0, mine["parent"].values)


def _full_rank(cells: xr.Dataset | None) -> Claim:
    measured = None
    if cells is not None:
        large = cells["weights"].values >= 2 * cells["equations"].values
        measured = cells.isel(end=large & np.isfinite(cells["rank"].values))
    return Claim(
        name="overparametrization/full-rank",
        statement="Where W is at least twice the number M of outputs of all samples, the nullity "
        "of the Jacobian at the end of training is W - M exactly: counting explains all of it.",
        source="Liao and Poggio (2017): with W > N the zero-minimizers are degenerate, of dimension"
        " W - N",
        protocol=_TRAINED + "The rank is taken from the eigenvalues of J J^T in float64; the "
        "largest difference of W - rank to W - M over the networks.",
        statistic=_missing(measured, "rank"),
        rule=RULES["full-rank"],
        controls=(
            Control(
                "A tenth of the samples stand twice: equations depend on one another.",
                _missing(measured, "rank_repeated"),
            ),
        ),
        section=_SECTION,
        why=_INAPPLICABLE if measured is None else "" if measured.sizes["end"] else "None is so.",
    )


def _missing(cells: xr.Dataset | None, name: str) -> Statistic | None:
    if cells is None or not cells.sizes["end"]:
        return None
    missing = cells["equations"].values - cells[name].values
    worst = float(missing[np.abs(missing).argmax()])
    words = "nullity minus (W - M), where it differs most"
    return exact(words, worst, units="directions", n=len(missing))


_TRENDS = {
    "flatter": (
        FLATNESS,
        "The wider the network, the more robust to relative noise of its weights, at equal "
        "training loss, true labels.",
        "the mean of four measures that rescaling of layers leaves alone",
    ),
    "margin": (
        ("margin",),
        "The wider the network, the larger the margin that nine samples of ten have, in units of "
        "how far outputs spread, at equal training loss, true labels.",
        "one measure",
    ),
    "test-error": (
        ("test_error",),
        "The wider the network, the lower its test error, at equal training loss, true labels.",
        "the test error",
    ),
}


def _trend(name: str, own: Mapping[str, xr.Dataset], config: dict[str, Any]) -> Claim:
    measures, statement, words = _TRENDS[name]
    cells = own.get("true")
    found = None if cells is None else trend_statistic(cells, measures)
    controls = [
        Control(
            f"The same networks with their widths shuffled, {SHUFFLES} times on each draw.",
            None if cells is None else trend_statistic(cells, measures, shuffle=config["seed"]),
        )
    ]
    if name == "test-error":
        controls.append(
            Control(
                "The same networks on test images whose labels are shuffled among them.",
                _on_shuffled_labels(cells),
            )
        )
    missing = "Fewer than two draws have two networks at the level."
    return Claim(
        name=f"overparametrization/{name}",
        statement=statement,
        source=_SOURCE,
        protocol=f"{_TRAINED}{_TREND}Taken is {words}. {_DRAWS}",
        statistic=found,
        rule=RULES[name],
        controls=tuple(controls),
        section=_SECTION,
        why=_INAPPLICABLE if cells is None else _reached_level(cells) if found else missing,
    )


def _on_shuffled_labels(cells: xr.Dataset | None) -> Statistic | None:
    if cells is None or "shuffled_test_error" not in cells:
        return None
    return trend_statistic(cells.assign(test_error=cells["shuffled_test_error"]), ("test_error",))


def _reached_level(cells: xr.Dataset) -> str:
    missed = int((cells["status"].values != "at level").sum())
    return f"{missed} of {cells.sizes['end']} networks did not come to the level and do not count."
