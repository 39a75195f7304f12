"""A run of one measurement at given checkpoints: how the command line keeps its answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from thalweg.errors import InvalidArgument
from thalweg.measurements.options import defaults
from thalweg.measurements.record import Job, Measurement
from thalweg.measurements.registry import MEASUREMENTS
from thalweg.run import Engine, Progress, Run, silent
from thalweg.run.files import read_json, write_json
from thalweg.run.outcomes import batch_of_tasks
from thalweg.run.repair import repair
from thalweg.run.trust import name_entry

RISK: dict[str, Any] = {"split": "train", "batchnorm": "recalibrate", "dtype": "float32"}


def configure(
    record: Measurement,
    problem: dict[str, Any],
    at: dict[str, Any],
    risk: dict[str, Any],
    options: dict[str, Any],
) -> dict[str, Any]:
    """
    Write out the configuration of a measurement, and check it before a run is made.

    Parameters
    ----------
    record : Measurement
        What is measured.
    problem : dict
        ``entry`` and ``settings``.
    at : dict
        Of `thalweg.measurements.places.place`.
    risk, options : dict
        What is to differ from the record's defaults.

    Returns
    -------
    dict
        What goes into ``run.toml``.

    Raises
    ------
    InvalidArgument
        If options do not fit together.
    """
    points = len(at.get("checkpoints", ()))
    _check_number(record, points, "trajectory" in at or "start" in at)
    settled = record.complete(options, points or 1, "trajectory" in at)
    name_entry(problem["entry"])
    return {
        "measurement": record.name,
        "problem": {"entry": _from_anywhere(problem["entry"]), "settings": problem["settings"]},
        "at": at,
        "risk": {**RISK, "batchnorm": record.batchnorm, "dtype": record.dtype, **risk},
        record.name: settled,
    }


def _check_number(record: Measurement, points: int, stood_for: bool) -> None:
    least, most = record.checkpoints
    if most is not None and points > most:
        raise InvalidArgument(f"{record.name} is of one point; write --checkpoint once.")
    if points < least and not stood_for:
        raise InvalidArgument(f"{points} checkpoints; {record.too_few}.")


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
    announce: Callable[[str], object] = lambda _: None,
    finished: Callable[[], object] = lambda: None,
    started: float | None = None,
) -> tuple[Run, dict[str, Any]]:
    """
    Do all that is missing in a run of one measurement, and save its results.

    Parameters
    ----------
    run : Run
        Of a configuration that `configure` wrote.
    engine : callable, optional
        Makes the executor of the work; by default it is done in this process.
    task_timeout : float, optional
        Seconds that a task, or a block of a surface, may take on the engine.
    progress : callable
        Shows how far it has come.
    announce, finished : callable
        Of `thalweg.measurements.record.Job`.
    started : float, optional
        By `time.perf_counter`, when the work began; by default now.

    Returns
    -------
    run : Run
        The same.
    summary : dict
        What was found, under the name of the measurement.
    """
    started = time.perf_counter() if started is None else started
    run.require_source()
    with run.lock():
        repair(run)
        record = record_of(run.config)
        job, notes = prepare(run, engine, task_timeout, progress)
        job = replace(job, announce=announce, finished=finished, started=started)
        found = {**record.perform(job), "notes": notes}
        write_json(run.inside("summary.json"), {record.name: found})
    return run, {record.name: found}


def record_of(config: dict[str, Any]) -> Measurement:
    """
    Give the record of a run's configuration.

    Raises
    ------
    InvalidArgument
        If this version has no such measurement.
    """
    name = config["measurement"]
    if name not in MEASUREMENTS:
        raise InvalidArgument(f"measurement {name!r}; expected one of {', '.join(MEASUREMENTS)}.")
    return MEASUREMENTS[name]


def prepare(
    run: Run,
    engine: Engine | None = None,
    task_timeout: float | None = None,
    progress: Progress = silent,
) -> tuple[Job, list[str]]:
    """
    Specify what is looked at, and give the notes on its files.

    The batch of passes is chosen once, as each rounds its own way.
    """
    from thalweg.measurements.point import load_measured_point

    record, path = record_of(run.config), run.inside("measured.json")
    spec: dict[str, Any] = {name: run.config[name] for name in ("problem", "at", "risk")}
    spec["problem"].setdefault("settings", {})
    known = read_json(path) if path.exists() else {}
    if "evaluation_batch" not in known:
        point = load_measured_point({**spec, **record.opening}, tell=True, progress=progress)
        sizes = {"weights": point.risk.space.size, "samples": point.risk.samples}
        batch = {"evaluation_batch": batch_of_tasks(run) or point.risk.batch_size}
        known = {**batch, **sizes, "notes": point.notes}
        write_json(path, known)
    spec |= {"evaluation_batch": known["evaluation_batch"]}
    options = defaults(record.options) | run.config[record.name]
    return Job(run, spec, options, engine, task_timeout, progress), known.get("notes", [])
