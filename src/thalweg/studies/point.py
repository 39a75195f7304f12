"""Where a landscape is looked at from: a problem, points in its space, and a way that led there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import CheckpointRefused, InvalidArgument
from thalweg.problems import Problem, load_stored
from thalweg.problems.checkpoints import fit_weights, load_weights
from thalweg.risk import EmpiricalRisk
from thalweg.run import Progress, Run, open_run, silent


@dataclass(frozen=True)
class Viewpoint:
    """
    A risk and the points it is looked at from.

    Attributes
    ----------
    risk : EmpiricalRisk
        Whose batch-norm buffers are those of the first point.
    points : Tensor
        Shape (n, W): the first is the centre.
    names : tuple of str
        Of the points.
    given : bool
        Whether the points were given by themselves; otherwise there is one, the end of the path.
    path : Tensor or None
        Shape (m, W): the checkpoints of a trajectory in the order of their steps.
    steps : tuple of int
        Shape (m,).
    trajectory : str
        Its name; empty where there is none.
    """

    risk: EmpiricalRisk
    points: Tensor
    names: tuple[str, ...]
    given: bool
    path: Tensor | None
    steps: tuple[int, ...]
    trajectory: str

    @property
    def centre(self) -> Tensor:
        """The first point, shape (W,)."""
        return self.points[0]


def place(
    checkpoints: Sequence[str | os.PathLike[str]] = (),
    run: str | os.PathLike[str] | None = None,
    trajectory: str | None = None,
) -> dict[str, Any]:
    """
    Name points of parameter space by files, for a configuration.

    Parameters
    ----------
    checkpoints : sequence of path
        The points; where there are none, the last checkpoint of the trajectory.
    run : path, optional
        A run directory that holds the trajectory.
    trajectory : str, optional
        Its name, which may be left out where the run has only one.

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
    files = [Path(path).resolve() for path in checkpoints]
    found: dict[str, Any] = {}
    if files:
        found |= {"checkpoints": [str(path) for path in files], "digest": _digest(files)}
    if run is not None:
        opened = open_run(run)
        name = _the_trajectory(opened, trajectory)
        found |= {"run": str(opened.path), "trajectory": name}
        found["trajectory_digest"] = _digest(opened.checkpoints(name))
    return found


def view(spec: dict[str, Any], run: Run | None = None, *, progress: Progress = silent) -> Viewpoint:
    """
    Load the problem and the points of a specification.

    Parameters
    ----------
    spec : dict
        ``problem`` (``entry``, ``settings``), ``at`` (`place`), ``risk`` (``split``,
        ``batchnorm``, ``dtype``) and ``evaluation_batch`` (None measures).
    run : Run, optional
        That holds the trajectory where ``at`` names no run.
    progress : Progress
        Shows the decoding of images.

    Returns
    -------
    Viewpoint
        With weights in the risk's dtype.
    """
    problem = load_stored(spec["problem"], progress=progress)
    at = spec["at"]
    home = open_run(at["run"]) if "run" in at else run
    way = home.checkpoints(at["trajectory"]) if home is not None and "trajectory" in at else []
    files = [Path(path) for path in at.get("checkpoints", [])] or way[-1:]
    states = [fit_weights(problem.model, load_weights(path)[0]) for path in files]
    problem.model.load_state_dict(states[0])
    risk = _risk(problem, spec)
    pack = risk.space.pack
    path = [pack(fit_weights(problem.model, load_weights(file)[0])) for file in way]
    return Viewpoint(
        risk=risk,
        points=torch.stack([pack(state) for state in states]).to(risk.dtype),
        names=tuple(_names(files)),
        given=bool(at.get("checkpoints")),
        path=torch.stack(path).to(risk.dtype) if path else None,
        steps=tuple(int(file.stem) for file in way),
        trajectory=at.get("trajectory", ""),
    )


def _risk(problem: Problem, spec: dict[str, Any]) -> EmpiricalRisk:
    how = spec["risk"]
    return EmpiricalRisk(
        problem,
        split=how["split"],
        batchnorm=how["batchnorm"],
        dtype={"float32": torch.float32, "float64": torch.float64}[how["dtype"]],
        batch_size=spec.get("evaluation_batch"),
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
        if not path.is_file():
            raise CheckpointRefused(f"{path} is not there; give a file (.safetensors or .pt).")
        with path.open("rb") as file:
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
