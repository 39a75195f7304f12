"""Engines: factories of executors, on which the task driver runs its tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, Protocol, TypeVar

from thalweg.errors import InvalidArgument

P = ParamSpec("P")
T = TypeVar("T")

_SECONDS_BETWEEN_LOOKS = 0.5
# Seconds that a scheduler may be away: a restart of the network, not of the machine.
_PATIENCE = 20.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Engine(Protocol):
    """
    A factory of executors.

    The driver submits one function of one picklable argument, and asks for a new executor when one
    has broken. Where an executor has a method ``terminate_workers``, an interrupt calls it;
    otherwise ``shutdown(wait=False)``. Where it has a method ``fallen``, that gives the numbers of
    the processes that broke it, and a method ``lost(patience)`` says why nobody will answer any
    more, or is empty. `thalweg.run.testing.EngineContract` tests an engine.
    """

    def __call__(self) -> Executor:
        """Make an executor."""


class LocalProcesses:
    """
    Run tasks in processes on this machine, each with one thread.

    Parameters
    ----------
    workers : int, optional
        How many processes; by default as many as this process may use processors.

    Notes
    -----
    Workers end with their parent, however it ends, and leave Ctrl-C to it. They are started afresh
    (spawn), so a script that uses this engine needs ``if __name__ == "__main__":``.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise InvalidArgument(f"workers is {workers}; expected at least 1, or None for all.")
        self.workers = workers or _usable_processors()

    def __call__(self) -> Executor:
        """Make a pool of worker processes."""
        return _WorkerPool(
            self.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin_worker,
            initargs=(os.getpid(),),
        )


class InProcess:
    """Run each task in this process as it is submitted: for tests and for debugging."""

    def __call__(self) -> Executor:
        """Make an executor that runs what it is given at once."""
        return _InProcessExecutor()


class DaskEngine:
    """
    Run tasks on a Dask cluster whose workers see the run directory under the same path.

    Parameters
    ----------
    client : distributed.Client
        The caller's; it stays open.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def __call__(self) -> Executor:
        """Make an executor that submits to the cluster."""
        # pure=True would merge an attempt with the failed one before it.
        return _DaskExecutor(self.client.get_executor(pure=False), self.client)


class _WorkerPool(ProcessPoolExecutor):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._known: dict[int, Any] = {}

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        # Submitting starts processes. They inherit the blocked signal, so that Ctrl-C, which a
        # terminal sends to all of them, stops only the driver; and no start is cut in two by it.
        with _interrupts_held():
            future = super().submit(fn, *args, **kwargs)
        self._known |= self._processes or {}
        return future

    def fallen(self) -> set[int]:
        """Give the processes that ended by themselves, or were killed, and so broke the pool."""
        # What the pool itself then ends, it ends by SIGTERM.
        by_pool = (None, 0, -signal.SIGTERM)
        return {n for n, process in self._known.items() if process.exitcode not in by_pool}

    def terminate_workers(self) -> None:
        """End all workers at once, as Python 3.14's method of this name does."""
        for process in list((self._processes or {}).values()):
            process.kill()
        self.shutdown(wait=True, cancel_futures=True)


class _DaskExecutor(Executor):
    """Dask's executor, and whether its scheduler is there."""

    def __init__(self, executor: Executor, client: Any) -> None:
        self.executor, self.client = executor, client
        self.address = getattr(getattr(client, "scheduler", None), "address", "its address")
        self._away: float | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self.executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if self.client.status == "running":
            self.executor.shutdown(wait=wait)

    def lost(self, patience: float = _PATIENCE) -> str:
        """Say that the scheduler has been away for longer than it takes to come back."""
        if self.client.status == "running":
            self._away = None
            return ""
        self._away = self._away or time.monotonic()
        closed = self.client.status in ("closing", "closed")
        if not closed and time.monotonic() - self._away < patience:
            return ""
        return (
            f"The Dask scheduler at {self.address} does not answer any more"
            f" (its client is {self.client.status}). Start it and its workers, and then this again."
        )


class _InProcessExecutor(Executor):
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def _interrupts_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(parent: int) -> None:
    _die_with(parent)
    # torch and the BLAS of NumPy read it when they are loaded.
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:  # by the program, whose main module a worker loads first
        sys.modules["torch"].set_num_threads(1)


def _die_with(parent: int) -> None:
    """End this process soon after its parent: on Linux at once, elsewhere at the next look."""
    import ctypes

    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
