"""The claims of the study of polynomial activations, judged by its saved trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.intervals import cluster_mean, exact
from thalweg.studies.parents import cluster_words

if TYPE_CHECKING:
    import xarray as xr

RELU, CONTROL = "ReLU", "degree 10, too small an interval"
CLAIMED, NEAR = "degree 10", "degree 2"
# Stated before anything was measured: one pre-activation in a thousand may leave its interval.
INSIDE = Rule(high=1e-3)
ERRORS = {"training": "mean_error", "test": "test_error"}
_SOURCE = (
    "Liao and Poggio, Theory II (2017), abstract: replacing the ReLU by a polynomial works as well"
)
_PROTOCOL = (
    "Train the preset's network from the same seeds on the same samples with the ReLU and with the "
    "minimax polynomial of each degree in its place, by the same SGD with gradients clipped; the "
    "interval of each layer is twice its largest pre-activation at the start."
)


def rules(config: dict[str, Any]) -> dict[str, Rule]:
    """Give the rules of a configuration: what may be lost by a polynomial is one of its sizes."""
    as_well = Rule(high=config["polynomial_activations"]["allowed"])
    return {"training": as_well, "test": as_well, "interval": INSIDE}


def judge(runs: xr.Dataset | None, config: dict[str, Any]) -> list[Claim]:
    """
    Judge whether networks of degree 10 train and test as well, and stay in their intervals.

    Parameters
    ----------
    runs : xarray.Dataset or None
        ``polynomial_activations/runs``; None where the study does not apply.
    config : dict
        As `thalweg.studies.configure` writes it.

    Returns
    -------
    list of Claim
        Of training and of test error, and of the share of pre-activations outside.
    """
    return [
        *(_as_well(kind, runs, config) for kind in ("training", "test")),
        _containment(runs, config),
    ]


def difference(runs: xr.Dataset, activation: str, kind: str) -> Statistic | None:
    """
    Estimate how a network's error differs from the ReLU network's of the same seed.

    Parameters
    ----------
    runs : xarray.Dataset
        ``polynomial_activations/runs``.
    activation : str
        One of its activations.
    kind : {"training", "test"}
        Training error, averaged over the course of training; or test error at its end.

    Returns
    -------
    Statistic or None
        Mean over parents with its interval; None where there is no such error.
    """
    values = runs[ERRORS[kind]].sel(activation=activation) - runs[ERRORS[kind]].sel(activation=RELU)
    if not np.isfinite(values.values).all() or values.size < 2:
        return None
    quantity = "training error over time" if kind == "training" else "final test error"
    name = f"difference in {quantity} from the ReLU network"
    return cluster_mean(name, values.values, values["seed"].values, units="share")


def _as_well(kind: str, runs: xr.Dataset | None, config: dict[str, Any]) -> Claim:
    allowed = config["polynomial_activations"]["allowed"]
    own = float("nan") if runs is None else float(runs[ERRORS[kind]].sel(activation=RELU).mean())
    judged = runs if not allowed > own else None
    verb, errors = (
        ("trains", "training errors, averaged over the course of training,")
        if kind == "training"
        else ("tests", "test errors after the last epoch")
    )
    return Claim(
        name=f"polynomial_activations/{kind}",
        statement=f"A network whose ReLU is replaced by a polynomial of degree 10 {verb} as well "
        f"as the ReLU network: its {kind} error is at most {100 * allowed:g} percentage points "
        f"higher. (The ReLU network's own is {100 * own:.2g}.)",
        source=_SOURCE,
        protocol=f"{_PROTOCOL} Compare {errors} parent by parent. {_clusters(config)}",
        statistic=_if_any(judged, CLAIMED, kind),
        rule=rules(config)[kind],
        controls=(
            Control(
                "A polynomial of degree 10 fitted on an interval that pre-activations leave from "
                "the start.",
                _if_any(judged, CONTROL, kind),
            ),
            Control(
                "Nearly as well: a polynomial of degree 2 by the same recipe.",
                _if_any(judged, NEAR, kind),
                near=True,
            ),
        ),
        section="polynomial_activations",
        why=_not_replaced(runs)
        or (
            f"The ReLU network's own {kind} error is {own:.3g}, less than what the rule allows: "
            f"with polynomial_activations.allowed of at most {own:.1g} it could tell."
            if judged is None
            else ""
        ),
    )


def _not_replaced(runs: xr.Dataset | None) -> str:
    return "" if runs is not None else "The activations of a problem of one's own are not replaced."


def _clusters(config: dict[str, Any]) -> str:
    words = cluster_words(config, config["polynomial_activations"]["parents"])
    return f"Parents are the sample: {words}."


def _if_any(runs: xr.Dataset | None, activation: str, kind: str) -> Statistic | None:
    present = runs is not None and activation in runs["activation"].values
    return difference(runs, activation, kind) if runs is not None and present else None


def _containment(runs: xr.Dataset | None, config: dict[str, Any]) -> Claim:
    return Claim(
        name="polynomial_activations/interval",
        statement="In each of the trainings, pre-activations stay on the interval of a polynomial "
        "of degree 10 that was calibrated before training: at most one in a thousand leaves it.",
        source="The condition under which a polynomial fit stands for the ReLU at all",
        protocol=f"{_PROTOCOL} Count every pre-activation of every training step. The training of "
        "which most leave decides; the claim is of these trainings, and the count exact.",
        statistic=_outside(runs, CLAIMED),
        rule=INSIDE,
        controls=(
            Control(
                "The same polynomial fitted on an interval that is too small.",
                _outside(runs, CONTROL),
            ),
        ),
        section="polynomial_activations",
        why=_not_replaced(runs),
    )


def _outside(runs: xr.Dataset | None, activation: str) -> Statistic | None:
    if runs is None or activation not in runs["activation"].values:
        return None
    trainings = runs.sel(activation=activation)
    shares = trainings["outside"].values / trainings["seen"].values
    name = "pre-activations outside their interval, in the training where they are most"
    return exact(name, float(shares.max()), units="share", n=shares.size)
