"""Orders that are found by descent: doubly stochastic matrices in place of permutations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.connectivity.matching import Placement, assign
from thalweg.connectivity.refinement import Clock, Midpoint
from thalweg.connectivity.symmetries import Symmetries

Array = NDArray[np.float64]

# Steps of one descent at most, and after how many the nearest permutations are looked at.
_STEPS, _BETWEEN_LOOKS = 100, 5
# Adam's rate on the logits, what they are divided by, and those of staying in place: of 64 units
# each begins with a tenth of its own place.
_RATE, _TEMPERATURE, _STAYING = 0.3, 0.5, 1.0
_SINKHORN_ROUNDS = 20


def descend_softly(
    midpoint: Midpoint, symmetries: Symmetries, start: Placement, clock: Clock
) -> Placement:
    """
    Descend on the loss at the mean as units go over softly into other places.

    Each block of units gets a doubly stochastic matrix, made by Sinkhorn's rounds from logits that
    Adam descends on; every few steps the nearest permutations are tried.

    Parameters
    ----------
    midpoint : Midpoint
        The loss.
    symmetries : Symmetries
        What may move; heads of attention stay.
    start : Placement
        The order to begin at.
    clock : Clock
        When to end.

    Returns
    -------
    Placement
        The best that was seen, of the start and of permutations on the way.

    References
    ----------
    F. A. Guerrero Pena et al., Re-basin via implicit Sinkhorn differentiation (2023).
    """
    blocks = symmetries.blocks
    best, lowest = start, midpoint.loss(start)
    logits = [_STAYING * torch.eye(block.size, dtype=torch.float64) for block in blocks]
    leaves = [each.requires_grad_() for each in logits]
    if not leaves:
        return best
    uses = [[torch.from_numpy(rows) for rows in block.trained] for block in blocks]
    state = torch.from_numpy(start.state)
    optimizer = torch.optim.Adam(leaves, lr=_RATE)
    for step in range(1, _STEPS + 1):
        if clock.over:
            break
        mixed = mix(state, uses, [doubly_stochastic(each / _TEMPERATURE) for each in leaves])
        slope = midpoint.slope(mixed.detach().numpy())
        optimizer.zero_grad()
        mixed[: len(slope)].backward(torch.from_numpy(slope))
        optimizer.step()
        if step % _BETWEEN_LOOKS == 0:
            placement = start.copy()
            for block, each in zip(blocks, leaves, strict=True):
                placement.move(block, assign(-each.detach().numpy()))
            loss = midpoint.loss(placement)
            if loss < lowest:
                best, lowest = placement, loss
    return best


def doubly_stochastic(logits: Tensor) -> Tensor:
    """Scale rows and columns of ``exp(logits)``, (n, n), in turn until all sums are about one."""
    for _ in range(_SINKHORN_ROUNDS):
        logits = logits - logits.logsumexp(1, keepdim=True)
        logits = logits - logits.logsumexp(0, keepdim=True)
    return logits.exp()


def mix(state: Tensor, uses: Sequence[Sequence[Tensor]], shares: Sequence[Tensor]) -> Tensor:
    """
    Put shares of units in the places of a state; place i of a block gets ``shares[i]`` of them.

    Parameters
    ----------
    state : Tensor
        Shape (S,).
    uses : sequence of sequence of Tensor
        Of each block the places of all that goes with its units, each of shape (units, fan).
    shares : sequence of Tensor
        Of each block a matrix of shape (units, units); a permutation's moves units.
    """
    for block, matrix in zip(uses, shares, strict=True):
        for rows in block:
            state = state.index_put((rows,), matrix @ state[rows])
    return state
