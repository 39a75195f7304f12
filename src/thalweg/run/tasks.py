"""The task driver: each task once, in the order of its needs, whatever happens to the workers."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field
from functools import cached_property, partial
from graphlib import TopologicalSorter
from typing import Any

from thalweg.errors import DamagedFile, InvalidArgument, TaskFailed
from thalweg.run.engines import Engine, LocalProcesses
from thalweg.run.heartbeat import Watch, listening, progress_path, read_mark
from thalweg.run.outcomes import (
    Report,
    forget_outcome,
    is_done,
    perform,
    read_outcome,
)
from thalweg.run.progress import Bar, Progress, silent
from thalweg.run.store import Run
from thalweg.run.trust import granted_entries

logger = logging.getLogger("thalweg")

__all__ = ["Report", "Task", "remaining_units", "run_tasks", "task_result"]

_SECONDS_BETWEEN_LOOKS = 0.2
# Seconds without a sign of life after which a worker is ended: it gives one every two.
STANDSTILL = 20.0


@dataclass(frozen=True)
class Task:
    """
    A piece of work of a run, known by what it is.

    Parameters
    ----------
    function : str
        ``"package.module:function"``. It is called in a worker as
        ``function(run, arguments, report)`` and returns a dict of JSON values and NumPy arrays;
        ``report(done)`` tells how many of its units are done.
    arguments : dict
        JSON values. The key of a needed task may be one: `task_result` takes keys.
    needs : tuple of Task
        Tasks that must be done before.
    label : str
        What people call it.
    units : int
        How much work it is, in the units of ``report``.
    """

    function: str
    arguments: dict[str, Any] = field(hash=False)
    needs: tuple[Task, ...] = ()
    label: str = field(default="", compare=False)
    units: int = field(default=1, compare=False)

    def __post_init__(self) -> None:
        try:
            plain = json.loads(json.dumps(self.arguments))
        except (TypeError, ValueError) as error:
            raise InvalidArgument(
                f"Arguments of the task {self.name} are no JSON values ({error}): "
                f"got {self.arguments!r}, expected text, numbers, lists and dicts of them."
            ) from None
        # What a worker will read, also where the task runs in this process.
        object.__setattr__(self, "arguments", plain)

    @cached_property
    def key(self) -> str:
        """Hash of function, arguments and needs: the same in every process and on every day."""
        spec = [self.function, self.arguments, [need.key for need in self.needs]]
        text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def name(self) -> str:
        """The label, or else the function."""
        return self.label or self.function


def task_result(run: Run, task: Task | str) -> dict[str, Any] | None:
    """
    Read the result of a task, or of the task with a key.

    Returns
    -------
    dict or None
        JSON values and NumPy arrays as the function returned them; None if it is not done.
    """
    key = task if isinstance(task, str) else task.key
    return read_outcome(run.tasks, key) if is_done(run.tasks, key) else None


def remaining_units(run: Run, tasks: Iterable[Task]) -> int:
    """Sum the units of the tasks, needed ones included, that have no result yet."""
    everything = _with_needs(tasks).values()
    return sum(task.units for task in everything if not is_done(run.tasks, task.key))


def run_tasks(
    run: Run,
    tasks: Iterable[Task],
    *,
    engine: Engine | None = None,
    attempts: int = 3,
    task_timeout: float | None = None,
    progress: Progress = silent,
    label: str = "tasks",
) -> dict[str, dict[str, Any]]:
    """
    Run the tasks that are not done yet, and all that they need.

    A task whose worker died or stands still, or that met trouble of the system (OSError,
    MemoryError), is tried again. Of a task that raises anything else, only those that need it are
    left undone.

    Parameters
    ----------
    run : Run
        Where results are written; locked against other processes meanwhile.
    tasks : iterable of Task
        Equal tasks are run once.
    engine : Engine, optional
        A factory of executors, by default `LocalProcesses()`.
    attempts : int
        How often a task may be begun. The tasks of workers that only ended with another one's
        keep theirs.
    task_timeout : float, optional
        Seconds that an attempt may take; it is then ended, and counts as one that failed. A worker
        that shows no sign of life for 20 seconds is ended in any case.
    progress : Progress
        Gets one bar, whose total is the sum of the tasks' units.
    label : str
        The bar's.

    Returns
    -------
    dict
        The result of each task, needed ones included, by its key.

    Raises
    ------
    TaskFailed
        If a task failed; all others that could run are done, and nothing done is lost.
    InvalidArgument
        If ``attempts`` is below one, or ``task_timeout`` is not positive.
    RunConflict
        If another process is at work on the run.
    """
    if attempts < 1:
        raise InvalidArgument(f"attempts is {attempts}; write 1 or more.")
    if task_timeout is not None and not task_timeout > 0:
        raise InvalidArgument(f"task_timeout is {task_timeout}; expected seconds, such as 600.")
    everything = _with_needs(tasks)
    total = sum(task.units for task in everything.values())
    with run.lock(), progress(total, label) as bar:
        watch = Watch(run.tasks, STANDSTILL, task_timeout)
        _Driver(run, everything, engine or LocalProcesses(), attempts, watch, bar).drive()
    return {key: read_outcome(run.tasks, key) for key in everything}


def _with_needs(tasks: Iterable[Task]) -> dict[str, Task]:
    by_key: dict[str, Task] = {}
    waiting = deque(tasks)
    while waiting:
        task = waiting.popleft()
        if task.key not in by_key:
            by_key[task.key] = task
            waiting.extend(task.needs)
    return by_key


class _Driver:
    """One call of `run_tasks`: what waits, what runs, what failed."""

    def __init__(
        self,
        run: Run,
        tasks: dict[str, Task],
        engine: Engine,
        attempts: int,
        watch: Watch,
        bar: Bar,
    ) -> None:
        self.run, self.tasks, self.engine = run, tasks, engine
        self.attempts, self.watch, self.bar = attempts, watch, bar
        self.order = TopologicalSorter({k: [n.key for n in t.needs] for k, t in tasks.items()})
        self.queue: deque[Task] = deque()
        self.running: dict[Future[dict[str, Any]], Task] = {}
        self.executor: Executor | None = None
        self.tries: Counter[str] = Counter()
        self.shown: Counter[str] = Counter()
        self.crashed: set[str] = set()
        self.failed: dict[str, tuple[str, str]] = {}

    def drive(self) -> None:
        self.order.prepare()
        self._skip_done()
        try:
            while self._start():
                self._collect()
        except BaseException:
            self._end_at_once()
            raise
        if self.executor is not None:
            self.executor.shutdown(wait=True)
        if self.failed:
            raise self._failure()

    def _skip_done(self) -> None:
        for task in self.tasks.values():
            # A killed worker leaves the mark of its beginning.
            progress_path(self.run.tasks, task.key).unlink(missing_ok=True)
            if is_done(self.run.tasks, task.key) and self._is_whole(task):
                self._show_progress(task, task.units)

    def _is_whole(self, task: Task) -> bool:
        """Look at a result; a damaged one is taken out, and its task done again."""
        try:
            read_outcome(self.run.tasks, task.key)
        except DamagedFile as error:
            logger.warning("%s Task %r is done again.", error, task.name)
            forget_outcome(self.run.tasks, task.key)
            return False
        return True

    def _start(self) -> bool:
        """Submit what may start; say whether anything runs."""
        while ready := self.order.get_ready():
            for key in ready:
                if is_done(self.run.tasks, key):
                    self.order.done(key)
                else:
                    self.queue.append(self.tasks[key])
        while self.queue and self._may_start(self.queue[0]):
            future = self._submit(self.queue[0])
            if future is not None:
                self.running[future] = self.queue.popleft()
                if future.done():  # an engine that runs at once: count it before the next
                    break
        return bool(self.running)

    def _may_start(self, task: Task) -> bool:
        # A pool dies with one worker, and an engine may not know which task it was. The last
        # attempt is made alone, so that no task fails for a neighbour's crash.
        if not self.crashed or not self.running:
            return True
        return not any(map(self._is_last_chance, [task, *self.running.values()]))

    def _is_last_chance(self, task: Task) -> bool:
        return task.key in self.crashed and self.tries[task.key] == self.attempts - 1

    def _submit(self, task: Task) -> Future[dict[str, Any]] | None:
        if self.executor is None:
            self.executor = self.engine()
        spec = {
            "run": str(self.run.path),
            "key": task.key,
            "function": task.function,
            "arguments": task.arguments,
            "label": task.label,
            "needs": [need.key for need in task.needs],
            "trusted": granted_entries(),
        }
        path = progress_path(self.run.tasks, task.key)
        try:  # an engine that runs at once returns when all is done
            with listening(path, partial(self._show_progress, task)):
                return self.executor.submit(perform, spec)
        except BrokenExecutor as error:
            self._replace(error)
            return None

    def _collect(self) -> None:
        finished, _ = wait(
            self.running, timeout=_SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED
        )
        for future in finished:
            try:
                outcome = future.result()
            except BrokenExecutor as error:
                self._replace(error)
                return
            except Exception as error:
                self._check_engine(patience=0.0)
                self._try_again(self.running.pop(future), f"{type(error).__name__}: {error}")
            else:
                self._settle(self.running.pop(future), **outcome)
        self._check_engine()
        for task in self.running.values():
            mark = self.watch.look(task.key)
            self._show_progress(task, 0 if mark is None else mark.done)
        self._end_what_stands_still()

    def _settle(self, task: Task, error: str | None, trace: str, passing: bool) -> None:
        if error is None and is_done(self.run.tasks, task.key):
            self._show_progress(task, task.units)
            self.order.done(task.key)
        elif error is None:
            self._try_again(task, f"its worker wrote no result that is seen in {self.run.tasks}")
        elif passing:
            self._try_again(task, error, trace)
        else:
            self.failed[task.key] = error, trace

    def _check_engine(self, **patience: float) -> None:
        """Give up where the executor says that nobody will answer any more."""
        lost = getattr(self.executor, "lost", None)
        why = lost(**patience) if lost else ""
        if why:
            self.executor = None
            raise TaskFailed(f"{why} All results are kept for the next start.")

    def _end_what_stands_still(self) -> None:
        faults = {t.key: f for t in self.running.values() if (f := self.watch.fault(t.key))}
        if not faults:
            return
        for key, fault in faults.items():
            logger.warning("Task %r: %s; it is ended.", self.tasks[key].name, fault)
        # Workers cannot be ended one by one; those of the other tasks lose no attempt.
        self._end_at_once()
        lost = list(self.running.values())
        self.running.clear()
        for task in lost:
            self._lose(task, faults.get(task.key))

    def _lose(self, task: Task, cause: str | None) -> None:
        """Take back a task whose worker is gone; without a cause it has used no attempt."""
        self.watch.forget(task.key)
        if is_done(self.run.tasks, task.key):
            self._settle(task, None, "", False)
        elif cause is not None:
            self._try_again(task, cause)
        else:
            progress_path(self.run.tasks, task.key).unlink(missing_ok=True)
            self.queue.append(task)

    def _try_again(self, task: Task, cause: str, trace: str = "") -> None:
        progress_path(self.run.tasks, task.key).unlink(missing_ok=True)
        self.tries[task.key] += 1
        if self.tries[task.key] < self.attempts:
            self.queue.append(task)
        else:
            self.failed[task.key] = f"{cause} ({self.attempts} attempts)", trace

    def _replace(self, error: BrokenExecutor) -> None:
        """Part with a broken executor; the tasks whose workers fell have used an attempt."""
        fallen: set[int] = getattr(self.executor, "fallen", set)()
        self._end_at_once()
        lost = list(self.running.values())
        self.running.clear()
        marks = {task.key: read_mark(self.run.tasks, task.key) for task in lost}
        begun = {key for key, mark in marks.items() if mark is not None}
        guilty = {key for key, mark in marks.items() if mark and mark.process in fallen} or begun
        self.crashed.update(guilty)
        stillborn = None if begun else _STILLBORN.format(error=error)
        for task in lost:
            self._lose(task, _DIED if task.key in guilty else stillborn)

    def _show_progress(self, task: Task, done: int) -> None:
        more = min(done, task.units) - self.shown[task.key]
        if more > 0:
            self.bar.update(more)
            self.shown[task.key] += more

    def _end_at_once(self) -> None:
        if self.executor is not None:
            executor, self.executor = self.executor, None
            end = getattr(executor, "terminate_workers", None)
            end() if end else executor.shutdown(wait=False)

    def _failure(self) -> TaskFailed:
        (key, (cause, trace)), *further = self.failed.items()
        undone = [k for k in self.tasks if not is_done(self.run.tasks, k) and k not in self.failed]
        task = self.tasks[key]
        lines = [f"Task {task.name!r} ({task.function}) failed: {cause}"]
        lines += _sentence("Others failed, too", [self.tasks[k].name for k, _ in further])
        lines += _sentence("Left undone, for they need it", [self.tasks[k].name for k in undone])
        failure = TaskFailed("\n".join([*lines, "All other results are kept for the next start."]))
        if trace:
            failure.add_note(trace)
        return failure


def _sentence(subject: str, names: Sequence[str]) -> list[str]:
    more = ", ..." if len(names) > 5 else ""
    return [f"{subject}: {len(names)} ({', '.join(names[:5])}{more})."] if names else []


_DIED = "its worker died: killed, perhaps for want of memory"
_STILLBORN = (
    "workers die before they begin ({error}); a script that starts worker processes needs "
    "`if __name__ == '__main__':` around its calls"
)
