"""Zero training error: how many weights an equation reach it, on true and on random labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.claim import Claim, Rule
from thalweg.studies.curves import gather_curves
from thalweg.studies.equations import COUNTS, equations
from thalweg.studies.narrow_networks import CLASSES, samples_of, weights_of, widths_around
from thalweg.studies.preflight import (
    Sizes,
    not_overparametrized,
    set_by_hand,
    too_few_for_a_share,
    too_few_steps,
)
from thalweg.studies.trainings import UNITS_AN_EPOCH, trunk_task
from thalweg.studies.zero_error_claims import MOST, chosen, judge

if TYPE_CHECKING:
    import xarray as xr

CELLS, CURVES = "zero_error/cells", "zero_error/curves"


# A training of each network at the preset's full size on each draw of samples, labels and initial
# weights; of six draws that all do the same, the interval no longer reaches one half. The controls
# get as many epochs as the networks: `narrow` has far fewer weights than samples, two more have
# just fewer and just more. The sweep trains many small networks on few samples; an `epochs_worth`
# of it is what one costs in epochs of the full size, and `cost` what an epoch of a smaller network
# or of fewer samples does, for the estimate of time.
SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "draws": 6,
        "checkpoints": 5,
        "networks": {
            "true-labels": {"labels": "true", "epochs": 30},
            "random-labels": {"labels": "random", "epochs": 50},
        },
        "narrow": [2, 2, 2],
        "sweep": {"draws": 8, "samples": 200, "epochs": 120, "epochs_worth": 3},
    },
    "laptop": {
        "draws": 6,
        "checkpoints": 8,
        "networks": {
            "true-labels": {"labels": "true", "epochs": 30},
            "random-labels": {"labels": "random", "epochs": 50},
        },
        "narrow": [4, 4, 6, 6],
        "sweep": {"draws": 6, "samples": 400, "epochs": 60, "epochs_worth": 1},
    },
    "paper": {
        "draws": 6,
        "checkpoints": 6,
        "networks": {
            "true-labels": {"labels": "true", "epochs": 36},
            # Fewer weights than inequalities: 450,000. Of 10,000 images they are 90,000.
            "random-labels": {"labels": "random", "epochs": 50},
            "random-labels-10000": {
                "labels": "random",
                "epochs": 50,
                "train_size": 10000,
                "cost": 0.2,
            },
        },
        "narrow": [4, 4, 6, 6],
        "sweep": {"draws": 6, "samples": 400, "epochs": 60, "epochs_worth": 0.3},
    },
}
_COSTS = {"narrow": 0.3, "below": 0.45, "above": 0.45}
# Networks of the sweep, from fewer weights than samples to more than outputs of all samples. On
# 200 digits, and on 400 images, one has just fewer weights than samples and one just more, one just
# fewer than inequalities and one just more.
_DIGITS: dict[str, Any] = {
    "settings": {"network": "mlp"},
    "widths": [[2], [3], [4], [8], [16], [23], [24], [32], [64]],
}
_IMAGES: dict[str, Any] = {
    "settings": {"network": "allconv", "test_size": 1000},
    "widths": [
        [1, 1, 1, 1],
        [2, 2, 2, 2],
        [3, 3, 3, 3],
        [3, 3, 3, 4],
        [4, 4, 4, 4],
        [6, 6, 8, 8],
        [11, 11, 11, 9],
        [11, 11, 11, 10],
        [12, 12, 16, 16],
        [16, 16, 20, 20],
    ],
}
_SWEEP_BATCH = 20
_SHARES = {"true": 0.0, "random": 1.0}

_UNITS = {
    **dict.fromkeys(COUNTS, "weights an equation"),
    "misclassified": "training samples",
    "test_error": "share of test samples misclassified",
    "loss": "mean loss a sample",
    "epochs": "epochs",
}


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the trainings of the study: the networks at full size, and the sweep over widths.

    There are none for a problem that is not one of images: its widths and labels cannot be chosen.
    """
    if not _applies(config):
        return []
    study = config["zero_error"]
    networks = study["networks"] | _controls(config)
    whole = [
        _network_task(config, name, network, draw)
        for name, network in networks.items()
        for draw in range(study["draws"])
    ]
    family = _family(config)
    cells = [
        _cell_task(config, family["settings"], widths, labels, draw)
        for labels in _SHARES
        for widths in family["widths"]
        for draw in range(study["sweep"]["draws"])
    ]
    return whole + cells


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather how far each training came, and save it as ``zero_error/cells`` and ``.../curves``.

    What is returned says for each network at full size what it came to, and for each kind of labels
    from how many weights an equation on every network of the sweep reached zero error.
    """
    outcomes = [(task, outcome) for task in tasks(config) if (outcome := task_result(run, task))]
    if not outcomes:
        return {}
    cells = _cells(outcomes)
    run.save_result(CELLS, cells)
    first = [
        (task, outcome) for task, outcome in outcomes if task.arguments["seed"] == config["seed"]
    ]
    run.save_result(CURVES, gather_curves([pair for pair in first if _part_of(pair[0]) != "sweep"]))
    whole = cells.isel(cell=np.flatnonzero(cells["part"].values != "sweep"))
    return {
        "networks": {
            str(row["name"].values): {
                key: row[key].item() for key in (*COUNTS, "misclassified", "test_error", "epochs")
            }
            for row in (whole.isel(cell=i) for i in range(whole.sizes["cell"]))
        },
        "reached_from": {labels: reached_from(cells, labels) for labels in _SHARES},
    }


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge how far each network at full size came, and the sweep with each kind of labels."""
    cells = run.result(CELLS) if run.has_result(CELLS) else None
    return judge(cells, config)


