"""Polynomials in place of the ReLU: whether such networks train and test like the ReLU's."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from thalweg.polynomial import fit_polynomial
from thalweg.polynomial.fit import Method
from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.curves import gather_curves
from thalweg.studies.intervals import cluster_mean, exact
from thalweg.studies.parents import cluster_words, on_draw
from thalweg.studies.trainings import trunk_task

if TYPE_CHECKING:
    import xarray as xr

RUNS, CURVES, EXCURSIONS, FITS = RESULTS = tuple(
    f"polynomial_activations/{name}" for name in ("runs", "curves", "excursions", "fits")
)
RELU, CONTROL = "ReLU", "degree 10, too small an interval"
CLAIMED, NEAR = "degree 10", "degree 2"

# The same recipe for every network. Gradients are clipped: a polynomial of degree 10 that is left
# by one pre-activation gives a gradient thousands of times too large. `allowed` is how much more
# error than the ReLU network's is no difference that matters: on digits, where that network's own
# test error is 0.012, less than half of it.
_RECIPE = {"margin": 2.0, "clip": 1.0, "small_radius": 1.0}
SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "parents": 8,
        "degrees": [2, 10],
        "epochs": 8,
        "checkpoints": 8,
        "allowed": 0.005,
        "keep": False,
        **_RECIPE,
    },
    "laptop": {
        "parents": 3,
        "degrees": [2, 4, 10],
        "epochs": 8,
        "checkpoints": 4,
        "allowed": 0.02,
        "keep": False,
        **_RECIPE,
    },
    "paper": {
        "parents": 3,
        "degrees": [2, 10],
        "epochs": 10,
        "checkpoints": 5,
        "allowed": 0.02,
        "keep": True,
        **_RECIPE,
    },
}
INSIDE = Rule(high=1e-3)
# Beyond 1.5 times its interval a degree of 10 is off by more than a hundred times the radius.
_LEFT = 1.5

_SOURCE = (
    "Liao and Poggio, Theory II (2017), abstract: replacing the ReLU by a polynomial works as well"
)
_PROTOCOL = (
    "Train the preset's network from the same seeds on the same samples with the ReLU and with the "
    "minimax polynomial of each degree in its place, by the same SGD with gradients clipped; the "
    "interval of each layer is twice its largest pre-activation at the start."
)


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the trainings: every activation from every seed.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.

    Returns
    -------
    list of Task
        None for a problem of one's own, whose activations are not known.
    """
    return [task for _, task in _trainings(config)]


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather the trainings and the errors of the fits.

    Parameters
    ----------
    run : Run
        Whose trainings are done.
    config : dict
        The one that `tasks` was given.
    progress : callable
        Not used: there is little to do.

    Returns
    -------
    dict
        For each activation how its trainings ended, and how they differ from the ReLU's.
    """
    done = [
        (name, task, outcome)
        for name, task in _trainings(config)
        if (outcome := task_result(run, task))
    ]
    if not done:
        return {}
    runs = _runs(done)
    run.save_result(RUNS, runs)
    curves = gather_curves([(task, outcome) for _, task, outcome in done])
    names = {task.arguments["trajectory"]: name for name, task, _ in done}
    activations = [names[str(trajectory)] for trajectory in curves["trajectory"].values]
    run.save_result(CURVES, curves.assign_coords(activation=("record", activations)))
    run.save_result(EXCURSIONS, _excursions(done))
    run.save_result(FITS, _fits(config["polynomial_activations"]["degrees"]))
    return {name: _summary(runs, name) for name in dict.fromkeys(name for name, _, _ in done)}


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """
    Judge whether networks of degree 10 train and test as well, and stay in their intervals.

    Parameters
    ----------
    run : Run
        With the results of the study.
    config : dict
        The one that `tasks` was given.

    Returns
    -------
    list of Claim
        Of training and of test error, and of the share of pre-activations outside.
    """
    runs = run.result(RUNS) if run.has_result(RUNS) else None
    return [
        *(_as_well(kind, runs, config) for kind in ("training", "test")),
        _containment(runs, config),
    ]


def rules(config: dict[str, Any]) -> dict[str, Rule]:
    """Give the rules of a configuration: what may be lost by a polynomial is one of its sizes."""
    as_well = Rule(high=config["polynomial_activations"]["allowed"])
    return {"training": as_well, "test": as_well, "interval": INSIDE}


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
        Mean over parents with Student's interval; None where there is no such error.
    """
    values = runs[_ERRORS[kind]].sel(activation=activation) - runs[_ERRORS[kind]].sel(
        activation=RELU
    )
    if not np.isfinite(values.values).all() or values.size < 2:
        return None
    what = "training error over time" if kind == "training" else "final test error"
    name = f"difference in {what} from the ReLU network"
    return cluster_mean(name, values.values, values["seed"].values, units="share")


_ERRORS = {"training": "mean_error", "test": "test_error"}


def _trainings(config: dict[str, Any]) -> list[tuple[str, Task]]:
    if config["problem"]["entry"] not in ("digits", "cifar10"):
        return []
    study = config["polynomial_activations"]
    calibrated = {"radius": "calibrate", "margin": study["margin"]}
    arms: dict[str, dict[str, Any] | None] = {RELU: None}
    arms |= {f"degree {degree}": {"degree": degree} | calibrated for degree in study["degrees"]}
    arms[CONTROL] = {"degree": 10, "radius": study["small_radius"]}
    training = config["training"] | {"clip": study["clip"]}
    return [
        (
            name,
            trunk_task(
                on_draw(config, number) | {"training": training},
                config["seed"] + number,
                epochs=study["epochs"],
                checkpoints=study["checkpoints"],
                name=f"polynomial-{_slug(name)}-seed{config['seed'] + number}",
                keep=study["keep"],
                polynomial=polynomial,
            ),
        )
        for name, polynomial in arms.items()
        for number in range(study["parents"])
    ]


