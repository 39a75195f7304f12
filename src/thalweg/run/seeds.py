"""Named random streams: every generator is a function of a seed and of what it is for."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive_seed(seed: int, *names: str | int | float) -> int:
    """
    Give the seed of the stream called ``names`` under ``seed``.

    Parameters
    ----------
    seed : int
        The seed of the run.
    *names : str or int or float
        What the stream is for, e.g. ``"order"``, ``"noise"``, copy number.

    Returns
    -------
    int
        A 63-bit seed, the same on every machine.

    Examples
    --------
    >>> derive_seed(0, "order") == derive_seed(0, "order")
    True
    >>> derive_seed(0, "order") == derive_seed(0, "noise")
    False
    """
    text = json.dumps([seed, *names]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def torch_generator(seed: int, *names: str | int | float) -> torch.Generator:
    """Make a CPU ``torch.Generator`` for the stream called ``names``."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *names))


def numpy_generator(seed: int, *names: str | int | float) -> np.random.Generator:
    """Make a NumPy generator for the stream called ``names``."""
    import numpy as np

    return np.random.default_rng(derive_seed(seed, *names))
