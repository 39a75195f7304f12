"""Blocks of a long computation: done on any engine, kept in a run, so that no kill repeats them."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.errors import CheckpointRefused, DamagedFile, InvalidArgument
from thalweg.geometry.job import Job
from thalweg.problems.batches import digest
from thalweg.run import Bar, Engine, Report, Run, Task, run_tasks
from thalweg.run.progress import within
from thalweg.run.tensors import read_tensors, write_tensors

logger = logging.getLogger("thalweg")

Block = dict[str, NDArray[Any]]
Compute = Callable[[Job, dict[str, Any], int, int, Bar], Block]


@dataclass(frozen=True)
class Phase:
    """
    A computation over ``range(total)`` that falls into independent blocks.

    Parameters
    ----------
    compute : callable
        A function of a module: ``compute(job, parameters, start, stop, bar)`` gives one block,
        telling the bar of each unit.
    total : int
        Number of units.
    size : int
        Units a block.
    parameters : dict
        JSON values that it depends on besides the job.
    """

    compute: Compute
    total: int
    size: int
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def entry(self) -> str:
        """``"package.module:function"``."""
        return f"{self.compute.__module__}:{self.compute.__qualname__}"

    def bounds(self) -> Iterator[tuple[int, int]]:
        """Give start and stop of every block."""
        for start in range(0, self.total, self.size):
            yield start, min(start + self.size, self.total)


class Blocks:
    """
    The blocks of one job.

    Parameters
    ----------
    job : Job
        What they are computed from.
    run : Run, optional
        Where finished blocks are kept.
    engine : Engine, optional
        Where they are computed; by default in this process.
    task_timeout : float, optional
        Seconds that a block may take there.

    Raises
    ------
    InvalidArgument
        If an engine is given without a run, a time without an engine, or workers cannot make the
        job again.
    """

    def __init__(
        self,
        job: Job,
        run: Run | None = None,
        engine: Engine | None = None,
        task_timeout: float | None = None,
    ) -> None:
        if task_timeout is not None and engine is None:
            raise InvalidArgument(
                "task_timeout was given without engine: what this process computes cannot be ended."
                " Write engine=LocalProcesses(), or leave out task_timeout."
            )
        if engine is not None and run is None:
            raise InvalidArgument(
                "engine was given without run: workers write finished blocks to a run directory."
                " Write run=create_run('runs/mine', {}), or leave out engine."
            )
        self.job, self.run, self.engine, self.task_timeout = job, run, engine, task_timeout
        if run is None:
            return
        key = job.key  # of the state the risk has now: cells may bring their own
        if engine is not None:
            job.save(_job_path(run, key))

    def hold(self) -> AbstractContextManager[None]:
        """Hold the run against other processes."""
        return nullcontext() if self.run is None else self.run.lock()

    def compute(self, phase: Phase, bar: Bar) -> list[Block]:
        """Give all blocks of a phase in order, computing those that are not there yet."""
        if self.run is None:
            return [self._here(phase, *bounds, bar) for bounds in phase.bounds()]
        store = _Store(self.run, self.job.key, phase.entry, phase.parameters)
        blocks = {bounds: store.find(*bounds) for bounds in phase.bounds()}
        missing = [bounds for bounds, block in blocks.items() if block is None]
        bar.update(phase.total - sum(stop - start for start, stop in missing))
        if self.engine is not None:
            run_tasks(
                self.run,
                [self._task(phase, *bounds) for bounds in missing],
                engine=self.engine,
                task_timeout=self.task_timeout,
                progress=within(bar),
            )
        # What an engine's earlier call has done and somebody has deleted since is done here.
        for start, stop in missing:
            if not store.path(start, stop).exists():
                store.keep(start, stop, self._here(phase, start, stop, bar))
        blocks |= {bounds: store.read(*bounds) for bounds in missing}
        return [block for block in blocks.values() if block is not None]

    def _here(self, phase: Phase, start: int, stop: int, bar: Bar) -> Block:
        return phase.compute(self.job, phase.parameters, start, stop, bar)

    def _task(self, phase: Phase, start: int, stop: int) -> Task:
        arguments = {
            "job": self.job.key,
            "entry": phase.entry,
            "parameters": phase.parameters,
            "start": start,
            "stop": stop,
        }
        name = f"{phase.compute.__name__} {start} to {stop}"
        return Task("thalweg.geometry.blocks:work", arguments, label=name, units=stop - start)


def work(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Compute and keep one block, in a worker."""
    key, entry, parameters = arguments["job"], arguments["entry"], arguments["parameters"]
    start, stop = arguments["start"], arguments["stop"]
    store = _Store(run, key, entry, parameters)
    if not store.path(start, stop).exists():
        module, _, name = entry.partition(":")
        compute: Compute = getattr(importlib.import_module(module), name)
        job = _load_job(_job_path(run, key), key)
        store.keep(start, stop, compute(job, parameters, start, stop, _Told(report)))
    return {}


@lru_cache(maxsize=1)
def _load_job(path: Path, key: str) -> Job:
    """Make the job once for all blocks that a worker gets."""
    return Job.load(path, key)


def _job_path(run: Run, key: str) -> Path:
    return run.inside("blocks", key, "job.safetensors")


class _Store:
    """Finished blocks of one phase of one job, under ``blocks/`` of a run."""

    def __init__(self, run: Run, job: str, entry: str, parameters: dict[str, Any]) -> None:
        text = json.dumps([entry, parameters], sort_keys=True).encode()
        name = digest(torch.tensor(list(text), dtype=torch.uint8))
        self.run, self.parts = run, ("blocks", job, name)

    def path(self, start: int, stop: int) -> Path:
        return self.run.inside(*self.parts, f"{start:09d}-{stop:09d}.safetensors")

    def find(self, start: int, stop: int) -> Block | None:
        """Read a block that is there and whole; a damaged one is removed, to be done again."""
        path = self.path(start, stop)
        if not path.exists():
            return None
        try:
            return self.read(start, stop)
        except (DamagedFile, CheckpointRefused) as error:
            logger.warning("%s It is computed again.", error)
            path.unlink()
            return None

    def read(self, start: int, stop: int) -> Block:
        tensors, _ = read_tensors(self.path(start, stop))
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def keep(self, start: int, stop: int, block: Block) -> None:
        """Write a finished block, whole or not at all."""
        # Copies: arrays may be read-only, and torch wants none of these.
        whole = {
            name: torch.from_numpy(np.array(array, order="C")) for name, array in block.items()
        }
        write_tensors(self.path(start, stop), whole, {})


class _Told:
    """A bar that tells the task driver."""

    def __init__(self, report: Report) -> None:
        self.report, self.done = report, 0

    def update(self, n: int = 1, /) -> None:
        self.done += n
        self.report(self.done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None
