"""Results at rest: labelled data sets in one zarr store, each of them whole or not there."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.errors import DamagedFile, InvalidArgument
from thalweg.run.box import check_name, check_tree, inside
from thalweg.run.files import write_text
from thalweg.run.locks import locked
from thalweg.run.result_files import (
    FILES,
    METADATA,
    bounded_unpacking,
    check_result,
    check_room,
    read_result,
    seal,
)

if TYPE_CHECKING:
    import xarray as xr

# Marks the groups that only hold results: a result itself has no results below it.
_FOLDER = {"attributes": {"holds": "results"}, "zarr_format": 3, "node_type": "group"}
_CHUNK_BYTES = 1 << 20
_CHUNKS_PER_SHARD = 64
_SEPARATOR = "|"


class ResultStore:
    """
    Data sets under group names in one zarr store.

    A data set is written whole beside the store and renamed into it. What it replaces is set aside
    until then, so that after a kill at any moment either the old or the new one is found.

    Parameters
    ----------
    folder : Path
        Where both lie; a link at or below them is refused before it is followed.
    store : str
        Name of the store, made on the first result.
    scratch : str
        Name of a folder for what is half-way in or out.
    """

    def __init__(self, folder: Path, store: str, scratch: str) -> None:
        self.folder = folder
        self.names_of = store, scratch

    @property
    def path(self) -> Path:
        """The store's folder."""
        return inside(self.folder, self.names_of[0])

    @property
    def scratch(self) -> Path:
        """The folder of what is half-way."""
        return inside(self.folder, self.names_of[1])

    def save(self, name: str, dataset: xr.Dataset) -> None:
        """Write ``dataset`` as the group ``name``, in place of what was there."""
        target = self._target(name)
        if not dataset.variables:
            raise InvalidArgument(
                f"Result {name!r} has no variables, so there is nothing to save; give a data set"
                " with one at least."
            )
        with self._lock():
            self._restore()
            self._check_leaf(name)
            written, replaced = self._scratch(name, "new"), self._scratch(name, "old")
            shutil.rmtree(written, ignore_errors=True)
            _write(written, dataset)
            self._make_parents(target)
            if target.exists():
                os.rename(target, replaced)
            os.rename(written, target)
            shutil.rmtree(replaced, ignore_errors=True)

    def load(self, name: str) -> xr.Dataset:
        """
        Read the data set ``name`` into memory; of a writer at work, the old or the new one.

        Raises
        ------
        DamagedFile
            If a file of it is gone, or is not what was written.
        InvalidArgument
            If there is no such result; the message says which there are.
        """
        target = self._target(name)
        while self.has(name):
            before = _identity(target)
            try:
                loaded = _plain(_recast(_loaded(target), "T", str))
            except Exception:
                # Whatever it is, it counts only if no writer put another folder in its place.
                if before == _identity(target):
                    raise
                continue
            if before == _identity(target):
                return loaded
        raise InvalidArgument(f"There is no result {name!r} in {self.path}. {self._offer()}")

    def tree(self) -> xr.DataTree:
        """Open all results lazily; one that is replaced meanwhile must be opened again."""
        import xarray as xr

        check_tree(self.path)
        opened = {}
        for name in self.names():
            check_result(self._target(name))
            with bounded_unpacking():
                dataset = xr.open_dataset(self._target(name), engine="zarr", consolidated=False)
            opened[name] = _plain(dataset)
        return xr.DataTree.from_dict(opened)

    def has(self, name: str) -> bool:
        """Say whether the result ``name`` is there."""
        target = self._target(name)
        if _kind(target) != "result":
            self._settle()
        return _kind(target) == "result"

    def names(self) -> list[str]:
        """List the names of all results."""
        self._settle()
        return sorted(_names_below(self.path))

    def _target(self, name: str) -> Path:
        parts = name.split("/")
        if any(piece == "" or piece[0] in "._" or _SEPARATOR in piece for piece in parts):
            raise InvalidArgument(
                f"{name!r} cannot name a result. Use words with '/' between them, such as "
                "'trajectories/embedding'; none is empty, begins with '.' or '_', or holds '|'."
            )
        for piece in parts:
            check_name("result", piece)
        return inside(self.path, *parts)

    def _scratch(self, name: str, state: str) -> Path:
        return inside(self.scratch, f"{name.replace('/', _SEPARATOR)}.{state}")

    def _lock(self) -> Any:
        return locked(inside(self.scratch, ".lock"), wait=True)

    def _settle(self) -> None:
        if any(self.scratch.glob("*.old")):
            with self._lock():
                self._restore()

    def _restore(self) -> None:
        for replaced in self.scratch.glob("*.old"):
            check_tree(replaced)
            target = self._target(replaced.name.removesuffix(".old").replace(_SEPARATOR, "/"))
            if target.exists():
                shutil.rmtree(replaced)
            else:
                os.rename(replaced, target)

    def _check_leaf(self, name: str) -> None:
        if _kind(self._target(name)) == "folder":
            raise InvalidArgument(
                f"{name!r} holds other results and cannot be one. {self._offer()}"
            )
        parts = name.split("/")
        for above in ("/".join(parts[:depth]) for depth in range(1, len(parts))):
            if _kind(self._target(above)) == "result":
                raise InvalidArgument(
                    f"{above!r} is a result, so that {name!r} cannot lie below it; write another"
                    " name."
                )

    def _make_parents(self, target: Path) -> None:
        folders = [above for above in target.parents if above.is_relative_to(self.path)]
        for folder in reversed(folders):
            if not is_marker(folder / "zarr.json"):
                write_text(folder / "zarr.json", json.dumps(_FOLDER))

    def _offer(self) -> str:
        names = sorted(_names_below(self.path))
        return f"There are: {', '.join(names)}." if names else "There are no results yet."


