"""The paper's local landscapes: perturb a network, train it on, and see whether and where to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from thalweg.dynamics import perturb, train
from thalweg.landscape.quadratic import Quadratic
from thalweg.landscape.space import ParameterSpace
from thalweg.problems import load_stored
from thalweg.run import Progress, Run, Task, silent, task_result, torch_generator
from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.curves import gather_curves
from thalweg.studies.displacement import (
    ELSEWHERE,
    Copy,
    distances_over_time,
    end_distances,
    gather_copies,
    read_copy,
)
from thalweg.studies.intervals import mean, share
from thalweg.studies.parents import on_draw
from thalweg.studies.trainings import UNITS_AN_EPOCH, branch_task, trunk_task
from thalweg.studies.trajectories import shared_sizes

if TYPE_CHECKING:
    import xarray as xr


# `sgd` and `gd`: for each moment the noise scales, relative to each layer's weights, and how many
# copies of each. Claims are about scales up to `largest`; what lies beyond is measured. Of five
# copies that all return, the interval still reaches below one half: six can decide. Full
# gradients go at SGD's own rate on CIFAR-10, where steps of 0.5 diverged from a quarter's noise.
SIZES: dict[str, dict[str, Any]] = {
    "demo": shared_sizes(
        "demo",
        sgd={
            "early": {"scales": [0.25, 0.5], "copies": 2},
            "middle": {"scales": [0.25, 0.5], "copies": 2},
            "final": {"scales": [0.25, 0.5, 1.0], "copies": 3},
        },
        gd={
            "early": {"scales": [0.25], "copies": 2},
            "middle": {"scales": [0.25], "copies": 2},
            "final": {"scales": [0.25, 0.5], "copies": 3},
        },
        gd_lr=0.5,
        gd_momentum=0.0,
        gd_steps=20,
        gd_checkpoints=10,
        largest=0.5,
        zero_error=0.0,
        narrow={"widths": [3, 3], "epochs": 10, "branch_epochs": 4, "copies": 6, "cost": 0.3},
    ),
    "laptop": shared_sizes(
        "laptop",
        sgd={
            "early": {"scales": [0.25], "copies": 3},
            "middle": {"scales": [0.25], "copies": 3},
            "final": {"scales": [0.25], "copies": 6},
        },
        gd={
            "early": {"scales": [0.25], "copies": 1},
            "middle": {"scales": [0.25], "copies": 1},
            "final": {"scales": [0.25], "copies": 2},
        },
        gd_lr=0.05,
        gd_momentum=0.9,
        gd_steps=10,
        gd_checkpoints=5,
        largest=0.25,
        zero_error=0.001,
        narrow={"widths": [8, 8, 8], "epochs": 10, "branch_epochs": 4, "copies": 6, "cost": 0.2},
    ),
    "paper": shared_sizes(
        "paper",
        sgd={
            "early": {"scales": [0.25], "copies": 2},
            "middle": {"scales": [0.25], "copies": 2},
            "final": {"scales": [0.25], "copies": 6},
        },
        gd={
            "early": {"scales": [0.25], "copies": 1},
            "middle": {"scales": [0.25], "copies": 1},
            "final": {"scales": [0.1, 0.25], "copies": 2},
        },
        gd_lr=0.05,
        gd_momentum=0.9,
        gd_steps=10,
        gd_checkpoints=5,
        largest=0.25,
        zero_error=0.001,
        narrow={"widths": [8, 8, 8], "epochs": 5, "branch_epochs": 2, "copies": 6, "cost": 0.2},
    ),
}
COPIES, DISTANCES, CURVES, ENDS = (
    f"perturb_and_return/{name}" for name in ("copies", "distances", "curves", "ends")
)
MAIN, NARROW, BOWL = "main", "narrow", "bowl"
_MOST = Rule(low=0.5)
_APART = Rule(low=0.5)
_SOURCE = "Liao and Poggio (2017): perturbed at a zero-minimizer, copies return to zero error"


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the trainings of the study: a trunk, its perturbed copies, and a narrow network's.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.

    Returns
    -------
    list of Task
        Copies at the scale of the study of trajectories are its branches.
    """
    study = config["perturb_and_return"]
    config = on_draw(config, 0)
    trunk = trunk_task(
        config, config["seed"], epochs=study["epochs"], checkpoints=study["checkpoints"]
    )
    copies = [
        _copy(config, trunk, optimizer, moment, scale, copy)
        for moment in dict.fromkeys([*study["sgd"], *study["gd"]])
        for copy, (optimizer, scale) in enumerate(_planned(study, moment))
    ]
    return [trunk, *copies, *_narrow(config)]


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
    kept = {name: value for name, value in problem["settings"].items() if name != "width"}
    settings = kept | {"network": "allconv", "widths": narrow["widths"]}
    small = config | {"problem": problem | {"settings": settings}}
    cost = UNITS_AN_EPOCH * narrow["cost"]
    trunk = trunk_task(
        small,
        config["seed"],
        epochs=narrow["epochs"],
        checkpoints=1,
        name=f"seed{config['seed']}-{NARROW}",
        units=max(1, round(narrow["epochs"] * cost)),
    )
    copies = [
        branch_task(
            small,
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

    Parameters
    ----------
    run : Run
        Whose trainings are done.
    config : dict
        The one that `tasks` was given.
    progress : callable
        Shows how many copies have been read.

    Returns
    -------
    dict
        Number of copies that returned to zero error, and of all, by moment and optimizer.
    """
    done = [(task, outcome) for task in tasks(config) if (outcome := task_result(run, task))]
    branches = [(task, outcome) for task, outcome in done if task.needs]
    zero = config["perturb_and_return"]["zero_error"]
    # Once for each network: the data of a problem take seconds to read.
    spaces = {name: _space(one) for name, one in {_network(t): t for t, _ in branches}.items()}
    with progress(len(branches), "distances") as bar:
        found = []
        for task, outcome in branches:
            name = _network(task)
            found.append(
                read_copy(run, task, outcome, space=spaces[name], network=name, zero_error=zero)
            )
            bar.update(1)
    found += _bowl(config)
    main = [one for one in found if one.about["network"] == MAIN]
    run.save_result(COPIES, gather_copies(found))
    run.save_result(CURVES, gather_curves([one for one in done if _network(one[0]) == MAIN]))
    run.save_result(DISTANCES, distances_over_time(found))
    run.save_result(ENDS, end_distances(main))
    return {
        "returned": {
            name: [sum(one.returned for one in group), len(group)] for name, group in _grouped(main)
        }
    }


def _space(task: Task) -> ParameterSpace:
    problem = task.arguments["problem"]
    return ParameterSpace.of(load_stored(problem).model)


def _network(task: Task) -> str:
    return NARROW if f"-{NARROW}" in task.arguments["trajectory"] else MAIN


def _grouped(copies: list[Copy]) -> Iterator[tuple[str, list[Copy]]]:
    keys = [f"{one.about['moment']}, {one.about['optimizer']}" for one in copies]
    for key in dict.fromkeys(keys):
        yield key, [one for one, name in zip(copies, keys, strict=True) if name == key]


def _bowl(config: dict[str, Any]) -> list[Copy]:
    """Put a strongly convex landscape through the protocol: its copies meet where they were."""
    study, seed = config["perturb_and_return"], config["seed"]
    bowl = Quadratic(torch.linspace(0.5, 2.0, 64, dtype=torch.float64))
    found = []
    for scale, copy in itertools.product((0.1, study["scale"]), range(5)):
        noise = torch_generator(seed, BOWL, copy)
        start = perturb(bowl.space, bowl.centre, scale=scale, generator=noise)
        end = train(
            bowl, start, optimizer="gd", lr=0.5, schedule="constant", steps=80, stop_loss=1e-12
        )
        about = {"network": BOWL, "moment": "final", "optimizer": "gd", "scale": scale}
        found.append(
            Copy(
                about={"trajectory": f"{BOWL}-{copy}-{scale:g}", "copy": copy, **about},
                space=bowl.space,
                home=bowl.centre,
                final=bowl.centre,
                points=torch.stack([start, end.w]),
                # One moment for all, whenever each was near enough to the bottom.
                steps=[0, 80],
                epochs=[0.0, 80.0],
                returned=end.status == "loss reached",
            )
        )
    return found


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """
    Judge whether zero-minimizers are flat, and whether copies of one point meet again.

    Parameters
    ----------
    run : Run
        With what `assemble` saved.
    config : dict
        The one that `tasks` was given.

    Returns
    -------
    list of Claim
        ``perturb_and_return/flat``, ``perturb_and_return/flat-full-batch`` and
        ``perturb_and_return/apart``.
    """
    copies, distances = run.result(COPIES), run.result(DISTANCES)
    study = config["perturb_and_return"]
    bowl = Control(
        "a strongly convex bowl, whose copies return to the one lowest point",
        _both(copies, BOWL, copies["moment"] == "final"),
    )
    narrow = Control(
        f"a network of widths {study['narrow']['widths']}, too few weights for zero error",
        _both(copies, NARROW, copies["moment"] == "final"),
    )
    by_sgd, by_gd = f"{study['branch_epochs']} epochs of SGD", f"{study['gd_steps']} full gradients"
    return [
        _flat(copies, study, "flat", "sgd", by_sgd, (narrow, bowl)),
        _flat(copies, study, "flat-full-batch", "gd", by_gd, (bowl,)),
        _apart(copies, distances, config),
    ]


def _flat(
    copies: xr.Dataset,
    study: dict[str, Any],
    name: str,
    optimizer: str,
    training: str,
    controls: tuple[Control, ...],
) -> Claim:
    # A copy that the noise leaves at zero error has nothing to return from.
    left = ~(copies["start_error"] <= study["zero_error"])
    chosen = (copies["moment"] == "final") & (copies["scale"] <= study["largest"]) & left
    chosen &= copies["optimizer"] == optimizer
    parent = copies["parent_error"].values[chosen.values & (copies["network"] == MAIN).values]
    reached = bool(parent.size) and parent.max() <= study["zero_error"]
    zero = f"at most {study['zero_error']:.2%} misclassified" if study["zero_error"] else "exactly"
    return Claim(
        name=f"perturb_and_return/{name}",
        statement="Copies of a network at zero training error, perturbed by noise of up to "
        f"{study['largest']:g} times each layer's weight scale, return to zero training error "
        f"({zero}) within {training}, and to another place: at least {ELSEWHERE:g} of the "
        "perturbation away from where they were, in weights and in directions of filters.",
        source=_SOURCE,
        protocol="The end of a training is perturbed by Gaussian noise, several copies at several "
        "scales, and each copy that the noise took away from zero error is trained on. A copy "
        "counts if it returns and is elsewhere. Copies of one parent are the sample: the claim is "
        "about it.",
        statistic=_both(copies, MAIN, chosen) if reached else None,
        rule=_MOST,
        controls=controls,
        section="perturb_and_return",
        why=""
        if reached
        else "The parent did not reach zero training error, or no copy left it: there is nothing "
        "to return to, or from.",
    )


def _both(copies: xr.Dataset, network: str, chosen: xr.DataArray) -> Statistic | None:
    mine = chosen.values & (copies["network"].values == network)
    if not mine.any():
        return None
    hits = copies["returned"].values & copies["elsewhere"].values & mine
    name = "copies that return to zero error at another place"
    return share(name, int(hits.sum()), int(mine.sum()), units="share of copies")


def _apart(copies: xr.Dataset, distances: xr.Dataset, config: dict[str, Any]) -> Claim:
    return Claim(
        name="perturb_and_return/apart",
        statement="Perturbed copies of one network, trained on, do not meet again: they end at "
        "least half as far from one another as the noise had put them.",
        source="Liao and Poggio (2017): pairwise distances of copies trained on",
        protocol="For each moment, noise scale and optimizer, the mean distance of copies from "
        "their siblings at the end of training, relative to that after the perturbation; groups "
        "are the sample.",
        statistic=_apartness(copies, distances, MAIN),
        rule=_APART,
        controls=(
            Control(
                "a strongly convex bowl, whose copies all return to its lowest point",
                _apartness(copies, distances, BOWL),
            ),
        ),
        section="perturb_and_return",
    )


def _apartness(copies: xr.Dataset, distances: xr.Dataset, network: str) -> Statistic:
    names = copies["group"].values[copies["network"].values == network]
    ratios = []
    for group in dict.fromkeys(names.tolist()):
        mine = distances["siblings"].values[distances["group"].values == group]
        step = distances["step"].values[distances["group"].values == group]
        mine, step = mine[np.isfinite(mine)], step[np.isfinite(mine)]
        if mine.size:
            ratios.append(mine[step == step.max()].mean() / mine[step == step.min()].mean())
    return mean("distance from siblings, end over start", ratios, units="ratio")
