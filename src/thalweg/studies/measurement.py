"""A run of one measurement at given checkpoints: how the command line keeps its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from thalweg.errors import InvalidArgument
from thalweg.run import Engine, InProcess, Progress, Run, run_tasks, silent
from thalweg.run.files import read_json, write_json
from thalweg.run.outcomes import batch_of_tasks
from thalweg.run.repair import repair
from thalweg.run.tensors import read_tensors, write_tensors
from thalweg.run.trust import name_entry
from thalweg.studies import spectrum, surface
from thalweg.studies.planes import Plane, check_plane, lay_plane
from thalweg.studies.point import MeasuredPoint, load_measured_point


def configure_surface(
    problem: dict[str, Any], at: dict[str, Any], risk: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """
    Write out the configuration of a surface, and check it before a run is made.

    Parameters
    ----------
    problem : dict
        ``entry`` and ``settings``.
    at : dict
        Of `thalweg.studies.point.place`.
    risk, options : dict
        What is to differ from `thalweg.studies.surface.RISK` and ``DEFAULTS``. Without
        ``directions``, they go through several checkpoints, along the principal components of a
        trajectory, and are random from a single checkpoint.

    Returns
    -------
    dict
        What goes into ``run.toml``.

    Raises
    ------
    InvalidArgument
        If options do not fit together.
    """
    points = len(at.get("checkpoints", ())) or 1
    guess = "points" if points > 1 else "principal" if "trajectory" in at else "random"
    chosen = {**surface.DEFAULTS, "directions": guess, **options}
    if chosen["directions"] == "points" and "dims" not in options:
        chosen["dims"] = max(1, points - 1)
    chosen.setdefault("points", surface.POINTS.get(chosen["dims"], 0))
    check_plane(chosen, points, "trajectory" in at)
    return _whole("surface", problem, at, risk, chosen)


def configure_spectrum(
    problem: dict[str, Any], at: dict[str, Any], risk: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """
    Write out the configuration of a spectrum, and check it before a run is made.

    Parameters and errors are those of `configure_surface`.
    """
    if len(at.get("checkpoints", ())) > 1:
        raise InvalidArgument("a spectrum is of one point; write --checkpoint once.")
    chosen = {**spectrum.DEFAULTS, **options}
    spectrum.check_spectrum(chosen)
    return _whole("spectrum", problem, at, risk, chosen)


def _whole(
    kind: str,
    problem: dict[str, Any],
    at: dict[str, Any],
    risk: dict[str, Any],
    chosen: dict[str, Any],
) -> dict[str, Any]:
    name_entry(problem["entry"])
    return {
        "measurement": kind,
        "problem": {"entry": _from_anywhere(problem["entry"]), "settings": problem["settings"]},
        "at": at,
        "risk": {**surface.RISK, **risk},
        kind: chosen,
    }


def _from_anywhere(entry: str) -> str:
    """Write out the path in an entry, so that a resume from another folder finds it."""
    path, colon, name = entry.partition(":")
    return str(Path(path).resolve()) + colon + name if Path(path).exists() else entry


def measure(
    run: Run,
    *,
    engine: Engine | None = None,
    task_timeout: float | None = None,
    progress: Progress = silent,
) -> tuple[Run, dict[str, Any]]:
    """
    Do all that is missing in a run of one measurement, and save its results.

    Parameters
    ----------
    run : Run
        Of a configuration that `configure_surface` or `configure_spectrum` wrote.
    engine : callable, optional
        Makes the executor of the work; by default it is done in this process.
    task_timeout : float, optional
        Seconds that a probe of a spectrum may take; blocks of surfaces are not timed.
    progress : callable
        Shows how far it has come.

    Returns
    -------
    run : Run
        The same.
    summary : dict
        What was found, under the name of the measurement.
    """
    run.require_source()
    with run.lock():
        repair(run)
        kind = run.config["measurement"]
        spec, notes = _prepared(run, progress)
        found = {**_MEASURES[kind](run, spec, engine, task_timeout, progress), "notes": notes}
        write_json(run.inside("summary.json"), {kind: found})
    return run, {kind: found}


def _prepared(run: Run, progress: Progress) -> tuple[dict[str, Any], list[str]]:
    """
    Specify what is looked at, and give the notes on its files.

    The batch of passes is chosen once, as each rounds its own way.
    """
    path = run.inside("measured.json")
    spec: dict[str, Any] = {name: run.config[name] for name in ("problem", "at", "risk")}
    spec["problem"].setdefault("settings", {})
    known = read_json(path) if path.exists() else {}
    if "evaluation_batch" not in known:
        point = load_measured_point(spec, tell=True, progress=progress)
        sizes = {"weights": point.risk.space.size, "samples": point.risk.samples}
        batch = {"evaluation_batch": batch_of_tasks(run) or point.risk.batch_size}
        known = {**batch, **sizes, "notes": point.notes}
        write_json(path, known)
    return spec | {"evaluation_batch": known["evaluation_batch"]}, known.get("notes", [])


def _surface(
    run: Run, spec: dict[str, Any], engine: Engine | None, _: float | None, progress: Progress
) -> dict[str, Any]:
    options = surface.DEFAULTS | run.config["surface"]
    measured = load_measured_point(spec, progress=progress)
    plane = _plane(run, measured, options, progress)
    found = surface.picture(measured, plane, options, run=run, engine=engine, progress=progress)
    return surface.save(run, found)


def _plane(run: Run, measured: MeasuredPoint, options: dict[str, Any], progress: Progress) -> Plane:
    """Lay the plane once a run: eigenvectors found anew may differ in the last bits."""
    path = run.inside("plane.safetensors")
    if not path.exists():
        laid = lay_plane(measured, options, progress=progress)
        about = {name: getattr(laid, name) for name in ("rule", "extent", "points", "places")}
        tensors = {"directions": laid.directions.cpu().contiguous()}
        write_tensors(path, tensors, {"plane": json.dumps(about)})
    tensors, metadata = read_tensors(path)
    about, directions = json.loads(metadata["plane"]), tensors["directions"].to(measured.points)
    extent = [(low, high) for low, high in about["extent"]]
    return Plane(directions, about["rule"], extent, about["points"], about["places"])


def _spectrum(
    run: Run,
    spec: dict[str, Any],
    engine: Engine | None,
    task_timeout: float | None,
    progress: Progress,
) -> dict[str, Any]:
    options = spectrum.DEFAULTS | run.config["spectrum"]
    tasks = spectrum.parts(spec, options)
    run_tasks(
        run,
        tasks,
        engine=engine or InProcess(),
        task_timeout=task_timeout,
        progress=progress,
        label="spectrum",
    )
    return spectrum.gather(run, tasks, options)


_MEASURES = {"surface": _surface, "spectrum": _spectrum}
