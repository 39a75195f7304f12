"""Errors of the user's own code, said with the line that raised them."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

from thalweg.errors import first_line

TRACEBACK = "THALWEG_TRACEBACK"
_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep
_LIBRARIES = tuple(
    os.path.realpath(path) + os.sep for path in sysconfig.get_paths().values() if "lib" in path
)


def said_by_users_code(error: Exception) -> str | None:
    """
    Say in one line what the user's own code raised, and where.

    Parameters
    ----------
    error : Exception
        With its traceback.

    Returns
    -------
    str or None
        None where no code of the user's was called, or called the package, which then raised; and
        where the calls that led there are asked for.
    """
    if os.environ.get(TRACEBACK):
        return None
    frames = traceback.extract_tb(error.__traceback__)
    places = [os.path.realpath(frame.filename) for frame in frames]
    ours = [i for i, place in enumerate(places) if place.startswith(_PACKAGE)]
    own = [i for i in range(min(ours, default=0), len(frames)) if _is_users(places[i])]
    if not own or max(ours, default=-1) > own[-1]:
        return None
    frame = frames[own[-1]]
    return (
        f"{os.path.relpath(frame.filename)}:{frame.lineno}, in {frame.name}:"
        f" {type(error).__name__}: {first_line(error)}. This is your own code;"
        f" {TRACEBACK}=1 in the environment shows the calls that led there."
    )


def _is_users(place: str) -> bool:
    return os.path.isfile(place) and not place.startswith((_PACKAGE, *_LIBRARIES))
