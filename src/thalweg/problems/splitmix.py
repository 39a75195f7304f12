"""Random bits as a function of a key, a call and a place alone, by SplitMix64."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.run.seeds import derive_seed

# Constants of SplitMix64 (Steele, Lea and Flood, 2014, figure 16), as signed numbers.
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)


def scrambled(numbers: Tensor) -> Tensor:
    """Scramble 64-bit numbers, each to another: the output function of SplitMix64."""
    numbers = (numbers ^ shifted_right(numbers, 30)) * _FIRST
    numbers = (numbers ^ shifted_right(numbers, 27)) * _SECOND
    return numbers ^ shifted_right(numbers, 31)


def shifted_right(numbers: Tensor, by: int) -> Tensor:
    """Shift to the right, zeros coming in."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)


def random_bits(keys: Tensor, call: int, count: int) -> Tensor:
    """Give 64 random bits for each of ``count`` places of each key: shape (n, count), int64."""
    places = torch.arange(count, device=keys.device, dtype=torch.int64)
    streams = scrambled(keys ^ derive_seed(0, "call", call))
    return scrambled(streams.unsqueeze(1) + places * GOLDEN)
