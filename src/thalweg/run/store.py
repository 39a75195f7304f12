"""The run directory: one folder that says how it was made and holds all that came of it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.errors import DamagedFile, RunConflict, RunNotFound, ThalwegError
from thalweg.run.box import check_name, files_below, inside
from thalweg.run.claims import Claims
from thalweg.run.configuration import check_same, entry_of, plain_config
from thalweg.run.digests import file_checksum, hex_checksum, sealed_toml
from thalweg.run.events import EventLines, EventLog, read_events
from thalweg.run.files import read_json, write_text
from thalweg.run.locks import last_holder, locked
from thalweg.run.results import ResultStore
from thalweg.run.run_toml import (
    COPY,
    RUN_TOML,
    check_free,
    contents,
    is_run,
    nearby,
    read_about,
    run_folders,
    versions,
)
from thalweg.run.trust import check_source, describe_source, require_trust, trust_entry

if TYPE_CHECKING:
    import xarray as xr

logger = logging.getLogger("thalweg")

# Checksums of files whose form has no place for one.
COVERED = "digests.jsonl"
# The kind of a run that `thalweg.record` or `thalweg.train` made.
RECORDING = "recording"
# Runs this process drives: a study may drive tasks of its own within a run that is held already.
_held: set[Path] = set()


class Run:
    """
    A run directory.

    Parameters
    ----------
    path : Path
        The folder; see `create_run` and `open_run`, which check it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @cached_property
    def about(self) -> dict[str, Any]:
        """All of run.toml: ``config``, ``versions``, ``created``."""
        file, copy = self.inside(RUN_TOML), self.inside(COPY)
        try:
            return read_about(file)
        except DamagedFile as error:
            if not copy.exists():
                raise
            about = read_about(copy)
            logger.warning("%s Its copy %s is read instead.", error, copy.name)
            return about

    @property
    def config(self) -> dict[str, Any]:
        """The configuration the run was created with."""
        config: dict[str, Any] = self.about["config"]
        return config

    def require_source(self) -> None:
        """
        Refuse the run's problem unless it may be called, and is the one the run began with.

        Raises
        ------
        NotTrusted
            If its entry is a function that the user neither named nor trusted.
        RunConflict
            If its source was edited since; the message says what changed.
        """
        entry = entry_of(self.config)
        check_source(entry, self.about.get("source"), f"the run {self.path.name}")
        require_trust(entry)

    def trust_source(self) -> None:
        """Trust the function that makes the run's problem, until its source changes."""
        trust_entry(entry_of(self.config))

    @property
    def recorded(self) -> bool:
        """Whether it holds trainings recorded from Python, and no work that can be taken up."""
        return self.config.get("kind") == RECORDING

    @property
    def tasks(self) -> Path:
        """Folder of what is done, by key of the task."""
        return self.inside("tasks")

    def inside(self, *names: str) -> Path:
        """
        Give the path of something in the run: every file is opened under a path from here.

        Raises
        ------
        LeavesRun
            If a link on the way leads anywhere, or a name is none of a file here.
        """
        return inside(self.path, *names)

    def log(self, **context: str | int) -> EventLog:
        """Open the metrics for appending; ``context`` is written with every event."""
        return EventLog(self.inside("events.jsonl"), **context)

    def events(self) -> list[dict[str, Any]]:
        """Read all metrics logged so far."""
        return read_events(self.inside("events.jsonl"))

    def checkpoints(self, trajectory: str | None = None) -> list[Path]:
        """List the checkpoints of one trajectory, or of all, by name and then by step."""
        root = self.inside("checkpoints")
        # A folder in a folder is read, as runs of other tools may have them; none is written.
        parts = [] if trajectory is None else trajectory.split("/")
        folder = inside(root, *map(check_trajectory, parts))
        paths = [path for path in files_below(folder) if path.suffix == ".safetensors"]
        if trajectory is not None:
            paths = [path for path in paths if path.parent == folder]
        return sorted(paths, key=lambda path: (_trajectory(root, path), path.name))

    def trajectories(self) -> list[str]:
        """List the names of all trajectories that have a checkpoint."""
        root = self.inside("checkpoints")
        return sorted({_trajectory(root, path) for path in self.checkpoints()})

    def save_result(self, name: str, dataset: xr.Dataset) -> None:
        """
        Save a labelled data set, in place of an earlier one of the same name.

        Parameters
        ----------
        name : str
            A group path such as ``"trajectories/embedding"``.
        dataset : xarray.Dataset
            Any dims, coords and attributes that JSON can hold; text is written as text.

        Raises
        ------
        InvalidArgument
            If ``name`` is no group path, holds other results or lies below one, or if
            ``dataset`` has no variables.
        """
        self.store.save(name, dataset)

    def result(self, name: str) -> xr.Dataset:
        """Read one data set into memory; `InvalidArgument` says which there are."""
        return self.store.load(name)

    def has_result(self, name: str) -> bool:
        """Say whether a data set has been saved under ``name``."""
        return self.store.has(name)

    @property
    def results(self) -> xr.DataTree:
        """All data sets as one tree, read when they are used; an empty tree if there are none."""
        return self.store.tree()

    @property
    def claims(self) -> Claims:
        """
        The claims that were judged, as JSON values; empty until the studies are done.

        A list that `Claims.to_dataframe` makes a table of.

        Each has ``name``, ``study``, ``statement``, ``source``, ``protocol``, ``statistic`` with
        its interval, ``rule``, ``verdict``, ``controls`` with theirs, ``section``, ``why``.
        """
        path = self.inside("claims.json")
        claims = read_json(path).get("claims") if path.exists() else []
        if not isinstance(claims, list):
            raise DamagedFile(f"{path} is damaged: it holds no claims.")
        return Claims(claims)

    def cover(self, *names: str, content: bytes | None = None) -> None:
        """
        Note the checksum of a file whose form has no place for one.

        Parameters
        ----------
        *names : str
            The way to it in the run.
        content : bytes, optional
            What is going to be written, for a file that is not there yet.
        """
        total = file_checksum(self.inside(*names)) if content is None else hex_checksum(content)
        file = "/".join(names)
        if total not in self.covered.get(file, ()):
            EventLog(self.inside(COVERED))({"file": file, "checksum": total}, 0)

    @property
    def judged_by(self) -> dict[str, Any]:
        """
        The rules that its claims were judged by; empty where none were.

        ``stated``: the digest of those that run.toml holds, or None; ``judged``: for each set of
        rules in turn its ``digest``, and what it ``changed``.
        """
        path = self.inside("claims.json")
        rules: dict[str, Any] = read_json(path).get("rules", {}) if path.exists() else {}
        return rules

    @property
    def covered(self) -> dict[str, list[str]]:
        """The checksums that `cover` noted, by file: of what it is, was, or was going to be."""
        covered: dict[str, list[str]] = {}
        for line in EventLines(self.inside(COVERED)).events:
            covered.setdefault(str(line.get("file")), []).append(str(line.get("checksum")))
        return covered

    @property
    def store(self) -> ResultStore:
        """Where results lie."""
        return ResultStore(self.path, "results.zarr", ".results")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """
        Hold the run against other processes; within the process that holds it, a no-op.

        Raises
        ------
        RunConflict
            If another process is at work on the run.
        """
        if self.path in _held:
            yield
            return
        file = self.inside(".lock")
        try:
            with locked(file, wait=False):
                _held.add(self.path)
                try:
                    yield
                finally:
                    _held.discard(self.path)
        except BlockingIOError:
            raise RunConflict(
                f"Process {last_holder(file)} is at work on {self.path}. "
                "Wait until it ends, or end it; what it has done is kept."
            ) from None

    @contextmanager
    def on_behalf(self) -> Iterator[None]:
        """Work for the process that holds the run: `lock` is then a no-op here too."""
        is_first = self.path not in _held
        _held.add(self.path)
        try:
            yield
        finally:
            if is_first:
                _held.discard(self.path)


