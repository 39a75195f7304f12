"""The polynomial system of zero empirical error, and the one of critical points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.network import Network, network
from thalweg.algebra.polynomials import (
    MOST_TERMS,
    Polynomial,
    PolynomialSystem,
    add,
    compose,
    constant,
    differentiate,
    multiply,
    variable,
)
from thalweg.algebra.symmetry import Gauge
from thalweg.errors import ContradictorySamples, InvalidArgument, SystemTooLarge
from thalweg.run.bounds import check_memory

GRID = 1024
"""Random samples are multiples of 1 / GRID: exact in float64 and short over the rationals."""


@dataclass(frozen=True, eq=False)
class ZeroSystem:
    """Equations ``f_w(x_i) - y_i = 0`` in the free weights w of a network.

    Parameters
    ----------
    network
        A network with a polynomial activation.
    gauge
        Which of its weights are free.
    inputs
        float64, shape (N, inputs). A float is a rational number and is taken as such.
    targets
        float64, shape (N, outputs).
    """

    network: Network
    gauge: Gauge
    inputs: Array
    targets: Array

    @property
    def weights(self) -> int:
        """Number of unknowns W, after the gauge."""
        return self.gauge.size

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return len(self.inputs)

    @property
    def equations(self) -> int:
        """Number of equations: samples times outputs."""
        return int(self.targets.size)

    @property
    def names(self) -> tuple[str, ...]:
        """Names w1, w2, ... of the unknowns."""
        return tuple(f"w{k + 1}" for k in range(self.weights))

    @property
    def degrees(self) -> list[int]:
        """Total degree of each equation, for data in general position."""
        _, totals = channel_degrees(self.gauge)
        return [int(d) for d in np.tile(totals, self.samples)]

    @property
    def layer_degrees(self) -> list[tuple[int, ...]]:
        """Degree of each equation in the free weights of each layer that has any."""
        groups, _ = channel_degrees(self.gauge)
        return [tuple(int(d) for d in row) for row in np.tile(groups, (self.samples, 1))]

    @property
    def groups(self) -> list[Array]:
        """Unknowns of each layer that has any."""
        layers = self.gauge.layer_of
        return [np.flatnonzero(layers == k) for k in np.unique(layers)]

    def evaluate(self, weights: Array, signs: Array | None = None) -> tuple[Array, Array]:
        """Outputs, shape (P, equations), and Jacobian, shape (P, equations, W).

        `weights` has shape (P, W); `signs` are the values of the fixed weights, 1 by default.
        """
        full = self.gauge.embed(weights, signs)
        values, jacobian = self.network.value_and_jacobian(full, self.inputs)
        return values, jacobian[..., self.gauge.free]

    def relative_residual(self, weights: Array, signs: Array | None = None) -> Array:
        """Largest residual of each weight vector, shape (P,), relative to the terms of its sum.

        The yardstick of an equation is the sum of the absolute values of all its terms, the
        target's included: rounding alone leaves a few times 1e-16.
        """
        full = self.gauge.embed(np.asarray(weights), signs)
        residual = self.network.predict(full, self.inputs) - self.targets
        positive = Network(self.network.layers, tuple(abs(c) for c in self.network.activation))
        scale = positive.predict(np.abs(full), np.abs(self.inputs)) + np.abs(self.targets)
        residuals: Array = (np.abs(residual) / np.where(scale > 0, scale, 1.0)).max(axis=(1, 2))
        return residuals

    @cached_property
    def explicit(self) -> PolynomialSystem:
        """The equations written out, exactly over the rationals.

        Raises
        ------
        SystemTooLarge
            If an equation has too many terms.
        """
        terms = most_terms(self.network) * self.equations
        if terms > MOST_TERMS:
            raise SystemTooLarge(
                f"The {self.equations} equations in {self.weights} unknowns would have up to"
                f" 10^{math.log10(terms):.1f} terms in all; at most {MOST_TERMS} are written down."
                " Use fewer weights or a lower degree; bezout and count need no written system."
            )
        outputs = [p for x in self.inputs for p in _outputs(self.gauge, x)]
        equations = tuple(
            add(p, constant(-Fraction(float(y)), self.weights))
            for p, y in zip(outputs, self.targets.ravel(), strict=True)
        )
        return PolynomialSystem(equations, self.names)

    def layers(
        self, weights: Array, signs: Array | None = None
    ) -> list[tuple[Array, Array | None]]:
        """Kernel and bias of each layer of one solution, to be loaded into a network.

        A kernel has shape (channels out, channels in, taps); that of a dense layer reshapes to
        (channels out, inputs).
        """
        return self.network.parts(self.gauge.embed(np.asarray(weights), signs))


def zero_system(
    network: Network, inputs: ArrayLike, targets: ArrayLike, *, gauge: bool | None = None
) -> ZeroSystem:
    """System of zero empirical error of a network on samples.

    Samples given twice are kept once.

    Parameters
    ----------
    network
        From `network`, `convolution` and `dense`, or `read_model`.
    inputs
        Shape (N, ...), flattened in C order to (N, inputs).
    targets
        Shape (N,) or (N, outputs).
    gauge
        Whether to fix the rescaling of hidden channels; by default where the activation is a
        monomial. See `Gauge`.

    Raises
    ------
    InvalidArgument
        For arrays of the wrong shape or not finite, and for a gauge that does not exist.
    ContradictorySamples
        For the same input with different targets.
    """
    x, y = _samples(network, inputs, targets)
    if gauge and not network.monomial:
        raise InvalidArgument(
            "gauge=True, but only a monomial activation c z**d can be rescaled; the activation has"
            f" coefficients {[str(c) for c in network.activation]}. Leave gauge out."
        )
    consistent = _consistent(x, y)
    fixed = network.monomial if gauge is None else gauge
    return ZeroSystem(network, Gauge(network, fixed), x[consistent], y[consistent])


def random_system(
    network: Network, *, samples: int, seed: int = 0, gauge: bool | None = None
) -> ZeroSystem:
    """System with random Gaussian inputs and targets, multiples of 1/1024.

    Examples
    --------
    >>> from thalweg.algebra import network, random_system
    >>> system = random_system(network((2, 3, 1), (0, 0, 0, 1), bias=True), samples=9)
    >>> system.weights, system.equations, set(system.degrees)
    (9, 9, {3})
    """
    if samples < 1:
        raise InvalidArgument(f"samples is {samples}; expected at least 1.")
    check_memory(
        64 * samples * (network.inputs + network.outputs), f"{samples} samples", "Write fewer."
    )
    rng = np.random.default_rng(seed)
    inputs = np.round(rng.normal(size=(samples, network.inputs)) * GRID) / GRID
    targets = np.round(rng.normal(size=(samples, network.outputs)) * GRID) / GRID
    return zero_system(network, inputs, targets, gauge=gauge)


def squared_loss(system: ZeroSystem, penalties: Sequence[Fraction]) -> Polynomial:
    """The polynomial ``sum_i r_i(w)**2 / 2 + sum_j penalty_j w_j**2 / 2``, exact."""
    n = system.weights
    total: Polynomial = {}
    for residual in system.explicit.equations:
        total = add(total, multiply(dict(residual), dict(residual)))
    for k, penalty in enumerate(penalties):  # none given: no penalty
        w = variable(k, n)
        total = add(total, multiply(constant(penalty, n), multiply(w, w)))
    return {monomial: value / 2 for monomial, value in total.items()}


def critical_system(system: ZeroSystem, penalties: Sequence[Fraction]) -> PolynomialSystem:
    """Equations ``gradient = 0`` of `squared_loss`, exact, one for each unknown."""
    loss = squared_loss(system, penalties)
    equations = tuple(differentiate(loss, k) for k in range(system.weights))
    return PolynomialSystem(equations, system.names)


def channel_degrees(gauge: Gauge) -> tuple[Array, Array]:
    """Degrees of each output in the free weights of each layer that has any, and in all.

    Returns
    -------
    groups, totals
        int64, shapes (outputs, layers with free weights) and (outputs,).
    """
    network = gauge.network
    is_free = np.zeros(network.size, dtype=np.int64)
    is_free[gauge.free] = 1
    present = np.unique(gauge.layer_of)
    degrees = np.zeros((network.layers[0].channels_in, len(network.layers) + 1), dtype=np.int64)
    for number, (kernel, bias) in enumerate(network.parts(is_free)):
        own = np.zeros_like(degrees[0])
        own[[number, -1]] = 1
        entries = degrees[None] + kernel.max(axis=2)[:, :, None] * own
        below = entries.max(axis=1)
        if bias is not None:
            below = np.maximum(below, bias[:, None] * own)
        degrees = below if number == len(network.layers) - 1 else below * network.degree
    degrees = np.repeat(degrees, network.layers[-1].positions_out, axis=0)
    return degrees[:, present], degrees[:, -1]


def most_terms(network: Network) -> int:
    """Bound on the number of terms of an output as a polynomial in all weights."""
    terms = 1
    for number, layer in enumerate(network.layers):
        if number:
            more = terms - 1 if network.monomial else terms
            terms = math.comb(more + network.degree, network.degree)
        terms = layer.reads * terms + int(layer.bias)
    return terms


def _outputs(gauge: Gauge, x: Array) -> list[Polynomial]:
    """Outputs of the network on one input, as polynomials in the free weights."""
    network, n = gauge.network, gauge.size
    symbols = [constant(Fraction(1), n) for _ in range(network.size)]
    for k, index in enumerate(gauge.free):
        symbols[index] = variable(k, n)
    values = [constant(Fraction(float(v)), n) for v in x]
    for number, (layer, start) in enumerate(zip(network.layers, network.offsets, strict=True)):
        if number:
            values = [compose(network.activation, z, n) for z in values]
        values = _affine(layer, symbols[start : start + layer.size], values)
    return values


def _affine(layer: Any, symbols: list[Polynomial], values: list[Polynomial]) -> list[Polynomial]:
    outputs = []
    taps = layer.kernel_shape[2]
    for c in range(layer.channels_out):
        for reads in layer.gather:
            total = dict(symbols[layer.kernel_size + c]) if layer.bias else {}
            for d in range(layer.channels_in):
                for k in np.flatnonzero(reads >= 0):
                    weight = symbols[(c * layer.channels_in + d) * taps + k]
                    total = add(total, multiply(weight, values[d * layer.positions_in + reads[k]]))
            outputs.append(total)
    return outputs


def _samples(network: Network, inputs: ArrayLike, targets: ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(inputs, dtype=float), np.asarray(targets, dtype=float)
    x = x.reshape(len(x), -1) if x.ndim else x.reshape(1, 1)
    y = y.reshape(len(y), -1) if y.ndim else y.reshape(1, 1)
    expected = f"(N, {network.inputs}) and (N, {network.outputs})"
    if x.shape[1] != network.inputs or y.shape[1] != network.outputs or len(x) != len(y):
        raise InvalidArgument(
            f"inputs and targets have shapes {x.shape} and {y.shape}; expected {expected}."
        )
    if not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidArgument(
            f"got {len(x)} samples, finite or not; expected one at least, of finite numbers."
        )
    return x, y


def _consistent(x: Array, y: Array) -> Array:
    """Indices of the first of each group of equal inputs, in order."""
    _, first, group = np.unique(x, axis=0, return_index=True, return_inverse=True)
    leader = first[group.ravel()]
    wrong = np.flatnonzero((y != y[leader]).any(axis=1))
    if len(wrong):
        pairs = ", ".join(f"{leader[k]} and {k}" for k in wrong[:5])
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise ContradictorySamples(
            f"Samples with the same input have different targets: {pairs}{more}. No network has"
            " zero error on them; remove one of each pair, or average their targets."
        )
    places: Array = np.sort(first)
    return places


__all__ = [
    "ZeroSystem",
    "channel_degrees",
    "critical_system",
    "network",
    "random_system",
    "squared_loss",
    "zero_system",
]
