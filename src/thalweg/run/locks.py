"""Advisory locks on files: the kernel takes them back when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """
    Hold the lock at ``path``, against other processes and against other threads of this one.

    Parameters
    ----------
    path : Path
        The lock file; it stays, holding the number of the process that had it last.
    wait : bool
        Whether to wait for the holder to let go.

    Raises
    ------
    BlockingIOError
        If somebody holds it and ``wait`` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def last_holder(path: Path) -> str:
    """Give the number of the process that took the lock last."""
    return path.read_text(encoding="ascii") or "unknown"
