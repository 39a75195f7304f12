"""All eigenvalues of a dense symmetric matrix, with progress of the one call that gives them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from thalweg.run.progress import Bar, Progress, silent

# The order of which the time is known at once, and that of which a first part is timed (20 ms).
_SHORT, _FIRST = 1500, 400
# How often the bar is told, and of how many parts of the whole it is not until the call returns.
_PAUSE, _PARTS, _LAST = 0.2, 1000, 20


def symmetric_eigenvalues(matrix: Tensor, *, progress: Progress = silent) -> Tensor:
    """
    Compute all eigenvalues of a symmetric matrix.

    LAPACK does not say how far it is, and takes time as the cube of the order: what it will take is
    told from a leading block, and the bar goes by the clock.

    Parameters
    ----------
    matrix : Tensor
        Shape (M, M), float64, on the CPU.
    progress : Progress
        Counts thousandths.

    Returns
    -------
    Tensor
        Shape (M,), ascending.
    """
    if len(matrix) <= _SHORT:
        values: Tensor = torch.linalg.eigvalsh(matrix)
        return values
    start = time.monotonic()
    torch.linalg.eigvalsh(matrix[:_FIRST, :_FIRST])
    seconds = (time.monotonic() - start) * (len(matrix) / _FIRST) ** 3
    with progress(_PARTS, "eigenvalues") as bar, _by_the_clock(bar, seconds):
        values = torch.linalg.eigvalsh(matrix)
    return values


@contextmanager
def _by_the_clock(bar: Bar, seconds: float) -> Iterator[None]:
    """Tell a bar of so much as the clock says; of the rest when all is done."""
    start, ended, told = time.monotonic(), threading.Event(), 0

    def tell() -> None:
        nonlocal told
        while not ended.wait(_PAUSE):
            share = (time.monotonic() - start) / seconds
            due = min(int(share * _PARTS), _PARTS - _LAST)
            if due > told:
                bar.update(due - told)
                told = due

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
    bar.update(_PARTS - told)
