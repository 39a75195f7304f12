"""What installed packages add: problems and studies, by the entry points of their metadata."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from thalweg.errors import InvalidArgument

PROBLEMS, STUDIES = "thalweg.problems", "thalweg.studies"


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """
    List what installed packages add, by name.

    Parameters
    ----------
    group : {"thalweg.problems", "thalweg.studies"}
        A function that makes a `Problem`, or a module that is a study.
    """
    return {point.name: point for point in entry_points(group=group)}


def load_plugin(group: str, name: str) -> Any:
    """
    Import what an installed package adds.

    Raises
    ------
    InvalidArgument
        If it cannot be imported; the message names the package.
    """
    point = installed(group)[name]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        package = point.dist.name if point.dist else "a package"
        raise InvalidArgument(
            f"{name!r} of {package} ({point.value}) cannot be imported: {error}; mend or uninstall"
            " that package."
        ) from error
