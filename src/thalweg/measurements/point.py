"""Where a landscape is looked at from: a problem, points in its space, and a way that led there."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.measurements.places import (
    INITIALIZATION,
    files_on_the_way,
    names_of,
    other_way,
    own_name,
)
from thalweg.problems import Problem, load_stored
from thalweg.problems.between import States
from thalweg.problems.checkpoints import Point, open_points
from thalweg.risk import EmpiricalRisk
from thalweg.run import Progress, Run, silent

log = logging.getLogger("thalweg")

DTYPES = {"own": None, "float32": torch.float32, "float64": torch.float64}


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
    way, steps = files_on_the_way(at, run)
    files = [Path(path) for path in at.get("checkpoints", [])] or way[-1:]
    risk = _risk(problem, spec)
    points = _opened(problem, at, files, tell=tell)
    along = open_points(problem, way, tell=tell and files != way[-1:], progress=progress, **opening)
    about = about_point(points[0]) if at.get("checkpoints") else {}
    names = names_of(files) or [INITIALIZATION]
    points = [replace(point, name=name) for point, name in zip(points, names, strict=True)]
    along = [replace(point, name=name) for point, name in zip(along, names_of(way), strict=True)]
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
        name = own_name(found.name, label, [own, *(way.name for way in ways)])
        ways.append(Way(name, States.of(risk, points), found.steps))
    return tuple(ways)


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
    way, _ = files_on_the_way(at, None)
    files = [Path(path) for path in at.get("checkpoints", [])] or way[-1:]
    return problem, _opened(problem, at, files, tell=False)


def _opened(problem: Problem, at: dict[str, Any], files: list[Path], *, tell: bool) -> list[Point]:
    """Open files, or take the problem's own initialization where that is the place."""
    if "start" in at:
        (start,) = open_points(problem, [problem.model.state_dict()], tell=False)
        return [replace(start, name=INITIALIZATION)]
    return open_points(problem, files, tell=tell, **at.get("opening", {}))


def open_way(problem: Problem, at: dict[str, Any]) -> list[Point]:
    """Open the checkpoints of a trajectory, named by their files, in order; none where none is."""
    way, _ = files_on_the_way(at, None)
    points = open_points(problem, way, tell=False, **at.get("opening", {}))
    return [replace(point, name=name) for point, name in zip(points, names_of(way), strict=True)]


def open_path(spec: dict[str, Any], run: Run | None = None) -> tuple[EmpiricalRisk, list[Point]]:
    """Open the points of a specification, or all of its trajectory, in order."""
    way, _ = files_on_the_way(spec["at"], None)
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
