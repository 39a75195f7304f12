"""Claim 5 of the paper: whether noisier training ends where it is more robust, at equal loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.claim import Claim, Rule
from thalweg.studies.invariant_measures import MEASURES
from thalweg.studies.ladder_tables import ends_dataset, trends_dataset
from thalweg.studies.parents import on_draw
from thalweg.studies.preflight import Sizes, set_by_hand, too_few_for_a_mean, too_few_steps
from thalweg.studies.selection_claims import LADDERS, RULES, SMALL, judge
from thalweg.studies.selection_landscapes import ALIKE, WIDENING
from thalweg.studies.trainings import UNITS_AN_EPOCH
from thalweg.studies.trends import tabulate

if TYPE_CHECKING:
    import xarray as xr

# Of 5,000 images by the network of CIFAR-10: the time of a volume and a learning coefficient.
VOLUME_EPOCHS = 10
ENDS, TRENDS, VOLUMES = (f"sgd_selection/{name}" for name in ("ends", "trends", "volumes"))

_MEASURES = {"noise": 0.1, "radius": 0.02, "pairs": 4, "copies": 6, "gradients": 20}
# Batch sizes, rates and temperatures of each ladder, from little noise to much; a batch size of 0
# is all samples. Every ladder but the last begins from the same initial weights with the same order
# of data and ends at the same loss.
_LADDERS: dict[str, Any] = {
    "batch": {"rate": 0.2, "batch_sizes": [0, 40, 10, 3]},
    "rate": {"batch_size": 10, "rates": [0.05, 0.2, 0.5]},
    "langevin": {"rate": 0.2, "temperatures": [0.0, 1e-4, 1e-3]},
    "decay": {"rate": 0.2, "batch_sizes": [0, 10, 3], "weight_decay": 0.002},
}
# On which it is known what noise selects: always the same, whatever the preset.
_KNOWN: dict[str, Any] = {
    "parents": 5,
    ALIKE: {
        "level": 0.01,
        "epochs": 400,
        "batch": {"rate": 0.05, "batch_sizes": [0, 5, 2]},
        "rate": {"batch_size": 5, "rates": [0.02, 0.05, 0.1]},
        "langevin": {"rate": 0.05, "temperatures": [0.0, 1e-6, 1e-5]},
    },
    WIDENING: {
        "level": 1e-3,
        "epochs": 2000,
        "langevin": {"rate": 0.05, "temperatures": [0.0, 1e-3, 1e-2]},
    },
}
# The network in closed form whose volumes and learning coefficients are asked for, of so many
# parents, at the least and the most noise.
_SMALL: dict[str, Any] = {
    "parents": 0,
    "samples": 8,
    "inputs": 4,
    "hidden": 3,
    "rate": 0.3,
    "batch_sizes": [0, 1],
    "level": 1e-3,
    "epochs": 2000,
    "bottom": 1e-9,
    "volume": {"level": 0.01, "localization": 10.0, "budget": 40_000},
}
# Of that rate: at batches of one sample the linear model, of 19 inputs, diverges at a fifth.
_LINEAR_STEPS = 1 / 15
_CIFAR: dict[str, Any] = {
    "parents": 3,
    "settings": {"widths": [16, 16, 24, 26], "train_size": 500, "test_size": 2000},
    "level": 0.1,
    "epochs": 500,
    "descent": 60,
    "cost": 0.018,
    "ladders": {
        "batch": {"rate": 0.2, "batch_sizes": [0, 125, 25, 10]},
        "rate": {"batch_size": 25, "rates": [0.05, 0.2, 0.5]},
        "langevin": {"rate": 0.2, "temperatures": [0.0, 1e-6, 1e-5]},
        "decay": {"rate": 0.2, "batch_sizes": [0, 25, 10], "weight_decay": 0.005},
    },
    "measures": _MEASURES,
    "known": _KNOWN,
    "small": _SMALL | {"parents": 6},
}
# `level` is the training loss of every end; `epochs` the longest that noise acts, and `descent` the
# most full gradients after it; `settings` change the run's problem where its networks are
# built-in. An epoch `cost`s so many of the run's own.
SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "parents": 8,
        "settings": {"network": "mlp", "widths": [24], "train_size": 200},
        "level": 0.02,
        "epochs": 400,
        "descent": 300,
        "cost": 0.003,
        "ladders": _LADDERS,
        "measures": _MEASURES,
        "known": _KNOWN,
        "small": _SMALL,
    },
    "laptop": _CIFAR,
    "paper": _CIFAR,
}
_TASK = "thalweg.studies.selection_task"
_PLACES = ("case", "ladder", "rung", "parent")


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the trainings: every rung of every ladder from each parent's initial weights.

    A training that is a rung of several ladders is there once.
    """
    return list(dict.fromkeys(task for _, task in _placed(config)))


