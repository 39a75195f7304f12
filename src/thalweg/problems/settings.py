"""Settings of a call: checked against its parameters by name, with a hint where one is misspelt."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from thalweg.errors import InvalidArgument


def check_settings(what: str, function: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """
    Check that a function takes settings of these names, and that none is missing.

    Parameters
    ----------
    what : str
        How the message calls it.
    function : callable
        Called later with ``**settings``.
    settings : mapping
        By name.

    Raises
    ------
    InvalidArgument
        Naming what is unknown or missing, and what is known.
    """
    parameters = inspect.signature(function).parameters.values()
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    accepted = f"it knows {', '.join(named)}" if named else "it takes no settings"
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in settings:
            if name not in named:
                near = difflib.get_close_matches(name, named, 1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise InvalidArgument(f"{what} has no setting {name!r}{hint}; {accepted}.")
    missing = [n for n, p in named.items() if p.default is p.empty and n not in settings]
    if missing:
        example = ", ".join(f"{name}=..." for name in missing)
        raise InvalidArgument(
            f"{what} needs {', '.join(map(repr, missing))}; write load_problem(..., {example}), or"
            f" --set {missing[0]}=VALUE on the command line."
        )
