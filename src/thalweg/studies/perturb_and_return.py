"""The paper's local landscapes: perturb a network, train it on, and see whether and where to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from thalweg.landscape.space import ParameterSpace
from thalweg.problems import load_stored
from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.claim import Claim, Rule
from thalweg.studies.curves import gather_curves
from thalweg.studies.displacement import (
    Copy,
    distances_over_time,
    end_distances,
    gather_copies,
    read_copy,
)
from thalweg.studies.displacement_task import displacement_task
from thalweg.studies.known_landscapes import KNOWN, known_task
from thalweg.studies.parents import copy_task, on_draw, parent_task
from thalweg.studies.perturb_and_return_claims import CLAIMS, RULE, judge
from thalweg.studies.preflight import Sizes, too_few_for_a_mean, too_few_steps
from thalweg.studies.returns import MAIN, NARROW, gather_limits, gather_paths, limit_summary
from thalweg.studies.squared_returns import squared_tasks
from thalweg.studies.trainings import UNITS_AN_EPOCH, branch_task, trunk_task
from thalweg.studies.trajectories import shared_sizes

# The preset's own network without batch normalization, which would mix its few samples.
_IMAGES: dict[str, Any] = {
    "parents": 3,
    "copies": 2,
    "epochs": 100,
    "epochs_worth": 10,
    "settings": {
        "network": "allconv",
        "batchnorm": False,
        "activation": "tanh",
        "target": "onehot",
        "train_size": 50,
        "test_size": 100,
    },
}
# `sgd` and `gd`: for each moment the noise scales, relative to each layer's weights, and how many
# copies of each, of the first parent; of every other one `copies` from its end. Claims are about
# noise of `scale`. `squared` networks have fewer equations than weights and a smooth activation,
# for which the flow is defined everywhere; an `epochs_worth` is what one costs in epochs of the
# full size. `curvature` is measured on so many samples, by so many products.
SIZES: dict[str, dict[str, Any]] = {
    "demo": shared_sizes(
        "demo",
        copies=2,
        sgd={
            "early": {"scales": [0.25], "copies": 2},
            "middle": {"scales": [0.25], "copies": 2},
            "final": {"scales": [0.25, 0.5, 1.0], "copies": 2},
        },
        gd={"final": {"scales": [0.25], "copies": 2}},
        gd_lr=0.5,
        gd_momentum=0.0,
        gd_steps=20,
        gd_checkpoints=10,
        zero_error=0.0,
        narrow={
            "widths": [3, 3],
            "parents": 3,
            "epochs": 10,
            "branch_epochs": 8,
            "copies": 2,
            "cost": 0.3,
        },
        curvature={"samples": 400, "products": 6},
        max_gradients=20_000,
        squared={
            "parents": 8,
            "copies": 2,
            "epochs": 30,
            "epochs_worth": 10,
            "settings": {
                "network": "mlp",
                "widths": [32, 32],
                "activation": "tanh",
                "target": "onehot",
                "train_size": 30,
            },
        },
    ),
    "laptop": shared_sizes(
        "laptop",
        copies=2,
        sgd={
            "early": {"scales": [0.25], "copies": 2},
            "middle": {"scales": [0.25], "copies": 2},
            "final": {"scales": [0.25], "copies": 3},
        },
        gd={"final": {"scales": [0.25], "copies": 2}},
        gd_lr=0.05,
        gd_momentum=0.9,
        gd_steps=10,
        gd_checkpoints=5,
        zero_error=0.001,
        narrow={
            "widths": [8, 8, 8],
            "parents": 3,
            "epochs": 10,
            "branch_epochs": 8,
            "copies": 2,
            "cost": 0.2,
        },
        curvature={"samples": 500, "products": 15},
        max_gradients=20_000,
        squared=_IMAGES,
    ),
    "paper": shared_sizes(
        "paper",
        copies=2,
        sgd={
            "early": {"scales": [0.25], "copies": 2},
            "middle": {"scales": [0.25], "copies": 2},
            "final": {"scales": [0.25], "copies": 2},
        },
        gd={"final": {"scales": [0.25], "copies": 1}},
        gd_lr=0.05,
        gd_momentum=0.9,
        gd_steps=10,
        gd_checkpoints=5,
        zero_error=0.001,
        narrow={
            "widths": [8, 8, 8],
            "parents": 3,
            "epochs": 3,
            "branch_epochs": 6,
            "copies": 2,
            "cost": 0.2,
        },
        curvature={"samples": 1000, "products": 15},
        max_gradients=20_000,
        squared=_IMAGES,
    ),
}
_TRUNK, _BRANCH = (f"thalweg.studies.trainings:train_{kind}" for kind in ("trunk", "branch"))
COPIES, DISTANCES, CURVES, ENDS, LIMITS, PATHS = (
    f"perturb_and_return/{name}"
    for name in ("copies", "distances", "curves", "ends", "limits", "paths")
)


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the trainings of the study: a trunk, its perturbed copies, and a narrow network's.

    Copies at the scale of the study of trajectories are its branches.
    """
    study = config["perturb_and_return"]
    trunks, finals = _parents(config)
    drawn = on_draw(config, 0)
    copies = [
        _copy(drawn, trunks[0], optimizer, moment, scale, copy)
        for moment in dict.fromkeys([*study["sgd"], *study["gd"]])
        for copy, (optimizer, scale) in enumerate(_planned(study, moment))
    ]
    displaced = [
        displacement_task(config, trunk, copies[0])
        for trunk, copies in zip(trunks, finals, strict=True)
        if copies
    ]
    on_known_landscapes = [known_task(config, name) for name in KNOWN]
    listed = [*trunks, *copies, *itertools.chain(*finals), *_narrow(config)]
    # The first parent's copies are among those of all moments.
    return list(dict.fromkeys([*listed, *displaced, *squared_tasks(config), *on_known_landscapes]))


