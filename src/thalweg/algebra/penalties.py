"""Critical points by monodromy over penalties and targets, one set of switched-off units at a time.

Critical equations ``d_j L(w) + penalty_j w_j = 0`` are linear in the penalties: any weights without
a zero among them are critical for the penalties ``-d_j L(w) / w_j``. So weights and penalties
together are a graph, hence irreducible, and loops through penalties and targets carry any critical
point to any other of the same support (see `thalweg.algebra.supports`). The points found at generic
complex penalties are then followed to those that were asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.monodromy import distinct, monodromy
from thalweg.algebra.penalty_family import PenaltyFamily
from thalweg.algebra.supports import supports, switched_on
from thalweg.algebra.symmetry import Gauge
from thalweg.algebra.system import ZeroSystem
from thalweg.run.progress import Progress, silent

LOOPS = 200
"""Largest number of loops for one support."""
DETOURS = 4
"""How often paths are tracked again, along other ways, while some are lost."""


@dataclass(frozen=True, eq=False)
class Stratum:
    """Critical points with the same nonzero weights.

    Attributes
    ----------
    support
        Which weights are not zero, boolean, shape (W,).
    switched_on
        Channels of each hidden layer that are not dead.
    points
        Number of critical points at generic complex penalties.
    status
        ``"trace"``, ``"stale"`` or ``"limit"`` as in `Monodromy`; ``"zero"`` where all weights are
        zero; ``"none"`` where generic penalties have no point: the map to penalties is not onto.
    trace
        Departure of the trace from a straight line; 0 where there is nothing to test.
    """

    support: Array
    switched_on: tuple[tuple[int, ...], ...]
    points: int
    status: str
    trace: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite trace as null."""
        return {
            "support": self.support.tolist(),
            "switched_on": [list(layer) for layer in self.switched_on],
            "points": self.points,
            "status": self.status,
            "trace": self.trace if np.isfinite(self.trace) else None,
        }


@dataclass(frozen=True, eq=False)
class Penalized:
    """Ends of the paths to given penalties.

    Attributes
    ----------
    arrived
        Distinct critical points that paths came to, complex128, shape (S, W).
    unfinished
        Where the other paths were given up, shape (R, W): near points that are multiple or not
        isolated, or on the way to infinity.
    paths
        Number of paths followed to the penalties.
    strata
        One for each support.
    """

    arrived: Array
    unfinished: Array
    paths: int
    strata: tuple[Stratum, ...]


def penalized_points(
    system: ZeroSystem,
    penalties: Array,
    *,
    seed: int = 0,
    most: int = 20_000,
    progress: Progress = silent,
) -> Penalized:
    """Critical points of ``sum r**2 / 2 + sum penalty w**2 / 2`` for positive penalties.

    Parameters
    ----------
    system
        An ungauged network and its samples.
    penalties
        One positive number a weight, float64, shape (W,).
    seed
        Of loops and ways.
    most
        Stop beyond so many classes of points of one support.
    progress
        Where progress is shown.
    """
    by_leading: dict[bytes, _Generic] = {}
    strata: list[Stratum] = []
    arrived, unfinished = [np.zeros((0, system.weights), dtype=complex)], []
    all_supports = supports(system, seed=seed)
    with progress(len(all_supports), "sets of switched-off units") as bar:
        for number, support in enumerate(all_supports):
            order = _leading_order(system.gauge, switched_on(system.network, support))
            leading = support[order]
            if leading.tobytes() not in by_leading:
                by_leading[leading.tobytes()] = _generic(system, leading, [seed, number], most)
            generic = by_leading[leading.tobytes()]
            ends, unarrived = generic.followed(system, penalties[order], [seed, number])
            arrived.append(_signed(system.gauge, leading, ends, order))
            unfinished.append(_signed(system.gauge, leading, unarrived, order))
            strata.append(_stratum(system, support, generic))
            bar.update(1)
    return Penalized(
        arrived=np.concatenate(arrived),
        unfinished=np.concatenate(unfinished),
        paths=sum(stratum.points for stratum in strata),
        strata=tuple(strata),
    )


