"""Pair swaps of units that lower the loss at the mean of networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from thalweg.connectivity.matching import Placement
from thalweg.connectivity.midpoint import Midpoint
from thalweg.connectivity.search_clock import Clock
from thalweg.connectivity.symmetries import Block, Symmetries

Array = NDArray[np.float64]
Swap = tuple[Block, int, int]

# Swaps that are tried after one gradient; disjoint ones that are tried at once.
_PATIENCE, _AT_ONCE = 120, 8
# Successes after which the gradient is taken anew.
_RENEWED = 8
# Swaps that a search is kicked with, among so many of those that the gradient likes best.
_KICK, _AMONG = 4, 200


def refine(
    midpoint: Midpoint,
    symmetries: Symmetries,
    starts: Sequence[Placement],
    clock: Clock,
    rng: np.random.Generator,
    *,
    most: int,
) -> Placement:
    """
    Swap pairs of units while that lowers the loss at the mean.

    The gradient there says to first order what each swap would change. Those that it likes are
    tried: some at once, then one by one, on the samples of the largest losses and then on all.
    Searches begin at each start, best first, and then again and again at the best end, kicked.

    Parameters
    ----------
    midpoint : Midpoint
        The loss.
    symmetries : Symmetries
        What may move.
    starts : sequence of Placement
        At least one.
    clock : Clock
        When to end.
    rng : numpy.random.Generator
        Of the kicks.
    most : int
        Starts that are searched from, the best.

    Returns
    -------
    Placement
        The best that was seen.
    """
    ranked = sorted(((midpoint.tried(start), i) for i, start in enumerate(starts)))
    best, lowest = starts[ranked[0][1]], ranked[0][0]
    if not symmetries.blocks:
        return best
    queue = [(loss, starts[i]) for loss, i in ranked[:most]]
    with midpoint.risk.stepping():
        while not clock.over():
            loss, start = queue.pop(0) if queue else _kicked(midpoint, symmetries, best, rng)
            placement = start.copy()
            loss = _descend(midpoint, symmetries, placement, loss, clock)
            if loss < lowest:
                best, lowest = placement, loss
    return best


def _kicked(
    midpoint: Midpoint, symmetries: Symmetries, best: Placement, rng: np.random.Generator
) -> tuple[float, Placement]:
    placement = best.copy()
    swaps = [swap for _, swap in _predicted(midpoint, symmetries, placement, _AMONG)]
    for number in rng.choice(len(swaps), min(_KICK, len(swaps)), replace=False):
        placement.swap(*swaps[number])
    return midpoint.tried(placement), placement


def _descend(
    midpoint: Midpoint, symmetries: Symmetries, placement: Placement, loss: float, clock: Clock
) -> float:
    """Swap until no swap that the gradient likes helps; give the loss."""
    midpoint.screen(placement)
    while not clock.over():
        swaps = [s for change, s in _predicted(midpoint, symmetries, placement) if change < 0]
        lower = _several(midpoint, placement, swaps, loss)
        if lower is None:
            lower = _one_by_one(midpoint, placement, swaps, loss, clock)
        if lower is None:
            return loss
        loss = lower
    return loss


def _predicted(
    midpoint: Midpoint, symmetries: Symmetries, placement: Placement, most: int = 4 * _PATIENCE
) -> list[tuple[float, Swap]]:
    """List the swaps that lower the loss most, to first order, with what they change."""
    gradient, state = midpoint.gradient(placement), placement.state
    swaps: list[tuple[float, Swap]] = []
    for block in symmetries.blocks:
        slopes = np.zeros((block.size, block.size))
        for rows in block.trained:
            slopes += gradient[rows] @ state[rows].T
        own = slopes.diagonal()
        changes = (slopes + slopes.T - own[:, None] - own[None, :]) * midpoint.share
        i, j = np.triu_indices(block.size, 1)
        order = np.argsort(changes[i, j], kind="stable")[:most]
        swaps += [(float(changes[i[k], j[k]]), (block, int(i[k]), int(j[k]))) for k in order]
    return sorted(swaps, key=lambda pair: pair[0])[:most]


def _disjoint(swaps: Sequence[Swap], touched: set[tuple[str, int]]) -> Iterator[Swap]:
    """Pass over swaps of units that were swapped."""
    for block, i, j in swaps:
        if not {(block.name, i), (block.name, j)} & touched:
            yield block, i, j


def _several(
    midpoint: Midpoint, placement: Placement, swaps: Sequence[Swap], loss: float
) -> float | None:
    """Make several disjoint swaps at once, fewer if that does not help; None if it never does."""
    touched: set[tuple[str, int]] = set()
    chosen: list[Swap] = []
    for block, i, j in _disjoint(swaps, touched):
        chosen.append((block, i, j))
        touched |= {(block.name, i), (block.name, j)}
        if len(chosen) == _AT_ONCE:
            break
    while len(chosen) > 1:
        for swap in chosen:
            placement.swap(*swap)
        lower = midpoint.tried(placement)
        if lower < loss:
            return lower
        for swap in reversed(chosen):
            placement.swap(*swap)
        chosen = chosen[: len(chosen) // 2]
    return None


def _one_by_one(
    midpoint: Midpoint, placement: Placement, swaps: Sequence[Swap], loss: float, clock: Clock
) -> float | None:
    touched: set[tuple[str, int]] = set()
    start, tried, successes = loss, 0, 0
    level = midpoint.screened(placement) if midpoint.screens else loss
    for block, i, j in _disjoint(swaps, touched):
        if tried == _PATIENCE or successes == _RENEWED or clock.over():
            break
        tried += 1
        placement.swap(block, i, j)
        screened = midpoint.screened(placement)
        if screened < level:
            lower = midpoint.tried(placement) if midpoint.screens else screened
            if lower < loss:
                loss, level, successes = lower, screened, successes + 1
                touched |= {(block.name, i), (block.name, j)}
                continue
        placement.swap(block, i, j)
    return loss if loss < start else None
