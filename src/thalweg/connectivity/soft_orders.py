"""Orders that are found by descent: doubly stochastic matrices in place of permutations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.connectivity.matching import Placement, assign
from thalweg.connectivity.midpoint import Midpoint
from thalweg.connectivity.search_clock import Clock
from thalweg.connectivity.symmetries import Symmetries

Array = NDArray[np.float64]

# Steps of one descent at most, and after how many the nearest permutations are looked at; looks
# after which a descent that finds no lower ones has ended.
_STEPS, _BETWEEN_LOOKS, _PATIENCE = 300, 5, 25
# Adam's rate on the logits, and what they are divided by.
_RATE, _TEMPERATURE = 0.3, 0.5
# Logits of staying in place: of 64 units each begins with a tenth of its own place.
_STAYING = 1.0
_SINKHORN_ROUNDS = 20
# Logits and rate of a descent from correlations: hardly soft. Softer ones fell into mixtures that
# no permutation is near to: on CIFAR-10 convolutional networks a factor of 30 led to 0.429, 60 to
# 0.421, 120 to 0.412, 240 to 0.420, from 0.510.
_SHARP, _SLOW = 120.0, 0.05


@dataclass(frozen=True)
class Softness:
    """
    How soft a descent's orders are.

    Attributes
    ----------
    logits : sequence of ndarray
        Of each block, shape (units, units): where it begins.
    rate, temperature : float
        Adam's rate on the logits, and what they are divided by.
    """

    logits: Sequence[Array]
    rate: float = _RATE
    temperature: float = _TEMPERATURE


def staying(symmetries: Symmetries) -> Softness:
    """Begin with each unit for the most part in its own place."""
    return Softness([_STAYING * np.eye(block.size) for block in symmetries.blocks])


def correlated(symmetries: Symmetries, correlations: Mapping[str, Array]) -> Softness:
    """Begin with each unit where it is most correlated; blocks that no layer reads stay."""
    logits = [
        _SHARP * correlations.get(block.name, np.eye(block.size)) for block in symmetries.blocks
    ]
    return Softness(logits, _SLOW, 1.0)


def descend_softly(
    midpoint: Midpoint, symmetries: Symmetries, start: Placement, softness: Softness, clock: Clock
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
        What may move.
    start : Placement
        The order that logits refer to.
    softness : Softness
        Where to begin, and how.
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
    best, lowest, last = start, midpoint.tried(start), 0
    leaves = [torch.from_numpy(each.copy()).requires_grad_() for each in softness.logits]
    if not leaves:
        return best
    uses = [[torch.from_numpy(rows) for rows in block.trained] for block in blocks]
    state = torch.from_numpy(start.state).to(midpoint.risk.dtype)
    optimizer = torch.optim.Adam(leaves, lr=softness.rate)
    for step in range(1, _STEPS + 1):
        if clock.over() or step > last + _PATIENCE * _BETWEEN_LOOKS:
            break
        shares = [doubly_stochastic(each / softness.temperature).to(state) for each in leaves]
        mixed = mix(state, uses, shares)
        slope = midpoint.slope(mixed.detach().numpy())
        optimizer.zero_grad()
        mixed[: len(slope)].backward(slope)
        del mixed, slope  # as long as the weights: not held beside the next ones
        optimizer.step()
        if step % _BETWEEN_LOOKS == 0:
            placement = start.copy()
            for block, each in zip(blocks, leaves, strict=True):
                placement.move(block, assign(-each.detach().numpy()))
            loss = midpoint.tried(placement)
            if loss < lowest:
                best, lowest, last = placement, loss, step
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
