"""The file run.toml, which makes a folder a run and says how it was made."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from thalweg.errors import DamagedFile, RunConflict
from thalweg.run.digests import opened_toml

RUN_TOML = "run.toml"
# The same again: all else in a run can be made anew from it.
COPY = ".run.toml"
_VERSIONS_OF = ("thalweg", "torch", "numpy")


def is_run(path: str | os.PathLike[str]) -> bool:
    """Say whether a folder is a run directory."""
    return (Path(path) / RUN_TOML).is_file()


def run_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """List the runs directly under ``folder``, by name; none if it does not exist."""
    return [file.parent for file in sorted(Path(folder).glob(f"*/{RUN_TOML}"))]


def read_about(path: Path) -> dict[str, Any]:
    """
    Read a run.toml, or the copy of one.

    Raises
    ------
    DamagedFile
        If it is not what was written.
    """
    about = opened_toml(path.read_bytes(), str(path))
    if not isinstance(about.get("config"), dict):
        raise DamagedFile(f"{path} has no [config]: it is damaged, or not written by Thalweg.")
    return about


def contents(folder: Path) -> str:
    """Say what a folder that is no run holds."""
    if not folder.exists():
        return "it does not exist"
    if not folder.is_dir():
        return "it is a file"
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    more = ", ..." if len(names) > 5 else ""
    return f"it holds {', '.join(names[:5])}{more} and no {RUN_TOML}" if names else "it is empty"


def nearby(folder: Path) -> str:
    """Say which runs lie in a folder, or beside it."""
    folders = run_folders(folder) or run_folders(folder.parent)
    names = [os.path.relpath(path.resolve()) for path in folders]
    # The closest names first, so that a slip of the pen finds its run.
    close = difflib.get_close_matches(os.path.relpath(folder), names, n=5, cutoff=0.0)
    return f"Runs nearby: {', '.join(close)}." if close else "There are no runs nearby."


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something else than a run; `RunConflict` says what."""
    # Hidden files do not count: a killed creation leaves one.
    if folder.exists() and (
        not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())
    ):
        raise RunConflict(
            f"{folder} exists and is not a run: {contents(folder)}. "
            "Choose another folder for the run, or empty this one."
        )


def versions() -> dict[str, str]:
    """Give the versions of what a run is made with."""
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS_OF}
    return {**versions, "python": platform.python_version()}
