"""Networks with polynomial activations: layers with shared weights, values and Jacobians.

Arithmetic is either over the complex numbers (batched over weight vectors) or over the integers
modulo a prime, where ranks are exact.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from thalweg.algebra.arithmetic import Arithmetic, Array, Numbers
from thalweg.algebra.layers import Layer, dense, read_patches, unread
from thalweg.errors import InvalidArgument, NotPolynomial
from thalweg.run.bounds import check_memory

# A row of the Jacobian, as floats and modulo a prime, and what elimination copies.
_BYTES_A_WEIGHT = 100


@dataclass(frozen=True, eq=False)
class Network:
    """Layers with the same polynomial activation between them; the last layer has none.

    A *full* weight vector holds, layer by layer, the kernel in C order of
    (channels out, channels in, taps), then the biases.

    Parameters
    ----------
    layers
        From the input to the output.
    activation
        Coefficients of the activation from the constant up, exact.
    """

    layers: tuple[Layer, ...]
    activation: tuple[Fraction, ...]

    @property
    def size(self) -> int:
        """Number of all weights."""
        return sum(layer.size for layer in self.layers)

    @property
    def inputs(self) -> int:
        """Number of input values, channels times positions."""
        return self.layers[0].channels_in * self.layers[0].positions_in

    @property
    def outputs(self) -> int:
        """Number of output values."""
        return self.layers[-1].channels_out * self.layers[-1].positions_out

    @property
    def degree(self) -> int:
        """Degree of the activation."""
        return len(self.activation) - 1

    @property
    def monomial(self) -> bool:
        """Whether the activation is ``c z**d`` with d at least 1."""
        return sum(c != 0 for c in self.activation) == 1 and self.degree >= 1

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each layer begins in a full weight vector."""
        sizes = [layer.size for layer in self.layers]
        return tuple(int(n) for n in np.cumsum([0, *sizes[:-1]]))

    def parts(self, full: Array) -> list[tuple[Array, Array | None]]:
        """Kernel, shape (..., channels out, channels in, taps), and bias of each layer: views."""
        parts: list[tuple[Array, Array | None]] = []
        for layer, start in zip(self.layers, self.offsets, strict=True):
            stop = start + layer.kernel_size
            kernel = full[..., start:stop].reshape(*full.shape[:-1], *layer.kernel_shape)
            bias = full[..., stop : stop + layer.channels_out] if layer.bias else None
            parts.append((kernel, bias))
        return parts

    def evaluate(
        self, full: Array, inputs: Array, ring: Arithmetic | None = None
    ) -> tuple[list[Array], list[Array]]:
        """Patches read and pre-activations made by every layer.

        Parameters
        ----------
        full
            Weight vectors, shape (P, size).
        inputs
            Shape (N, inputs).
        ring
            `Numbers` by default.

        Returns
        -------
        patches, preactivations
            One array a layer, of shapes (P, N, positions out, channels in * taps) and
            (P, N, positions out, channels out).
        """
        ring = ring or Numbers()
        first = self.layers[0]
        values = inputs.reshape(1, len(inputs), first.channels_in, first.positions_in)
        patches: list[Array] = []
        pre_activations: list[Array] = []
        for layer, (kernel, bias) in zip(self.layers, self.parts(full), strict=True):
            if pre_activations:
                values = np.swapaxes(self.activate(pre_activations[-1], ring), -1, -2)
                values = values.reshape(*values.shape[:2], layer.channels_in, layer.positions_in)
            read = read_patches(values, layer)
            weights = kernel.reshape(len(full), 1, layer.channels_out, layer.reads)
            sums = ring.matmul(read, np.swapaxes(weights, -1, -2))
            if bias is not None:
                sums = ring.reduce(sums + bias[:, None, None, :])
            patches.append(read)
            pre_activations.append(sums)
        return patches, pre_activations

    def predict(self, full: Array, inputs: Array) -> Array:
        """Outputs, shape (P, N, outputs), of weight vectors of shape (P, size)."""
        last = self.evaluate(full, inputs)[1][-1]
        return np.swapaxes(last, -1, -2).reshape(*last.shape[:2], self.outputs)

    def value_and_jacobian(
        self, full: Array, inputs: Array, ring: Arithmetic | None = None
    ) -> tuple[Array, Array]:
        """Outputs, shape (P, N * outputs), and Jacobian, shape (P, N * outputs, size)."""
        ring = ring or Numbers()
        patches, sums = self.evaluate(full, inputs, ring)
        shape = (len(full), len(inputs))
        columns: list[Array] = []
        kernels = [kernel for kernel, _ in self.parts(full)]
        last = self.layers[-1]
        eye: Array = np.eye(self.outputs, dtype=np.int64)
        unit = eye.reshape(self.outputs, last.channels_out, last.positions_out)
        sensitivity: Array = np.broadcast_to(
            np.swapaxes(unit, -1, -2), (*shape, *unit.shape[:1], *unit.shape[:0:-1])
        )
        for number in reversed(range(len(self.layers))):
            layer, read = self.layers[number], patches[number]
            rows = ring.matmul(np.swapaxes(sensitivity, -1, -2), read[:, :, None])
            rows = np.broadcast_to(rows, (*shape, *rows.shape[2:]))
            parts = [rows.reshape(*shape, self.outputs, layer.kernel_size)]
            if layer.bias:
                parts.append(ring.reduce(sensitivity.sum(axis=-2)))
            columns.insert(0, np.concatenate(parts, axis=-1))
            if number:
                back = unread(sensitivity, kernels[number], layer, ring)
                before = sums[number - 1]
                back = np.swapaxes(
                    back.reshape(*back.shape[:3], before.shape[-1], before.shape[-2]), -1, -2
                )
                slope = self.activate(before, ring, derivative=True)
                sensitivity = ring.reduce(back * slope[:, :, None])
        jacobian = np.concatenate(columns, axis=-1)
        outputs = np.swapaxes(sums[-1], -1, -2).reshape(len(full), len(inputs) * self.outputs)
        return outputs, jacobian.reshape(*outputs.shape, self.size)

    def activate(self, z: Array, ring: Arithmetic, *, derivative: bool = False) -> Array:
        """Activation, or its derivative, by Horner's rule."""
        exact = self.slopes if derivative else self.activation
        numbers = [ring.number(value) if value else 0 for value in exact]
        total: Array = np.full_like(z, numbers[-1]) if len(numbers) == 1 else numbers[-1] * z
        for place in reversed(range(len(numbers) - 1)):
            total = ring.reduce(total + numbers[place] if numbers[place] else total)
            total = ring.reduce(total * z) if place else total
        return total

    @cached_property
    def slopes(self) -> tuple[Fraction, ...]:
        """Coefficients of the activation's derivative."""
        return tuple(k * c for k, c in enumerate(self.activation))[1:]