def _parents(config: dict[str, Any]) -> tuple[list[Task], list[list[Task]]]:
    """List the parents' trainings, and of each the copies of its end."""
    study = config["perturb_and_return"]
    numbers = range(study["parents"])
    return [parent_task(config, study, number) for number in numbers], [
        [copy_task(config, study, number, "final", copy) for copy in range(study["copies"])]
        for number in numbers
    ]


def _planned(study: dict[str, Any], moment: str) -> list[tuple[str, float]]:
    """List optimizer and scale of the copies of a moment: each has a number, and so its noise."""
    planned = [
        (optimizer, scale)
        for optimizer in ("sgd", "gd")
        if moment in study[optimizer]
        for scale in study[optimizer][moment]["scales"]
        for _ in range(study[optimizer][moment]["copies"])
    ]
    # The branches of the study of trajectories have the numbers from 0 on.
    return sorted(planned, key=lambda copy: copy != ("sgd", study["scale"]))


def _copy(
    config: dict[str, Any], trunk: Task, optimizer: str, moment: str, scale: float, copy: int
) -> Task:
    study = config["perturb_and_return"]
    if optimizer == "sgd":
        length = {"epochs": study["branch_epochs"], "checkpoints": study["branch_checkpoints"]}
        variant = "" if scale == study["scale"] else f"sgd-{scale:g}"
        return branch_task(config, trunk, moment, copy, scale=scale, variant=variant, **length)
    descent = {
        "optimizer": "gd",
        "lr": study["gd_lr"],
        "momentum": study["gd_momentum"],
        "schedule": "constant",
        "stop_error": study["zero_error"],
    }
    return branch_task(
        config | {"training": config["training"] | descent},
        trunk,
        moment,
        copy,
        scale=scale,
        variant=f"gd-{scale:g}",
        epochs=study["gd_steps"],
        checkpoints=study["gd_checkpoints"],
    )


def _narrow(config: dict[str, Any]) -> list[Task]:
    """Train and perturb a network with too few weights for zero error, where one can be made."""
    study, problem = config["perturb_and_return"], config["problem"]
    narrow = study["narrow"]
    if problem["entry"] not in ("digits", "cifar10"):
        return []
    shared = {name: value for name, value in problem["settings"].items() if name != "width"}
    settings = shared | {"network": "allconv", "widths": narrow["widths"]}
    small = config | {"problem": problem | {"settings": settings}}
    return [
        task for number in range(narrow["parents"]) for task in _narrow_copies(small, study, number)
    ]


