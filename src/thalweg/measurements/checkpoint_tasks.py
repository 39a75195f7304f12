"""A task for each checkpoint: what instruments share that measure them one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from thalweg.measurements.record import Job, in_order
from thalweg.measurements.told import Told
from thalweg.run import Report, Run, Task


def measure_each(
    job: Job,
    function: Callable[[Run, dict[str, Any], Report], dict[str, Any]],
    label: str,
    *,
    units: int = 1,
) -> list[dict[str, Any]]:
    """
    Measure each checkpoint of a job in a task of its own.

    Parameters
    ----------
    job : Job
        With its checkpoints and its options.
    function : callable
        Of a module; does the task, best by `measure_checkpoint`.
    label : str
        What is measured, in words.
    units : int
        What a task costs.

    Returns
    -------
    list of dict
        The answers in the order of the checkpoints.
    """
    from thalweg.measurements.places import each_point

    tasks = [
        Task(
            f"{function.__module__}:{function.__name__}",
            {**spec, "options": job.options},
            label=f"{label} of {name}",
            units=units,
        )
        for name, spec in each_point(job.spec)
    ]
    return job.answers(tasks, label)


def measure_checkpoint(
    run: Run,
    arguments: dict[str, Any],
    report: Report,
    instrument: Callable[..., Any],
    *,
    units: float = 0.0,
) -> dict[str, Any]:
    """
    Let an instrument measure the checkpoint of a task, with the task's options.

    Parameters
    ----------
    run, arguments, report
        Of the task.
    instrument : callable
        Takes a risk, weights, the options and ``progress``; its answer has ``to_dict``.
    units : float
        Units of the task for each unit of the instrument's bar.
    """
    from thalweg.measurements.point import about_point, open_one

    risk, w, point = open_one(arguments, run)
    told = Told(report, units)
    answer = instrument(risk, w, **arguments["options"], progress=lambda total, label: told)
    return in_order({**answer.to_dict(), "checkpoint": about_point(point)})
