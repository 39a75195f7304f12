"""Claim 4 of the paper: zero-minimizers of overparametrized networks are degenerate; proved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.claim import Claim, Rule
from thalweg.studies.degeneracy_claims import RULES, judge
from thalweg.studies.preflight import Sizes, too_few_for_a_share

if TYPE_CHECKING:
    import xarray as xr

ZEROS, SPLIT, SPECTRA, BOXES = (
    f"degeneracy/{name}" for name in ("zeros", "split", "spectra", "boxes")
)
# Networks to certify, small ones whose Hessian is written out, classifiers for a box. Shares are of
# `networks`; exact numbers need but a `few`. `units` is how long one takes, in tenths of an epoch
# of the trainings.
SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "networks": 8,
        "few": 3,
        "zeros": {"samples": 50, "outputs": 9, "width": 32, "activation": "tanh", "units": 8},
        "hessian": {"samples": 8, "outputs": 3, "width": 8, "activation": "tanh", "units": 4},
        "boxes": {"samples": 100, "width": 16, "epochs": 40, "units": 4},
    },
    "laptop": {
        "networks": 6,
        "few": 3,
        "zeros": {"samples": 200, "outputs": 9, "width": 256, "activation": "tanh", "units": 10},
        "hessian": {"samples": 16, "outputs": 3, "width": 16, "activation": "tanh", "units": 4},
        "boxes": {"samples": 1400, "width": 64, "epochs": 60, "units": 5},
    },
    "paper": {
        "networks": 6,
        "few": 3,
        "zeros": {"samples": 500, "outputs": 9, "width": 256, "activation": "poly10", "units": 90},
        "hessian": {"samples": 16, "outputs": 3, "width": 16, "activation": "tanh", "units": 4},
        "boxes": {"samples": 1400, "width": 512, "epochs": 60, "units": 10},
    },
}
# The cases of the protocol: the networks themselves, and those for which the claims are wrong.
CASES = ("network", "narrow", "below", "above", "contradictory", "early", "repeated")
_MEASURES = "thalweg.studies.degeneracy_measures"
_UNITS = {
    "residual": "Euclidean norm of outputs minus targets",
    "singular_value": "output per unit of weights",
    "lipschitz": "output per squared unit of weights",
    "radius": "Euclidean distance in weights",
    "distance": "Euclidean distance in weights",
    "threshold": "eigenvalue of J J^T",
    "above": "eigenvalue of J J^T",
    "below": "eigenvalue of J J^T",
}


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the networks to train, certify and measure, each case once a seed.

    The study runs on digits whatever the problem is: proofs take the square of the number of
    equations.
    """
    study = config["degeneracy"]
    seeds = [config["seed"] + seed for seed in range(study["networks"])]
    few = seeds[: study["few"]]
    parts = [("zero", "zeros", case, seeds) for case in CASES if case != "repeated"] + [
        ("zero", "zeros", "repeated", few),
        ("hessian", "hessian", "network", few),
        ("hessian", "hessian", "early", few),
        ("box", "boxes", "network", seeds),
        ("box", "boxes", "contradictory", seeds),
    ]
    return [
        _task(measure, part, study, case, seed)
        for measure, part, case, chosen in parts
        for seed in chosen
    ]


def _task(measure: str, part: str, study: dict[str, Any], case: str, seed: int) -> Task:
    sizes = {key: value for key, value in study[part].items() if key != "units"}
    label = f"{'network' if case == 'network' else case + ' network'} {seed} ({measure})"
    units = 2 if case == "early" else study[part]["units"]
    return Task(
        f"{_MEASURES}:measure_{measure}",
        {"case": case, "seed": seed, **sizes},
        label=label,
        units=units,
    )


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather certificates, ranks and boxes, and save them as ``degeneracy/...``.

    What is returned says how many networks of each case were certified, and how many boxes.
    """
    outcomes = [(task, outcome) for task in tasks(config) if (outcome := task_result(run, task))]
    zeros = [(task, outcome) for task, outcome in outcomes if not task.function.endswith("box")]
    boxes = [(task, outcome) for task, outcome in outcomes if task.function.endswith("box")]
    run.save_result(ZEROS, _table(zeros, "network"))
    run.save_result(BOXES, _table(boxes, "network"))
    run.save_result(SPLIT, _split(zeros))
    run.save_result(SPECTRA, _spectra(zeros))
    certified = {
        case: sum(
            outcome["verdict"] == "certified"
            for task, outcome in zeros
            if task.arguments["case"] == case and task.function.endswith("zero")
        )
        for case in CASES
    }
    return {
        "certified": certified,
        "boxes": sum(outcome["half_width"] > 0 for _, outcome in boxes),
        "networks": config["degeneracy"]["networks"],
    }


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge by what `assemble` saved: certified shares, nullities, boxes."""
    return judge(run.result(ZEROS), run.result(BOXES))


