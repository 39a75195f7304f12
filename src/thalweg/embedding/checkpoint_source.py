"""Weights to embed, read from checkpoint files piece by piece."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from io import FileIO
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thalweg.embedding.source import Block, layer_of
from thalweg.errors import CheckpointMismatch, CheckpointRefused, DamagedFile
from thalweg.run.tensors import RunningChecksum, check_tensors, opened_tensors

# The one metadata key and the prefix of extra tensors in a checkpoint of this package.
_METADATA = "thalweg"
_EXTRA_PREFIX = "thalweg/"
# Batch norm's running statistics as PyTorch names them: state, never trained.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
# bfloat16, which numpy lacks, is the upper half of a float32.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "C64": "<f4"}
_OF_TORCH = {
    **{"F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16"},
    **{"BF16": "torch.bfloat16", "C64": "torch.complex64"},
}
# Bytes that are read at a time: they are still in the processor's cache when they are checked.
_PIECE = 1 << 18


class CheckpointSource:
    """Checkpoints in safetensors files, read in pieces and never held open.

    Checksums are checked on the way: what is read to its end in order is what was written.

    The weights of a point are those trained at any of the checkpoints, as the ``thalweg`` metadata
    of each names them; where one was frozen, the file holds its value. In a file without that
    metadata they are its floating-point tensors, except the running statistics of batch norm. A
    network may grow or shrink while it is recorded: a weight that a checkpoint does not have keeps
    the value of the nearest one of its trajectory that has it. Complex weights are pairs of reals.

    Parameters
    ----------
    paths : sequence of paths
        One safetensors file for each point.

    Attributes
    ----------
    frozen : tuple of str
        Weights that were trained at some of the checkpoints and not at all.
    absent : tuple of str
        Weights that some of the checkpoints do not have.

    Raises
    ------
    CheckpointRefused
        For a file that is missing or not safetensors, or a weight that is no floating-point number.
    CheckpointMismatch
        For files that are not of one network.
    """

    def __init__(self, paths: Sequence[str | PathLike[str]]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        files = [_read_header(path) for path in self.paths]
        self.metadata: tuple[dict[str, Any], ...] = tuple(file.metadata for file in files)
        self._checks = {
            (file.path, name): RunningChecksum(file.path, name, *_kind(file.tensors[name]), total)
            for file in files
            for name, total in file.sums.items()
            if file.tensors[name].dtype in _DTYPES
        }
        names = _union([file.trained for file in files])
        self._places = [_places(file, names, files) for file in files]
        for path, places in zip(self.paths, self._places, strict=True):
            _check_types(places)
            _check_same(self.paths[0], self._places[0], path, places)
        self.frozen = tuple(n for n in names if any(n not in file.trained for file in files))
        self.absent = tuple(n for n in names if any(n not in file.tensors for file in files))
        first = self._places[0] if files else {}
        self._blocks = tuple(
            Block(name, math.prod(place.tensor.shape) * _reals(place.tensor), layer_of(name))
            for name, place in first.items()
        )

    @property
    def points(self) -> int:
        """Number of files n."""
        return len(self.paths)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """One block for each parameter, in the order of the network."""
        return self._blocks

    def read(self, point: int, name: str, start: int, stop: int) -> NDArray[Any]:
        """Weights ``start:stop`` of parameter ``name``, flattened, from one file."""
        path, tensor = self._places[point][name]
        dtype = np.dtype(_DTYPES[tensor.dtype])
        values = np.empty(stop - start, dtype)
        running = self._checks.get((path, name))
        with path.open("rb", buffering=0) as file:
            _fill(values, file, tensor.offset, start * dtype.itemsize, running)
        if tensor.dtype == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        return values

    def describe(self, point: int) -> str:
        """Name one file, for messages."""
        return str(self.paths[point])

    def check(self, point: int) -> None:
        """Check a file as a whole; `DamagedFile` says that it is not what was written."""
        check_tensors(self.paths[point])


class _Tensor(NamedTuple):
    """A tensor's place in its file: ``offset`` bytes from the file's beginning."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class _Place(NamedTuple):
    """Where the values of a weight stand: a file, and the tensor in it."""

    path: Path
    tensor: _Tensor


