"""Taking out of a run what is damaged, so that it is made anew where it can be."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from thalweg.errors import ThalwegError
from thalweg.run.events import EventLines
from thalweg.run.files import read_json, remove_leftovers, write_atomic
from thalweg.run.outcomes import forget_outcome
from thalweg.run.store import Run, restore_run_toml
from thalweg.run.verify import Finding, verify

logger = logging.getLogger("thalweg")

_EXCURSIONS = "excursions.jsonl"


def repair(run: Run) -> list[Finding]:
    """
    Take out what is damaged, and all that has to be done again to have it back.

    What killed processes had half written is removed, too. Of a training all checkpoints from the
    first damaged one on go, and its task is not done any more: it goes on from the checkpoint
    before. Lines of metrics that are damaged are lost.

    Parameters
    ----------
    run : Run
        Held by the caller.

    Returns
    -------
    list of Finding
        What was damaged; each is said as a warning, too.
    """
    remove_leftovers(run.path)
    lost = [finding for finding in verify(run) if finding.lost]
    for finding in lost:
        logger.warning("%s is %s: %s; %s.", *_as_repaired(finding))
        kind = finding.file.partition("/")[0]
        _TAKEN_OUT.get(kind, _remove)(run, run.path / finding.file)
    return lost


def _as_repaired(finding: Finding) -> tuple[str, str, str, str]:
    remedy = finding.remedy.replace("thalweg resume ", "this resume ")
    return finding.file, finding.state, finding.why, remedy


def _remove(run: Run, path: Path) -> None:
    path.unlink(missing_ok=True)


def _restore(run: Run, path: Path) -> None:
    restore_run_toml(run, path.name)


def _forget_task(run: Run, path: Path) -> None:
    forget_outcome(run.tasks, path.stem)


def _cut_training(run: Run, path: Path) -> None:
    """Remove a checkpoint, those after it, and the results of tasks on its trajectory."""
    trajectory = path.parent.relative_to(run.path / "checkpoints").as_posix()
    for later in run.checkpoints(trajectory):
        if later.name >= path.name:
            later.unlink()
    _forget_tasks(run, lambda about: about["arguments"].get("trajectory") == trajectory)


def _forget_proof(run: Run, path: Path) -> None:
    """Remove a certificate, and the result of the task that names it."""
    name = path.relative_to(run.path).with_suffix(".json").as_posix()
    path.unlink(missing_ok=True)
    _forget_tasks(run, lambda about: name in about["scalars"].values())


def _forget_tasks(run: Run, of: Callable[[dict[str, Any]], bool]) -> None:
    for key, about in list(_tasks(run)):
        if of(about):
            forget_outcome(run.tasks, key)


def _tasks(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give keys and contents of the results of tasks; damaged ones are found on their own."""
    for path in run.tasks.glob("*.json"):
        with suppress(ThalwegError):
            about = read_json(path)
            if isinstance(about.get("arguments"), dict) and isinstance(about.get("scalars"), dict):
                yield path.stem, about


def _take_out_result(run: Run, path: Path) -> None:
    # Of a folder's mark only the mark; the next result that is saved writes it.
    if path.name == "zarr.json":
        path.unlink()
    else:
        shutil.rmtree(path)


def _take_out_lines(run: Run, path: Path) -> None:
    whole = b"".join(line + b"\n" for line in EventLines(path).whole)
    write_atomic(path, lambda temporary: temporary.write_bytes(whole))


def _restart_watched(run: Run, path: Path) -> None:
    """Have trainings that are not done begin anew: of those done the result holds the lines."""
    finished = {about["arguments"].get("trajectory") for _, about in _tasks(run)}
    for checkpoint in run.checkpoints():
        if checkpoint.parent.name not in finished:
            checkpoint.unlink()
    _take_out_lines(run, path)


_TAKEN_OUT: dict[str, Callable[[Run, Path], None]] = {
    "run.toml": _restore,
    ".run.toml": _restore,
    "tasks": _forget_task,
    "checkpoints": _cut_training,
    "certificates": _forget_proof,
    "results.zarr": _take_out_result,
    "events.jsonl": _take_out_lines,
    "digests.jsonl": _take_out_lines,
    _EXCURSIONS: _restart_watched,
}