def network(
    widths: Sequence[int],
    activation: Sequence[Any] | str,
    *,
    bias: bool = False,
    output_bias: bool = False,
) -> Network:
    """Dense network with a polynomial activation.

    Parameters
    ----------
    widths
        Number of inputs, of units in each hidden layer, and of outputs: at least two numbers.
    activation
        Coefficients from the constant up: integers, fractions, decimal strings or floats.
        ``[0, 0, 0, 1]`` is the cube.
    bias
        Whether hidden units have a bias.
    output_bias
        Whether outputs have one.

    Raises
    ------
    InvalidArgument
        For widths that are not at least two positive integers.
    NotPolynomial
        For an activation that is not a list of finite coefficients.

    Examples
    --------
    >>> network((2, 3, 1), (0, 0, 0, 1), bias=True).size
    12
    """
    counts = [int(width) for width in widths]
    if len(counts) < 2 or min(counts) < 1 or counts != list(widths):
        raise InvalidArgument(
            f"widths are {list(widths)}; expected at least two positive integers: inputs, hidden"
            " units of each layer, outputs, e.g. (2, 3, 1)."
        )
    weights = sum(map(operator.mul, counts, counts[1:]))
    check_memory(
        _BYTES_A_WEIGHT * weights, f"a network of {weights:,} weights", "Write smaller widths."
    )
    hidden = len(counts) - 2
    layers = tuple(
        dense(counts[k], counts[k + 1], bias=bias if k < hidden else output_bias)
        for k in range(hidden + 1)
    )
    return Network(layers, coefficients(activation))


def coefficients(activation: Sequence[Any] | str) -> tuple[Fraction, ...]:
    """Exact coefficients of an activation, from the constant up, without leading zeros.

    Raises
    ------
    NotPolynomial
        For a name, a function, or coefficients that are not finite numbers.

    Examples
    --------
    >>> coefficients("0,1/2,0.25")
    (Fraction(0, 1), Fraction(1, 2), Fraction(1, 4))
    """
    advice = (
        "expected the coefficients of a polynomial from the constant up, e.g. 0,0,0,1 for the"
        " cube. Fit one to another activation with thalweg.polynomial.fit_polynomial."
    )
    values = activation.split(",") if isinstance(activation, str) else activation
    try:
        exact = [
            Fraction(v) if isinstance(v, str | int | Fraction) else Fraction(float(v))
            for v in values
        ]
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise NotPolynomial(f"The activation is {activation!r}; {advice}") from None
    while exact and exact[-1] == 0:
        exact.pop()
    if len(exact) < 2:
        raise NotPolynomial(f"The activation is constant ({activation!r}); {advice}")
    return tuple(exact)
