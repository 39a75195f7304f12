"""NumPy archives as tasks leave them: looked at before memory is taken for what they ask for."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.errors import DamagedFile

_NOT_WHOLE = (ValueError, KeyError, TypeError, EOFError, MemoryError, SyntaxError, RecursionError)


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """
    Read all arrays of an archive that `numpy.savez` wrote.

    Raises
    ------
    DamagedFile
        If it is not whole, holds objects, or asks for more memory than it has bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _check_size(archive, member)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (*_NOT_WHOLE, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DamagedFile(f"{path} is damaged: {error or type(error).__name__}.") from None


def _check_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed, and was not written so")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"{member.filename} is as long as no array of its shape {shape}")
