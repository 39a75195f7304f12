"""Checkpoints of other tools as points to embed: what they hold is found without a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.embedding.source import Block, layer_of
from thalweg.errors import CheckpointMismatch
from thalweg.problems.state_names import by_unwrapped, last
from thalweg.problems.trajectory_files import rising_steps, step_in, trajectory_files
from thalweg.problems.weight_files import NEST, Contents, few, read_weights

# Entries that trainers write beside the weights.
_NO_WEIGHTS = re.compile("optim|sched|scaler|callback|loop|rng|random", re.IGNORECASE)
# Batch norm's running statistics: state, never trained.
_STATISTICS = ("running_mean", "running_var")
_STATED = ("epoch", "loss", "error", "test_loss", "test_error")


class FileSource:
    """
    Files of weights in any layout that `thalweg.open_point` reads.

    The weights of a point are the floating-point tensors of the one entry that its file has, except
    the running statistics of batch norm; complex ones count as pairs of reals.

    Parameters
    ----------
    paths : sequence of paths
        One file for each point.
    entry : str, optional
        Which entry, where files have several: ``"model"``, ``"ema"``.
    allow : iterable of str or type
        As for `thalweg.open_point`.

    Raises
    ------
    CheckpointRefused
        For a file that cannot be read.
    CheckpointMismatch
        For a file with several entries, or with other names or shapes than the first file's.
    """

    def __init__(
        self,
        paths: Sequence[str | PathLike[str]],
        *,
        entry: str | None = None,
        allow: Iterable[str | type] = (),
    ) -> None:
        self.paths = tuple(Path(path) for path in paths)
        classes = tuple(allow) if not isinstance(allow, str) else (allow,)
        contents = [read_weights(path, allow=classes, mapped=True) for path in self.paths]
        self._points = [
            _weights(content.tensors, path, entry)
            for content, path in zip(contents, self.paths, strict=True)
        ]
        for path, point in zip(self.paths[1:], self._points[1:], strict=True):
            _check_same(self.paths[0], self._points[0], path, point)
        self.metadata = _about(self.paths, contents)
        self._blocks = tuple(
            Block(name, tensor.numel(), layer_of(name))
            for name, tensor in (self._points[0] if self._points else {}).items()
        )

    @property
    def points(self) -> int:
        """Number of files n."""
        return len(self.paths)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """One block for each tensor, in the order of the first file."""
        return self._blocks

    def read(self, point: int, name: str, start: int, stop: int) -> NDArray[Any]:
        """Weights ``start:stop`` of tensor ``name``, flattened, from one file."""
        piece = self._points[point][name].reshape(-1)[start:stop]
        values: NDArray[Any] = (piece.float() if piece.dtype == torch.bfloat16 else piece).numpy()
        return values

    def describe(self, point: int) -> str:
        """Name one file, for messages."""
        return str(self.paths[point])


def _weights(tensors: Mapping[str, Tensor], path: Path, entry: str | None) -> dict[str, Tensor]:
    """Take the weights of a file's one entry, by their names without wrappers."""
    entries: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        if real.is_floating_point() and last(name) not in _STATISTICS:
            nest, _, short = name.rpartition(NEST)
            entries.setdefault(nest, {})[short] = real.detach()
    # Numbers beside the weights may be tensors too: a best loss, a state of callbacks.
    fitting = {
        nest: named
        for nest, named in entries.items()
        if (entry is not None or not _NO_WEIGHTS.search(nest))
        and any(tensor.numel() > 1 for tensor in named.values())
    }
    chosen = fitting if entry is None else _entry_named(fitting, entry)
    if len(chosen) != 1:
        labels = [nest or "." for nest in fitting]
        count = f"{len(chosen)} entries of weights" if chosen else "no such entry of weights"
        raise CheckpointMismatch(
            f"{path} has {count}, expected one: {few(map(repr, labels))}. Say which:"
            f" entry={(labels or ['model'])[0]!r}."
        )
    (named,) = chosen.values()
    return {short: named[name] for short, name in by_unwrapped(named).items()}


def _entry_named(
    entries: Mapping[str, dict[str, Tensor]], label: str
) -> dict[str, dict[str, Tensor]]:
    """Give the entry of a name, nested or a common beginning of names such as ``ema.``."""
    nested = {n: named for n, named in entries.items() if label in (n or ".", n.split(NEST)[-1])}
    if nested:
        return nested
    parts = {
        f"{nest}{NEST}{label}": {
            name.removeprefix(f"{label}."): tensor
            for name, tensor in named.items()
            if name.startswith(f"{label}.")
        }
        for nest, named in entries.items()
    }
    return {nest: named for nest, named in parts.items() if named}


def _check_same(
    reference: Path, expected: Mapping[str, Tensor], path: Path, got: Mapping[str, Tensor]
) -> None:
    differences = [f"no {name!r}" for name in expected if name not in got]
    differences += [f"{name!r} besides" for name in got if name not in expected]
    differences += [
        f"{name!r} of shape {tuple(got[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in got and got[name].shape != tensor.shape
    ]
    if differences:
        raise CheckpointMismatch(
            f"{path} has {few(differences)}, expected the weights of {reference}; embed only"
            " checkpoints of one network"
        )


def _about(paths: Sequence[Path], contents: Sequence[Contents]) -> tuple[dict[str, Any], ...]:
    """Say of each file what it states: its step, and plain numbers under usual names."""
    name = trajectory_files(paths).name
    held_steps = [step_in(content.about or content.values) for content in contents]
    stated = [step for step in held_steps if step is not None]
    steps = rising_steps(paths) or (stated if len(stated) == len(paths) else range(len(paths)))
    return tuple(
        {"trajectory": name, "step": step}
        | {k: v for k, v in content.values.items() if k in _STATED and isinstance(v, int | float)}
        | content.about
        for step, content in zip(steps, contents, strict=True)
    )
