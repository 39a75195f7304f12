"""The run directory: what a run is made of at rest, and the driver that fills it."""

from __future__ import annotations

from thalweg.run.checkpoints import (
    RESUME_PREFIX,
    checkpoint_path,
    describe_checkpoint,
    read_checkpoint,
    trained_shapes,
    write_checkpoint,
)
from thalweg.run.engines import DaskEngine, Engine, InProcess, LocalProcesses
from thalweg.run.events import EventLog, Log, read_events
from thalweg.run.progress import Bar, Progress, on_screen, silent
from thalweg.run.run_toml import is_run
from thalweg.run.seeds import derive_seed, numpy_generator, torch_generator
from thalweg.run.store import Run, begun_run, create_run, list_runs, open_run
from thalweg.run.tasks import Report, Task, run_tasks, task_result

__all__ = [
    "RESUME_PREFIX",
    "Bar",
    "DaskEngine",
    "Engine",
    "EventLog",
    "InProcess",
    "LocalProcesses",
    "Log",
    "Progress",
    "Report",
    "Run",
    "Task",
    "begun_run",
    "checkpoint_path",
    "create_run",
    "derive_seed",
    "describe_checkpoint",
    "is_run",
    "list_runs",
    "numpy_generator",
    "on_screen",
    "open_run",
    "read_checkpoint",
    "read_events",
    "run_tasks",
    "silent",
    "task_result",
    "torch_generator",
    "trained_shapes",
    "write_checkpoint",
]