def _placed(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Task]]:
    """Give every task with its place: case, ladder, rung, noise and parent."""
    study = config["sgd_selection"]
    known = study["known"]
    for ladder, parent in itertools.product(study["ladders"], range(study["parents"])):
        for place, training in _rungs(ladder, study["ladders"][ladder]):
            yield (
                {"case": "networks", "ladder": ladder, "parent": parent, **place},
                _network_task(config, parent, training),
            )
    for case, parent in itertools.product((ALIKE, WIDENING), range(known["parents"])):
        for ladder in LADDERS:
            for place, training in _rungs(ladder, known[case].get(ladder, {})):
                yield (
                    {"case": case, "ladder": ladder, "parent": parent, **place},
                    _known_task(config, case, parent, training),
                )
    for case, parent in itertools.product((SMALL, ALIKE), range(study["small"]["parents"])):
        small = study["small"] if case == SMALL else _for_linear(study["small"])
        for place, training in _rungs("batch", small):
            yield (
                {"case": f"volume-{case}", "ladder": "batch", "parent": parent, **place},
                _small_task(config, case, parent, training),
            )


def _for_linear(small: dict[str, Any]) -> dict[str, Any]:
    """Give the sizes of the linear model: of more inputs, on which SGD takes smaller steps."""
    return small | {"rate": small["rate"] * _LINEAR_STEPS}


