"""The command that measures again what a run of one measurement holds."""

from __future__ import annotations

import json
import shlex
from typing import Any

from thalweg.measurements.options import About, about_options
from thalweg.measurements.registry import MEASUREMENTS


def measurement_command(config: dict[str, Any], out: str) -> str:
    """
    Write the command that makes the configuration of a measurement.

    Examples
    --------
    >>> config = {
    ...     "measurement": "surface",
    ...     "problem": {"entry": "digits", "settings": {"width": 8}},
    ...     "at": {"checkpoints": ["a.pt"], "digest": "0123"},
    ...     "risk": {"split": "train"},
    ...     "surface": {"dims": 2, "extent": [[-1.0, 2.0], 0.5], "test": False},
    ... }
    >>> measurement_command(config, "runs/b")
    'thalweg surface digits --set width=8 --checkpoint a.pt --split train --dims 2
     --extent=-1.0,2.0 --extent=0.5 --no-test --out runs/b'
    """
    kind, problem, at = config["measurement"], config["problem"], config["at"]
    words = ["thalweg", kind, problem["entry"]]
    for name, value in problem.get("settings", {}).items():
        words += ["--set", f"{name}={assigned(value)}"]
    words += _place(at)
    about = about_options(MEASUREMENTS[kind].options) if kind in MEASUREMENTS else {}
    for name, value in {**config["risk"], **config[kind]}.items():
        option = about.get(name, About(""))
        words += [] if option.hidden else _option(option.flag or _flag(name), value)
    return shlex.join([*words, "--out", out])


def _place(at: dict[str, Any]) -> list[str]:
    """Write where it was looked at from: files, a trajectory, and how files were opened."""
    listed = [] if "source" in at else at.get("files", [])  # several checkpoints in order
    words = [word for path in at.get("checkpoints", listed) for word in ("--checkpoint", path)]
    if "source" in at:
        words += ["--run", at["source"]]
    elif "run" in at:
        words += ["--run", at["run"], "--trajectory", at["trajectory"]]
    opening = at.get("opening", {})
    words += ["--entry", opening["entry"]] if "entry" in opening else []
    words += ["--partial"] if opening.get("partial") else []
    return words + [word for name in opening.get("allow", ()) for word in ("--allow", name)]


def assigned(value: Any) -> str:
    """Write a value so that the command line reads it back: text bare where it is no JSON."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except json.JSONDecodeError:
            return value
    return json.dumps(value)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _option(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, list):
        # With "=", as a number may begin with a minus.
        return [f"{flag}={_numbers(number)}" for number in value]
    return [flag, str(value)]


def _numbers(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
