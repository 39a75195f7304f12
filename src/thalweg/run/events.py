"""Metrics at rest: JSON lines, appended by every process of a run, one write a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from thalweg.errors import DamagedFile
from thalweg.run.bounds import check_file
from thalweg.run.digests import is_sealed_json, opened_json, sealed_json

# A line counts as the same line when it is written again after a kill.
_IDENTITY = ("trajectory", "step")
# What closes a line that a kill has torn, so that it is not taken for a damaged one.
_TORN = b"#torn"
# Something of these is left in a damaged line, and in no line of the versions without checksums.
_TIMES = 20  # a line as a dict takes so many times its text
_SIGNS = (b'"format": 2', b'"crc32c": "')


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
        line = sealed_json({**self.context, "step": step, **metrics}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            os.write(handle, _mend(handle) + line.encode())
        finally:
            os.close(handle)


def _mend(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    return b"" if size == 0 or os.pread(handle, 1, size - 1) == b"\n" else _TORN + b"\n"


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

    Raises
    ------
    DamagedFile
        If a line is not what was written.
    """
    lines = EventLines(path)
    if lines.damaged:
        numbers = ", ".join(map(str, lines.damaged[:5]))
        raise DamagedFile(f"{path} is damaged in {len(lines.damaged)} lines, first in {numbers}.")
    events = {json.dumps([line.get(key) for key in _IDENTITY]): line for line in lines.events}
    return list(events.values())


class EventLines:
    """
    The lines of a file of events, looked at one by one.

    Parameters
    ----------
    path : Path
        A JSON lines file, which need not exist.

    Attributes
    ----------
    events : list of dict
        What is whole, as it was written.
    whole : list of bytes
        The same lines as they stand in the file.
    damaged : list of int
        Numbers, from 1, of lines that are not what was written.
    uncovered : int
        How many lines have no checksum, as older versions wrote them.
    """

    def __init__(self, path: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self.whole: list[bytes] = []
        self.damaged: list[int] = []
        self.uncovered = 0
        if path.exists():
            check_file(path, _TIMES)
        *lines, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
        for number, line in enumerate(lines, 1):
            self._add(number, line.removesuffix(_TORN), torn=line.endswith(_TORN))
        if last:
            self._add(len(lines) + 1, last, torn=True)

    def _add(self, number: int, line: bytes, *, torn: bool) -> None:
        try:
            self.events.append(opened_json(line, "a line"))
        except DamagedFile:
            # A torn line is the beginning of one; what is as long as a whole one was not torn.
            if _is_long(line) if torn else self._sealed or any(sign in line for sign in _SIGNS):
                self.damaged.append(number)
            return
        self.whole.append(line)
        self.uncovered += not is_sealed_json(line)

    @property
    def _sealed(self) -> bool:
        return len(self.events) > self.uncovered


def _is_long(line: bytes) -> bool:
    _, sign, checksum = line.partition(_SIGNS[1])
    return bool(sign) and len(checksum) >= len('01234567"}')
