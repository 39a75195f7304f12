"""Data sets of images in the layout of the Hugging Face hub, decoded once and memory-mapped."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from thalweg.errors import DataUnavailable, InvalidProblem, MissingExtra, first_line
from thalweg.run.files import write_atomic
from thalweg.run.progress import Progress, silent

log = logging.getLogger("thalweg")

_SPLITS = {"train": ("train",), "test": ("test", "validation", "valid")}
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "labels", "fine_label")
# Part of the cache's key: raise it when decoding or layout change.
_FORMAT = "1"


@dataclass(frozen=True, eq=False)
class Images:
    """
    One split, decoded.

    Attributes
    ----------
    pixels : Tensor
        Shape (N, C, H, W), uint8, channels last in memory, mapped from a file.
    labels : Tensor
        Shape (N,), int64.
    classes : tuple of str
        Names of the classes.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]


class _Source(Protocol):
    labels: Tensor
    classes: tuple[str, ...]
    key: str

    def encoded(self) -> Iterator[bytes]:
        """Give each image as it lies in its file."""


def read_images(data: str, split: str, *, progress: Progress = silent) -> Images | None:
    """
    Read a split of a data set; decode it where that has not been done before.

    Parameters
    ----------
    data : str
        A folder with parquet files ``train*.parquet`` and ``test*.parquet`` (columns ``img`` or
        ``image``, and ``label``) at any depth, or a name on the Hugging Face hub.
    split : {"train", "test"}
        A hub data set's ``validation`` stands in where it has no ``test``.
    progress : Progress
        Shows the decoding.

    Returns
    -------
    Images or None
        None where there is no test split.

    Raises
    ------
    DataUnavailable
        If data set or training split cannot be found.
    MissingExtra
        If the libraries that read it are not installed.
    InvalidProblem
        If columns are missing, or images differ in size.
    """
    source = _folder(Path(data).expanduser(), split) if _is_folder(data) else _hub(data, split)
    if source is None:
        return None
    path = cache_folder() / f"images-{split}-{source.key}.npy"
    pixels = _mapped(path, len(source.labels))
    if pixels is None:
        _decode(source, path, progress)
        pixels = _mapped(path, len(source.labels))
    assert pixels is not None
    return Images(pixels.permute(0, 3, 1, 2), source.labels, source.classes)


