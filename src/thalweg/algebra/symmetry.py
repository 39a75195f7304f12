"""Symmetries of a network's weights: rescaling, permutations, roots of unity; and their gauge.

With the activation ``c z**d`` a hidden channel can be rescaled, incoming weights and bias by t,
outgoing weights by ``t**-d``, without changing the network. The gauge fixes one outgoing weight of
each hidden channel, to 1 over the complex numbers. What remains is finite: permutations of the
channels of each hidden layer, and the d-th roots of unity of each channel, ``prod(h! d**h)`` in
all. Over the reals an even d leaves a sign: there the fixed weights are 1 or -1. Any other
activation leaves permutations and, where its exponents agree modulo m, m-th roots of unity; then
nothing is fixed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thalweg.algebra.arithmetic import Array, Numbers
from thalweg.algebra.network import Network

ROUNDOFF = 1e-7
_ROOTS = {2: "signs", 3: "cube roots of unity"}


@dataclass(frozen=True, eq=False)
class Gauge:
    """Which weights of a network are free, and the values of those that are not.

    Parameters
    ----------
    network
        The network.
    fixed
        Whether the rescaling of hidden channels is fixed; possible for monomial activations only.
    """

    network: Network
    fixed: bool

    @cached_property
    def fixed_indices(self) -> Array:
        """Position of the fixed weights in a full weight vector, hidden layer by hidden layer."""
        if not self.fixed:
            return np.zeros(0, dtype=np.int64)
        return np.concatenate([*self.outgoing, np.zeros(0, dtype=np.int64)])

    @cached_property
    def outgoing(self) -> list[Array]:
        """For each hidden layer the index of one outgoing weight of each channel."""
        indices = []
        for layer, start in zip(self.network.layers[1:], self.network.offsets[1:], strict=True):
            tap = int(np.argmax((layer.gather >= 0).any(axis=0)))
            channels = np.arange(layer.channels_in)
            indices.append(start + channels * layer.kernel_shape[2] + tap)
        return indices

    @cached_property
    def free(self) -> Array:
        """Position of the free weights in a full weight vector."""
        return np.setdiff1d(np.arange(self.network.size), self.fixed_indices)

    @property
    def size(self) -> int:
        """Number of free weights."""
        return len(self.free)

    def embed(self, weights: Array, signs: Array | None = None) -> Array:
        """Full weight vectors, shape (..., network size), of free ones, shape (..., size).

        `signs` are the values of the fixed weights, 1 by default.
        """
        full = np.zeros((*weights.shape[:-1], self.network.size), dtype=weights.dtype)
        full[..., self.free] = weights
        full[..., self.fixed_indices] = 1 if signs is None else signs
        return full

    @property
    def layer_of(self) -> Array:
        """Layer of each free weight."""
        bounds = np.array([*self.network.offsets, self.network.size])
        layers: Array = np.searchsorted(bounds, self.free, side="right") - 1
        return layers

    @property
    def torsion(self) -> int:
        """Order m of the roots of unity that a hidden channel may be multiplied by."""
        exponents = [k for k, c in enumerate(self.network.activation) if c != 0]
        if len(exponents) == 1:
            return exponents[0]
        return math.gcd(*[k - exponents[0] for k in exponents])

    @property
    def hidden(self) -> list[int]:
        """Number of channels of each hidden layer."""
        return [layer.channels_out for layer in self.network.layers[:-1]]

    @property
    def order(self) -> int:
        """Order of the finite group that remains: of the product over hidden layers of h! m**h."""
        return math.prod(math.factorial(h) * self.torsion**h for h in self.hidden)

    @property
    def description(self) -> str:
        """The gauge and the group in words."""
        if not self.hidden:
            return "no hidden units, no symmetry"
        group = " x ".join(
            f"{h}!" + (f" {self.torsion}^{h}" if self.torsion > 1 else "") for h in self.hidden
        )
        words = "permutations of hidden channels"
        if self.torsion > 1:
            words += f" and {_ROOTS.get(self.torsion, f'{self.torsion}-th roots of unity')}"
        gauge = "one outgoing weight of each hidden channel fixed to 1"
        if self.network.degree % 2 == 0:
            gauge += " (1 or -1 over the reals)"
        return f"{gauge if self.fixed else 'no weight fixed'}; {words}: order {group}"

    def rescaled(self, full: Array, layer: int, factors: Array) -> Array:
        """Multiply what each channel of a hidden layer makes, and divide what is made of it.

        `factors` has shape (..., channels); the network stays the same if they are roots of unity
        of order `torsion`, and any number for monomial activations.
        """
        moved = full.copy()
        parts = self.network.parts(moved)
        kernel, bias = parts[layer]
        kernel *= factors[..., :, None, None]
        if bias is not None:
            bias *= factors
        exponent = next(k for k, c in enumerate(self.network.activation) if c != 0)
        outgoing = parts[layer + 1][0]
        outgoing *= (factors ** -float(exponent))[..., None, :, None]
        return moved

    def permuted(self, full: Array, layer: int, order: Array) -> Array:
        """Put channel ``order[k]`` of a hidden layer in place k."""
        moved = full.copy()
        parts, originals = self.network.parts(moved), self.network.parts(full)
        parts[layer][0][...] = originals[layer][0][..., order, :, :]
        bias, old_bias = parts[layer][1], originals[layer][1]
        if bias is not None and old_bias is not None:
            bias[...] = old_bias[..., order]
        parts[layer + 1][0][...] = originals[layer + 1][0][..., :, order, :]
        return moved

    def normalized(self, full: Array, roots: list[Array] | None = None) -> Array:
        """Bring a full weight vector into the gauge; `roots` are exponents of roots of unity."""
        root = np.exp(2j * math.pi / self.torsion)
        moved = full.astype(complex)
        for layer in reversed(range(len(self.hidden))):
            factors = np.ones(self.hidden[layer], dtype=complex)
            if self.fixed:
                factors = moved[self.outgoing[layer]] ** (1 / self.network.degree)
            if roots is not None:
                factors = factors * root ** roots[layer]
            moved = self.rescaled(moved, layer, factors)
        return moved

    def orbit(self, weights: Array) -> Array:
        """All free weight vectors, shape (order, size), equivalent to one, under the finite group.

        Repeated where the vector has symmetries of its own (two equal units, a unit of zeros).
        """
        full = self.embed(np.asarray(weights, dtype=complex))
        images = [self.normalized(moved, roots)[self.free] for moved, roots in self._elements(full)]
        return np.array(images)

    def _elements(self, full: Array) -> Iterator[tuple[Array, list[Array]]]:
        permutations = [list(itertools.permutations(range(h))) for h in self.hidden]
        exponents = [list(itertools.product(range(self.torsion), repeat=h)) for h in self.hidden]
        for orders in itertools.product(*permutations):
            moved = full
            for layer, order in enumerate(orders):
                moved = self.permuted(moved, layer, np.array(order))
            for roots in itertools.product(*exponents):
                yield moved, [np.array(r) for r in roots]

    def real_form(self, weights: Array) -> tuple[Array, Array] | None:
        """Real weights and signs of the fixed ones equivalent to a complex vector, if there are.

        A channel is turned by a phase so that what it reads becomes real: any phase for a monomial
        activation, whose fixed weight then becomes 1 or -1, else a root of unity.
        """
        full = self.embed(np.asarray(weights, dtype=complex))
        for layer in range(len(self.hidden)):
            kernel, bias = self.network.parts(full)[layer]
            rows = kernel.reshape(len(kernel), -1)
            if bias is not None:
                rows = np.concatenate([rows, bias[:, None]], axis=1)
            full = self.rescaled(full, layer, self._phases(rows))
        if self.fixed and self.network.degree % 2 == 1:
            full = self._signs_absorbed(full)
        if np.abs(full.imag).max() > ROUNDOFF * max(1.0, float(np.abs(full).max())):
            return None
        return full.real[self.free], np.round(full.real[self.fixed_indices])

    def _phases(self, rows: Array) -> Array:
        largest = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
        if self.fixed:
            phases: Array = np.exp(-1j * np.angle(largest))
            return phases
        roots = np.exp(2j * math.pi * np.arange(self.torsion) / self.torsion)
        chosen: Array = roots[np.abs((largest[:, None] * roots).imag).argmin(axis=1)]
        return chosen

    def _signs_absorbed(self, full: Array) -> Array:
        for layer in reversed(range(len(self.hidden))):
            signs = np.sign(full[self.outgoing[layer]].real)
            full = self.rescaled(full, layer, np.where(signs == 0, 1.0, signs) + 0j)
        return full

    def invariants(self, weights: Array, *, seed: int = 0, count: int = 6) -> Array:
        """Numbers, shape (P, ...), that agree for two weight vectors only if these are equivalent.

        Outputs at random inputs, and for each hidden layer symmetric functions of how the channels'
        values compare between inputs, which no rescaling changes. Two classes agree with
        probability zero.
        """
        rng = np.random.default_rng([seed, 5])
        inputs = rng.normal(size=(count + 1, self.network.inputs))
        sums = self.network.evaluate(self.embed(weights), inputs, Numbers())[1]
        invariants = [sums[-1].reshape(len(weights), -1)]
        for values in sums[:-1]:
            poles = rng.normal(size=(count, 1, 1)) + 1j * rng.normal(size=(count, 1, 1))
            first = values[:, :1, :1]
            invariants.append(
                ((values[:, 1:] - poles * first) / (values[:, 1:] + poles * first)).sum(axis=(2, 3))
            )
        return np.concatenate(invariants, axis=1)
