"""Atomic files: written under a temporary name, synced, renamed; a reader sees all or nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thalweg.run.bounds import check_file
from thalweg.run.box import files_below
from thalweg.run.digests import opened_json, sealed_json

_TEMPORARY = re.compile(r"\..*\.([1-9]\d*)\.tmp")
# Lists of small numbers take so many times their text.
_TIMES = 20

# Asked once, as asking sets it for a moment.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """
    Have ``write`` fill a temporary file, then put it at ``path`` in one step.

    Parameters
    ----------
    path : Path
        Where the file shall lie. Its folder is made where it is missing.
    write : callable
        Called with the temporary path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process number keeps two workers that write the same file apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # A link under this name would be written through.
    temporary.unlink(missing_ok=True)
    try:
        _with_system_errors(write, temporary)
        temporary.chmod(0o666 & ~_UMASK)  # safetensors would leave it to its owner alone
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote below a folder."""
    for path in files_below(folder):
        name = _TEMPORARY.fullmatch(path.name)
        if name and not _is_alive(int(name[1])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _with_system_errors(write: Callable[[Path], object], path: Path) -> None:
    try:
        write(path)
    except OSError:
        raise
    except Exception as error:
        # safetensors tells what the system refused in an error of its own.
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` at ``path`` atomically, in UTF-8."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a dict as JSON at ``path`` atomically, with its checksum."""
    write_text(path, sealed_json(value, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """
    Read the dict in the JSON file at ``path``, and check it where it has a checksum.

    Raises
    ------
    DamagedFile
        If it is not what was written.
    """
    check_file(path, _TIMES)
    return opened_json(path.read_bytes(), str(path))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
