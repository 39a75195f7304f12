"""Whether networks are joined: straight, aligned and curved ways between them, and their tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.claim import Claim, Rule
from thalweg.studies.connectivity_claims import RULES, judge
from thalweg.studies.connectivity_task import APART, LINES, WINDING
from thalweg.studies.preflight import Sizes, too_few_for_a_mean, too_few_steps
from thalweg.studies.sgd_selection import problem_of
from thalweg.studies.trainings import UNITS_AN_EPOCH

if TYPE_CHECKING:
    import xarray as xr

PAIRS, KNOWN, TREE = (f"connectivity/{name}" for name in ("pairs", "known", "tree"))
_CIFAR: dict[str, Any] = {
    "pairs": 6,
    "settings": {"widths": [8, 8, 12, 12], "train_size": 500, "test_size": 500},
    "training": {"lr": 0.05, "batch_size": 50},
    "epochs": 20,
    "copy": {"scale": 0.25, "epochs": 7},
    "align": {"restarts": 10, "steps": 300},
    "curve": {"kind": "bezier", "steps": 300},
    "points": 21,
    "known": 3,
    "tree": {"parents": 3, "steps": 60, "points": 11},
    "cost": 1.0,
}
# `pairs` of networks, each on its own draw of samples; `settings` change the run's problem where
# its networks are built-in, and `training` the run's recipe. Copies of a network are perturbed by
# `scale` and trained on for `epochs`. The tree is that of two copies of each of `parents` networks
# on the first draw. All of a pair `cost`s so many epochs of the run's own.
SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "pairs": 8,
        "settings": {"network": "mlp", "widths": [32], "train_size": 200},
        "training": {"lr": 0.1, "batch_size": 50},
        "epochs": 60,
        "copy": {"scale": 0.25, "epochs": 20},
        "align": {"restarts": 10, "steps": 300},
        "curve": {"kind": "bezier", "steps": 100},
        "points": 21,
        "known": 3,
        "tree": {"parents": 3, "steps": 30, "points": 11},
        "cost": 1.0,
    },
    "laptop": _CIFAR,
    "paper": _CIFAR | {"settings": {"train_size": 5000, "test_size": 2000}, "cost": 4.0},
}
_TASK = "thalweg.studies.connectivity_task"


def tasks(config: dict[str, Any]) -> list[Task]:
    """List pairs of networks, landscapes of which the answer is known, and the tree."""
    study = config["connectivity"]
    return [
        *(_pair_task(config, pair) for pair in range(study["pairs"])),
        *(task for _, task in _known_tasks(config)),
        _tree_task(config),
    ]


def _common(config: dict[str, Any], draw: int, units: int) -> dict[str, Any]:
    study = config["connectivity"]
    return {
        "problem": problem_of(config, study["settings"], draw),
        "evaluation_batch": config.get("evaluation_batch"),
        "training": config["training"] | study["training"],
        "seed": config["seed"] + draw,
        "units": units,
        **{key: study[key] for key in ("epochs", "copy")},
    }


def _pair_task(config: dict[str, Any], pair: int) -> Task:
    study = config["connectivity"]
    units = _units(config)
    rival = {"rival": config["seed"] + pair + study["pairs"]}
    ways = {key: study[key] for key in ("align", "curve", "points")}
    arguments = _common(config, pair, units) | rival | ways
    return Task(f"{_TASK}:measure_pair", arguments, label=f"pair {pair}", units=units)


def _known_tasks(config: dict[str, Any]) -> list[tuple[dict[str, Any], Task]]:
    study = config["connectivity"]
    placed = []
    for landscape in (APART, WINDING):
        for number in range(study["known"]):
            arguments = {
                "landscape": landscape,
                "seed": config["seed"] + number,
                "curve": study["curve"],
            }
            task = Task(f"{_TASK}:measure_known", arguments, label=f"{landscape} {number}")
            placed.append(({"landscape": landscape, "number": number}, task))
    return placed


def _tree_task(config: dict[str, Any]) -> Task:
    units = 2 * _units(config)
    arguments = _common(config, 0, units) | config["connectivity"]["tree"]
    return Task(f"{_TASK}:draw_tree", arguments, label="tree of networks", units=units)


def _units(config: dict[str, Any]) -> int:
    cost: float = config["connectivity"]["cost"]
    return max(1, round(cost * UNITS_AN_EPOCH))


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather the barriers of all pairs, those of known landscapes, and the passes of the tree.

    What is returned is mean barriers by way, as shares of the loss that training takes away.
    """
    study = config["connectivity"]
    measured = [task_result(run, _pair_task(config, pair)) for pair in range(study["pairs"])]
    done = [(pair, found) for pair, found in enumerate(measured) if found]
    if done:
        run.save_result(PAIRS, _pairs(done))
    known = [(place, task_result(run, task)) for place, task in _known_tasks(config)]
    rows = [place | found for place, found in known if found]
    if rows:
        run.save_result(KNOWN, _rows(rows))
    if tree := task_result(run, _tree_task(config)):
        run.save_result(TREE, _tree(tree))
    return _summary(run.result(PAIRS)) if done else {}


