"""Files of tensors in a run: safetensors that say what their numbers must add up to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.errors import CheckpointRefused, DamagedFile
from thalweg.run.digests import checksum, hex_checksum
from thalweg.run.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

# Checksums of the tensors by name, and of all that the header says, these included. What has one
# of both must have both.
_TENSORS, _HEADER = "thalweg_crc32c", "thalweg_header_crc32c"


_PIECE = 1 << 22


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """
    Write contiguous tensors on the CPU atomically, with their checksums.

    Parameters
    ----------
    path : Path
        Where they shall lie.
    tensors : mapping of str to Tensor
        Each with memory of its own.
    about : mapping of str to str
        The file's metadata.
    """
    from safetensors.torch import save_file

    plain = dict(tensors)
    sums = {name: _tensor_checksum(tensor) for name, tensor in plain.items()}
    metadata = {**about, _TENSORS: json.dumps(sums)}
    shapes = {name: list(tensor.shape) for name, tensor in plain.items()}
    metadata[_HEADER] = _header_checksum(metadata, shapes)
    write_atomic(path, lambda temporary: save_file(plain, temporary, metadata=metadata))


def read_tensors(
    path: Path, wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """
    Read the tensors of a file and its metadata, and check them.

    Of a file without checksums, which others or older versions wrote, only the form is checked.

    Parameters
    ----------
    path : Path
        The file.
    wanted : callable
        Says by its name whether a tensor is read; the others are not checked either.

    Raises
    ------
    CheckpointRefused
        If it is no safetensors file.
    DamagedFile
        If it is not what was written.
    """
    with opened_tensors(path) as (file, about, sums):
        tensors = {name: file.get_tensor(name) for name in filter(wanted, file.keys())}
        for name in tensors.keys() & sums.keys():
            _check_tensor(path, name, tensors[name], sums[name])
    return tensors, about


@contextmanager
def opened_tensors(path: Path) -> Iterator[tuple[Any, dict[str, str], dict[str, str]]]:
    """
    Open a file of tensors and check its header.

    Yields
    ------
    file : safetensors.safe_open
        To read shapes and tensors from.
    about : dict of str to str
        Its metadata.
    sums : dict of str to str
        The checksum that each tensor must have; empty where the file has none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file, *_checked_header(path, file)
    except SafetensorError as error:
        raise CheckpointRefused(f"{path} is not a safetensors file ({error}).") from None


def check_tensors(path: Path) -> bool:
    """
    Check a file of tensors, holding one at a time.

    Returns
    -------
    bool
        Whether checksums cover it. Errors are those of `read_tensors`.
    """
    with opened_tensors(path) as (file, _, sums):
        names = list(file.keys())
        for name, expected in sums.items():
            _check_tensor(path, name, file.get_tensor(name), expected)
    return bool(sums) or not names


class RunningChecksum:
    """
    The check of one tensor that is read piece by piece, in its order.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Of the tensor.
    dtype : str
        Its torch dtype, such as ``"torch.float32"``.
    size : int
        Its length in bytes.
    expected : str
        Its checksum, as `opened_tensors` gives it.

    Attributes
    ----------
    reached : int
        How many bytes were added.
    """

    def __init__(self, path: Path, name: str, dtype: str, size: int, expected: str) -> None:
        self.path, self.name, self.size, self.expected = path, name, size, expected
        self.reached, self._total = 0, checksum(dtype.encode())

    def take(self, start: int, piece: NDArray[np.uint8]) -> None:
        """
        Add the bytes that were read from ``start`` on, at most `reached`.

        Those that were added before are not again.

        Raises
        ------
        DamagedFile
            Behind the last byte, if the tensor is not what was written.
        """
        new = piece[self.reached - start :]
        if not len(new):
            return
        self._total = checksum(new, self._total)
        self.reached += len(new)
        if self.reached == self.size and f"{self._total:08x}" != self.expected:
            raise _damaged(self.path, self.name)


def _checked_header(path: Path, file: Any) -> tuple[dict[str, str], dict[str, str]]:
    metadata: dict[str, str] = dict(file.metadata() or {})
    if _TENSORS not in metadata and _HEADER not in metadata:
        return metadata, {}
    shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    expected = metadata.pop(_HEADER, None)
    if _TENSORS not in metadata or expected != _header_checksum(metadata, shapes):
        raise DamagedFile(f"{path} is damaged: the checksum of its header is another.")
    sums: dict[str, str] = json.loads(metadata.pop(_TENSORS))
    return metadata, sums


def _check_tensor(path: Path, name: str, tensor: Tensor, expected: str) -> None:
    if _tensor_checksum(tensor) != expected:
        raise _damaged(path, name)


def _damaged(path: Path, name: str) -> DamagedFile:
    return DamagedFile(f"{path} is damaged: the checksum of {name} is another.")


def _header_checksum(metadata: Mapping[str, str], shapes: Mapping[str, list[int]]) -> str:
    text = json.dumps([dict(metadata), dict(shapes)], sort_keys=True)
    return hex_checksum(text.encode())


def _tensor_checksum(tensor: Tensor) -> str:
    """Hash dtype and bytes."""
    import torch

    values = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    values.flags.writeable = False  # as the library wants what it hashes
    total = checksum(str(tensor.dtype).encode())
    # In pieces: other threads wait meanwhile, and a training may be one.
    for start in range(0, len(values), _PIECE):
        total = checksum(values[start : start + _PIECE], total)
    return f"{total:08x}"
