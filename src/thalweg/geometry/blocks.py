"""Blocks of a long computation, kept in a run as they are done, so that no kill repeats them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from thalweg.run import Run
from thalweg.run.files import write_atomic

Block = dict[str, NDArray[np.float64]]


def blocks(total: int, most: int) -> Iterator[tuple[int, int]]:
    """Split ``range(total)`` into at most ``most`` parts of one size but for the last."""
    size = -(-total // most)
    for start in range(0, total, size):
        yield start, min(start + size, total)


class BlockStore:
    """
    Finished blocks of one computation.

    Parameters
    ----------
    run : Run
        Where they are kept, under ``blocks/``.
    key : str
        A digest of all that the computation depends on.
    """

    def __init__(self, run: Run, key: str) -> None:
        self.folder: Path = run.path / "blocks" / key

    def read(self, start: int, stop: int) -> Block | None:
        """Read the block from ``start`` to ``stop``; None where it is still to do."""
        path = self._path(start, stop)
        if not path.exists():
            return None
        block: Block = load_file(path)
        return block

    def keep(self, start: int, stop: int, block: Block) -> Block:
        """Write a finished block, whole or not at all, and return it."""
        write_atomic(self._path(start, stop), lambda temporary: save_file(block, temporary))
        return block

    def _path(self, start: int, stop: int) -> Path:
        return self.folder / f"{start:09d}-{stop:09d}.safetensors"