@dataclass(frozen=True, eq=False)
class _Generic:
    """Classes of critical points of one support at generic penalties and targets."""

    family: PenaltyFamily
    points: Array
    parameters: Array
    status: str
    trace: float

    def followed(
        self, system: ZeroSystem, penalties: Array, seed: list[int]
    ) -> tuple[Array, Array]:
        """Ends at the penalties asked for, and where the paths without an end were given up."""
        support = self.family.support
        stop = np.concatenate([penalties[support], system.targets.ravel()])
        rng = np.random.default_rng([*seed, 31])
        arrived, unarrived = self._ends(stop, rng)
        return self._full(arrived), self._full(unarrived)

    def _ends(self, stop: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        size = self.family.size
        if not size:
            return self.points, self.points[:0]
        arrived, unarrived = self.points[:0, :size], self.points[:, :size]
        for detour in range(1 + DETOURS):
            ends, unarrived = self.family.followed(
                self.points[:, :size], self.parameters, stop, rng=rng, bent=detour > 0
            )
            arrived = distinct(np.concatenate([arrived, ends]), self.family.classes)
            if len(arrived) >= len(self.points):
                return arrived, unarrived[:0]
        return arrived, unarrived

    def _full(self, points: Array) -> Array:
        full = np.zeros((len(points), len(self.family.support)), dtype=complex)
        full[:, self.family.support] = points[:, : self.family.size]
        return full


def _generic(system: ZeroSystem, support: Array, seed: list[int], most: int) -> _Generic:
    family = PenaltyFamily(system, support, seed=seed[0])
    rng = np.random.default_rng([*seed, 29])
    start = rng.normal(size=family.unknowns) + 1j * rng.normal(size=family.unknowns)
    if not family.size:
        return _Generic(family, np.zeros((1, 0), dtype=complex), start, "zero", 0.0)
    if not family.onto(start):
        return _Generic(family, start[None, :][:0], start, "none", 0.0)
    solutions = monodromy(family.family(), start, rng=rng, most=most, loops=LOOPS)
    return _Generic(
        family, solutions.points, solutions.parameters, solutions.status, solutions.trace
    )


def _stratum(system: ZeroSystem, support: Array, generic: _Generic) -> Stratum:
    signs = 2 ** len(_signs(system.gauge, support))
    return Stratum(
        support=support,
        switched_on=switched_on(system.network, support),
        points=len(generic.points) * signs,
        status=generic.status,
        trace=generic.trace,
    )


def _signs(gauge: Gauge, support: Array) -> list[Array]:
    """Signs of weights, +-1, that leave network and penalties alone: one vector a hidden unit.

    An odd or even activation lets the sign of a unit change. What changes only zeros is left out.
    """
    if len({k % 2 for k, c in enumerate(gauge.network.activation) if c}) > 1:
        return []
    flips = []
    for layer, count in enumerate(gauge.hidden):
        for channel in range(count):
            factors = np.where(np.arange(count) == channel, -1.0, 1.0)
            flips.append(gauge.rescaled(np.ones(gauge.network.size), layer, factors))
    return [signs for signs in flips if (signs[support] < 0).any()]


def _leading_order(gauge: Gauge, on: tuple[tuple[int, ...], ...]) -> Array:
    """Order of the weights in which the switched-on channels of each layer come first."""
    order = np.arange(gauge.network.size)
    for layer, channels in enumerate(on):
        count = gauge.hidden[layer]
        first = [*channels, *(k for k in range(count) if k not in channels)]
        order = gauge.permuted(order, layer, np.array(first))
    return order


def _signed(gauge: Gauge, support: Array, points: Array, order: Array) -> Array:
    """Weights in their own order, with every choice of signs of the units."""
    for signs in _signs(gauge, support):
        points = np.concatenate([points, points * signs])
    full = np.zeros_like(points)
    full[:, order] = points
    return full
