"""Where a landscape is looked at from: a problem, points in its space, and a way that led there."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.problems import Problem, load_stored
from thalweg.problems.between import States
from thalweg.problems.checkpoints import Point, open_points
from thalweg.problems.trajectory_files import TrajectoryFiles, holds_files, trajectory_files
from thalweg.problems.weight_files import files_of
from thalweg.risk import EmpiricalRisk
from thalweg.run import Progress, Run, is_run, open_run, silent
from thalweg.run.holes import holes, said_of

log = logging.getLogger("thalweg")

DTYPES = {"own": None, "float32": torch.float32, "float64": torch.float64}
_INITIALIZATION = "the problem's own initialization"


@dataclass(frozen=True)
class Way:
    """
    The checkpoints of a training, in the order of their steps.

    Attributes
    ----------
    name : str
        Of the trajectory; among those that are shown together no other has it.
    states : States
        Of m checkpoints.
    steps : tuple of int
        Shape (m,).
    """

    name: str
    states: States
    steps: tuple[int, ...]


@dataclass(frozen=True)
class MeasuredPoint:
    """
    A risk and the points it is looked at from.

    Attributes
    ----------
    risk : EmpiricalRisk
        Whose frozen weights and buffers are those of the first point.
    states : States
        The points: the first is the centre.
    names : tuple of str
        Of the points.
    given : bool
        Whether the points were given by themselves; otherwise there is one, the end of the path.
    along : States or None
        The checkpoints of a trajectory in the order of their steps.
    steps : tuple of int
        Shape (m,).
    trajectory : str
        Its name; empty where there is none.
    also : tuple of Way
        Other trainings that are shown beside it.
    file : Path or None
        Of the first point.
    about : dict
        Of the first point, as `about_point` gives it; empty where it is the end of the path.
    """

    risk: EmpiricalRisk
    states: States
    names: tuple[str, ...]
    given: bool
    along: States | None
    steps: tuple[int, ...]
    trajectory: str
    also: tuple[Way, ...] = ()
    file: Path | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def ways(self) -> list[Way]:
        """All trajectories, the one that led there first."""
        own = [] if self.along is None else [Way(self.trajectory, self.along, self.steps)]
        return [*own, *self.also]

    @property
    def points(self) -> Tensor:
        """The weights of the points, shape (n, W), in the risk's dtype."""
        return torch.stack(self.states.weights).to(self.risk.dtype)

    @property
    def path(self) -> Tensor | None:
        """The weights along all trajectories, shape (m, W), in the risk's dtype."""
        weights = [w for way in self.ways for w in way.states.weights]
        return torch.stack(weights).to(self.risk.dtype) if weights else None

    @property
    def centre(self) -> Tensor:
        """The first point, shape (W,)."""
        return self.states.weights[0].to(self.risk.dtype)

    @property
    def notes(self) -> list[str]:
        """What files lack or hold besides, and what becomes of frozen weights and buffers."""
        notes = [*self.states.told["notes"], self.states.told["between"]] if self.given else []
        if self.along is not None:
            notes += self.along.told["notes"]
        if self.along is not None and self.along.parts:
            notes.append(
                f"along the trajectory other things than the trained weights change:"
                f" {self.along.parts.differing}; all but its own losses are measured with those of"
                f" {self.names[0]}"
            )
        return [note for note in notes if note]


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
        not taken for these.

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
        return _plain_trajectory(found)
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


def load_measured_point(
    spec: dict[str, Any], run: Run | None = None, *, tell: bool = False, progress: Progress = silent
) -> MeasuredPoint:
    """
    Load the problem and the points of a specification.

    Parameters
    ----------
    spec : dict
        ``problem`` (``entry``, ``settings``), ``at`` (`place`), ``risk`` (``split``,
        ``batchnorm``, ``dtype``) and ``evaluation_batch`` (None measures); ``also``, texts for
        `other_way`, where other trainings are shown; ``check``, of `EmpiricalRisk`.
    run : Run, optional
        That holds the trajectory where ``at`` names no run.
    tell : bool
        Log what files lack or hold besides.
    progress : Progress
        Shows the decoding of images, and the reading of checkpoints.

    Returns
    -------
    MeasuredPoint
        Its risk is at the first point.
    """
    problem = load_stored(spec["problem"], progress=progress)
    at, opening = spec["at"], spec["at"].get("opening", {})
    way, steps = _way(at, run)
    files = [Path(path) for path in at.get("checkpoints", [])] or way[-1:]
    risk = _risk(problem, spec)
    points = _opened(problem, at, files, tell=tell)
    along = open_points(problem, way, tell=tell and files != way[-1:], progress=progress, **opening)
    about = about_point(points[0]) if at.get("checkpoints") else {}
    names = _names(files) or [_INITIALIZATION]
    points = [replace(point, name=name) for point, name in zip(points, names, strict=True)]
    along = [replace(point, name=name) for point, name in zip(along, _names(way), strict=True)]
    centre = points[0].load_into(risk)
    if spec["risk"]["batchnorm"] == "held":
        risk = risk.held(centre.to(risk.dtype))
    return MeasuredPoint(
        risk=risk,
        states=States.of(risk, points),
        names=tuple(names),
        given=bool(at.get("checkpoints")),
        along=States.of(risk, along) if along else None,
        steps=steps,
        trajectory=at.get("trajectory", ""),
        also=_others(problem, risk, spec, at.get("trajectory", "")),
        file=files[0] if files else None,
        about=about,
    )


