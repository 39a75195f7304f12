"""Run studies into a run directory, from the start or from where a run was stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch

from thalweg.errors import InvalidArgument
from thalweg.measurements.driver import measure
from thalweg.problems import load_stored
from thalweg.risk import EmpiricalRisk
from thalweg.run import Engine, Progress, Run, create_run, is_run, open_run, run_tasks, silent
from thalweg.run.files import read_json, write_json
from thalweg.run.outcomes import batch_of_tasks
from thalweg.run.repair import repair
from thalweg.run.tasks import remaining_units
from thalweg.run.threads import one_thread
from thalweg.studies.check_config import check_config, tasks_of
from thalweg.studies.preflight import Sizes, refuse_undecidable
from thalweg.studies.registry import CHECKS, JUDGES, RULES, STUDIES
from thalweg.studies.rules import STATED, judged_by, state
from thalweg.studies.trainings import UNITS_AN_EPOCH

_MEASURED = {"evaluation_batch", "seconds_an_epoch"}
_TIMED_STEPS = 4

Announce = Callable[[float], object]


def _unannounced(seconds: float) -> None:
    """Say nothing: the default outside the CLI."""


def reproduce(
    config: dict[str, Any],
    out: str | os.PathLike[str],
    *,
    engine: Engine | None = None,
    task_timeout: float | None = None,
    progress: Progress = silent,
    announce: Announce = _unannounced,
) -> tuple[Run, dict[str, Any]]:
    """
    Run the studies of a configuration, or go on with a run of the same configuration.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.
    out : path
        The run directory.
    engine : callable, optional
        Makes the executor of the trainings; local processes by default.
    task_timeout : float, optional
        Seconds that a training may take, see `thalweg.run.run_tasks`.
    progress : callable
        Shows how far the work has come.
    announce : callable
        Told before the work begins how many seconds one worker would need for it, as measured by a
        few training steps.

    Returns
    -------
    run : Run
        The run directory, complete.
    summary : dict
        What each study found, by name.

    Raises
    ------
    RunConflict
        If the folder holds something else.
    InvalidArgument
        If a study could not succeed; the message says with which settings it could.
    """
    check_config(config)
    if not is_run(out):
        sizes = Sizes.of(load_stored(config["problem"]))
        refuse_undecidable(config, sizes, CHECKS)
    run = create_run(out, config, rules=_stated(config))
    return complete(
        run, engine=engine, task_timeout=task_timeout, progress=progress, announce=announce
    )


def resume(
    path: str | os.PathLike[str],
    *,
    engine: Engine | None = None,
    task_timeout: float | None = None,
    progress: Progress = silent,
    announce: Announce = _unannounced,
) -> tuple[Run, dict[str, Any]]:
    """
    Go on with a run that was stopped; what is done is not done again.

    Raises
    ------
    InvalidArgument
        If it is a recording, which only the program that made it can go on with.
    """
    run = open_run(path)
    if run.recorded:
        raise InvalidArgument(
            f"{run.path} was recorded from Python: run the program that made it again."
            " tw.train goes on by itself, a loop within tw.record from where recorder.restore()"
            " says."
        )
    if "measurement" in run.config:
        return measure(run, engine=engine, task_timeout=task_timeout, progress=progress)
    return complete(
        run, engine=engine, task_timeout=task_timeout, progress=progress, announce=announce
    )


def complete(
    run: Run,
    *,
    engine: Engine | None = None,
    task_timeout: float | None = None,
    progress: Progress = silent,
    announce: Announce = _unannounced,
) -> tuple[Run, dict[str, Any]]:
    """
    Do all that is missing in a run, gather its results and judge its claims.

    What is damaged in it is made anew where it can be, and said.
    """
    run.require_source()
    # From the first file on: a second program is refused before it has changed anything.
    with run.lock():
        repair(run)
        return _complete(run, engine, task_timeout, progress, announce)


def _complete(
    run: Run,
    engine: Engine | None,
    task_timeout: float | None,
    progress: Progress,
    announce: Announce,
) -> tuple[Run, dict[str, Any]]:
    check_config(run.config)
    measured = _measured(run)
    config = run.config | {key: measured[key] for key in ("evaluation_batch", "seconds_an_epoch")}
    studies = {name: STUDIES[name] for name in config["studies"]}
    tasks = [task for name in studies for task in tasks_of(name, config)]
    announce(remaining_units(run, tasks) / UNITS_AN_EPOCH * measured["seconds_an_epoch"])
    run_tasks(
        run,
        tasks,
        engine=engine,
        task_timeout=task_timeout,
        progress=progress,
        label="studies",
    )
    with one_thread():
        summary = {
            name: study.assemble(run, config, progress=progress) for name, study in studies.items()
        }
        path = run.inside("claims.json")
        before = read_json(path).get("rules") if path.exists() else None
        by = judged_by(_stated(run.config), run.about.get(STATED), before)
        write_json(path, {"claims": _judged(run, config), "rules": by})
    write_json(run.inside("summary.json"), summary)
    return run, summary


def _stated(config: dict[str, Any]) -> dict[str, Any]:
    names = [name for name in config["studies"] if name in RULES]
    return state(
        config,
        {name: RULES[name](config) for name in names},
        {name: JUDGES[name] for name in config["studies"] if name in JUDGES},
    )


def _judged(run: Run, config: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"study": name, **claim.to_dict()}
        for name in config["studies"]
        for claim in STUDIES[name].claims(run, config)
    ]


def _measured(run: Run) -> dict[str, Any]:
    """Choose the batch of full passes once a run: another choice would round differently."""
    path = run.inside("measured.json")
    if not (read_json(path).keys() if path.exists() else set()) >= _MEASURED:
        problem = run.config["problem"]
        # With a seed, as tasks make it: an entry that takes none is found before the first task.
        risk = EmpiricalRisk(load_stored(problem, seed=run.config.get("seed", 0)))
        sizes = {"weights": risk.space.size, "samples": risk.samples}
        seconds = _seconds_an_epoch(risk, run.config["training"]["batch_size"])
        batch = batch_of_tasks(run) or risk.batch_size
        chosen = {"evaluation_batch": batch, "seconds_an_epoch": seconds}
        write_json(path, {**chosen, **sizes})
    measured: dict[str, Any] = read_json(path)
    return measured


def _seconds_an_epoch(risk: EmpiricalRisk, batch_size: int) -> float:
    """Time a few training steps as a worker takes them, in one thread."""
    w = risk.space.pack(risk.problem.model)
    batch = torch.arange(min(batch_size, risk.samples))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        risk.batch_gradient(w, batch, track=False)  # the first one warms up
        # CPU time, where the CPU computes: other programs disturb it less.
        clock = time.process_time if risk.device.type == "cpu" else time.perf_counter
        start = clock()
        for _ in range(_TIMED_STEPS):
            float(risk.batch_gradient(w, batch, track=False)[0])
        return (clock() - start) / _TIMED_STEPS * risk.samples / len(batch)
    finally:
        torch.set_num_threads(threads)
