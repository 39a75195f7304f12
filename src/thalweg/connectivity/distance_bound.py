"""A lower bound of the distance that any order of units can reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.connectivity.matching import assign
from thalweg.connectivity.symmetries import Block, Symmetries

Indices = NDArray[np.int64]
Array = NDArray[np.float64]

# Blocks that a weight goes with are counted up to here: more than two are all the same.
_MANY = 3


@dataclass(frozen=True, eq=False)
class _Shared:
    """A use of one block whose columns are units of another."""

    block: int
    rows: Indices
    others: int


def distance_bound(symmetries: Symmetries, first: Array, second: Array) -> float:
    """
    Bound the squared distance of trained weights from below, over all orders of units.

    Weights that go with one block alone cost what an assignment costs, exactly. A matrix between
    two blocks costs, for unit i in place of unit j, at least what its rows differ by once each is
    sorted (Gilmore and Lawler), or whatever differs between singular values (von Neumann); kernels
    are compared by their norms. Weights of heads that may be mixed count as 0.

    Parameters
    ----------
    symmetries : Symmetries
        What may move.
    first, second : ndarray
        States.

    Returns
    -------
    float
        The largest of the bounds that come of charging each such matrix to its rows, to its
        columns, half to each, or to its singular values.

    References
    ----------
    E. Lawler, The quadratic assignment problem (1963); L. Mirsky, Symmetric gauge functions and
    unitarily invariant norms (1960), theorem 5.
    """
    owners = _owners(symmetries)
    alone = [np.zeros((b.size, b.size)) for b in symmetries.blocks]
    shared: list[_Shared] = []
    for number, block in enumerate(symmetries.blocks):
        for rows in block.trained:
            free = rows[:, owners.count[rows[0]] == 1]
            alone[number] += _squares(first[free], second[free])
            shared += _shared(owners, number, rows)
    fixed = owners.count[: symmetries.weights] == 0
    difference = (first - second)[: symmetries.weights][fixed]
    rest = float(difference @ difference)
    firsts = list(_firsts(shared, len(first)))
    charges = (
        [(s, 1.0) for s in firsts],
        [(s, 1.0) for s in shared if s not in firsts],
        [(s, 0.5) for s in shared],
    )
    tables = [_sorted_costs(s, owners, symmetries, first, second) for s in shared]
    bounds = []
    for charged in charges:
        costs = [table.copy() for table in alone]
        for use, share in charged:
            costs[use.block] += share * tables[shared.index(use)]
        bounds.append(sum(map(_least, costs)))
    spectra = sum(_spectral(s, first, second) for s in firsts)
    bounds.append(sum(map(_least, alone)) + spectra)
    return rest + float(max(bounds))


@dataclass(frozen=True, eq=False)
class _Owners:
    """How many blocks each weight goes with, and which units of them."""

    count: NDArray[np.int8]
    # Of each weight, its blocks and its place in each: shape (2, S), -1 for none.
    blocks: NDArray[np.int32]
    units: NDArray[np.int32]


def _owners(symmetries: Symmetries) -> _Owners:
    size = 1 + max(
        [symmetries.weights - 1, *(int(r.max()) for b in symmetries.blocks for r in b.uses)]
    )
    count = np.zeros(size, dtype=np.int8)
    blocks, units = (np.full((2, size), -1, dtype=np.int32) for _ in range(2))
    for number, block in enumerate(symmetries.blocks):
        for rows in block.uses:
            for unit, entries in enumerate(rows):
                slots = np.minimum(count[entries], 1)
                blocks[slots, entries], units[slots, entries] = number, unit
                count[entries] = np.minimum(count[entries] + 1, _MANY)
    for heads in symmetries.heads:  # these may be anywhere: they count as 0
        for rows in heads.whole.uses:
            count[rows.reshape(-1)] = _MANY
    return _Owners(count, blocks, units)


def _shared(owners: _Owners, number: int, rows: Indices) -> list[_Shared]:
    """Give the part of a use that goes with another block too, or with its own twice."""
    paired = rows[:, owners.count[rows[0]] == 2]
    if not paired.size:
        return []
    uses = []
    pairs = owners.blocks[:, paired[0]]
    others = np.where(pairs[0] == number, pairs[1], pairs[0])
    for partner in np.unique(others):
        uses.append(_Shared(number, paired[:, others == partner], int(partner)))
    return uses


def _firsts(shared: Sequence[_Shared], size: int) -> Iterator[_Shared]:
    """Give the uses of whose weights no earlier one holds any."""
    seen = np.zeros(size, dtype=np.bool_)
    for use in shared:
        if not seen[use.rows].any():
            yield use
        seen[use.rows] = True


def _squares(first: Array, second: Array) -> Array:
    """Give the squared distance of each row from each."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None, :] - 2 * first @ second.T
    return np.asarray(np.maximum(squares, 0.0))


def _sorted_costs(
    use: _Shared, owners: _Owners, symmetries: Symmetries, first: Array, second: Array
) -> Array:
    size = symmetries.blocks[use.others].size
    rows = _by_other(use, owners, size)
    firsts, seconds = (_sorted(state[rows]) for state in (first, second))
    return _squares(firsts, seconds)


def _by_other(use: _Shared, owners: _Owners, size: int) -> Indices:
    """Group a use by the other block's units: shape (units, other units, weights of both)."""
    entries = use.rows[0]
    slot = np.where(owners.blocks[1, entries] == use.others, 1, 0)
    if use.block == use.others:  # of a matrix on both sides, the units that change along a row
        varied = [len(np.unique(owners.units[s, entries])) for s in (0, 1)]
        slot = np.full(len(entries), int(np.argmax(varied)))
    order = np.argsort(owners.units[slot, entries], kind="stable")
    return use.rows[:, order].reshape(len(use.rows), size, -1)


def _sorted(values: Array) -> Array:
    """Sort numbers along the other units; of kernels, their norms."""
    if values.shape[2] == 1:
        return np.asarray(np.sort(values[:, :, 0], axis=1))
    return np.asarray(np.sort(np.linalg.norm(values, axis=2), axis=1))


def _spectral(use: _Shared, first: Array, second: Array) -> float:
    spectra = [np.linalg.svd(state[use.rows], compute_uv=False) for state in (first, second)]
    return float(((spectra[0] - spectra[1]) ** 2).sum())


def _least(costs: Array) -> float:
    return float(costs[np.arange(len(costs)), assign(costs)].sum())


__all__ = ["Block", "distance_bound"]