def _others(
    problem: Problem, risk: EmpiricalRisk, spec: dict[str, Any], own: str
) -> tuple[Way, ...]:
    """Open the other trainings that are shown, each under a name of its own."""
    ways: list[Way] = []
    for text in spec.get("also") or ():
        found, label = other_way(text)
        points = open_points(problem, found.files, tell=False, **spec["at"].get("opening", {}))
        name = _own_name(found.name, label, [own, *(way.name for way in ways)])
        ways.append(Way(name, States.of(risk, points), found.steps))
    return tuple(ways)


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
    files, steps = _way(at, None)
    ways = [TrajectoryFiles(tuple(files), steps, at["trajectory"])] if files else []
    for text in also:
        way, label = other_way(text)
        ways.append(replace(way, name=_own_name(way.name, label, [each.name for each in ways])))
    return ways


def _own_name(name: str, label: str, known: Sequence[str]) -> str:
    """Name a training as none of those that are shown with it."""
    name = name if name not in known else label
    return name if name not in known else f"{name} ({len(known) + 1})"


def open_spec(spec: dict[str, Any], run: Run | None = None) -> tuple[EmpiricalRisk, list[Point]]:
    """
    Open the points of a specification as whole states, for a task.

    Parameters
    ----------
    spec : dict
        As for `load_measured_point`.
    run : Run, optional
        Whose tasks these are: they share one problem.

    Returns
    -------
    risk : EmpiricalRisk
        At none of them.
    points : list of Point
        Those that are given, or else the last of the trajectory.
    """
    problem, points = open_states(spec, run)
    return _risk(problem, spec), points


def open_states(spec: dict[str, Any], run: Run | None = None) -> tuple[Problem, list[Point]]:
    """Open the points of a specification, without a risk."""
    problem = _problem("" if run is None else str(run.path), json.dumps(spec["problem"]))
    at = spec["at"]
    way, _ = _way(at, None)
    files = [Path(path) for path in at.get("checkpoints", [])] or way[-1:]
    return problem, _opened(problem, at, files, tell=False)


def _opened(problem: Problem, at: dict[str, Any], files: list[Path], *, tell: bool) -> list[Point]:
    """Open files, or take the problem's own initialization where that is the place."""
    if "start" in at:
        (start,) = open_points(problem, [problem.model.state_dict()], tell=False)
        return [replace(start, name=_INITIALIZATION)]
    return open_points(problem, files, tell=tell, **at.get("opening", {}))


def open_way(problem: Problem, at: dict[str, Any]) -> list[Point]:
    """Open the checkpoints of a trajectory, named by their files, in order; none where none is."""
    way, _ = _way(at, None)
    points = open_points(problem, way, tell=False, **at.get("opening", {}))
    return [replace(point, name=name) for point, name in zip(points, _names(way), strict=True)]


def count_points(at: dict[str, Any]) -> int:
    """Count the points that a place names: checkpoints, or those of its trajectory."""
    return len(at.get("checkpoints", ())) or len(_way(at, None)[0])


def open_path(spec: dict[str, Any], run: Run | None = None) -> tuple[EmpiricalRisk, list[Point]]:
    """Open the points of a specification, or all of its trajectory, in order."""
    way, _ = _way(spec["at"], None)
    at = spec["at"] if spec["at"].get("checkpoints") else {**spec["at"], "checkpoints": way}
    return open_spec(spec | {"at": at}, run)


def open_one(spec: dict[str, Any], run: Run | None = None) -> tuple[EmpiricalRisk, Tensor, Point]:
    """Open the first point of a specification: the risk is there, and holds what it has to."""
    risk, (point, *_) = open_spec(spec, run)
    w = point.load_into(risk)
    return (risk.held(w) if spec["risk"]["batchnorm"] == "held" else risk), w, point


@lru_cache(maxsize=1)
def _problem(run: str, stored: str) -> Problem:
    """Make a problem once for all tasks of a run: its data may take long to read."""
    return load_stored(json.loads(stored))


def about_point(point: Point) -> dict[str, Any]:
    """Give what stands in JSON of a point."""
    return {
        "file": point.name,
        "sha256": point.sha256,
        "notes": list(point.notes),
        "from_the_problem": list(point.lacking),
    }


def each_point(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Part a specification into one for each point, with its name."""
    at = spec["at"]
    files = at.get("checkpoints")
    if not files:
        return [(at.get("trajectory", _INITIALIZATION), spec)]
    names = _names([Path(path) for path in files])
    return [
        (name, spec | {"at": at | {"checkpoints": [path]}})
        for name, path in zip(names, files, strict=True)
    ]


def _way(at: dict[str, Any], run: Run | None) -> tuple[list[Path], tuple[int, ...]]:
    """Give the files of the trajectory, and their steps."""
    if "files" in at:
        return [Path(path) for path in at["files"]], tuple(at["steps"])
    home = open_run(at["run"]) if "run" in at else run
    way = home.checkpoints(at["trajectory"]) if home is not None and "trajectory" in at else []
    return way, tuple(int(file.stem) for file in way)


def _risk(problem: Problem, spec: dict[str, Any]) -> EmpiricalRisk:
    how = spec["risk"]
    return EmpiricalRisk(
        problem,
        split=how["split"],
        # Held statistics are those at the point, to which the risk goes first.
        batchnorm="recalibrate" if how["batchnorm"] == "held" else how["batchnorm"],
        dtype=DTYPES[how["dtype"]],
        batch_size=spec.get("evaluation_batch"),
        check=spec.get("check", "quick"),
    )


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


def _names(files: Sequence[Path]) -> list[str]:
    """Name points by their files, with the folder where the files' names are the same."""
    short = [path.stem for path in files]
    return [
        name
        if short.count(name) == 1 and not name.isdigit()
        else f"{path.parent.name}/{int(name) if name.isdecimal() else name}"
        for name, path in zip(short, files, strict=True)
    ]
