"""Polynomials in place of the ReLU: whether such networks train and test like the ReLU's."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from thalweg.polynomial import fit_polynomial
from thalweg.polynomial.fit import Method
from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.claim import Claim
from thalweg.studies.curves import gather_curves
from thalweg.studies.parents import on_draw
from thalweg.studies.polynomial_activations_claims import (
    CONTROL,
    ERRORS,
    RELU,
    difference,
    judge,
    rules,
)
from thalweg.studies.preflight import Sizes, set_by_hand, too_few_for_a_mean
from thalweg.studies.trainings import trunk_task

if TYPE_CHECKING:
    import xarray as xr

RUNS, CURVES, EXCURSIONS, FITS = RESULTS = tuple(
    f"polynomial_activations/{name}" for name in ("runs", "curves", "excursions", "fits")
)

__all__ = ["SIZES", "assemble", "claims", "faults", "rules", "tasks"]

# The same recipe for every network. Gradients are clipped: a polynomial of degree 10 that is left
# by one pre-activation gives a gradient thousands of times too large. `allowed` is how much more
# error than the ReLU network's is no difference that matters: on digits, where that network's own
# test error is 0.02, a quarter of it.
_RECIPE = {"margin": 2.0, "clip": 1.0, "small_radius": 1.0}
SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "parents": 8,
        "degrees": [2, 10],
        "epochs": 8,
        "checkpoints": 4,
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
# Beyond 1.5 times its interval a degree of 10 is off by more than a hundred times the radius.
_LEFT = 1.5


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the trainings: every activation from every seed.

    There are none for a problem of one's own, whose activations are not known.
    """
    return [task for _, task in _trainings(config)]


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather the trainings and the errors of the fits.

    What is returned says for each activation how its trainings ended, and how they differ from the
    ReLU's.
    """
    outcomes = [
        (name, task, outcome)
        for name, task in _trainings(config)
        if (outcome := task_result(run, task))
    ]
    if not outcomes:
        return {}
    runs = _runs(outcomes)
    run.save_result(RUNS, runs)
    curves = gather_curves([(task, outcome) for _, task, outcome in outcomes])
    names = {task.arguments["trajectory"]: name for name, task, _ in outcomes}
    activations = [names[str(trajectory)] for trajectory in curves["trajectory"].values]
    run.save_result(CURVES, curves.assign_coords(activation=("record", activations)))
    run.save_result(EXCURSIONS, _excursions(outcomes))
    run.save_result(FITS, _fits(config["polynomial_activations"]["degrees"]))
    return {name: _summary(runs, name) for name in dict.fromkeys(name for name, _, _ in outcomes)}


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge whether networks of degree 10 train and test as well, within their intervals."""
    return judge(run.result(RUNS) if run.has_result(RUNS) else None, config)


def faults(config: dict[str, Any], sizes: Sizes) -> list[str]:
    """Find why polynomials could not be compared with the ReLU."""
    if not _applies(config):
        return []
    study = config["polynomial_activations"]
    missing = [degree for degree in (2, 10) if degree not in study["degrees"]]
    messages = [
        *too_few_for_a_mean("polynomial_activations.parents", study["parents"]),
        *set_by_hand(config, "activation", "the study puts polynomials for the ReLU", but="relu"),
    ]
    if missing:
        messages.append(
            f"polynomial_activations.degrees = {study['degrees']}: its claims are of degree 10 and"
            f" a control of degree 2; write {sorted({*study['degrees'], *missing})}."
        )
    return messages


def _trainings(config: dict[str, Any]) -> list[tuple[str, Task]]:
    if not _applies(config):
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


def _applies(config: dict[str, Any]) -> bool:
    return config["problem"]["entry"] in ("digits", "cifar10")


def _slug(name: str) -> str:
    return "narrow" if name == CONTROL else name.lower().replace(" ", "")


def _runs(outcomes: list[tuple[str, Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    rows = [
        {"activation": name, "seed": task.arguments["seed"]} | _measured(outcome)
        for name, task, outcome in outcomes
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
    figures = {"mean_error": errors[1:].mean() if len(errors) > 1 else np.nan}
    figures |= {"error": outcome["error"][-1], "test_error": outcome["test_error"][-1]}
    figures = {key: 1.0 if diverged else float(value) for key, value in figures.items()}
    factors = outcome.get("excursion_factor", np.zeros(1))
    largest = float(np.max(factors, initial=0.0))
    left = diverged or largest > _LEFT
    status = "left the interval" if left and "excursion_factor" in outcome else outcome["status"]
    return figures | {
        "status": status,
        "seen": int(np.sum(outcome.get("excursion_seen", 0))),
        "outside": int(np.sum(outcome.get("excursion_outside", 0))),
        "factor": largest,
    }


def _excursions(outcomes: list[tuple[str, Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    watched = [entry for entry in outcomes if "excursion_step" in entry[2]]
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
    trainings = runs.sel(activation=name)
    figures = {
        "error": float(trainings["error"].mean()),
        "test_error": float(trainings["test_error"].mean()),
        "status": dict(Counter(trainings["status"].values.tolist())),
    }
    if name == RELU:
        return figures
    apart = {kind: difference(runs, name, kind) for kind in ERRORS}
    return figures | {
        "outside": int(trainings["outside"].sum()) / max(1, int(trainings["seen"].sum())),
        "difference": {
            kind: statistic and statistic.to_dict() for kind, statistic in apart.items()
        },
    }