def rules(config: dict[str, Any]) -> dict[str, Rule]:
    """Give the rules of a configuration: one for all networks, and for the sweeps."""
    networks = [*config["zero_error"]["networks"], *(f"sweep-{name}-labels" for name in _SHARES)]
    return dict.fromkeys(networks, MOST)


def faults(config: dict[str, Any], sizes: Sizes) -> list[str]:
    """Find why zero error could not be reached, or its controls be none."""
    if not _applies(config):
        return []
    study, problem = config["zero_error"], config["problem"]
    batch, narrow = config["training"]["batch_size"], weights_of(problem, study["narrow"])
    messages = [
        *too_few_for_a_share("zero_error.draws", study["draws"], MOST.low),
        *too_few_for_a_share("zero_error.sweep.draws", study["sweep"]["draws"], MOST.low),
        *not_overparametrized(sizes),
        *set_by_hand(config, "random_labels", "the study draws random labels itself", but=0.0),
    ]
    for name, network in study["networks"].items():
        setting, samples = f"zero_error.networks.{name}.epochs", sizes.samples
        samples = min(samples, network.get("train_size", samples))
        messages += too_few_steps(setting, network["epochs"], samples, batch)
    if narrow >= sizes.samples:
        messages.append(
            f"its control of widths {study['narrow']} has {narrow:,} weights, no fewer than the"
            f" {sizes.samples:,} samples: write --train-size {narrow + 1} or more, or a narrower"
            " zero_error.narrow."
        )
    return messages + _sweep_faults(config)


def _sweep_faults(config: dict[str, Any]) -> list[str]:
    sweep, family = config["zero_error"]["sweep"], _family(config)
    problem = {"entry": config["problem"]["entry"], "settings": family["settings"]}
    weights = [weights_of(problem, widths) for widths in family["widths"]]
    most, least = (max(weights) - 1) // (CLASSES - 1), min(weights) + 1
    if least <= sweep["samples"] <= most:
        return []
    return [
        f"zero_error.sweep.samples = {sweep['samples']}: its networks of {min(weights):,} to"
        f" {max(weights):,} weights must have fewer than samples, and more than inequalities;"
        f" write a number from {least} to {most}."
    ]


def reached_from(cells: xr.Dataset, labels: str) -> dict[str, float] | None:
    """
    Give the fewest weights an equation from which on all networks of the sweep reach zero error.

    Parameters
    ----------
    cells : xarray.Dataset
        ``zero_error/cells``.
    labels : {"true", "random"}
        Which.

    Returns
    -------
    dict or None
        ``weights``, and ratios by the three counts; None where the largest do not reach it.
    """
    sweep = chosen(cells, part="sweep", labels=labels)
    missed = sweep["weights"].values[sweep["misclassified"].values > 0]
    above = sweep["weights"].values > (missed.max() if missed.size else 0)
    if not above.any():
        return None
    first = sweep.isel(cell=int(np.flatnonzero(above)[sweep["weights"].values[above].argmin()]))
    return {key: float(first[key]) for key in ("weights", *COUNTS)}


def _family(config: dict[str, Any]) -> dict[str, Any]:
    return _DIGITS if config["problem"]["entry"] == "digits" else _IMAGES


def _applies(config: dict[str, Any]) -> bool:
    return config["problem"]["entry"] in ("digits", "cifar10")


