"""What another process needs to make the same problem again: never a pickled model."""

from __future__ import annotations

import json
from typing import Any

from thalweg.errors import InvalidArgument
from thalweg.problems import Problem, load_stored


def write_spec(problem: Problem) -> dict[str, Any]:
    """
    Write down how a problem is made.

    Returns
    -------
    dict
        JSON values for `load_again`.

    Raises
    ------
    InvalidArgument
        If it was put together by hand, or by settings that are no JSON values.
    """
    spec = problem.spec
    if spec is None:
        raise InvalidArgument(
            f"{problem.name} was put together in this process, and workers of an engine make"
            " their own: they need an entry string. Write load_problem('path/file.py:make', ...),"
            " where make returns the Problem, or leave out engine."
        )
    try:
        plain: dict[str, Any] = json.loads(json.dumps(spec))
    except TypeError as error:
        raise InvalidArgument(
            f"the settings of {spec['entry']!r} are no JSON values ({error}), so workers of an"
            " engine cannot be told them; write names and numbers, or leave out engine."
        ) from None
    return plain


def load_again(spec: dict[str, Any]) -> Problem:
    """Load the problem of a specification, in a process that may call its entry."""
    return load_stored(spec)