def cache_folder() -> Path:
    """Say where decoded images are kept: ``$XDG_CACHE_HOME/thalweg`` or ``~/.cache/thalweg``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thalweg"


class _Parquet:
    """Files of one split in a folder."""

    def __init__(self, files: list[Path]) -> None:
        self._parquet = _need("pyarrow.parquet", "datasets")
        self._files = files
        schema = self._parquet.read_schema(files[0])
        self._image = _column(schema.names, _IMAGE_COLUMNS, "image", files[0])
        label = _column(schema.names, _LABEL_COLUMNS, "label", files[0])
        columns = [self._parquet.read_table(file, columns=[label])[label] for file in files]
        values = np.concatenate([column.to_numpy() for column in columns])
        self.labels = torch.from_numpy(values.astype(np.int64))
        self.classes = _class_names(schema, label, self.labels)
        self.key = _digest_files(files)

    def encoded(self) -> Iterator[bytes]:
        for file in self._files:
            for batch in self._parquet.ParquetFile(file).iter_batches(1000, columns=[self._image]):
                yield from (_bytes_of(value) for value in batch.column(0).to_pylist())


class _Hub:
    """One split of a data set of the ``datasets`` library."""

    def __init__(self, rows: Any, name: str) -> None:
        library = _need("datasets", "datasets")
        self._image = _column(rows.column_names, _IMAGE_COLUMNS, "image", name)
        label = _column(rows.column_names, _LABEL_COLUMNS, "label", name)
        self.labels = torch.as_tensor(np.asarray(rows[label], dtype=np.int64))
        names = getattr(rows.features[label], "names", None)
        self.classes = tuple(names) if names else _numbered(self.labels)
        self.key = hashlib.sha256(f"{_FORMAT}{name}{rows._fingerprint}".encode()).hexdigest()[:16]
        self._rows = rows.cast_column(self._image, library.Image(decode=False))

    def encoded(self) -> Iterator[bytes]:
        return (_bytes_of(row[self._image]) for row in self._rows)


def _is_folder(data: str) -> bool:
    path = Path(data).expanduser()
    if path.is_dir():
        return True
    if path.is_absolute() or data.startswith((".", "~")):
        raise DataUnavailable(
            f"{data} is no folder; give one with train*.parquet and test*.parquet (columns img and"
            " label), or a name on the Hugging Face hub such as uoft-cs/cifar10."
        )
    return False


def _folder(folder: Path, split: str) -> _Source | None:
    everything = sorted(folder.rglob("*.parquet"))
    for name in _SPLITS[split]:
        files = [file for file in everything if file.name.startswith(name)]
        if files:
            return _Parquet(files)
    if split == "test" and everything:
        return None
    names = ", ".join(file.name for file in everything[:5]) or "no parquet files"
    raise DataUnavailable(
        f"{folder} has no training data: expected files train*.parquet, found {names}. Give a"
        " folder in the layout of the hub's uoft-cs/cifar10."
    )


def _hub(name: str, split: str) -> _Source | None:
    library = _need("datasets", "datasets")
    try:
        splits = library.load_dataset(name)
    except Exception as error:
        # The library raises many kinds: no such name, no network, no permission.
        raise DataUnavailable(
            f"the data set {name!r} cannot be loaded from the Hugging Face hub"
            f" ({type(error).__name__}: {first_line(error)}). Check"
            " its name and the network, or give a folder in the same layout: data='/path/to/folder'"
            " (--data on the command line)."
        ) from None
    for choice in _SPLITS[split]:
        if choice in splits:
            return _Hub(splits[choice], name)
    if split == "test":
        return None
    raise DataUnavailable(f"{name!r} has no split 'train'; it has {', '.join(splits)}.")


def _decode(source: _Source, path: Path, progress: Progress) -> None:
    count = len(source.labels)
    log.info("decoding %d images, once; they are kept in %s", count, path)
    with progress(count, f"decoding {count:,} images") as bar:
        write_atomic(path, partial(_write_pixels, source, bar))


def _write_pixels(source: _Source, bar: Any, path: Path) -> None:
    image = _need("PIL.Image", "datasets")
    pixels: np.memmap[Any, Any] | None = None
    mode = "RGB"
    for i, encoded in enumerate(source.encoded()):
        with image.open(io.BytesIO(encoded)) as picture:
            if pixels is None:
                mode = "L" if picture.mode in ("1", "L") else "RGB"
                shape = (len(source.labels), picture.height, picture.width, len(mode))
                pixels = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            if (picture.height, picture.width) != pixels.shape[1:3]:
                raise InvalidProblem(
                    f"images differ in size: {pixels.shape[2]}x{pixels.shape[1]} and"
                    f" {picture.width}x{picture.height} (image {i}); resize them to one size."
                )
            pixels[i] = np.asarray(picture.convert(mode)).reshape(pixels.shape[1:])
        bar.update(1)
    if pixels is None:
        raise InvalidProblem("the data set has no images.")
    pixels.flush()


def _mapped(path: Path, count: int) -> Tensor | None:
    # A file that another program cut short is decoded anew.
    with suppress(OSError, ValueError, EOFError):
        # Copy on write: torch warns of arrays it must not write to, and the file stays as it is.
        pixels = np.load(path, mmap_mode="c")
        if len(pixels) == count:
            return torch.from_numpy(pixels)
    return None


def _digest_files(files: Iterable[Path]) -> str:
    state = hashlib.sha256(_FORMAT.encode())
    for file in files:
        with file.open("rb") as opened:
            state.update(hashlib.file_digest(opened, "sha256").digest())
    return state.hexdigest()[:16]


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if value.get("bytes") is not None:
        return bytes(value["bytes"])
    return Path(value["path"]).read_bytes()


def _column(names: Iterable[str], candidates: tuple[str, ...], what: str, where: object) -> str:
    for name in candidates:
        if name in names:
            return name
    raise InvalidProblem(
        f"{where} has no {what} column: expected {' or '.join(map(repr, candidates))}, found"
        f" {', '.join(names)}; rename it."
    )


def _class_names(schema: Any, label: str, labels: Tensor) -> tuple[str, ...]:
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    names = about.get("info", {}).get("features", {}).get(label, {}).get("names")
    return tuple(names) if names else _numbered(labels)


def _numbered(labels: Tensor) -> tuple[str, ...]:
    return tuple(map(str, range(int(labels.max()) + 1)))


def _need(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise MissingExtra(
            f"reading images needs {module.partition('.')[0]}, which is not installed; write"
            f" pip install 'thalweg[{extra}]'."
        ) from None
