"""Networks with polynomial activations: layers with shared weights, values and Jacobians.

Arithmetic is either over the complex numbers (batched over weight vectors) or over the integers
modulo a prime, where ranks are exact.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import InvalidArgument, NotPolynomial
from thalweg.run.bounds import check_memory

Array = NDArray[Any]

# A row of the Jacobian, as floats and modulo a prime, and what elimination copies.
_BYTES_A_WEIGHT = 100


@dataclass(frozen=True, eq=False)
class Layer:
    """An affine map between channels at positions, with one kernel for all positions.

    Parameters
    ----------
    channels_in, channels_out
        Numbers of channels.
    gather
        Integers, shape (positions out, taps): the position in the input that each tap of the
        kernel reads, -1 where it reads padding. A dense layer has one position out.
    positions_in
        Number of positions of the input.
    bias
        Whether each channel out has a bias.
    """

    channels_in: int
    channels_out: int
    gather: Array
    positions_in: int
    bias: bool

    @property
    def kernel_shape(self) -> tuple[int, int, int]:
        """Shape of the kernel: (channels out, channels in, taps)."""
        return self.channels_out, self.channels_in, self.gather.shape[1]

    @property
    def kernel_size(self) -> int:
        """Number of weights of the kernel."""
        return math.prod(self.kernel_shape)

    @property
    def reads(self) -> int:
        """Number of values that one output reads: channels in times taps."""
        return self.channels_in * int(self.gather.shape[1])

    @property
    def size(self) -> int:
        """Number of weights, biases included."""
        return self.kernel_size + (self.channels_out if self.bias else 0)

    @property
    def positions_out(self) -> int:
        """Number of positions of the output."""
        return len(self.gather)

    @cached_property
    def whole(self) -> bool:
        """Whether there is one position out, which reads all of the input in order."""
        return np.array_equal(self.gather, np.arange(self.positions_in)[None])

    @cached_property
    def selection(self) -> Array:
        """Zeros and ones, shape (positions out * taps, positions in): where each tap reads."""
        flat = self.gather.ravel()
        matrix = np.zeros((len(flat), self.positions_in), dtype=np.int64)
        rows = np.flatnonzero(flat >= 0)
        matrix[rows, flat[rows]] = 1
        return matrix


def dense(inputs: int, outputs: int, *, bias: bool = True, positions: int = 1) -> Layer:
    """Dense layer; `positions` is that of a convolution it follows, `inputs` its channels."""
    return Layer(inputs, outputs, np.arange(positions)[None], positions, bias)


def convolution(
    inputs: int,
    outputs: int,
    *,
    shape: Sequence[int],
    kernel: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    bias: bool = True,
) -> Layer:
    """Convolution over a grid of any dimension: the same kernel at every position.

    Parameters
    ----------
    inputs, outputs
        Numbers of channels.
    shape
        Size of the input along each axis of the grid, e.g. ``(8,)`` or ``(28, 28)``.
    kernel, stride, padding
        One number an axis, as in `torch.nn.Conv2d`; stride and padding may be one number for all.
    bias
        Whether each channel out has a bias.

    Examples
    --------
    >>> convolution(1, 2, shape=(5,), kernel=(3,), stride=2).gather.tolist()
    [[0, 1, 2], [2, 3, 4]]
    """
    axes = len(shape)
    strides = [stride] * axes if isinstance(stride, int) else list(stride)
    paddings = [padding] * axes if isinstance(padding, int) else list(padding)
    reads = []
    for size, width, step, margin in zip(shape, kernel, strides, paddings, strict=True):
        starts = np.arange(-margin, size + margin - width + 1, step)
        if not len(starts):
            raise InvalidArgument(
                f"A kernel of {width} does not fit into {size} positions with padding {margin}."
            )
        reads.append(starts[:, None] + np.arange(width))
    grids = np.zeros((1, 1), dtype=np.int64)
    inside = np.ones((1, 1), dtype=bool)
    for read, size in zip(reads, shape, strict=True):
        grids = (grids[:, None, :, None] * size + read[None, :, None, :]).reshape(
            len(grids) * len(read), -1
        )
        fits = (read >= 0) & (read < size)
        inside = (inside[:, None, :, None] & fits[None, :, None, :]).reshape(grids.shape)
    return Layer(inputs, outputs, np.where(inside, grids, -1), math.prod(shape), bias)


class Arithmetic(Protocol):
    """What the evaluation of a network asks of a ring of numbers."""

    def matmul(self, a: Array, b: Array) -> Array:
        """Product of two stacks of matrices."""

    def reduce(self, a: Array) -> Array:
        """Representatives of the numbers in `a`."""

    def number(self, value: Fraction) -> Any:
        """A rational number as one of the ring's."""


class Numbers:
    """Real or complex floating point."""

    def matmul(self, a: Array, b: Array) -> Array:
        """Product of two stacks of matrices."""
        product: Array = np.matmul(a, b)
        return product

    def reduce(self, a: Array) -> Array:
        """Floating-point numbers as they are."""
        return a

    def number(self, value: Fraction) -> float:
        """The nearest float64."""
        return float(value)


class Residues:
    """The integers modulo a prime below 2**31, in int64."""

    def __init__(self, prime: int = 2**31 - 1) -> None:
        self.prime = prime

    def matmul(self, a: Array, b: Array) -> Array:
        """Product of two stacks of matrices, one column of `a` at a time against overflow."""
        total = np.zeros(1, dtype=np.int64)
        for inner in range(a.shape[-1]):
            total = total + a[..., :, inner, None] * b[..., None, inner, :] % self.prime
        return self.reduce(total)

    def reduce(self, a: Array) -> Array:
        """Residues from 0 to the prime less one."""
        return a % self.prime

    def number(self, value: Fraction) -> int:
        """Residue of a rational number."""
        return value.numerator * pow(value.denominator, -1, self.prime) % self.prime


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
            read = _read(values, layer)
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
                back = _unread(sensitivity, kernels[number], layer, ring)
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


def _read(values: Array, layer: Layer) -> Array:
    """Patches (P, N, positions out, channels in * taps) of values (P, N, channels, positions)."""
    if layer.whole:
        return values.reshape(*values.shape[:2], 1, layer.reads)
    zero = np.zeros((*values.shape[:-1], 1), dtype=values.dtype)
    padded = np.concatenate([values, zero], axis=-1)
    patches = np.moveaxis(padded[..., layer.gather], -2, -3)
    return patches.reshape(*patches.shape[:3], layer.reads)


def _unread(sensitivity: Array, kernel: Array, layer: Layer, ring: Arithmetic) -> Array:
    """Derivatives by the values read, (P, N, outputs, channels in * positions in)."""
    flat = kernel.reshape(len(kernel), 1, 1, layer.channels_out, layer.reads)
    taps = ring.matmul(sensitivity, flat)
    if layer.whole:
        return taps[..., 0, :]
    taps = taps.reshape(*taps.shape[:-1], *layer.kernel_shape[1:])
    taps = np.moveaxis(taps, -2, -3).reshape(
        *taps.shape[:3], layer.channels_in, len(layer.selection)
    )
    back = ring.reduce(np.matmul(taps, layer.selection))
    return back.reshape(*back.shape[:3], layer.channels_in * layer.positions_in)