def _loaded(folder: Path) -> xr.Dataset:
    """Read a result from what its files held when they were checked."""
    import xarray as xr
    from zarr.core.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    buffers: dict[str, Any] = {
        name: Buffer.from_bytes(content) for name, content in read_result(folder).items()
    }
    store: Any = MemoryStore(buffers, read_only=True)
    try:
        with bounded_unpacking(), xr.open_zarr(store, chunks=None, consolidated=False) as dataset:
            check_room(folder, dataset)
            loaded: xr.Dataset = dataset.load()
            return loaded
    except DamagedFile as error:
        raise DamagedFile(f"{folder}: {error}") from None


def is_marker(path: Path) -> bool:
    """Say whether a zarr.json is as it is written into folders that only hold results."""
    try:
        return bool(json.loads(path.read_bytes()) == _FOLDER)
    except (OSError, ValueError, RecursionError):
        return False


def _plain(dataset: xr.Dataset) -> xr.Dataset:
    """Take the checksums out of a data set's attributes."""
    dataset.attrs = {k: v for k, v in dataset.attrs.items() if k not in (FILES, METADATA)}
    return dataset


def _kind(folder: Path) -> str:
    """
    Say what a folder is: "nothing", an "array", a "folder" of results or a "result".

    Where its metadata are damaged, what lies below decides; `check_result` refuses it later.
    """
    path = inside(folder, "zarr.json")
    try:
        about = json.loads(path.read_bytes())
        kind, attributes = about["node_type"], about.get("attributes", {})
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        kind, attributes = "group", {}
    if kind == "array":
        return "array"
    if attributes == _FOLDER["attributes"]:
        return "folder"
    if isinstance(attributes, dict) and (FILES in attributes or METADATA in attributes):
        return "result"
    below = (_kind(child) for child in sorted(folder.iterdir()) if child.is_dir())
    return "folder" if any(kind in ("folder", "result") for kind in below) else "result"


def _names_below(folder: Path, prefix: str = "") -> list[str]:
    names = []
    for below in sorted(folder.iterdir()) if folder.exists() else []:
        inside(folder, below.name)
        kind = _kind(below)
        if kind == "result":
            names.append(prefix + below.name)
        elif kind == "folder":
            names.extend(_names_below(below, f"{prefix}{below.name}/"))
    return names


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    # A number of a removed folder can be given to the next one: the time tells them apart.
    return status.st_ino, status.st_ctime_ns


def _write(folder: Path, dataset: xr.Dataset) -> None:
    # zarr has no specified text of fixed length; that of variable length is specified.
    plain = _recast(dataset.compute().drop_encoding(), "U", np.dtypes.StringDType())
    encoding = {key: _chunking(v.shape, v.dtype.itemsize) for key, v in plain.variables.items()}
    # Empty chunks too: zarr takes a complex -0 for its fill value, 0, and would not write it.
    plain.to_zarr(
        folder,
        mode="w",
        consolidated=False,
        zarr_format=3,
        encoding=encoding,
        write_empty_chunks=True,
    )
    seal(folder)
    _sync_tree(folder)


def _chunking(shape: tuple[int, ...], itemsize: int) -> dict[str, tuple[int, ...]]:
    """Cut long arrays by rows, many chunks to a file; short ones are one chunk."""
    row = math.prod(shape[1:]) * itemsize
    if not shape or shape[0] * row <= _CHUNK_BYTES:
        return {}
    rows = max(1, _CHUNK_BYTES // row)
    return {"chunks": (rows, *shape[1:]), "shards": (rows * _CHUNKS_PER_SHARD, *shape[1:])}


def _recast(dataset: xr.Dataset, kind: str, dtype: Any) -> xr.Dataset:
    """Cast the variables of one kind of dtype."""
    cast = {
        # By way of objects: NumPy measures the longest text only then.
        key: (variable.dims, variable.values.astype(object).astype(dtype), variable.attrs)
        for key, variable in dataset.variables.items()
        if variable.dtype.kind == kind
    }
    return dataset.assign(cast)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
