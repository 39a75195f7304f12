"""The mark of a task under way: how much of it is done, by whom, and that they are alive."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from thalweg.run.box import inside

_SECONDS_BETWEEN_REPORTS = 0.5
_SECONDS_BETWEEN_BEATS = 2.0


# Who hears of a task that is done in this very process, by the path of its mark.
_listeners: dict[Path, Callable[[int], object]] = {}


@contextmanager
def listening(path: Path, hear: Callable[[int], object]) -> Iterator[None]:
    """
    Hear of a task under way inside the block, if this process does it: nobody else could look.

    Parameters
    ----------
    path : Path
        Of `progress_path`.
    hear : callable
        Called with the units that are done, as often as the mark is written.
    """
    _listeners[path.resolve()] = hear
    try:
        yield
    finally:
        del _listeners[path.resolve()]


class Mark(NamedTuple):
    """What the mark of a task says: units done, number of the process, beats of its heart."""

    done: int = 0
    process: int = 0
    beat: int = 0


def progress_path(tasks: Path, key: str) -> Path:
    """Say where a task under way writes how many of its units are done."""
    return inside(tasks, f"{key}.progress")


def read_mark(tasks: Path, key: str) -> Mark | None:
    """Read the mark of a task; None if it has not begun, zeros while it is being written."""
    try:
        return Mark(*map(int, progress_path(tasks, key).read_bytes().split()[:3]))
    except FileNotFoundError:
        return None
    except ValueError:
        return Mark()


class Reporter:
    """
    Write the mark of one task while it is worked on.

    A thread of its own lets the heart beat, so that a process that is stopped, or stuck where
    nothing of it runs, is told from one that computes for long.

    Parameters
    ----------
    path : Path
        Of `progress_path`.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.done, self.beat = path, 0, 0
        self.next = 0.0
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Written at once: the file says that the task has begun, should its worker die.
        self._write()
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._heart.join()
        self.path.unlink(missing_ok=True)

    def __call__(self, done: int) -> None:
        """Tell how many units are done."""
        self.done = int(done)
        if time.monotonic() >= self.next:
            self._write()
            if (hear := _listeners.get(self.path.resolve())) is not None:
                hear(self.done)

    def _live(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_BEATS):
            self.beat += 1
            self._write()

    def _write(self) -> None:
        # A torn number is only a smaller one for a moment: no need for an atomic write.
        with suppress(OSError):
            self.path.write_text(f"{self.done} {os.getpid()} {self.beat}", encoding="ascii")
        self.next = time.monotonic() + _SECONDS_BETWEEN_REPORTS


class Watch:
    """
    Look after the tasks under way, and find those whose hearts have stopped.

    Parameters
    ----------
    tasks : Path
        Where their marks lie.
    standstill : float
        Seconds without a beat, as this process sees them, after which a worker stands still.
    timeout : float or None
        Seconds that a task may take.
    """

    def __init__(self, tasks: Path, standstill: float, timeout: float | None) -> None:
        self.tasks, self.standstill, self.timeout = tasks, standstill, timeout
        self._seen: dict[str, tuple[Mark, float, float]] = {}

    def look(self, key: str) -> Mark | None:
        """Read the mark of a task and note when it last moved."""
        mark, now = read_mark(self.tasks, key), time.monotonic()
        if mark is None:
            self._seen.pop(key, None)
            return None
        before, moved, begun = self._seen.get(key, (None, now, now))
        self._seen[key] = mark, now if mark != before else moved, begun
        return mark

    def fault(self, key: str) -> str:
        """Say why a task that was looked at has to be ended; empty if all is well."""
        if key not in self._seen:
            return ""
        _, moved, begun = self._seen[key]
        now = time.monotonic()
        if now - moved > self.standstill:
            return f"its worker stood still for {self.standstill:.0f} seconds"
        if self.timeout is not None and now - begun > self.timeout:
            return f"it took longer than the {self.timeout:g} seconds it was given"
        return ""

    def forget(self, key: str) -> None:
        """Begin anew with a task."""
        self._seen.pop(key, None)
