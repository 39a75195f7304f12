"""What decides the verdicts of a run, stated and hashed before its first task."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from thalweg.studies.claim import Rule

# The table of run.toml.
STATED = "rules"


def state(
    config: dict[str, Any],
    rules: Mapping[str, Mapping[str, Rule]],
    judges: Mapping[str, tuple[ModuleType, ...]],
) -> dict[str, Any]:
    """
    State rules and sizes of a run, and hash them with the code that takes the statistics.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.
    rules : mapping
        By study, the rule of each claim.
    judges : mapping
        By study, the modules that judge it.

    Returns
    -------
    dict
        ``claims``: each rule in words; ``sizes`` and ``statistics``: a digest a study, the latter
        of the code that judges it, without comments and docstrings; ``digest``: SHA-256 of all.
    """
    claims = {f"{name}/{claim}": str(r) for name, own in rules.items() for claim, r in own.items()}
    stated: dict[str, Any] = {
        "claims": dict(sorted(claims.items())),
        "sizes": {name: _digest(_plain(config[name])) for name in sorted(config["studies"])}
        | {"training": _digest(_plain(config["training"]))},
        "statistics": {
            name: _digest([_code(module) for module in modules])
            for name, modules in sorted(judges.items())
        },
    }
    return {"digest": _digest(stated), **stated}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """
    Name what of the rules is another than was stated.

    Parameters
    ----------
    before, after : mapping
        As `state` gives them.

    Examples
    --------
    >>> def stated(rule):
    ...     return {"claims": {"lines/low": rule}, "sizes": {}, "statistics": {}}
    >>> changes(stated("at most 0.1"), stated("at most 0.2"))
    ['lines/low: the rule was "at most 0.1", and is "at most 0.2"']
    """
    return [
        *_differences(before, after, "claims", 'the rule was "{}", and is "{}"'),
        *_differences(before, after, "sizes", "its sizes are others"),
        *_differences(before, after, "statistics", "the code that takes its statistics is another"),
    ]


def judged_by(
    now: dict[str, Any], stated: dict[str, Any] | None, before: dict[str, Any] | None
) -> dict[str, Any]:
    """
    Say by which rules a run is judged, and which it has been judged by.

    Parameters
    ----------
    now : dict
        The rules of this version, as `state` gives them.
    stated : dict or None
        Those in run.toml; None for a run that was made before there were any.
    before : dict or None
        What this gave when the run was last judged.

    Returns
    -------
    dict
        ``stated``: the digest in run.toml, or None; ``judged``: for each set of rules the run was
        judged by, in their order, its ``digest`` and what it ``changed`` of those stated.
    """
    judged = list(before["judged"]) if before else []
    if not judged or judged[-1]["digest"] != now["digest"]:
        changed = [] if stated is None else changes(stated, now)
        judged.append({"digest": now["digest"], "changed": changed})
    return {"stated": stated and stated["digest"], "judged": judged}


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], kind: str, words: str
) -> Iterator[str]:
    old, new = before.get(kind, {}), after.get(kind, {})
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"{name}: " + words.format(old.get(name, "none"), new.get(name, "none"))


def _plain(value: Any) -> Any:
    """Give what stands in run.toml, where 1.0 and 1 are one number and None is left out."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _code(module: ModuleType) -> str:
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            del body[0]
    return ast.dump(tree)


def _is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