class _File(NamedTuple):
    """A checkpoint's header: what it says, all its tensors, and the names of the trained ones."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, _Tensor]
    trained: tuple[str, ...]
    sums: dict[str, str]

    @property
    def trajectory(self) -> Path | None:
        """What it belongs to, if this package recorded it: one folder holds one trajectory."""
        return self.path.parent if "parameters" in self.metadata else None

    @property
    def step(self) -> int:
        """The step it was kept at."""
        return int(self.metadata.get("step", 0))


def _read_header(path: Path) -> _File:
    """Read a file's header; safetensors itself checks that it is whole."""
    try:
        # This validates the header and every tensor's place against the file's length; the library
        # keeps the offsets to itself, so they are read from the same bytes below.
        with opened_tensors(path) as (_, _, sums):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        metadata = json.loads(header.pop("__metadata__", {}).get(_METADATA, "{}"))
    except DamagedFile:
        raise
    except (OSError, ValueError) as error:
        raise CheckpointRefused(
            f"cannot read {path} as a checkpoint ({error}); expected a safetensors file, "
            "as safetensors.torch.save_file(model.state_dict(), path) writes"
        ) from None
    tensors = {
        name: _Tensor(entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
    }
    return _File(path, metadata, tensors, _trained(path, tensors, metadata), sums)


def _kind(tensor: _Tensor) -> tuple[str, int]:
    """Give a tensor's torch dtype and its length in bytes."""
    size = math.prod(tensor.shape) * _reals(tensor) * np.dtype(_DTYPES[tensor.dtype]).itemsize
    return _OF_TORCH[tensor.dtype], size


def _fill(
    values: NDArray[Any], file: FileIO, offset: int, start: int, running: RunningChecksum | None
) -> None:
    """Read an array from byte ``start`` of a tensor on, and check what has no check yet."""
    if running is not None and running.reached < start:
        passed = np.empty(start - running.reached, np.uint8)
        _fill(passed, file, offset, running.reached, running)
    room = values.view(np.uint8)
    file.seek(offset + start)
    for at in range(0, len(room), _PIECE):
        piece = room[at : at + _PIECE]
        if file.readinto(piece.data) != len(piece):
            raise DamagedFile(f"{file.name} is damaged: it ends too early.")
        if running is not None:
            piece.flags.writeable = False  # as the library wants what it hashes
            running.take(start + at, piece)


def _trained(
    path: Path, tensors: dict[str, _Tensor], metadata: Mapping[str, Any]
) -> tuple[str, ...]:
    """Name the weights that were trained, in their order."""
    names: list[str] | None = metadata.get("parameters")
    if names is None:
        return tuple(name for name, tensor in tensors.items() if _looks_trainable(name, tensor))
    for name in names:
        if name in metadata.get("left_out", {}) or (
            name in metadata.get("forms", {}).keys() - tensors.keys()
        ):
            raise CheckpointRefused(
                f"{path} does not hold the parameter {name!r} as a plain tensor: "
                f"{metadata.get('left_out', {}).get(name, 'it is sparse')}"
            )
        if name not in tensors:
            raise CheckpointMismatch(
                f"{path} lists the parameter {name!r} but holds no tensor of that name; "
                "the file was not written whole, write it again"
            )
    return tuple(names)


def _looks_trainable(name: str, tensor: _Tensor) -> bool:
    return (
        tensor.dtype in _DTYPES
        and not name.startswith(_EXTRA_PREFIX)
        and name.rpartition(".")[2] not in _BUFFERS
    )


def _reals(tensor: _Tensor) -> int:
    """Count the real numbers in one entry."""
    return 2 if tensor.dtype == "C64" else 1


def _union(lists: Sequence[tuple[str, ...]]) -> list[str]:
    """Join lists of names: each name of a later list stands behind the one it follows there."""
    joined: list[str] = []
    for names in lists:
        behind = 0
        for name in names:
            if name not in joined:
                joined.insert(behind, name)
            behind = joined.index(name) + 1
    return joined


def _places(file: _File, names: Sequence[str], files: Sequence[_File]) -> dict[str, _Place]:
    """Find where the weights stand at one checkpoint: in it, or in the nearest that has them."""
    kin = [sibling for sibling in files if sibling.trajectory == file.trajectory is not None]
    kin.sort(key=lambda sibling: abs(sibling.step - file.step))
    places: dict[str, _Place] = {}
    for name in names:
        for holder in (file, *kin):
            if name in holder.tensors:
                places[name] = _Place(holder.path, holder.tensors[name])
                break
    return places


def _check_types(places: Mapping[str, _Place]) -> None:
    for name, (path, tensor) in places.items():
        if tensor.dtype not in _DTYPES:
            raise CheckpointRefused(
                f"{path}: parameter {name!r} has type {tensor.dtype}, "
                f"expected one of {', '.join(_DTYPES)}"
            )


def _check_same(
    reference: Path, expected: dict[str, _Place], path: Path, got: dict[str, _Place]
) -> None:
    """Raise unless two points have the same weights in the same shapes."""
    differences = [f"no {name!r}" for name in expected if name not in got]
    differences += [f"{name!r} besides" for name in got if name not in expected]
    differences += [
        f"{name!r} of shape {got[name].tensor.shape} instead of {place.tensor.shape}"
        for name, place in expected.items()
        if name in got and got[name].tensor.shape != place.tensor.shape
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointMismatch(
            f"{path} has {', '.join(differences[:3])}{more}, expected the parameters of "
            f"{reference}; embed only checkpoints of one network"
        )