def _slug(name: str) -> str:
    return "narrow" if name == CONTROL else name.lower().replace(" ", "")


def _runs(done: list[tuple[str, Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    rows = [
        {"activation": name, "seed": task.arguments["seed"]} | _measured(outcome)
        for name, task, outcome in done
    ]
    names = list(dict.fromkeys(row["activation"] for row in rows))
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    table = {(row["activation"], row["seed"]): row for row in rows}
    dataset = xr.Dataset(
        {
            key: (("activation", "seed"), [[table[a, s][key] for s in seeds] for a in names])
            for key in ("status", *_UNITS)
        },
        coords={"activation": names, "seed": seeds},
    )
    for key, units in _UNITS.items():
        dataset[key].attrs["units"] = units
    return dataset


_UNITS = {
    "mean_error": "share of training samples misclassified, averaged over training",
    "error": "share of training samples misclassified",
    "test_error": "share of test samples misclassified",
    "seen": "pre-activations in training",
    "outside": "pre-activations in training",
    "factor": "radii",
}


def _measured(outcome: dict[str, Any]) -> dict[str, Any]:
    """Give what a training came to; one that diverged classifies nothing."""
    diverged = outcome["status"] == "diverged"
    errors = outcome["error"][np.isfinite(outcome["error"])]
    # The row before the first step is the same for all.
    found = {"mean_error": errors[1:].mean() if len(errors) > 1 else np.nan}
    found |= {"error": outcome["error"][-1], "test_error": outcome["test_error"][-1]}
    found = {key: 1.0 if diverged else float(value) for key, value in found.items()}
    factors = outcome.get("excursion_factor", np.zeros(1))
    largest = float(np.max(factors, initial=0.0))
    left = diverged or largest > _LEFT
    status = "left the interval" if left and "excursion_factor" in outcome else outcome["status"]
    return found | {
        "status": status,
        "seen": int(np.sum(outcome.get("excursion_seen", 0))),
        "outside": int(np.sum(outcome.get("excursion_outside", 0))),
        "factor": largest,
    }


def _excursions(done: list[tuple[str, Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    watched = [one for one in done if "excursion_step" in one[2]]
    lengths = [len(outcome["excursion_step"]) for _, _, outcome in watched]

    def column(key: str) -> tuple[str, Any]:
        return "record", np.concatenate([outcome[f"excursion_{key}"] for _, _, outcome in watched])

    seeds = np.repeat([task.arguments["seed"] for _, task, _ in watched], lengths)
    names = np.repeat([name for name, _, _ in watched], lengths)
    dataset = xr.Dataset(
        {key: column(key) for key in ("seen", "outside", "factor")},
        coords={
            "step": column("step"),
            "seed": ("record", seeds),
            "activation": ("record", names),
        },
    )
    for key in ("seen", "outside"):
        # Without the word "since", which makes xarray read a date.
        dataset[key].attrs["units"] = "pre-activations after the row before"
    dataset["factor"].attrs["units"] = "radii"
    return dataset


def _fits(degrees: list[int]) -> xr.Dataset:
    """Measure the ReLU's fits on [-1, 1] by each method: on [-r, r] errors are r times as large."""
    import xarray as xr

    methods: tuple[Method, ...] = get_args(Method)
    errors = [
        [fit_polynomial(torch.relu, degree, method=method).error for method in methods]
        for degree in degrees
    ]
    dataset = xr.Dataset(
        {"error": (("degree", "fit"), errors)},
        coords={"degree": degrees, "fit": list(methods)},
    )
    dataset["error"].attrs["units"] = "radii, sup-norm on the interval"
    return dataset


def _summary(runs: xr.Dataset, name: str) -> dict[str, Any]:
    mine = runs.sel(activation=name)
    found = {
        "error": float(mine["error"].mean()),
        "test_error": float(mine["test_error"].mean()),
        "status": dict(Counter(mine["status"].values.tolist())),
    }
    if name == RELU:
        return found
    apart = {kind: difference(runs, name, kind) for kind in _ERRORS}
    return found | {
        "outside": int(mine["outside"].sum()) / max(1, int(mine["seen"].sum())),
        "difference": {kind: one and one.to_dict() for kind, one in apart.items()},
    }


def _as_well(kind: str, runs: xr.Dataset | None, config: dict[str, Any]) -> Claim:
    allowed = config["polynomial_activations"]["allowed"]
    own = float("nan") if runs is None else float(runs[_ERRORS[kind]].sel(activation=RELU).mean())
    judged = runs if not allowed > own else None
    verb, what = (
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
        protocol=f"{_PROTOCOL} Compare {what} parent by parent. {_clusters(config)}",
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
    there = runs is not None and activation in runs["activation"].values
    return difference(runs, activation, kind) if runs is not None and there else None


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
    mine = runs.sel(activation=activation)
    shares = mine["outside"].values / mine["seen"].values
    name = "pre-activations outside their interval, in the training where they are most"
    return exact(name, float(shares.max()), units="share", n=shares.size)
