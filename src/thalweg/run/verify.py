"""Checking a run: every file of it against its checksum, and a line for each that is not whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from thalweg.errors import ThalwegError, first_line
from thalweg.run.box import files_below
from thalweg.run.digests import (
    file_checksum,
    is_sealed_json,
    is_sealed_toml,
    opened_json,
)
from thalweg.run.events import EventLines
from thalweg.run.holes import holes
from thalweg.run.outcomes import is_covered, read_outcome
from thalweg.run.result_files import check_result
from thalweg.run.results import is_marker
from thalweg.run.run_toml import read_about
from thalweg.run.store import Run
from thalweg.run.tensors import check_tensors

State = Literal["whole", "damaged", "gone", "uncovered", "no data"]
_PAGES = ("report.html", "figures", "certificates")


@dataclass(frozen=True)
class Finding:
    """
    What a look at one file of a run gave.

    Attributes
    ----------
    file : str
        Its path in the run.
    state : {"whole", "damaged", "gone", "uncovered", "no data"}
        Not what was written; not there; without a checksum, as older versions and other programs
        write them; or of a kind that nothing is read from.
    why : str
        What is wrong.
    remedy : str
        What to do about it, or what is lost.
    """

    file: str
    state: State
    why: str = ""
    remedy: str = ""

    @property
    def lost(self) -> bool:
        """Whether it is not what was written."""
        return self.state in ("damaged", "gone")

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return asdict(self)


def verify(run: Run) -> list[Finding]:
    """
    Check every file of a run.

    Returns
    -------
    list of Finding
        One a file, in the order of their names; files of one result that is whole are one.
    """
    findings = [_looked_at(run, path) for path in files_below(run.path) if _alone(run, path)]
    findings += [*_results(run), *_gone(run)]
    return sorted(findings, key=lambda finding: finding.file)


def _alone(run: Run, path: Path) -> bool:
    """Say whether a file is looked at by itself: not with its result, or the task it belongs to."""
    first = path.relative_to(run.path).parts[0]
    arrays = first == "tasks" and path.suffix == ".npz" and path.with_suffix(".json").exists()
    return first != "results.zarr" and not arrays


def _looked_at(run: Run, path: Path) -> Finding:
    name = path.relative_to(run.path).as_posix()
    check = _check_of(run, path, name)
    if check is None:
        return Finding(name, "no data", "nothing is read from it")
    try:
        return Finding(name, "whole") if check() else Finding(name, "uncovered", _NO_CHECKSUM)
    except (ThalwegError, OSError) as error:
        return Finding(name, "damaged", _short(error, path, name), _remedy(run, name))


_NO_CHECKSUM = "it has no checksum: written by an older version or another program"


def _check_of(run: Run, path: Path, name: str) -> Callable[[], bool] | None:
    """Choose how a file is checked: the check says whether a checksum covers it, or raises."""
    first = name.partition("/")[0]
    if name in ("run.toml", ".run.toml"):
        return lambda: _of_toml(path)
    if first in _PAGES:
        return lambda: _of_page(run, path, name)
    if path.suffix == ".safetensors":
        return lambda: check_tensors(path)
    if path.suffix == ".jsonl":
        return lambda: _of_lines(path)
    if first == "tasks" and path.suffix == ".json":
        return lambda: _of_task(run, path.stem)
    if path.suffix == ".json":
        return lambda: _of_json(path)
    return None  # locks, marks of progress, temporary files, arrays of a task that was killed


def _of_toml(path: Path) -> bool:
    read_about(path)
    return is_sealed_toml(path.read_bytes())


def _of_json(path: Path) -> bool:
    data = path.read_bytes()
    opened_json(data, str(path))
    return is_sealed_json(data)


def _of_lines(path: Path) -> bool:
    lines = EventLines(path)
    if lines.damaged:
        raise _Other(f"{path} is damaged in {len(lines.damaged)} lines: {lines.damaged[:5]}.")
    return not lines.uncovered


def _of_task(run: Run, key: str) -> bool:
    read_outcome(run.tasks, key)
    return is_covered(run.tasks, key)


def _of_page(run: Run, path: Path, name: str) -> bool:
    noted = run.covered.get(name)
    if noted and file_checksum(path) not in noted:
        raise _Other(f"{path} is damaged: its checksum is another.")
    return bool(noted)


class _Other(ThalwegError):
    """A file is not what was noted of it."""


def _results(run: Run) -> Iterator[Finding]:
    store = run.store
    for path in files_below(store.path):
        parts = path.parent.relative_to(store.path).parts
        above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        if path.name == "zarr.json" and not any(map(store.has, above)) and not is_marker(path):
            name = path.relative_to(run.path).as_posix()
            yield Finding(name, "damaged", "it marks no folder", "thalweg resume writes it anew")
    for result in store.names():
        folder = store.path.joinpath(*result.split("/"))
        name = folder.relative_to(run.path).as_posix()
        try:
            covered = check_result(folder)
            yield Finding(name, "whole") if covered else Finding(name, "uncovered", _NO_CHECKSUM)
        except ThalwegError as error:
            why = str(error).removeprefix(f"{run.path}/")
            yield Finding(name, "damaged", why.partition(". ")[0], _remedy(run, name))


def _gone(run: Run) -> Iterator[Finding]:
    for name in run.covered:
        if not run.inside(*name.split("/")).exists():
            yield Finding(name, "gone", "it was written, and is not there", _remedy(run, name))
    for path, why in holes(run).items():
        name = path.relative_to(run.path).as_posix()
        remedy = "its step is lost; the others are whole" if run.recorded else _remedy(run, name)
        yield Finding(name, "gone", why, remedy)


def _short(error: Exception, path: Path, name: str) -> str:
    text = first_line(error)
    return text.replace(f"{path} is damaged: ", "").replace(str(path), name).rstrip(".")


def _remedy(run: Run, name: str) -> str:
    first = name.partition("/")[0]
    if first in ("report.html", "figures"):
        return "thalweg report writes it anew"
    if name in ("run.toml", ".run.toml"):
        return "thalweg resume puts the copy of it in its place, if that is whole"
    if run.recorded:
        return _OF_RECORDINGS.get(first, "what it held is lost")
    return _REMEDIES.get(first, "thalweg resume makes it anew")


_OF_RECORDINGS = {
    "checkpoints": "its step is lost; the others are whole. Remove it to go on without it, or run"
    " the program that recorded it again",
    "events.jsonl": "the metrics in these lines are lost; checkpoints hold those of their steps",
    "digests.jsonl": "thalweg report writes it anew",
}
_REMEDIES = {
    "checkpoints": "thalweg resume trains it anew from the checkpoint before",
    "tasks": "thalweg resume does the task again",
    "results.zarr": "thalweg resume gathers it anew",
    "events.jsonl": "the metrics in these lines are lost, which only tables of progress show;"
    " thalweg resume takes the lines out",
    "digests.jsonl": "thalweg resume takes the lines out and writes the pages anew",
}
