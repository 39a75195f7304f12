"""The loss surface around the end of a training, and the way that led there in the same plane."""

from __future__ import annotations

from typing import Any

from thalweg.measurements.dataset_codec import pack, unpack
from thalweg.measurements.driver import RISK
from thalweg.measurements.options import defaults
from thalweg.measurements.planes import lay_plane
from thalweg.measurements.point import load_measured_point
from thalweg.measurements.surface import Options
from thalweg.measurements.surface_picture import picture, save
from thalweg.measurements.told import UNITS_AN_EPOCH, Told
from thalweg.run import Progress, Report, Run, Task, silent, task_result
from thalweg.studies import trajectories
from thalweg.studies.claim import Claim
from thalweg.studies.parents import on_draw
from thalweg.studies.trainings import trunk_task

# Every option, as configurations leave out what is not asked for.
DEFAULTS: dict[str, Any] = {
    **defaults(Options),
    "directions": "random",
    "dims": 2,
    "extent": None,
}
_PRINCIPAL: dict[str, Any] = {"directions": "principal", "dims": 2, "test": False}
SIZES: dict[str, dict[str, Any]] = {
    "demo": {**_PRINCIPAL, "points": 11},
    "laptop": {**_PRINCIPAL, "points": 15, "tolerance": 0.01},
    "paper": {**_PRINCIPAL, "points": 51, "tolerance": 0.01},
}
# Two passes forward, one of them for the statistics, when an epoch of training is three.
UNITS_A_CELL = 2 * UNITS_AN_EPOCH // 3


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the picture, which needs the training of the first seed of `trajectories`.

    The training is the same task as that study's.
    """
    trunk = first_trunk(config)
    options = {**DEFAULTS, **config["surface"]}
    units = UNITS_A_CELL * options["points"] ** options["dims"]
    arguments = at_the_end_of(trunk) | {"surface": options}
    label = f"the surface around the end of {trunk.arguments['trajectory']}"
    function = "thalweg.studies.surface:take_picture"
    return [Task(function, arguments, needs=(trunk,), label=label, units=units)]


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """Save the picture in the run's results, and say what `save` says of it."""
    result = task_result(run, tasks(config)[0])
    assert result is not None
    return save(run, unpack(result))


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge nothing: a picture is to be looked at, and decides no claim."""
    return []


def first_trunk(config: dict[str, Any]) -> Task:
    """Specify the training of the first seed just as `trajectories` does."""
    sizes = config.get("trajectories") or trajectories.SIZES[config["preset"]]
    seed, length = config["seed"] + sizes["seeds"][0], ("epochs", "checkpoints")
    return trunk_task(on_draw(config, 0), seed, **{key: sizes[key] for key in length})


def at_the_end_of(trunk: Task) -> dict[str, Any]:
    """Specify the viewpoint at the last checkpoint of a training, in its own run."""
    arguments = trunk.arguments
    problem = arguments["problem"]
    settings = problem["settings"] | {"seed": arguments["seed"]}
    return {
        "problem": problem | {"settings": settings},
        "at": {"trajectory": arguments["trajectory"]},
        "risk": RISK,
        "evaluation_batch": arguments["evaluation_batch"],
    }


def take_picture(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Take the picture, in a worker; cells that a killed one has finished are not done again."""
    options = arguments["surface"]
    measured = load_measured_point(arguments, run)
    plane = lay_plane(measured, options)
    progress = Told(report, UNITS_A_CELL)
    return pack(picture(measured, plane, options, run=run, progress=lambda total, label: progress))