def _rungs(
    ladder: str, sizes: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Give rung and noise with the settings of each training of a ladder."""
    common = {"lr": sizes.get("rate"), "batch_size": 0}
    if "temperatures" in sizes:
        langevin = {"optimizer": "langevin", "momentum": 0.0}
        # Without a temperature it is gradient descent, the first rung of the batches too.
        trainings = [
            common | (langevin | {"temperature": t} if t else {}) for t in sizes["temperatures"]
        ]
        noises = list(sizes["temperatures"])
    elif "rates" in sizes:
        trainings = [{"lr": rate, "batch_size": sizes["batch_size"]} for rate in sizes["rates"]]
        noises = list(sizes["rates"])
    else:
        decay = {"weight_decay": sizes["weight_decay"]} if "weight_decay" in sizes else {}
        trainings = [common | {"batch_size": size} | decay for size in sizes.get("batch_sizes", [])]
        noises = [1 / size if size else 0.0 for size in sizes.get("batch_sizes", [])]
    for rung, (noise, training) in enumerate(zip(noises, trainings, strict=True)):
        yield {"rung": rung, "noise": noise}, {"momentum": 0.0} | training


def _network_task(config: dict[str, Any], parent: int, training: dict[str, Any]) -> Task:
    study, seed = config["sgd_selection"], config["seed"] + parent
    arguments = {
        "problem": problem_of(config, study["settings"], parent),
        "evaluation_batch": config.get("evaluation_batch"),
        "seed": seed,
        "training": training,
        **{key: study[key] for key in ("level", "epochs", "descent", "measures")},
    }
    units = max(1, round(study["cost"] * study["epochs"] * UNITS_AN_EPOCH))
    return Task(f"{_TASK}:select", arguments, label=f"{_words(training)}, {seed}", units=units)


def problem_of(config: dict[str, Any], settings: Mapping[str, Any], draw: int) -> dict[str, Any]:
    """
    Give the run's problem on a draw, with a study's own settings where its networks are built-in.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.
    settings : mapping
        Of the study; those of the run's problem that it does not name stay.
    draw : int
        From 0 on.
    """
    problem = config["problem"]
    if problem["entry"] in ("digits", "cifar10"):
        kept = {k: v for k, v in problem["settings"].items() if k != "width"}
        problem = problem | {"settings": kept | dict(settings)}
    given: dict[str, Any] = on_draw(config | {"problem": problem}, draw)["problem"]
    return given


def _known_task(config: dict[str, Any], case: str, parent: int, training: dict[str, Any]) -> Task:
    study, seed = config["sgd_selection"], config["seed"] + parent
    known = study["known"][case]
    arguments = {
        "landscape": case,
        "seed": seed,
        "training": training,
        "descent": study["descent"],
        "measures": study["measures"],
        **{key: known[key] for key in ("level", "epochs")},
    }
    return Task(f"{_TASK}:select", arguments, label=f"{case}, {_words(training)}, {seed}")


def _small_task(config: dict[str, Any], case: str, parent: int, training: dict[str, Any]) -> Task:
    study, seed = config["sgd_selection"], config["seed"] + parent
    small = study["small"]
    arguments = {
        "landscape": case,
        "seed": seed,
        "training": training,
        "descent": study["descent"],
        **{k: v for k, v in small.items() if k not in ("parents", "rate", "batch_sizes")},
    }
    label = f"volume of {case}, {_words(training)}, {seed}"
    return Task(f"{_TASK}:volume", arguments, label=label, units=VOLUME_EPOCHS * UNITS_AN_EPOCH)


def _words(training: Mapping[str, Any]) -> str:
    size = training["batch_size"]
    words = f"batches of {size}" if size else "all samples"
    if "temperature" in training:
        words = f"temperature {training['temperature']:g}"
    return f"{words}, rate {training['lr']:g}"


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather the ends of all trainings, the trends over the ladders, and what volumes were given.

    What is returned is ``reached``: ends at the level, and all; ``trends``: the mean over parents
    of each measure on each ladder; ``refused``: volumes and coefficients that were not given.
    """
    done = [
        (place, outcome) for place, task in _placed(config) if (outcome := task_result(run, task))
    ]
    volumes = [(at, outcome) for at, outcome in done if at["case"].startswith("volume")]
    trainings = [(at, outcome) for at, outcome in done if not at["case"].startswith("volume")]
    ends = ends_dataset(trainings, _PLACES)
    run.save_result(ENDS, ends)
    if volumes:
        run.save_result(VOLUMES, ends_dataset(volumes, _PLACES))
    rows = tabulate(ladders_of(ends), tuple(MEASURES))
    run.save_result(TRENDS, trends_dataset(rows, units="of all pairs of rungs"))
    networks = ends["case"].values == "networks"
    return {
        "reached": [int((ends["status"].values == "at level").sum()), ends.sizes["end"]],
        "networks": int(networks.sum()),
        "trends": {f"{row['group']}/{row['measure']}": _plain(row["value"]) for row in rows},
        "refused": sum(
            outcome[f"{name}_status"] == "refused"
            for _, outcome in volumes
            for name in ("volume", "coefficient")
        ),
    }


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def ladders_of(ends: xr.Dataset) -> dict[str, xr.Dataset]:
    """Split the ends by case and ladder: ``"networks/batch"``, ``"alike/rate"``, ..."""
    keys = [
        f"{case}/{ladder}"
        for case, ladder in zip(ends["case"].values, ends["ladder"].values, strict=True)
    ]
    return {key: ends.isel(end=np.array(keys) == key) for key in dict.fromkeys(keys)}


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge the trend of each ladder, and the volumes at both ends of one."""
    volumes = run.result(VOLUMES) if run.has_result(VOLUMES) else None
    return judge(ladders_of(run.result(ENDS)), volumes, config)


def rules(config: dict[str, Any]) -> Mapping[str, Rule]:
    """Give the rules, which no configuration changes."""
    return RULES


def faults(config: dict[str, Any], sizes: Sizes) -> list[str]:
    """Find why a trend could not be decided: too few parents or rungs, too short a training."""
    study = config["sgd_selection"]
    found = [
        *too_few_for_a_mean("sgd_selection.parents", study["parents"], least=3),
        *too_few_for_a_mean("sgd_selection.known.parents", study["known"]["parents"], least=3),
        *set_by_hand(config, "random_labels", "the study compares test errors", but=0.0),
    ]
    if 0 < study["small"]["parents"] < 3:
        found += too_few_for_a_mean("sgd_selection.small.parents", 2, least=3)
    for ladder, sizes_of in study["ladders"].items():
        trainings = [training for _, training in _rungs(ladder, sizes_of)]
        if len(trainings) < 3:
            found.append(
                f"sgd_selection.ladders.{ladder} has {len(trainings)} rungs: the order of two is a"
                " coin; write 3 or more."
            )
        samples = study["settings"].get("train_size", sizes.samples)
        largest = max((t["batch_size"] or samples for t in trainings), default=samples)
        found += too_few_steps("sgd_selection.epochs", study["epochs"], samples, largest)
    return list(dict.fromkeys(found))
