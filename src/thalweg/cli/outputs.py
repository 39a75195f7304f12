"""Output files of commands: checked before the work begins, written after the answer is printed."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import typer


def check_output(option: str, path: Path, endings: Collection[str]) -> None:
    """
    Refuse a file that could not be written when the work is done.

    Parameters
    ----------
    option : str
        That named it, for the message.
    path : Path
        The file.
    endings : collection of str
        What its name may end in, without the dot.

    Raises
    ------
    typer.BadParameter
        If its ending is another, it is a folder, or its folder is missing or read-only.
    """
    folder = path.parent
    if path.suffix.lower().removeprefix(".") not in endings:
        raise typer.BadParameter(
            f"{option} {path}: write a name that ends in .{', .'.join(sorted(endings))}."
        )
    if not folder.is_dir():
        raise typer.BadParameter(f"{option} {path}: there is no folder {folder}; make it first.")
    if path.is_dir():
        raise typer.BadParameter(f"{option} {path}: it is a folder; write the name of a file.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise typer.BadParameter(f"{option} {path}: it may not be written; name another place.")
