"""From too few weights to far too many: what training reaches, how flat and how degenerate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.claim import Claim, Rule
from thalweg.studies.invariant_measures import MEASURES
from thalweg.studies.ladder_tables import ends_dataset, trends_dataset
from thalweg.studies.narrow_networks import CLASSES, weights_of
from thalweg.studies.overparametrization_claims import LABELS, RULES, judge
from thalweg.studies.preflight import Sizes, set_by_hand, too_few_for_a_share, too_few_steps
from thalweg.studies.sgd_selection import VOLUME_EPOCHS, problem_of
from thalweg.studies.trainings import UNITS_AN_EPOCH
from thalweg.studies.trends import tabulate

if TYPE_CHECKING:
    import xarray as xr

CELLS, TRENDS = (f"overparametrization/{name}" for name in ("cells", "trends"))
_SHARES = {"true": 0.0, "random": 1.0}
_MEASURES = {"noise": 0.1, "radius": 0.02, "pairs": 4, "copies": 6, "gradients": 20}
# Widths from fewer weights than samples to several times as many as outputs of all samples. Each
# network is trained on each draw of samples and labels until its loss is at the `level`, at most
# for the epochs. The nullity, whose matrix has as many rows as outputs, is taken on `few` draws.
# `small` networks in closed form, one for each number of hidden units, are asked for their learning
# coefficient and volume, on so many draws. Test images are so many that two standard errors of a
# difference of test errors, at nine tenths, are about the tolerance of it.
_SMALL: dict[str, Any] = {
    "draws": 0,
    "samples": 8,
    "inputs": 4,
    "hidden": [1, 2, 4, 8],
    "rate": 0.3,
    "batch_size": 1,
    "level": 1e-3,
    "epochs": 2000,
    "bottom": 1e-9,
    "volume": {"level": 0.01, "localization": 10.0, "budget": 40_000},
}
_CIFAR: dict[str, Any] = {
    "draws": 6,
    "few": 1,
    "settings": {"train_size": 120, "test_size": 2000, "batchnorm": False},
    "widths": [
        [1, 1, 1, 1],
        [2, 2, 3, 3],
        [4, 4, 6, 6],
        [8, 8, 12, 12],
        [16, 16, 24, 26],
    ],
    "batch_size": 10,
    "rate": 0.05,
    "level": 0.0055,
    "epochs": 150,
    "descent": 100,
    "cost": 0.02,
    "measures": _MEASURES,
    "small": _SMALL | {"draws": 3},
}
SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "draws": 6,
        "few": 1,
        "settings": {"network": "mlp", "train_size": 90, "test_size": 1600},
        "widths": [[1], [12], [24], [48]],
        "batch_size": 10,
        "rate": 0.2,
        "level": 0.007,
        "epochs": 100,
        "descent": 60,
        "cost": 0.003,
        "measures": _MEASURES,
        "small": _SMALL,
    },
    "laptop": _CIFAR,
    "paper": _CIFAR,
}
_TASK = "thalweg.studies.overparametrization_task"


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the networks: every width on every draw of samples, true labels and random ones.

    None for a problem that is not one of images: its widths and labels cannot be chosen.
    """
    return [task for _, task in _placed(config)]


def _placed(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Task]]:
    if not _applies(config):
        return
    study = config["overparametrization"]
    cells = itertools.product(LABELS, range(study["draws"]), enumerate(study["widths"]))
    for labels, draw, (rung, widths) in cells:
        place = {"part": "networks", "labels": labels, "parent": draw, "rung": rung}
        yield place, _network_task(config, labels, draw, widths)
    small = study["small"]
    for draw, (rung, hidden) in itertools.product(
        range(small["draws"]), enumerate(small["hidden"])
    ):
        place = {"part": "small", "labels": "true", "parent": draw, "rung": rung}
        yield place, _small_task(config, draw, hidden)


