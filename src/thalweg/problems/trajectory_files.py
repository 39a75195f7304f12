"""A training as another tool left it: a folder, a pattern or a list of files, in their order."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from thalweg.errors import CheckpointRefused
from thalweg.problems.weight_files import few, is_weight_file, read_weights

log = logging.getLogger("thalweg")

# What counts time, finest first: where a name or a file has several, the first decides.
_CLOCKS = ("step", "global_step", "iteration", "iter", "it", "epoch", "ep", "e")
_NUMBER = re.compile(r"([A-Za-z]*)[-_=]?(\d+)")
Numbers = list[tuple[str, int]]


@dataclass(frozen=True)
class TrajectoryFiles:
    """
    Files of one training.

    Attributes
    ----------
    files : tuple of Path
        In the order of their steps.
    steps : tuple of int
        Of each: by its name, or by what it holds, or its place in the list.
    name : str
        Of the trajectory.
    """

    files: tuple[Path, ...]
    steps: tuple[int, ...]
    name: str


def trajectory_files(
    source: str | PathLike[str] | Sequence[str | PathLike[str]],
) -> TrajectoryFiles:
    """
    Put the files of a training in order.

    Parameters
    ----------
    source : path, pattern or sequence of path
        A folder of files of weights, or a pattern such as ``"ckpt/epoch_*.pt"``: ordered by the
        step in their names, else by the step that they hold (``step``, ``global_step``,
        ``epoch``). A list is taken in its own order.

    Returns
    -------
    TrajectoryFiles
        Files without a step, such as ``best.pt``, are left out where others have one, which is
        logged.

    Raises
    ------
    CheckpointRefused
        If there are not two files of weights, or they have no order.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("epoch_10.pt", "epoch_2.pt", "epoch_0.pt"):
    ...     (folder / name).touch()
    >>> trajectory_files(folder).steps
    (0, 2, 10)
    """
    if not isinstance(source, str | PathLike):
        files = [Path(path) for path in source]
        steps = rising_steps(files) or list(range(len(files)))
        return TrajectoryFiles(tuple(files), tuple(steps), _named(files))
    paths = _weight_files(source)
    if len(paths) < 2:
        raise CheckpointRefused(
            f"{source} has {len(paths) or 'no'} file{'s' * (not paths)} of weights; a trajectory"
            " has at least two: epoch_0.pt, epoch_1.pt, ..."
        )
    steps_of = _by_name(source, paths) or _by_content(source, paths)
    left_out = [path.name for path in paths if path not in steps_of]
    if left_out:
        log.warning("%s: left out, as not of the same series: %s.", source, few(left_out))
    in_order = sorted(steps_of, key=lambda path: steps_of[path])
    name = Path(source).name if Path(source).is_dir() else _named(in_order)
    return TrajectoryFiles(tuple(in_order), tuple(steps_of[path] for path in in_order), name)


def rising_steps(files: Sequence[Path]) -> list[int] | None:
    """Read the steps of listed files off their names; None where these do not rise."""
    steps = _steps_in_names(files)
    return steps if steps == sorted(set(steps or ())) else None


def holds_files(source: str | PathLike[str]) -> bool:
    """Say whether a path is a pattern or a folder with files of weights."""
    return bool(_weight_files(source))


def step_in(values: Mapping[str, Any]) -> int | None:
    """Read the step off the plain values of a file."""
    for clock in _CLOCKS:
        value = values.get(clock)
        if isinstance(value, int | float) and float(value).is_integer():
            return int(value)
    return None


def _weight_files(source: str | PathLike[str]) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return sorted(item for item in path.iterdir() if is_weight_file(item))
    if glob.has_magic(str(source)):
        matching = map(Path, glob.glob(str(source)))
        return sorted(item for item in matching if item.is_file() or is_weight_file(item))
    return []


def _by_name(source: str | PathLike[str], files: Sequence[Path]) -> dict[Path, int]:
    """Take the largest group of names that differ in their numbers alone; none where none do."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(re.sub(r"\d+", "#", path.name), []).append(path)
    sizes = sorted((len(group) for group in groups.values()), reverse=True)
    if sizes[0] < 2:
        return {}
    largest = [group for group in groups.values() if len(group) == sizes[0]]
    if len(largest) > 1:
        raise CheckpointRefused(
            f"{source} holds {len(largest)} series of {sizes[0]} files, such as"
            f" {' and '.join(group[0].name for group in largest[:2])}; name one by a pattern:"
            f" '{Path(largest[0][0].parent / re.sub('[0-9]+', '*', largest[0][0].name))}'."
        )
    (group,) = largest
    steps = _steps_in_names(group)
    if steps is None:
        return {}
    _check_unique(source, group, steps)
    return dict(zip(group, steps, strict=True))


def _steps_in_names(files: Sequence[Path]) -> list[int] | None:
    """Read steps off names: what is marked as one, or the only number that varies."""
    rows = [_NUMBER.findall(path.name.removesuffix(path.suffix) or path.name) for path in files]
    if not rows or len({tuple(label for label, _ in row) for row in rows}) > 1:
        return None
    labels = [label.lower() for label, _ in rows[0]]
    columns = [[int(row[i][1]) for row in rows] for i in range(len(labels))]
    for clock in _CLOCKS:
        if labels.count(clock) == 1:
            return columns[labels.index(clock)]
    varying = [column for column in columns if len(set(column)) > 1]
    return varying[0] if len(varying) == 1 else None


def _by_content(source: str | PathLike[str], files: Sequence[Path]) -> dict[Path, int]:
    steps_held = {path: _step_held(path) for path in files}
    steps = {path: step for path, step in steps_held.items() if step is not None}
    if len(steps) < 2:
        raise CheckpointRefused(
            f"{source}: neither the names of its {len(files)} files ({few(p.name for p in files)})"
            " nor what they hold (step, global_step, epoch) says their order; give them as a list,"
            " first to last."
        )
    _check_unique(source, list(steps), list(steps.values()))
    return steps


def _step_held(path: Path) -> int | None:
    contents = read_weights(path, mapped=True)
    return step_in(contents.about or contents.values)


def _check_unique(source: object, files: Sequence[Path], steps: Sequence[int]) -> None:
    twice = [path.name for path, step in zip(files, steps, strict=True) if steps.count(step) > 1]
    if twice:
        raise CheckpointRefused(
            f"{source} holds {len(twice)} files that share a step with another ({few(twice)}):"
            " several trainings, it seems. Name one by a pattern, 'ckpt/seed1_epoch_*.pt', or give"
            " a list."
        )


def _named(files: Iterable[Path]) -> str:
    """Name a trajectory after the folder of its files."""
    first = next(iter(files), Path())
    return first.absolute().parent.name
