"""Signs of vectors, few of them -1, that make their sum short."""

from __future__ import annotations

import torch
from torch import Tensor

# So many signs or fewer are all tried: 4096 at most.
_ALL_SIGNS = 12
# Of so many or fewer, two change at once.
_ALL_PAIRS = 512


def balancing_signs(shares: Tensor, enough: float) -> Tensor:
    """Choose signs of vectors, shape (n, j), few of them -1, so that the sum is short enough."""
    if len(shares) <= _ALL_SIGNS:
        return _best_signs(shares, enough)
    signs = torch.ones(len(shares), dtype=torch.float64)
    while float((total := signs @ shares).norm()) > enough:
        signed = signs[:, None] * shares
        chosen = _turned(total, signed) if len(shares) > _ALL_PAIRS else _turned_pair(total, signed)
        if float((total - 2 * signed[chosen].sum(0)).norm()) >= float(total.norm()):
            break
        signs[chosen] *= -1
    return signs


def _turned(total: Tensor, signed: Tensor) -> list[int]:
    """Give the vector whose turning leaves the shortest sum."""
    return [int((total - 2 * signed).norm(dim=1).argmin())]


def _turned_pair(total: Tensor, signed: Tensor) -> list[int]:
    """Give the one vector, or the two, whose turning leaves the shortest sum."""
    both = total - 2 * (signed[:, None] + signed)
    both[range(len(signed)), range(len(signed))] = total - 2 * signed
    first, second = divmod(int(both.norm(dim=2).argmin()), len(signed))
    return [first] if first == second else [first, second]


def _best_signs(shares: Tensor, enough: float) -> Tensor:
    """Try all: the fewest -1 among those whose sum is short enough, or the shortest sum."""
    either = torch.tensor([1.0, -1.0], dtype=torch.float64)
    signs = torch.cartesian_prod(*[either] * len(shares)).reshape(-1, len(shares))
    lengths, turned = (signs @ shares).norm(dim=1), (signs < 0).sum(1)
    short = torch.where(lengths <= enough, turned, len(shares) + 1)
    best = short.argmin() if bool((lengths <= enough).any()) else lengths.argmin()
    chosen: Tensor = signs[best]
    return chosen
