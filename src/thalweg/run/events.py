"""Metrics at rest: JSON lines, appended by every process of a run, one write a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

# A line counts as the same line when it is written again after a kill.
_IDENTITY = ("trajectory", "step")


class Log(Protocol):
    """A tracker: whatever takes a dict of metrics and the step it belongs to."""

    def __call__(self, metrics: dict[str, Any], step: int, /) -> None:
        """Take the metrics of one step."""


class EventLog:
    """
    Append metrics to a JSON lines file that several processes share.

    Parameters
    ----------
    path : Path
        The file; made on the first event.
    **context : str or int
        Written with every event, e.g. ``trajectory="seed0"``.
    """

    def __init__(self, path: Path, **context: str | int) -> None:
        self.path = path
        self.context = context

    def __call__(self, metrics: dict[str, Any], step: int, /) -> None:
        """Append one line; a line torn by an earlier kill is closed first."""
        line = json.dumps({**self.context, "step": step, **metrics}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            os.write(handle, (_mend(handle) + line).encode())
        finally:
            os.close(handle)


def _mend(handle: int) -> str:
    size = os.fstat(handle).st_size
    return "" if size == 0 or os.pread(handle, 1, size - 1) == b"\n" else "\n"


def read_events(path: Path) -> list[dict[str, Any]]:
    """
    Read all events, each once.

    A run that was killed and resumed writes some steps twice, and a kill can tear a line: of
    lines with the same trajectory and step the last counts, and a torn line is passed over.

    Parameters
    ----------
    path : Path
        A JSON lines file, which need not exist.

    Returns
    -------
    list of dict
        The events in the order of their first writing.
    """
    if not path.exists():
        return []
    events: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        events[json.dumps([event.get(key) for key in _IDENTITY])] = event
    return list(events.values())
