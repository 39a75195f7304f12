"""The family of critical equations with one support, over all penalties and targets."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.monodromy import Family, Route, bends
from thalweg.algebra.polynomials import (
    Polynomial,
    PolynomialSystem,
    add,
    constant,
    differentiate,
    multiply,
)
from thalweg.algebra.symmetry import Gauge
from thalweg.algebra.system import ZeroSystem
from thalweg.algebra.tracking import Homotopy, newton, track

BATCH = 500
"""Paths tracked at once: bounds the memory of an evaluation."""
POLISHED = 1e-9
"""Relative length of the last Newton step of a path that arrived."""
INDEPENDENT = 1e-9
"""Smallest singular value, relative to the largest, of a map of full rank."""
FURTHER = 4
"""Further inputs on which predictions are compared, and summed in the trace test."""


class PenaltyFamily:
    """Critical equations in the weights of a support, the others zero.

    Its points are weights and targets together; its parameters penalties and targets.

    Parameters
    ----------
    system
        An ungauged network and its samples.
    support
        Which weights are not zero, boolean, shape (W,).
    seed
        Of the further inputs.
    """

    def __init__(self, system: ZeroSystem, support: Array, *, seed: int = 0) -> None:
        self.system, self.support = system, support
        self.size = int(support.sum())
        self.unknowns = self.size + system.equations
        self.gradient = _gradient(system, support)
        rng = np.random.default_rng([seed, 5])
        self.further = rng.normal(size=(FURTHER, system.network.inputs))

    def family(self) -> Family:
        """The family for `thalweg.algebra.monodromy`."""
        return Family(
            size=self.unknowns,
            map=self.penalties,
            invariants=lambda x: self.classes(x[:, : self.size]),
            traces=lambda x: self._predictions(x[:, : self.size]),
            moving=np.arange(self.unknowns) >= self.size,
        )

    def penalties(self, x: Array) -> tuple[Array, Array]:
        """Penalties and targets for which points are critical, and the Jacobian of this map."""
        slope, second = self.gradient.evaluate(x)
        weights = x[:, : self.size]
        jacobian = np.zeros((len(x), self.unknowns, self.unknowns), dtype=complex)
        with np.errstate(all="ignore"):
            values = -slope / weights
            jacobian[:, : self.size] = -second / weights[:, :, None]
            diagonal = np.arange(self.size)
            jacobian[:, diagonal, diagonal] -= values / weights
        penalized = np.arange(self.size, self.unknowns)
        jacobian[:, penalized, penalized] = 1
        return np.concatenate([values, x[:, self.size :]], axis=1), jacobian

    def onto(self, point: Array) -> bool:
        """Whether generic penalties have critical points: full rank of the map at one point."""
        block = self.penalties(point[None])[1][0, : self.size, : self.size]
        sizes = np.linalg.svd(block, compute_uv=False)
        return bool(sizes[-1] > INDEPENDENT * sizes[0])

    def followed(
        self, weights: Array, start: Array, stop: Array, *, rng: np.random.Generator, bent: bool
    ) -> tuple[Array, Array]:
        """Critical points at other parameters, and the places where paths were given up."""
        arrived, unarrived = [weights[:0]], [weights[:0]]
        for batch in np.split(weights, range(BATCH, len(weights), BATCH)):
            axes = bends(start, len(batch), rng)
            if not bent:
                axes = np.zeros_like(axes[0]), np.zeros_like(axes[1])
            route = Route(np.broadcast_to(start, (len(batch), len(start))), stop, *axes)
            tracked = track(self._homotopy(route), batch)
            ends, step = newton(lambda x: self._equations(x, stop[None])[:2], tracked.points)
            good = tracked.arrived & (step < POLISHED)
            arrived.append(ends[good])
            unarrived.append(tracked.points[~good])
        return np.concatenate(arrived), np.concatenate(unarrived)

    def classes(self, weights: Array) -> Array:
        """Numbers that agree for two points only if these differ by signs of units."""
        return np.concatenate([weights**2, self._predictions(weights)], axis=1)

    def _homotopy(self, route: Route) -> Homotopy:
        def homotopy(x: Array, t: Array, rows: Array) -> tuple[Array, Array, Array]:
            place, velocity = route.at(t, rows)
            value, jacobian, by_targets = self._equations(x, place)
            moving = velocity[:, : self.size] * x
            moving += (by_targets @ velocity[:, self.size :, None])[..., 0]
            return value, jacobian, moving

        return homotopy

    def _equations(self, weights: Array, parameters: Array) -> tuple[Array, Array, Array]:
        """Critical equations, their Jacobians, and their derivatives by the targets."""
        parameters = np.broadcast_to(parameters, (len(weights), self.unknowns))
        penalties, targets = parameters[:, : self.size], parameters[:, self.size :]
        slope, second = self.gradient.evaluate(np.concatenate([weights, targets], axis=1))
        jacobian = second[:, :, : self.size].copy()
        diagonal = np.arange(self.size)
        jacobian[:, diagonal, diagonal] += penalties
        return slope + penalties * weights, jacobian, second[:, :, self.size :]

    def _predictions(self, weights: Array) -> Array:
        full = np.zeros((len(weights), len(self.support)), dtype=complex)
        full[:, self.support] = weights
        return self.system.network.predict(full, self.further).reshape(len(weights), -1)


def _gradient(system: ZeroSystem, support: Array) -> PolynomialSystem:
    """Gradient of ``sum r**2 / 2`` by the weights of a support, in these and the targets."""
    without = ZeroSystem(
        system.network, Gauge(system.network, False), system.inputs, np.zeros_like(system.targets)
    )
    supported, count = np.flatnonzero(support), system.equations
    unknowns = len(supported) + count
    loss: Polynomial = {}
    for row, output in enumerate(without.explicit.equations):
        residual = {
            _restricted(m, supported, count): c
            for m, c in output.items()
            if _lies_within(m, support)
        }
        target = tuple(int(k == len(supported) + row) for k in range(unknowns))
        residual = add(residual, {target: Fraction(-1)})
        loss = add(loss, multiply(residual, residual))
    half = multiply(constant(Fraction(1, 2), unknowns), loss)
    equations = tuple(differentiate(half, k) for k in range(len(supported)))
    return PolynomialSystem(equations, tuple(f"x{k}" for k in range(unknowns)))


def _lies_within(monomial: tuple[int, ...], support: Array) -> bool:
    return all(on or not power for power, on in zip(monomial, support, strict=True))


def _restricted(monomial: tuple[int, ...], supported: Array, further: int) -> tuple[int, ...]:
    return (*(monomial[k] for k in supported), *([0] * further))
