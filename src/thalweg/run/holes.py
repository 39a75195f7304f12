"""Checkpoints that are not there any more: others of their trajectory, or its task, say so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeGuard

from thalweg.errors import ThalwegError
from thalweg.run.checkpoints import describe_checkpoint
from thalweg.run.files import read_json
from thalweg.run.store import Run

# What a checkpoint says: the step of the one that was kept before it.
BEFORE = "before"
_LONGEST = 10**15
# What the result of a task on a trajectory says: the steps of the checkpoints that it left.
STEPS = "checkpoints"


def holes(run: Run, trajectory: str | None = None) -> dict[Path, str]:
    """
    Find the checkpoints of a run that are missing.

    Each checkpoint names the one before it, and the result of a task all that its trajectory had.
    Those that an older version wrote say nothing.

    Parameters
    ----------
    run : Run
        Where.
    trajectory : str, optional
        Which; by default all.

    Returns
    -------
    dict of Path to str
        Why each should be there, in the order of trajectories and steps.
    """
    missing = {
        path: f"step {int(next_.stem)} followed it"
        for next_ in run.checkpoints(trajectory)
        if (path := gone_before(next_, _described(next_))) is not None
    }
    for name, steps in _recorded(run):
        if trajectory not in (None, name):
            continue
        folder = run.inside("checkpoints", name)
        for step in steps:
            path = folder / f"{step:09d}.safetensors"
            if not path.exists():
                missing.setdefault(path, "its training is done")
    return dict(sorted(missing.items()))


def gone_before(path: Path, about: Mapping[str, Any]) -> Path | None:
    """
    Give the checkpoint that came before another in its folder, if it is not there.

    Parameters
    ----------
    path : Path
        Of the later one.
    about : mapping
        What it says of itself.
    """
    step = about.get(BEFORE)
    if not _is_step(step):
        return None
    before = path.with_name(f"{step:09d}.safetensors")
    return None if before.exists() else before


def said_of(missing: Iterable[Path]) -> str:
    """Say which checkpoints of a run are gone, and what to do; empty where none is."""
    names = [f"{path.parent.name}/{path.name}" for path in missing]
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    verb = "is" if len(names) == 1 else "are"
    return (
        f"{', '.join(names[:3])}{more} {verb} not there any more; what follows is without"
        f" {'it' if len(names) == 1 else 'them'}. thalweg verify names all that is gone; thalweg"
        " resume trains it anew, where the run is one of studies."
    )


def _described(path: Path) -> dict[str, Any]:
    # What is damaged is found on its own.
    with suppress(ThalwegError):
        return describe_checkpoint(path)
    return {}


def _recorded(run: Run) -> Iterator[tuple[str, list[int]]]:
    """Give trajectories and steps that tasks have recorded."""
    for path in sorted(run.tasks.glob("*.json")):
        with suppress(ThalwegError):
            about = read_json(path)
            steps, arguments = about.get(STEPS), about.get("arguments")
            if isinstance(steps, list) and isinstance(arguments, dict):
                yield str(arguments.get("trajectory")), list(filter(_is_step, steps))


def _is_step(step: object) -> TypeGuard[int]:
    return isinstance(step, int) and 0 <= step < _LONGEST