def _network_task(config: dict[str, Any], labels: str, draw: int, widths: list[int]) -> Task:
    study, seed = config["overparametrization"], config["seed"] + draw
    settings = study["settings"] | {"widths": widths, "random_labels": _SHARES[labels]}
    arguments = {
        "problem": problem_of(config, settings, draw),
        "evaluation_batch": config.get("evaluation_batch"),
        "seed": seed,
        "training": {"lr": study["rate"], "momentum": 0.0, "batch_size": study["batch_size"]},
        "nullity": draw < study["few"],
        **{key: study[key] for key in ("level", "epochs", "descent", "measures")},
    }
    label = f"widths {'-'.join(map(str, widths))}, {labels} labels, {seed}"
    units = max(1, round(study["cost"] * study["epochs"] * UNITS_AN_EPOCH))
    return Task(f"{_TASK}:measure_network", arguments, label=label, units=units)


def _small_task(config: dict[str, Any], draw: int, hidden: int) -> Task:
    study, seed = config["overparametrization"], config["seed"] + draw
    small = study["small"]
    arguments = {
        "landscape": "small",
        "seed": seed,
        "training": {
            "lr": small["rate"],
            "momentum": 0.0,
            "batch_size": small["batch_size"],
        },
        "hidden": hidden,
        "descent": study["descent"],
        **{key: small[key] for key in ("samples", "inputs", "level", "epochs", "bottom", "volume")},
    }
    return Task(
        "thalweg.studies.selection_task:volume",
        arguments,
        label=f"{hidden} hidden units, {seed} (volume)",
        units=VOLUME_EPOCHS * UNITS_AN_EPOCH,
    )


def _applies(config: dict[str, Any]) -> bool:
    return config["problem"]["entry"] in ("digits", "cifar10")


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather all networks in ``overparametrization/cells``, and their trends over widths.

    What is returned is, for each kind of labels, how many networks came to zero error, of all; and
    ``trends``.
    """
    done = [
        (place, outcome) for place, task in _placed(config) if (outcome := task_result(run, task))
    ]
    if not done:
        return {}
    cells = ends_dataset(done, ("part", "labels", "parent", "rung"))
    run.save_result(CELLS, cells)
    own = {labels: networks(cells, labels) for labels in LABELS}
    rows = tabulate(own, tuple(MEASURES))
    run.save_result(TRENDS, trends_dataset(rows, units="of all pairs of widths"))
    return {
        "zero_error": {
            labels: [int((mine["misclassified"].values == 0).sum()), mine.sizes["end"]]
            for labels, mine in own.items()
        },
        "trends": {
            f"{row['group']}/{row['measure']}": row["value"]
            for row in rows
            if np.isfinite(float(row["value"]))
        },
    }


def networks(cells: xr.Dataset, labels: str) -> xr.Dataset:
    """Pick the networks of a kind of labels, without the small ones."""
    keep = (cells["part"].values == "networks") & (cells["labels"].values == labels)
    return cells.isel(end=keep)


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge what more weights change."""
    cells = run.result(CELLS) if run.has_result(CELLS) else None
    own = {} if cells is None else {labels: networks(cells, labels) for labels in LABELS}
    return judge(own, config)


def rules(config: dict[str, Any]) -> Mapping[str, Rule]:
    """Give the rules, which no configuration changes."""
    return RULES


def faults(config: dict[str, Any], sizes: Sizes) -> list[str]:
    """Find why widths could not be compared: too few draws, or none below or above the counts."""
    if not _applies(config):
        return []
    study = config["overparametrization"]
    samples = study["settings"].get("train_size", sizes.samples)
    problem = problem_of(config, study["settings"], 0)
    weights = [weights_of(problem, widths) for widths in study["widths"]]
    found = [
        *too_few_for_a_share("overparametrization.draws", study["draws"], RULES["zero-error"].low),
        *set_by_hand(config, "random_labels", "the study draws random labels itself", but=0.0),
        *too_few_steps("overparametrization.epochs", study["epochs"], samples, study["batch_size"]),
    ]
    if weights != sorted(weights) or len(weights) < 3:
        found.append(
            f"overparametrization.widths have {weights} weights; write three or more networks, the"
            " smallest first."
        )
    if not min(weights) < samples or not max(weights) > 2 * samples * CLASSES:
        found.append(
            f"overparametrization.widths have {min(weights):,} to {max(weights):,} weights; write"
            f" some with fewer than the {samples:,} samples, and some with more than twice the"
            f" {samples * CLASSES:,} outputs of all."
        )
    return found
