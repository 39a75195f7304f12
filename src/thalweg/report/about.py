"""What was run, and how to run it again, from what the run directory says."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tomli_w

from thalweg.measurements.formatting import count, number
from thalweg.measurements.parts import Fact, Table
from thalweg.report.commands import assigned, measurement_command
from thalweg.run import Run, trained_shapes
from thalweg.run.files import read_json


@dataclass(frozen=True)
class About:
    """The frame of a page: state, what was run, how to go on and how to start again."""

    title: str
    complete: bool
    recorded: bool
    created: str
    facts: list[Fact]
    versions: dict[str, str]
    toml: str
    resume: str
    again: str


def about(run: Run) -> About:
    """Read the frame of a run's page."""
    config = shown(run.config)
    problem = config.get("problem", {})
    own = "recorded from Python" if run.recorded else "a problem of its own"
    entry = str(problem.get("entry", own))
    preset = f", preset {config['preset']}" if "preset" in config else ""
    return About(
        title=f"{run.path.name}: {entry}{preset}",
        complete=is_complete(run),
        recorded=run.recorded,
        created=f"{run.about.get('created', 'at an unknown time'):%Y-%m-%d %H:%M} UTC"
        if hasattr(run.about.get("created"), "strftime")
        else "at an unknown time",
        facts=list(_problem_facts(run, entry, problem.get("settings", {}))),
        versions={name: str(value) for name, value in run.about.get("versions", {}).items()},
        toml=tomli_w.dumps(shown(run.about)),
        resume=f"thalweg resume {shlex.quote(shown_path(run))}",
        again=command(config, f"{shown_path(run)}-again"),
    )


def is_complete(run: Run) -> bool:
    """Say whether every study of the run has written what it found."""
    return set(run.config.get("studies", [])) <= set(summary(run)) and bool(summary(run))


def summary(run: Run) -> dict[str, Any]:
    """Read what each study found, by name; nothing for a run that is not complete."""
    path = run.inside("summary.json")
    return dict(read_json(path)) if path.exists() else {}


def command(config: dict[str, Any], out: str) -> str:
    """
    Write the command that makes a configuration.

    Examples
    --------
    >>> problem = {"entry": "cifar10", "settings": {"data": "my data", "train_size": 500}}
    >>> command({"preset": "laptop", "studies": ["trajectories"], "problem": problem}, "runs/b")
    "thalweg reproduce --preset laptop --data 'my data' --study trajectories
     --set train_size=500 --out runs/b"
    """
    if "measurement" in config:
        return measurement_command(config, out)
    problem = config.get("problem", {})
    settings = dict(problem.get("settings", {}))
    data = str(settings.pop("data", problem.get("entry", "")))
    words = ["thalweg", "reproduce"]
    words += ["--preset", str(config["preset"])] if "preset" in config else []
    words += ["--data", data] if data else []
    for study in config.get("studies", []):
        words += ["--study", str(study)]
    for name, value in settings.items():
        words += ["--set", f"{name}={assigned(value)}"]
    from thalweg.studies.sizes import changed_sizes  # they import torch, which takes seconds

    for name, value in changed_sizes(config).items():
        words += ["--size", f"{name}={assigned(value)}"]
    words += ["--seed", str(config["seed"])] if config.get("seed") else []
    return shlex.join([*words, "--out", out])


def shown_path(run: Run) -> str:
    """Write where a run lies as one would type it here."""
    return str(shown(str(run.path)))


def shown(value: Any) -> Any:
    """
    Write the paths in a configuration as one would type them here, so that a page tells no folders.

    What lies elsewhere is shown by its name alone.
    """
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    place, colon, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not os.path.isabs(place):
        return value
    below = os.path.relpath(place)
    return (os.path.basename(place) if below.startswith("..") else below) + colon + name


def progress_table(run: Run) -> Table | None:
    """Say how far each trajectory of a run had come, from its events; None if there are none."""
    latest: dict[str, dict[str, Any]] = {}
    for event in run.events():
        latest.setdefault(str(event.get("trajectory", "")), {}).update(event)
    if not latest:
        return None
    columns = ("step", "epoch", "loss", "error")
    rows = [
        (name, *(number(_float(event.get(column))) for column in columns))
        for name, event in sorted(latest.items())
    ]
    return Table("How far it had come", ("trajectory", *columns), rows)


def weight_count(run: Run) -> int | None:
    """Count the trainable weights of the run's problem, or of its checkpoints; None if unknown."""
    measured = run.inside("measured.json")
    if measured.exists() and "weights" in (sizes := read_json(measured)):
        return int(sizes["weights"])
    trained: dict[str, tuple[int, ...]] = {}
    for path in run.checkpoints():
        trained |= trained_shapes(path)
    return sum(map(math.prod, trained.values())) or None


def _problem_facts(run: Run, entry: str, settings: dict[str, Any]) -> Iterator[Fact]:
    chosen = ", ".join(f"{name} {value}" for name, value in settings.items() if name != "data")
    yield Fact("problem", entry, chosen)
    measured = run.inside("measured.json")
    sizes = read_json(measured) if measured.exists() else {}
    weights = weight_count(run) or sizes.get("weights")
    if weights is not None:
        yield Fact("trainable weights W", f"{weights:,}")
    if sizes:
        yield Fact("training samples", f"{sizes['samples']:,}")
    training = run.config.get("training", {})
    if training:
        chosen = ", ".join(f"{name} {value}" for name, value in training.items())
        yield Fact("training", chosen.replace("_", " "))
    checkpoints = len(run.checkpoints())
    if checkpoints:
        yield Fact("recorded", count(checkpoints, "checkpoint"))


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