def rules(config: dict[str, Any]) -> dict[str, Rule]:
    """Give the rules, which no configuration changes."""
    return RULES


def faults(config: dict[str, Any], sizes: Sizes) -> list[str]:
    """Find why certificates could not decide: too few networks, or too few weights."""
    study = config["degeneracy"]
    messages = too_few_for_a_share("degeneracy.networks", study["networks"], RULES["certified"].low)
    if not 1 <= study["few"] <= study["networks"]:
        messages.append(
            f"degeneracy.few = {study['few']}: it is a number of the networks; write one from 1 to"
            f" {study['networks']}."
        )
    for part in ("zeros", "hessian"):
        width, samples, outputs = (study[part][key] for key in ("width", "samples", "outputs"))
        least = (samples * outputs - outputs) // (65 + outputs) + 1
        if width < least:
            messages.append(
                f"degeneracy.{part}.width = {width}: fewer weights than the {samples * outputs:,}"
                f" equations; write {least} or more, or fewer degeneracy.{part}.samples."
            )
    return messages


def _table(outcomes: list[tuple[Task, dict[str, Any]]], dimension: str) -> xr.Dataset:
    import xarray as xr

    rows = [
        {
            "case": task.arguments["case"],
            "seed": task.arguments["seed"],
            "measure": task.function.rpartition("_")[2],
            **{k: v for k, v in outcome.items() if not isinstance(v, np.ndarray)},
        }
        for task, outcome in outcomes
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    dataset = xr.Dataset(
        {name: (dimension, np.array([row.get(name, np.nan) for row in rows])) for name in names}
    )
    for name in set(_UNITS) & set(names):
        dataset[name].attrs["units"] = _UNITS[name]
    return dataset.set_coords(["case", "seed", "measure"])


def _split(outcomes: list[tuple[Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    rows = [(task, outcome) for task, outcome in outcomes if "split" in outcome]
    return xr.Dataset(
        {"directions": (("network", "cause"), np.array([outcome["split"] for _, outcome in rows]))},
        coords={
            "cause": rows[0][1]["causes"].tolist() if rows else [],
            "case": ("network", [task.arguments["case"] for task, _ in rows]),
            "seed": ("network", [task.arguments["seed"] for task, _ in rows]),
        },
        attrs={"units": "directions of weight space"},
    )


def _spectra(outcomes: list[tuple[Task, dict[str, Any]]]) -> xr.Dataset:
    """Eigenvalues of J J^T, a row a network, NaN behind the last."""
    import xarray as xr

    rows = [(task, outcome) for task, outcome in outcomes if "eigenvalues" in outcome]
    most = max((len(outcome["eigenvalues"]) for _, outcome in rows), default=0)
    values = np.full((len(rows), most), np.nan)
    for line, (_, outcome) in zip(values, rows, strict=True):
        line[: len(outcome["eigenvalues"])] = outcome["eigenvalues"]
    thresholds = [outcome["threshold"] for _, outcome in rows]
    return xr.Dataset(
        {"eigenvalue": (("network", "index"), values), "threshold": ("network", thresholds)},
        coords={
            "case": ("network", [task.arguments["case"] for task, _ in rows]),
            "seed": ("network", [task.arguments["seed"] for task, _ in rows]),
        },
        attrs={"units": "squared output per squared unit of weights"},
    )
