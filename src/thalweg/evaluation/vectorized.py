"""Evaluations of many as one, where torch can."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def vectorized() -> Iterator[None]:
    """
    Refuse the loops inside of ``torch.vmap``: there are better ways than these.

    Raises
    ------
    UserWarning
        Torch's own, where it would take the elements of a batch one after another.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="There is a performance drop")
        yield
