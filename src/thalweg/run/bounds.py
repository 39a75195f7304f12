"""How much memory a file or an option may ask for: looked at before any is taken."""

from __future__ import annotations

import resource
from pathlib import Path

from thalweg.errors import OutOfBudget

# Where the system does not say how much memory is free.
_ASSUMED = 4 << 30
_PAGE = resource.getpagesize()


def memory_limit() -> int:
    """Give half of the memory that is free and allowed to this process, in bytes."""
    return min(_free(), _allowed(), _of_group()) // 2


def check_memory(size: int, what: str, instead: str) -> None:
    """
    Refuse what would take more memory than the limit.

    Parameters
    ----------
    size : int
        An estimate, in bytes.
    what : str
        What would take it.
    instead : str
        What to write or do instead.

    Raises
    ------
    OutOfBudget
        With the estimate and the limit.
    """
    limit = memory_limit()
    if size > limit:
        raise OutOfBudget(
            f"{what} would take about {shown_bytes(size)} of memory; the limit is"
            f" {shown_bytes(limit)}, half of what is free. {instead}"
        )


def check_file(path: Path, times: int) -> None:
    """Refuse a file whose content takes so many times its length in memory, and too much of it."""
    size = path.stat().st_size
    check_memory(size * times, str(path), f"The file has {shown_bytes(size)}.")


def shown_bytes(size: int) -> str:
    """
    Write a number of bytes for people.

    Examples
    --------
    >>> shown_bytes(3 << 29), shown_bytes(700), shown_bytes(10**40)
    ('1.5 GB', '700 bytes', '8.88e+24 PB')
    """
    units = ("bytes", "KB", "MB", "GB", "TB", "PB")
    power = 0 if size < 1024 else min((size.bit_length() - 1) // 10, 5)
    return f"{size / 1024**power:.3g} {units[power]}" if power else f"{size} bytes"


def _free() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return _ASSUMED


def _allowed() -> int:
    """Give what a limit of the address space leaves."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return 1 << 62
    try:
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * _PAGE
    except (OSError, ValueError):
        taken = 0
    return max(0, limit - taken)


def _of_group() -> int:
    """Give what the process's control group leaves, in containers."""
    for limit, taken in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            root = Path("/sys/fs/cgroup")
            # Files in the page cache count as taken, and are given back when memory is wanted.
            return max(0, int((root / limit).read_text()) - int((root / taken).read_text()) // 2)
        except (OSError, ValueError):
            continue
    return 1 << 62
