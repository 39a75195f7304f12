"""Where points of parameter space lie: the files that a configuration names, and their order."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from thalweg.errors import InvalidArgument
from thalweg.problems.trajectory_files import TrajectoryFiles, holds_files, trajectory_files
from thalweg.problems.weight_files import files_of
from thalweg.run import Run, is_run, open_run
from thalweg.run.holes import holes, said_of

log = logging.getLogger("thalweg")

INITIALIZATION = "the problem's own initialization"


def place(
    checkpoints: Sequence[str | os.PathLike[str]] = (),
    run: str | os.PathLike[str] | None = None,
    trajectory: str | None = None,
    *,
    in_order: bool = False,
    **opening: Any,
) -> dict[str, Any]:
    """
    Name points of parameter space by files, for a configuration.

    Parameters
    ----------
    checkpoints : sequence of path
        The points; where there are none, the last checkpoint of the trajectory.
    run : path, optional
        A run directory that holds the trajectory, or a folder or pattern of files of weights that
        are one.
    trajectory : str, optional
        Its name, which may be left out where the run has only one.
    in_order : bool
        Take several checkpoints as a trajectory, first to last.
    **opening
        How files are opened: ``entry``, ``partial`` and ``allow`` of `thalweg.open_point`.

    Returns
    -------
    dict
        With whole paths, and digests of the files, so that other weights under the same names are
        not taken for these; ``source`` is the folder or pattern that was given.

    Raises
    ------
    InvalidArgument
        If nothing is named, or no such trajectory is there.
    CheckpointRefused
        If a file is not there.
    """
    if not checkpoints and run is None:
        raise InvalidArgument("no point is named; write --checkpoint FILE, or --run RUN.")
    files = [Path(path).absolute() for path in checkpoints]
    found: dict[str, Any] = {}
    if in_order:
        found |= _plain_trajectory(trajectory_files(files))
    elif files:
        found |= {"checkpoints": [str(path) for path in files], "digest": _digest(files)}
    if run is not None:
        found |= _trajectory_of(run, trajectory)
    asked = {name: value for name, value in opening.items() if value}
    return found | ({"opening": asked} if asked else {})


def trajectory_in(run: str | os.PathLike[str], name: str | None = None) -> TrajectoryFiles:
    """
    List the checkpoints of a trajectory.

    Parameters
    ----------
    run : path
        A run directory, or a folder or pattern of files of weights.
    name : str, optional
        Of the trajectory, which may be left out where there is only one.

    Raises
    ------
    InvalidArgument
        If a run has no such trajectory.
    CheckpointRefused
        If files have no order.
    RunNotFound
        If it is neither.
    """
    if not is_run(run) and holds_files(run):
        found = trajectory_files(run)
        if name not in (None, found.name):
            raise InvalidArgument(
                f"{run} is a folder of files, one trajectory; leave out --trajectory {name}."
            )
        return found
    opened = open_run(run)
    name = _the_trajectory(opened, name)
    files = tuple(opened.checkpoints(name))
    if gone := holes(opened, name):
        log.warning("%s: %s", name, said_of(gone))
    return TrajectoryFiles(files, tuple(int(file.stem) for file in files), name)


def _trajectory_of(run: str | os.PathLike[str], name: str | None) -> dict[str, Any]:
    found = trajectory_in(run, name)
    if not is_run(run):
        return {"source": os.path.abspath(run), **_plain_trajectory(found)}
    digest = _digest(found.files)
    return {
        "run": str(open_run(run).path),
        "trajectory": found.name,
        "trajectory_digest": digest,
    }


def _plain_trajectory(found: TrajectoryFiles) -> dict[str, Any]:
    files = [path.absolute() for path in found.files]
    return {
        "files": [str(path) for path in files],
        "steps": list(found.steps),
        "trajectory": found.name,
        "trajectory_digest": _digest(files),
    }


def other_way(text: str) -> tuple[TrajectoryFiles, str]:
    """
    Find the checkpoints of a training that is written as ``RUN``, ``RUN:NAME`` or ``FOLDER``.

    Returns
    -------
    files : TrajectoryFiles
        In order.
    label : str
        Of the run and the trajectory, where the trajectory's name alone does not tell them apart.

    Raises
    ------
    InvalidArgument
        If the run has no such trajectory, or several and none is named.
    RunNotFound, CheckpointRefused
        If nothing is there.
    """
    place, colon, name = text.rpartition(":")
    there = Path(text).exists() or not colon or not Path(place).exists()
    found = trajectory_in(text) if there else trajectory_in(place, name)
    return found, f"{Path(text if there else place).name}, {found.name}"


def named_anywhere(text: str) -> str:
    """Write out the path of another training, and check that it is there."""
    other_way(text)
    return str(Path(text).absolute())


def files_of_ways(at: dict[str, Any], also: Sequence[str]) -> list[TrajectoryFiles]:
    """List the files of a place's trajectory and of other trainings, each under its own name."""
    files, steps = files_on_the_way(at, None)
    ways = [TrajectoryFiles(tuple(files), steps, at["trajectory"])] if files else []
    for text in also:
        way, label = other_way(text)
        ways.append(replace(way, name=own_name(way.name, label, [each.name for each in ways])))
    return ways


def own_name(name: str, label: str, known: Sequence[str]) -> str:
    """Name a training as none of those that are shown with it."""
    name = name if name not in known else label
    return name if name not in known else f"{name} ({len(known) + 1})"


def count_points(at: dict[str, Any]) -> int:
    """Count the points that a place names: checkpoints, or those of its trajectory."""
    return len(at.get("checkpoints", ())) or len(files_on_the_way(at, None)[0])


def each_point(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Part a specification into one for each point, with its name."""
    at = spec["at"]
    files = at.get("checkpoints")
    if not files:
        return [(at.get("trajectory", INITIALIZATION), spec)]
    names = names_of([Path(path) for path in files])
    return [
        (name, spec | {"at": at | {"checkpoints": [path]}})
        for name, path in zip(names, files, strict=True)
    ]


def files_on_the_way(at: dict[str, Any], run: Run | None) -> tuple[list[Path], tuple[int, ...]]:
    """Give the files of the trajectory, and their steps."""
    if "files" in at:
        return [Path(path) for path in at["files"]], tuple(at["steps"])
    home = open_run(at["run"]) if "run" in at else run
    way = home.checkpoints(at["trajectory"]) if home is not None and "trajectory" in at else []
    return way, tuple(int(file.stem) for file in way)


def _the_trajectory(run: Run, name: str | None) -> str:
    there = run.trajectories()
    if name is None and len(there) == 1:
        return there[0]
    if not there:
        raise InvalidArgument(
            f"{run.path} holds no checkpoints; name a run of `thalweg reproduce`, `thalweg.train`"
            " or `thalweg.record`."
        )
    if name not in there:
        asked = f"{len(there)} trajectories" if name is None else f"no trajectory {name!r}"
        raise InvalidArgument(
            f"{run.path} has {asked}; write --trajectory with one of: {', '.join(there)}."
        )
    return name


def _digest(files: Sequence[Path]) -> str:
    """Hash the contents of files."""
    total = hashlib.sha256()
    for path in files:
        for part in files_of(path):
            with part.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


def names_of(files: Sequence[Path]) -> list[str]:
    """Name points by their files, with the folder where the files' names are the same."""
    short = [path.stem for path in files]
    return [
        name
        if short.count(name) == 1 and not name.isdigit()
        else f"{path.parent.name}/{int(name) if name.isdecimal() else name}"
        for name, path in zip(short, files, strict=True)
    ]
