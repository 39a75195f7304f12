"""What an instrument of the command line is: one record, from which all else is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thalweg.measurements.options import defaults
from thalweg.measurements.parts import Section
from thalweg.run import Engine, InProcess, Progress, Run, Task, run_tasks, task_result

Summary = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """
    A measurement under way.

    Attributes
    ----------
    run : Run
        Where tasks and results are kept.
    spec : dict
        ``problem``, ``at``, ``risk`` and ``evaluation_batch``: what
        `thalweg.measurements.point.load_measured_point` takes.
    options : dict
        All options of the record.
    engine : callable or None
        Makes the executor of tasks; None for this process.
    task_timeout : float or None
        Seconds that an attempt at a task may take.
    progress : callable
        Shows how far it has come.
    announce : callable
        Told in words what will be done, before it is.
    finished : callable
        Called when a part is done and its results are saved.
    started : float or None
        By `time.perf_counter`, when the work began: before the problem was loaded.
    """

    run: Run
    spec: dict[str, Any]
    options: dict[str, Any]
    engine: Engine | None
    task_timeout: float | None
    progress: Progress
    announce: Callable[[str], object] = field(default=lambda _: None)
    finished: Callable[[], object] = field(default=lambda: None)
    started: float | None = None

    def perform(self, tasks: Sequence[Task], label: str) -> list[dict[str, Any]]:
        """Do the tasks that are not done, and give the results of all in their order."""
        run_tasks(
            self.run,
            tasks,
            engine=self.engine or InProcess(),
            task_timeout=self.task_timeout,
            progress=self.progress,
            label=label,
        )
        found = (task_result(self.run, task) for task in tasks)
        return [result for result in found if result is not None]

    def answers(self, tasks: Sequence[Task], label: str) -> list[dict[str, Any]]:
        """Do tasks whose results are those of `in_order`, and give these as they were."""
        return [json.loads(result["answer"]) for result in self.perform(tasks, label)]


@dataclass(frozen=True)
class Written:
    """
    What is said of a file that was written.

    Attributes
    ----------
    lines : list of str
        For people.
    fields : dict
        What is added to the answer in JSON.
    """

    lines: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """
    A file that a command writes beside its answer.

    Attributes
    ----------
    flag, help : str
        Of the command line.
    endings : callable
        Gives what its name may end in, without the dot.
    write : callable
        Takes the job and the path, after the measurement, and gives what is said of the file.
    is_out : bool
        Whether ``--out`` with an ending means this file.
    limit : (int, str) or None
        Of how many checkpoints it can be made at most, and what it does of them.
    """

    flag: str
    help: str
    endings: Callable[[], Collection[str]]
    write: Callable[[Job, Path], Written]
    is_out: bool = False
    limit: tuple[int, str] | None = None


@dataclass(frozen=True)
class Measurement:
    """
    An instrument: its command, help, JSON, resume, rerun command and section come from here.

    Attributes
    ----------
    name : str
        Of the command, of the configuration's ``measurement``, and of the folder of its results.
    question : str
        What it measures, as the help of the command.
    options : type
        A dataclass whose fields are made by `thalweg.measurements.options.option`.
    perform : callable
        Takes a `Job`, does all that is missing, saves results, and gives the summary as JSON
        values.
    lines : callable
        Writes a summary for people.
    section : callable
        Gives the section of the report, or None where the run holds nothing of it.
    results : tuple of str
        Names of the results that the section reads.
    settle : callable
        Takes the options that were given, how many checkpoints there are and whether there is a
        trajectory; completes and checks them before a run is made. Without it, what was not given
        is as the options say.
    batchnorm, dtype : str
        Defaults of the policy, and of the numbers that are computed in.
    checkpoints : (int, int or None)
        The least and the most that it takes; a trajectory may stand for them.
    too_few : str
        What is wrong with fewer.
    from_start : callable
        Says of the options whether the problem's own initialization stands for a checkpoint where
        none is given.
    in_order : callable
        Says of the options whether several checkpoints are a trajectory.
    kept : bool
        Whether a run is made without ``--out``, too.
    answer : callable
        Takes run and summary, and gives what stands in JSON.
    outputs : tuple of Output
        Files that may be asked for.
    failed : callable
        Says of a summary, with what was written of files, whether the exit code is 1.
    opening : dict
        Added to the specification where the driver opens the points.
    """

    name: str
    question: str
    options: type[Any]
    perform: Callable[[Job], Summary]
    lines: Callable[[Summary], list[str]]
    section: Callable[[Run], Section | None]
    results: tuple[str, ...]
    settle: Callable[[dict[str, Any], int, bool], dict[str, Any]] | None = None
    batchnorm: str = "recalibrate"
    dtype: str = "own"
    checkpoints: tuple[int, int | None] = (1, 1)
    too_few: str = ""
    from_start: Callable[[dict[str, Any]], bool] = field(default=lambda _: False)
    in_order: Callable[[dict[str, Any]], bool] = field(default=lambda _: False)
    kept: bool = False
    answer: Callable[[Run, Summary], Mapping[str, Any]] = field(default=lambda _, found: found)
    outputs: tuple[Output, ...] = ()
    failed: Callable[[Summary], bool] = field(default=lambda _: False)
    opening: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name under which its results lie in ``results.zarr``."""
        return self.results[0].partition("/")[0]

    def complete(self, given: dict[str, Any], points: int, trajectory: bool) -> dict[str, Any]:
        """Complete and check the options that were given."""
        if self.settle is None:
            return {**defaults(self.options), **given}
        return self.settle(given, points, trajectory)


def in_order(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Make a task's result of an answer whose fields have an order: files keep none."""
    return {"answer": json.dumps(answer)}


def one_or_several(run: Run, found: Summary) -> Mapping[str, Any]:
    """Give as an answer one checkpoint's own fields, or a list of several."""
    points: list[dict[str, Any]] = found["checkpoints"]
    return points[0] if len(points) == 1 else {"checkpoints": points}


def every_field(found: Summary) -> list[str]:
    """Write every field of every checkpoint."""
    return [line for answer in found["checkpoints"] for line in table_of(answer)]


def cell(value: object) -> str:
    """Write a value as a cell of a table: four digits of a number, a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table_of(answer: Mapping[str, Any]) -> list[str]:
    """Write the fields of an answer, one a line; dicts and lists below their names."""
    rows: list[str] = []
    for name, value in answer.items():
        title = name.replace("_", " ")
        if isinstance(value, dict):
            rows.append(f"{title}:")
            for key, part in value.items():
                head = f"  {key.replace('_', ' '):<28} "
                rows += [head + line for line in (part if isinstance(part, list) else [cell(part)])]
        elif isinstance(value, list | tuple):
            rows += [f"{title}:", *(f"  - {text}" for text in value)] if value else []
        else:
            rows.append(f"{title:<18} {cell(value)}")
    return rows
