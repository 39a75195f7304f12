"""Run studies into a run directory, from the start or from where a run was stopped."""

from __future__ import annotations

import os
from typing import Any

from thalweg.problems import load_problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import Engine, Progress, Run, create_run, open_run, run_tasks, silent
from thalweg.run.files import read_json, write_json
from thalweg.studies.registry import STUDIES


def reproduce(
    config: dict[str, Any],
    out: str | os.PathLike[str],
    *,
    engine: Engine | None = None,
    progress: Progress = silent,
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
    progress : callable
        Shows how far the work has come.

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
    """
    return complete(create_run(out, config), engine=engine, progress=progress)


def resume(
    path: str | os.PathLike[str], *, engine: Engine | None = None, progress: Progress = silent
) -> tuple[Run, dict[str, Any]]:
    """Go on with a run that was stopped; what is done is not done again."""
    return complete(open_run(path), engine=engine, progress=progress)


def complete(
    run: Run, *, engine: Engine | None = None, progress: Progress = silent
) -> tuple[Run, dict[str, Any]]:
    """Do all that is missing in a run, and gather its results."""
    config = run.config | {"evaluation_batch": _measured(run)["evaluation_batch"]}
    studies = {name: STUDIES[name] for name in config["studies"]}
    tasks = [task for study in studies.values() for task in study.tasks(config)]
    run_tasks(run, tasks, engine=engine, progress=progress, label="training")
    summary = {
        name: study.assemble(run, config, progress=progress) for name, study in studies.items()
    }
    write_json(run.path / "summary.json", summary)
    return run, summary


def _measured(run: Run) -> dict[str, Any]:
    """Choose the batch of full passes once a run: another choice would round differently."""
    path = run.path / "measured.json"
    if not path.exists():
        problem = run.config["problem"]
        risk = EmpiricalRisk(load_problem(problem["entry"], **problem["settings"]))
        sizes = {"weights": risk.space.size, "samples": risk.samples}
        write_json(path, {"evaluation_batch": risk.batch_size, **sizes})
    found: dict[str, Any] = read_json(path)
    return found
