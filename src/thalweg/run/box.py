"""A run is a box: names that stay in it, and paths in it that no link leads out of."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from thalweg.errors import InvalidArgument, LeavesRun

# A file system takes 255 bytes; temporary names and suffixes are longer than the name.
_LONGEST = 200


def check_name(what: str, name: str) -> str:
    """
    Check a name that a file or a folder of a run is to have.

    Parameters
    ----------
    what : str
        What it names, as the message calls it.
    name : str
        Without separators or control characters, no dots alone, of at most 200 bytes.

    Returns
    -------
    str
        The name.

    Raises
    ------
    InvalidArgument
        If it would lead elsewhere, or cannot be a file's name.
    """
    wrong = _fault(name)
    if wrong:
        raise InvalidArgument(
            f"{name[:60]!r} cannot name a {what}: {wrong}. Write a short name of letters, digits,"
            " '-', '_' and '.', such as 'seed0-early.1'."
        )
    return name


def inside(folder: Path, *names: str) -> Path:
    """
    Give a path below a folder of a run, after a look at every step to it.

    Raises
    ------
    LeavesRun
        If a step is a link, or neither a file nor a folder; or a name leads out of the folder.
    """
    path = folder
    for name in names:
        for piece in name.split("/"):
            if piece in ("", ".", "..") or "\0" in piece:
                raise LeavesRun(f"{name!r} is no name of a file in {folder}.")
            path = path / piece
            _check_step(path)
    return path


def files_below(folder: Path) -> Iterator[Path]:
    """
    List all files below a folder of a run, folder by folder, none if it does not exist.

    Raises
    ------
    LeavesRun
        If there is a link among them, or what is neither a file nor a folder.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        else:
            _check_step(Path(entry.path))


def check_tree(folder: Path) -> None:
    """Refuse a folder that is a link, or has one below it, before another library reads it."""
    _check_step(folder)
    for _ in files_below(folder):
        pass


def _fault(name: str) -> str:
    if not name.strip("."):
        return "it is empty, or dots alone"
    if any(separator in name for separator in "/\\"):
        return "it holds a separator of folders"
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in name):
        return "it holds a control character"
    if len(name.encode()) > _LONGEST:
        return f"it has {len(name.encode())} bytes, at most {_LONGEST} fit"
    return ""


def _check_step(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        raise LeavesRun(
            f"{path} is a link to {os.readlink(path)}; links in a run are not followed. Put the"
            " file or folder itself in its place, or remove the link."
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise LeavesRun(f"{path} is neither a file nor a folder; remove it from the run.")
