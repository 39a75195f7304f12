"""Generic rank of the Jacobian of a network's outputs, exactly modulo a large prime.

The rank at a random point modulo a prime never exceeds the generic rank, and is smaller with a
probability of about (degree times rank) / prime. The larger of two points is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg.algebra.arithmetic import Array, Residues
from thalweg.algebra.symmetry import Gauge
from thalweg.errors import SystemTooLarge
from thalweg.run.progress import Bar, Progress, silent

PRIME = 2**31 - 1
MOST_OPERATIONS = 2 * 10**9


@dataclass(frozen=True)
class GenericRank:
    """Ranks of the Jacobian by the free weights, at random weights and random inputs.

    Attributes
    ----------
    rank
        With as many samples as change it: the dimension of the family of functions.
    profile
        Rank with 0, 1, 2, ... samples; the last entry is `rank`.
    outputs
        Number of outputs of the network: equations per sample.
    """

    rank: int
    profile: tuple[int, ...]
    outputs: int

    @property
    def largest_samples(self) -> int:
        """Largest N such that N samples with generic targets can be fitted exactly."""
        fits = [n for n, rank in enumerate(self.profile) if rank == n * self.outputs]
        return fits[-1]

    def at(self, samples: int) -> int:
        """Rank with so many samples."""
        return self.profile[min(samples, len(self.profile) - 1)]


def generic_rank(gauge: Gauge, *, seed: int = 0, progress: Progress = silent) -> GenericRank:
    """Rank profile of a network's Jacobian.

    Parameters
    ----------
    gauge
        The network and its free weights.
    seed
        Of the random points.
    progress
        Where progress is shown.

    Raises
    ------
    SystemTooLarge
        If the elimination would take more than 2e9 operations.

    Examples
    --------
    Ternary quadratic forms have dimension 6, whatever the number of units:

    >>> from thalweg.algebra import network
    >>> from thalweg.algebra.symmetry import Gauge
    >>> generic_rank(Gauge(network((2, 3, 1), (0, 0, 1), bias=True), True)).rank
    6
    """
    outputs, size = gauge.network.outputs, gauge.size
    samples = size + 1
    operations = samples * outputs * size * size
    if operations > MOST_OPERATIONS:
        raise SystemTooLarge(
            f"The generic rank of a network with {size} weights and {outputs} outputs takes about"
            f" {operations:.1e} operations modulo a prime; the limit is {MOST_OPERATIONS:.0e}. Give"
            " a smaller network."
        )
    with progress(2 * samples * outputs, "generic rank") as bar:
        generators = [np.random.default_rng([seed, k, 3]) for k in range(2)]
        profiles = [_profile(gauge, samples, rng, bar) for rng in generators]
    best = [max(pair) for pair in zip(*profiles, strict=True)]
    stop = best.index(best[-1]) + 1
    return GenericRank(best[-1], tuple(best[:stop]), outputs)


def _profile(gauge: Gauge, samples: int, rng: np.random.Generator, bar: Bar) -> list[int]:
    network = gauge.network
    full = np.ones((1, network.size), dtype=np.int64)
    full[0, gauge.free] = rng.integers(0, PRIME, size=gauge.size)
    jacobians: list[Array] = []
    for _ in range(samples):
        inputs = rng.integers(0, PRIME, size=(1, network.inputs))
        _, jacobian = network.value_and_jacobian(full, inputs, Residues(PRIME))
        jacobians.append(jacobian[0][:, gauge.free])
    pivots = pivot_rows(np.concatenate(jacobians), bar)
    counts = np.cumsum(np.bincount(pivots // network.outputs, minlength=samples))
    return [0, *(int(n) for n in counts)]


def pivot_rows(matrix: Array, bar: Bar) -> Array:
    """Rows that are not combinations of those above them, modulo the prime; counts them done."""
    rows = matrix.copy()
    pivots = []
    for k in range(len(rows)):
        bar.update()
        columns = np.flatnonzero(rows[k])
        if not len(columns):
            continue
        pivots.append(k)
        pivot = columns[0]
        rows[k] = rows[k] * pow(int(rows[k, pivot]), -1, PRIME) % PRIME
        below = k + 1 + np.flatnonzero(rows[k + 1 :, pivot])
        rows[below] = (rows[below] - rows[below, pivot, None] * rows[k] % PRIME) % PRIME
    return np.array(pivots, dtype=np.int64)
