"""Matching of units by their weights: linear assignments, one block after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from thalweg.connectivity.head_maps import fit_maps, head_costs
from thalweg.connectivity.symmetries import Block, Heads, Symmetries, exchange

Indices = NDArray[np.int64]
Array = NDArray[np.float64]

# Rounds through all blocks; five to ten are usual.
_ROUNDS = 100
# Relative gain below which a step counts as none.
_GAIN = 1e-12


@dataclass(eq=False)
class Placement:
    """
    A state with its units in other places.

    Attributes
    ----------
    state : ndarray
        float64, overwritten by each move.
    orders : dict of str to ndarray
        Of each block: unit ``orders[name][i]`` of the state that it was stands in place i.
    maps : dict of str to list
        Of each attention whose heads were mapped: for each head, the invertible matrices of its
        queries and keys, and of its values, shape (size, size).
    """

    state: Array
    orders: dict[str, Indices]
    maps: dict[str, list[tuple[Array, ...]]] = field(default_factory=dict)

    @classmethod
    def start(cls, symmetries: Symmetries, state: Array) -> Placement:
        """Leave everything in its place."""
        blocks = [*symmetries.blocks, *(heads.whole for heads in symmetries.heads)]
        orders = {block.name: np.arange(block.size) for block in blocks}
        maps = {
            heads.whole.name: [tuple(np.eye(len(part.made)) for part in parts) for parts in inside]
            for heads in symmetries.heads
            if (inside := heads.inside)
        }
        return cls(state.copy(), orders, maps)

    def move(self, block: Block, order: Indices) -> None:
        """Put unit ``order[i]`` of a block in place i."""
        exchange(self.state, block.uses, order)
        self.orders[block.name] = self.orders[block.name][order]
        if block.name in self.maps:
            self.maps[block.name] = [self.maps[block.name][i] for i in order]

    def swap(self, block: Block, i: int, j: int) -> None:
        """Let units i and j of a block change places."""
        state = self.state
        for rows in block.uses:
            state[rows[i]], state[rows[j]] = state[rows[j]], state[rows[i]]
        order = self.orders[block.name]
        order[i], order[j] = order[j], order[i]

    def copy(self) -> Placement:
        """Copy it."""
        maps = {name: list(parts) for name, parts in self.maps.items()}
        orders = {name: order.copy() for name, order in self.orders.items()}
        return Placement(self.state.copy(), orders, maps)


def distance(symmetries: Symmetries, first: Array, state: Array) -> float:
    """Give the squared distance of trained weights."""
    difference = (first - state)[: symmetries.weights]
    return float(difference @ difference)


def match_weights(
    symmetries: Symmetries,
    first: Array,
    placement: Placement,
    rng: np.random.Generator,
    *,
    heads_only: bool = False,
) -> float:
    """
    Bring the trained weights of a state near to those of another.

    One block after the other, in random order, gets the order of least squared distance while the
    others stay, until none gains; heads are matched as they are nearest once mapped, and then
    mapped.

    Parameters
    ----------
    symmetries : Symmetries
        What may move.
    first : ndarray
        The state that stays.
    placement : Placement
        Where the other starts; moved in place.
    rng : numpy.random.Generator
        Of the order of blocks.
    heads_only : bool
        Leave the other blocks as they are.

    Returns
    -------
    float
        The squared distance.

    References
    ----------
    S. Ainsworth, J. Hayase and S. Srinivasa, Git Re-Basin (2023), algorithm 1.
    """
    steps: list[Block | Heads] = [*([] if heads_only else symmetries.blocks), *symmetries.heads]
    cost = distance(symmetries, first, placement.state)
    for _ in range(_ROUNDS):
        before = cost
        for number in rng.permutation(len(steps)):
            cost = _step(symmetries, first, placement, steps[number], cost)
        if before - cost <= _GAIN * before:
            break
    return cost


def _step(
    symmetries: Symmetries, first: Array, placement: Placement, step: Block | Heads, cost: float
) -> float:
    """Take one step, if it gains; give the squared distance."""
    if isinstance(step, Heads) and step.inside:
        return _match_heads(symmetries, first, placement, step, cost)
    block = step if isinstance(step, Block) else step.whole
    products = sum_of_products(block.trained, first, placement.state)
    order = assign(-products)
    # Where a matrix has the block on both sides, the products are those of one side at a time.
    if products[np.arange(block.size), order].sum() <= np.trace(products) * (1 + _GAIN):
        return cost
    placement.move(block, order)
    after = distance(symmetries, first, placement.state)
    if after < cost:
        return after
    placement.move(block, np.argsort(order))
    return cost


def _match_heads(
    symmetries: Symmetries, first: Array, placement: Placement, heads: Heads, cost: float
) -> float:
    before, block = placement.copy(), heads.whole
    if block.size > 1:
        placement.move(block, assign(head_costs(heads, first, placement.state)))
    maps = fit_maps(heads, first, placement.state)
    placement.maps[block.name] = [
        tuple(new @ old for new, old in zip(*pair, strict=True))
        for pair in zip(maps, placement.maps[block.name], strict=True)
    ]
    after = distance(symmetries, first, placement.state)
    if after < cost:
        return after
    placement.state, placement.orders, placement.maps = before.state, before.orders, before.maps
    return cost


def sum_of_products(uses: Sequence[Indices], first: Array, second: Array) -> Array:
    """Sum, over the uses of units, the products of each of the one with each of the other."""
    total = np.zeros((len(uses[0]), len(uses[0]))) if uses else np.zeros((0, 0))
    for rows in uses:
        total += first[rows] @ second[rows].T
    return total


def assign(costs: Array) -> Indices:
    """Give the order of least cost: unit ``order[i]`` of the columns belongs in place i."""
    return np.asarray(linear_sum_assignment(costs)[1], dtype=np.int64)


def random_start(symmetries: Symmetries, state: Array, rng: np.random.Generator) -> Placement:
    """Put the units of each block in random order."""
    placement = Placement.start(symmetries, state)
    for block in symmetries.blocks:
        placement.move(block, rng.permutation(block.size))
    return placement


def ordered_start(symmetries: Symmetries, state: Array, orders: Mapping[str, Indices]) -> Placement:
    """Put the units of named blocks in given order."""
    placement = Placement.start(symmetries, state)
    for block in symmetries.blocks:
        if block.name in orders:
            placement.move(block, orders[block.name])
    return placement