def create_run(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    *,
    rules: Mapping[str, Any] | None = None,
) -> Run:
    """
    Make a run directory, or open the one that was made with the same configuration.

    Parameters
    ----------
    path : path-like
        The folder; made where it is missing.
    config : mapping
        TOML values, nested; keys whose value is None are left out.
    rules : mapping, optional
        What will decide the run's verdicts. Those that a run was made with are kept.

    Returns
    -------
    Run
        The run. A creation that was killed leaves nothing that is taken for one.

    Raises
    ------
    RunConflict
        If the folder holds something else, or a run of another configuration.
    InvalidArgument
        If a value of ``config`` cannot be written as TOML.
    """
    folder, plain = Path(path), plain_config(config)
    if (folder / RUN_TOML).exists():
        run = Run(folder)
        check_same(run.path, run.config, plain)
        return run
    check_free(folder)
    about = {"created": datetime.now(UTC), "versions": versions(), "config": plain}
    if rules is not None:
        about["rules"] = dict(rules)
    if source := describe_source(entry_of(plain)):
        about["source"] = source
    for name in (COPY, RUN_TOML):
        write_text(folder / name, sealed_toml(about))
    return Run(folder)


@contextmanager
def begun_run(path: str | os.PathLike[str], config: Mapping[str, Any]) -> Iterator[Run]:
    """
    Make a run as `create_run` does, and take it away if the work in the block is refused at once.

    Parameters
    ----------
    path, config
        As for `create_run`.

    Yields
    ------
    Run
        Where an error ends the block before a task, a result or a checkpoint is there, a folder
        that was made here is removed again, and the one around it where it was made for it.
    """
    folder = Path(path)
    was_run, had_parent = is_run(folder), folder.parent.exists()
    run = create_run(folder, config)
    try:
        yield run
    except ThalwegError:
        if not was_run and not any(run.inside(name).exists() for name in _WORK):
            shutil.rmtree(run.path)
            if not had_parent and not any(folder.parent.iterdir()):
                folder.parent.rmdir()
        raise


_WORK = ("tasks", "results.zarr", "checkpoints", "summary.json")


def restore_run_toml(run: Run, name: str) -> None:
    """
    Write a damaged run.toml, or the copy of it, anew from the other one.

    Raises
    ------
    DamagedFile
        If that one is damaged as well.
    """
    source, target = run.inside({RUN_TOML: COPY, COPY: RUN_TOML}[name]), run.inside(name)
    read_about(source)
    write_text(target, source.read_text(encoding="utf-8"))


def open_run(path: str | os.PathLike[str]) -> Run:
    """
    Open a run directory.

    Raises
    ------
    RunNotFound
        If ``path`` is not one; the message says what is there and which runs lie near.
    """
    folder = Path(path)
    if not is_run(folder):
        raise RunNotFound(f"{folder} is not a run: {contents(folder)}. {nearby(folder)}")
    run = Run(folder)
    _ = run.about
    return run


def list_runs(folder: str | os.PathLike[str]) -> list[Run]:
    """List the runs directly under ``folder``, by name; none if it does not exist."""
    return [Run(path) for path in run_folders(folder)]


def check_trajectory(name: str) -> str:
    """Check the name of a trajectory, which is a folder's; `InvalidArgument` says what is wrong."""
    return check_name("trajectory", name)


def _trajectory(root: Path, checkpoint: Path) -> str:
    return checkpoint.parent.relative_to(root).as_posix()
