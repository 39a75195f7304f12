"""Where a training leaves its checkpoints, and where it finds the one to go on from."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from thalweg.errors import (
    CheckpointRefused,
    DamagedFile,
    InvalidArgument,
    RunConflict,
    ThalwegError,
)
from thalweg.landscape.space import ParameterSpace
from thalweg.run.checkpoints import (
    RESUME_PREFIX,
    checkpoint_path,
    read_checkpoint,
    write_checkpoint,
)
from thalweg.run.events import Log
from thalweg.run.files import remove_leftovers
from thalweg.run.holes import BEFORE
from thalweg.run.store import RECORDING, Run, check_trajectory, create_run, open_run

logger = logging.getLogger("thalweg")

# Tensors of a checkpoint, and what it says about itself.
Found = tuple[dict[str, Tensor], dict[str, Any]]


def as_run(run: Run | str | os.PathLike[str]) -> Run:
    """
    Open the run at a path, or make a plain one there; a run as it is.

    Raises
    ------
    InvalidArgument
        If the system lets no run be made there.
    """
    if isinstance(run, Run):
        return run
    try:
        if (Path(run) / "run.toml").exists():
            return open_run(run)
        return create_run(run, {"kind": RECORDING})
    except ThalwegError:
        raise
    except OSError as error:
        raise InvalidArgument(
            f"no run can be made at {run}: {error.strerror or error}. Write run='a folder that you"
            " may write to'."
        ) from None


class CheckpointWriter:
    """
    The checkpoints of one trajectory of a run.

    Parameters
    ----------
    run : Run or path
        The run directory; a plain one is made at a new path.
    trajectory : str
        The name of the trajectory in it: a folder below the run's checkpoints.

    Raises
    ------
    InvalidArgument
        If the name leads out of that folder or is none a file can have.
    """

    def __init__(self, run: Run | str | os.PathLike[str], trajectory: str) -> None:
        self.trajectory = check_trajectory(trajectory)
        self.run = as_run(run)
        self.root = self.run.inside("checkpoints")
        remove_leftovers(self.run.inside("checkpoints", self.trajectory))
        self.log: Log = self.run.log(trajectory=trajectory)
        self._kept: list[int] | None = None

    def beside(self) -> CheckpointWriter:
        """Give that of the first free trajectory named after this one: "main-2", ..."""
        writers = (CheckpointWriter(self.run, f"{self.trajectory}-{number}") for number in count(2))
        return next(writer for writer in writers if not writer.paths())

    def paths(self) -> list[Path]:
        """List the checkpoints in the order of their steps."""
        return self.run.checkpoints(self.trajectory)

    def keep(self, step: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Write the checkpoint of a step, which says what the one before it is."""
        about = {"trajectory": self.trajectory, "step": step, **about}
        if earlier := [written for written in self._steps() if written < step]:
            about[BEFORE] = earlier[-1]
        path = checkpoint_path(self.root, self.trajectory, step)
        self.run.inside(*path.relative_to(self.run.path).parts)
        write_checkpoint(path, tensors, about)
        self._kept = [*earlier, step]

    def _steps(self) -> list[int]:
        """Give the steps that are kept: of what another program left, as they were found once."""
        if self._kept is None:
            self._kept = [int(path.stem) for path in self.paths() if path.stem.isdecimal()]
        return self._kept

    def latest(self) -> Found | None:
        """Read the last checkpoint that is whole; None if there is none."""
        for path in reversed(self.paths()):
            try:
                return read_checkpoint(path)
            except (CheckpointRefused, DamagedFile) as error:
                logger.warning("%s The training goes on from the checkpoint before.", error)
        return None

    def resume(
        self, settings: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """
        Read the last checkpoint of a training with the same settings.

        Raises
        ------
        RunConflict
            If it was made with others; the message says which differ.
        """
        latest = self.latest()
        if latest is not None:
            self._check_same(latest[1].get("settings", {}), json.loads(json.dumps(dict(settings))))
        return latest

    def check_new(self) -> None:
        """
        Make sure that the trajectory has no checkpoints.

        Raises
        ------
        RunConflict
            If it has.
        """
        if paths := self.paths():
            raise RunConflict(
                f"trajectory {self.trajectory!r} has {len(paths)} checkpoints in {self.root}."
                " Resume it, or write trajectory='another name'."
            )

    def _check_same(self, recorded: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        keys = [
            key
            for key in {**recorded, **expected}
            if _but_for_the_check(recorded.get(key)) != _but_for_the_check(expected.get(key))
        ]
        if keys:
            lines = [
                f"  {key}: got {expected.get(key)}, expected {recorded.get(key)}" for key in keys
            ]
            raise RunConflict(
                f"trajectory {self.trajectory!r} in {self.root} was made by another training:\n"
                + "\n".join(lines)
                + "\nAsk for the same training to go on, or write trajectory='another name'."
            )


def split_state(
    space: ParameterSpace, tensors: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Part a checkpoint of a training into its flat vector, and frozen weights and buffers."""
    trained = {name: tensors[name] for name in space.names if name in tensors}
    fixed = {
        name: tensor
        for name, tensor in tensors.items()
        if name not in trained and not name.startswith(RESUME_PREFIX)
    }
    return space.pack(trained), fixed


def _but_for_the_check(setting: Any) -> Any:
    """Leave out what a self-check compared: it does not change the function that is descended."""
    if not isinstance(setting, Mapping):
        return setting
    return {name: value for name, value in setting.items() if name != "self-check"}