def _narrow_copies(config: dict[str, Any], study: dict[str, Any], number: int) -> list[Task]:
    narrow, seed = study["narrow"], config["seed"] + number
    drawn, cost = on_draw(config, number), UNITS_AN_EPOCH * narrow["cost"]
    trunk = trunk_task(
        drawn,
        seed,
        epochs=narrow["epochs"],
        checkpoints=1,
        name=f"seed{seed}-{NARROW}",
        units=max(1, round(narrow["epochs"] * cost)),
    )
    copies = [
        branch_task(
            drawn,
            trunk,
            "final",
            copy,
            scale=study["scale"],
            epochs=narrow["branch_epochs"],
            checkpoints=2,
            units=max(1, round(narrow["branch_epochs"] * cost)),
        )
        for copy in range(narrow["copies"])
    ]
    return [trunk, *copies]


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather curves, and distances from where each copy was and from its siblings.

    What is returned says how many copies returned to zero error, of all, by moment and optimizer.
    """
    outcomes = [(task, outcome) for task in tasks(config) if (outcome := task_result(run, task))]
    branches = [(task, outcome) for task, outcome in outcomes if task.function == _BRANCH]
    trained = [(task, outcome) for task, outcome in outcomes if task.function in (_TRUNK, _BRANCH)]
    zero = config["perturb_and_return"]["zero_error"]
    # Once for each network: the data of a problem take seconds to read.
    spaces = {name: _space(task) for name, task in {_network(t): t for t, _ in branches}.items()}
    with progress(len(branches), "distances") as bar:
        copies = []
        for task, outcome in branches:
            name = _network(task)
            copies.append(
                read_copy(run, task, outcome, space=spaces[name], network=name, zero_error=zero)
            )
            bar.update(1)
    main = [copy for copy in copies if copy.about["network"] == MAIN]
    first = [copy for copy in main if copy.about["parent"] == main[0].about["parent"]]
    run.save_result(COPIES, gather_copies(copies))
    run.save_result(CURVES, gather_curves([pair for pair in trained if _network(pair[0]) == MAIN]))
    run.save_result(DISTANCES, distances_over_time(copies))
    run.save_result(ENDS, end_distances(first))
    limits = gather_limits(outcomes, copies, scale=config["perturb_and_return"]["scale"])
    run.save_result(LIMITS, limits)
    run.save_result(PATHS, gather_paths(outcomes))
    return {
        "returned": {
            name: [sum(copy.returned for copy in group), len(group)]
            for name, group in _grouped(main)
        },
        "left_in_the_limit": limit_summary(limits),
    }


def _space(task: Task) -> ParameterSpace:
    problem = task.arguments["problem"]
    return ParameterSpace.of(load_stored(problem).model)


def _network(task: Task) -> str:
    return NARROW if f"-{NARROW}" in task.arguments["trajectory"] else MAIN


def _grouped(copies: list[Copy]) -> Iterator[tuple[str, list[Copy]]]:
    keys = [f"{copy.about['moment']}, {copy.about['optimizer']}" for copy in copies]
    for key in dict.fromkeys(keys):
        yield key, [copy for copy, name in zip(copies, keys, strict=True) if name == key]


def rules(config: dict[str, Any]) -> Mapping[str, Rule]:
    """Give the rule of each claim; the configuration changes none."""
    return dict.fromkeys(CLAIMS, RULE)


def faults(config: dict[str, Any], sizes: Sizes) -> list[str]:
    """Find why flatness could not be decided: too few parents or copies, too short a training."""
    study = config["perturb_and_return"]
    messages = [
        *too_few_for_a_mean("perturb_and_return.parents", study["parents"]),
        *too_few_for_a_mean("perturb_and_return.squared.parents", study["squared"]["parents"]),
        *too_few_steps(
            "perturb_and_return.epochs",
            study["epochs"],
            sizes.samples,
            config["training"]["batch_size"],
        ),
    ]
    for setting, copies in (("", study["copies"]), ("squared.", study["squared"]["copies"])):
        if copies < 2:
            messages.append(
                f"perturb_and_return.{setting}copies = {copies}: siblings are two copies of one"
                f" parent; write perturb_and_return.{setting}copies = 2 or more."
            )
    return messages


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """
    Judge whether what is left of the noise is left for ever, at the paper's loss and at zeros.

    ``flat`` and ``apart`` are of the run's own network and loss, ``flat-squared`` and
    ``apart-squared`` of fewer equations than weights.
    """
    return judge(run.result(LIMITS), config)