def _controls(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """List networks with fewer weights than samples, by far and just, and with just more."""
    study, problem = config["zero_error"], config["problem"]
    narrow: list[int] = study["narrow"]
    below, above = widths_around(problem, samples_of(problem), layers=len(narrow))
    return {
        f"{size}-{labels}-labels": {
            "labels": labels,
            "epochs": study["networks"][f"{labels}-labels"]["epochs"],
            "widths": widths,
            "cost": _COSTS[size],
        }
        for size, widths in (("narrow", narrow), ("below", below), ("above", above))
        for labels in _SHARES
    }


def _network_task(config: dict[str, Any], name: str, network: dict[str, Any], draw: int) -> Task:
    changes = {"random_labels": _SHARES[network["labels"]], **_data_seed(config, draw)}
    if "widths" in network:
        changes |= {"widths": network["widths"]}
    settings = _changed(config["problem"]["settings"], changes)
    if "train_size" in network:
        settings["train_size"] = min(network["train_size"], samples_of(config["problem"]))
    units = (
        round(network["epochs"] * UNITS_AN_EPOCH * network["cost"]) if "cost" in network else None
    )
    seed = config["seed"] + draw
    return trunk_task(
        _configured(config, settings),
        seed,
        epochs=network["epochs"],
        checkpoints=config["zero_error"]["checkpoints"],
        name=f"{name}-seed{seed}",
        units=units,
    )


def _data_seed(config: dict[str, Any], draw: int) -> dict[str, int]:
    """Draw labels anew where samples cannot be: all of CIFAR-10 is one draw."""
    settings = config["problem"]["settings"]
    return {"data_seed": settings.get("data_seed", 0) + config["seed"] + draw}


def _cell_task(
    config: dict[str, Any], family: dict[str, Any], widths: list[int], labels: str, draw: int
) -> Task:
    sweep, seed = config["zero_error"]["sweep"], config["seed"] + draw
    settings = _changed(
        config["problem"]["settings"],
        family
        | {"widths": widths, "train_size": sweep["samples"]}
        | {"random_labels": _SHARES[labels], **_data_seed(config, draw)},
    )
    return trunk_task(
        _configured(config, settings, batch_size=_SWEEP_BATCH),
        seed,
        epochs=sweep["epochs"],
        checkpoints=1,
        name=f"sweep-{labels}-{'-'.join(map(str, widths))}-seed{seed}",
        keep=False,
        units=max(1, round(sweep["epochs_worth"] * UNITS_AN_EPOCH)),
    )


def _changed(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    replaced = {"width"} if "widths" in changes else set()
    return {key: value for key, value in settings.items() if key not in replaced} | changes


def _configured(
    config: dict[str, Any], settings: dict[str, Any], **training: Any
) -> dict[str, Any]:
    """Give the configuration of one training, which stops where nothing is misclassified."""
    return config | {
        "problem": {"entry": config["problem"]["entry"], "settings": settings},
        "training": config["training"] | training | {"stop_error": 0.0},
    }


def _part_of(task: Task) -> str:
    name = task.arguments["trajectory"].partition("-")[0]
    parts = {"sweep": "sweep", "narrow": "control", "below": "near", "above": "near"}
    return parts.get(name, "network")


def _cells(outcomes: list[tuple[Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    rows = [_row(task, outcome) for task, outcome in outcomes]
    dataset = xr.Dataset({key: ("cell", [row[key] for row in rows]) for key in rows[0]})
    for key, units in _UNITS.items():
        dataset[key].attrs["units"] = units
    return dataset.set_coords(["name", "part", "labels", "seed"])


def _row(task: Task, outcome: dict[str, Any]) -> dict[str, Any]:
    settings = task.arguments["problem"]["settings"]
    weights, samples, outputs = (int(outcome[key]) for key in ("weights", "samples", "outputs"))
    # A training that diverged classifies nothing.
    diverged = outcome["status"] == "diverged" or np.isnan(outcome["error"][-1])
    missed = samples if diverged else round(float(outcome["error"][-1]) * samples)
    counts = equations(samples, outputs)
    return {
        "name": task.arguments["trajectory"],
        "part": _part_of(task),
        "labels": "random" if settings["random_labels"] else "true",
        "seed": task.arguments["seed"],
        "weights": weights,
        "samples": samples,
        "outputs": outputs,
        **{key: weights / count for key, count in counts.items()},
        "misclassified": missed,
        "test_error": float(outcome["test_error"][-1]),
        "loss": float(outcome["loss"][-1]),
        "epochs": float(outcome["epoch"][-1]),
        "status": outcome["status"],
    }
