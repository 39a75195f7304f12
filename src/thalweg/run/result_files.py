"""The files of a result: each against its checksum, and what they may ask for when unpacked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.errors import DamagedFile
from thalweg.run.bounds import check_memory
from thalweg.run.box import files_below
from thalweg.run.digests import file_checksum, hex_checksum

if TYPE_CHECKING:
    import xarray as xr

# Attributes of a result: the checksums of the files in its folder, and that of its own metadata,
# these included. What has one of both must have both.
FILES, METADATA = "thalweg_crc32c", "thalweg_metadata_crc32c"
_GATHERED = " thalweg resume gathers results anew."
_MORE = "It asks for more than any result here has."
_CUTS = ("chunks", "shards")
# What a result is packed with; others could unpack to anything.
_CODECS = {"bytes", "zstd", "crc32c", "sharding_indexed", "vlen-utf8"}


def seal(folder: Path) -> None:
    """Write the checksums of all files of a result into its metadata."""
    path = folder / "zarr.json"
    about = json.loads(path.read_bytes())
    about["attributes"][FILES] = {
        file.relative_to(folder).as_posix(): file_checksum(file)
        for file in files_below(folder)
        if file != path
    }
    about["attributes"][METADATA] = _metadata_checksum(about)
    path.write_text(json.dumps(about), encoding="utf-8")


def check_result(folder: Path) -> bool:
    """
    Check every file of one result.

    Returns
    -------
    bool
        Whether checksums cover it; an older version wrote none.

    Raises
    ------
    DamagedFile
        Naming the file that is gone, or is not what was written.
    """
    covered = _checked(folder, file_checksum)
    for path in files_below(folder):
        if path.name == "zarr.json":
            _check_codecs(path, path.read_bytes())
    return covered


def read_result(folder: Path) -> dict[str, bytes]:
    """
    Read all files of a result, each once, and check them.

    Returns
    -------
    dict of str to bytes
        By their paths in the result's folder.

    Raises
    ------
    DamagedFile
        As `check_result`.
    OutOfBudget
        If they are larger than the memory.
    """
    files = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
    check_memory(sum(path.stat().st_size for path in files.values()), str(folder), _MORE)
    contents = {name: path.read_bytes() for name, path in files.items()}
    _checked(folder, lambda path: hex_checksum(contents[path.relative_to(folder).as_posix()]))
    for name, content in contents.items():
        if files[name].name == "zarr.json":
            _check_codecs(files[name], content)
    return contents


def check_room(folder: Path, dataset: xr.Dataset) -> None:
    """Refuse shapes and chunks that ask for more memory than there is."""
    for name, variable in dataset.variables.items():
        cells = [variable.shape, *(variable.encoding.get(key) or () for key in _CUTS)]
        size = max(math.prod(shape) for shape in cells) * max(1, variable.dtype.itemsize)
        check_memory(size, f"{folder / str(name)}", _MORE)


@contextmanager
def bounded_unpacking() -> Iterator[None]:
    """Have results that are opened meanwhile unpack to no more than their shapes say."""
    import zarr

    from thalweg.run.bounded_zstd import CODEC

    with zarr.config.set({"codecs.zstd": CODEC}):
        yield


def _checked(folder: Path, checksum_of: Callable[[Path], str]) -> bool:
    # The list refuses links, whatever else is found.
    present = {file.relative_to(folder).as_posix(): file for file in files_below(folder)}
    path = folder / "zarr.json"
    try:
        about = json.loads(path.read_bytes())
        attributes = about["attributes"]
        if FILES not in attributes and METADATA not in attributes:
            return False
        expected, files = attributes.pop(METADATA, None), dict(attributes[FILES])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedFile(f"{path} is damaged.{_GATHERED}") from None
    if expected != _metadata_checksum(about):
        raise DamagedFile(f"{path} is damaged: its checksum is another.{_GATHERED}")
    del present["zarr.json"]
    for name in sorted({**files, **present}):
        if name not in files:
            raise DamagedFile(f"{folder / name} does not belong to the result.{_GATHERED}")
        if name not in present:
            raise DamagedFile(f"{folder / name} is gone.{_GATHERED}")
        if checksum_of(present[name]) != files[name]:
            raise DamagedFile(f"{folder / name} is damaged: its checksum is another.{_GATHERED}")
    return True


def _check_codecs(path: Path, content: bytes) -> None:
    """Refuse an array that is packed as none of a result is."""
    try:
        codecs = set(_codec_names(json.loads(content).get("codecs", [])))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedFile(f"{path} is damaged: it says nothing of how it is packed.") from None
    # Text is bounded by the codec that unpacks it.
    if codecs - _CODECS or ("vlen-utf8" in codecs and "zstd" not in codecs):
        raise DamagedFile(
            f"{path} is packed with {', '.join(sorted(codecs))[:60]}, as no result is; expected"
            f" some of {', '.join(sorted(_CODECS))}."
        )


def _codec_names(codecs: Any) -> Iterator[str]:
    for codec in codecs:
        if isinstance(codec, str):
            yield codec
            continue
        yield str(codec["name"])
        configuration = codec.get("configuration", {})
        yield from _codec_names(configuration.get("codecs", []))
        yield from _codec_names(configuration.get("index_codecs", []))


def _metadata_checksum(about: dict[str, Any]) -> str:
    return hex_checksum(json.dumps(about, sort_keys=True).encode())