def _pairs(done: list[tuple[int, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    outcomes = [outcome for _, outcome in done]
    barriers = np.array([[outcome[f"barrier/{line}"] for line in LINES] for outcome in outcomes])
    about = {"long_name": "largest excess over the chord", "units": "of the loss taken away"}
    variables: dict[str, Any] = {"barrier": (("pair", "line"), barriers, about)}
    for name in ("unit", "loss_start", "loss_end", "refused"):
        variables[name] = ("pair", np.array([outcome[name] for outcome in outcomes]))
    for way in ("straight", "aligned", "curve"):
        losses = [
            outcome.get(f"loss/{way}") or [np.nan] * len(outcomes[0]["t"]) for outcome in outcomes
        ]
        variables[f"loss_{way}"] = (("pair", "t"), np.array(losses), {"units": "training loss"})
    for name in ("cost", "unaligned", "bound"):
        values = np.array([outcome.get(name, np.nan) for outcome in outcomes])
        variables[name] = ("pair", values, {"units": "squared distance"})
    coords = {"pair": [pair for pair, _ in done], "line": list(LINES), "t": outcomes[0]["t"]}
    return xr.Dataset(variables, coords=coords)


def _rows(rows: list[dict[str, Any]]) -> xr.Dataset:
    import xarray as xr

    return xr.Dataset({name: ("case", np.array([row[name] for row in rows])) for name in rows[0]})


def _tree(tree: dict[str, Any]) -> xr.Dataset:
    import xarray as xr

    ways = [name.partition("/")[2] for name in tree if name.startswith("passes/")]
    passes = np.array([tree[f"passes/{way}"] for way in ways])
    return xr.Dataset(
        {
            "value": ("minimum", np.array(tree["values"]), {"units": "training loss"}),
            "passes": (("way", "minimum", "other"), passes, {"units": "training loss"}),
        },
        coords={"way": ways},
    )


def _summary(pairs: xr.Dataset) -> dict[str, Any]:
    means = pairs["barrier"].mean("pair")
    return {
        "barriers": {
            line: value for line in LINES if np.isfinite(value := float(means.sel(line=line)))
        }
    }


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge which ways join networks."""
    pairs, known = (run.result(name) if run.has_result(name) else None for name in (PAIRS, KNOWN))
    return judge(pairs, known)


def rules(config: dict[str, Any]) -> Mapping[str, Rule]:
    """Give the rules, which no configuration changes."""
    return RULES


def faults(config: dict[str, Any], sizes: Sizes) -> list[str]:
    """Find why pairs could not be compared: too few of them, or networks hardly trained."""
    study = config["connectivity"]
    samples = sizes.samples
    if config["problem"]["entry"] in ("digits", "cifar10"):
        samples = study["settings"].get("train_size", samples)
    batch = (config["training"] | study["training"])["batch_size"]
    return [
        *too_few_for_a_mean("connectivity.pairs", study["pairs"], least=3),
        *too_few_for_a_mean("connectivity.known", study["known"]),
        *too_few_steps("connectivity.epochs", study["epochs"], samples, batch),
    ]
