"""Layers with shared weights: what each reads, at which positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thalweg.algebra.arithmetic import Arithmetic, Array
from thalweg.errors import InvalidArgument


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
                f"A kernel of {width} does not fit into {size} positions with padding {margin};"
                " write a smaller kernel or more padding."
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


def read_patches(values: Array, layer: Layer) -> Array:
    """Patches (P, N, positions out, channels in * taps) of values (P, N, channels, positions)."""
    if layer.whole:
        return values.reshape(*values.shape[:2], 1, layer.reads)
    zero = np.zeros((*values.shape[:-1], 1), dtype=values.dtype)
    padded = np.concatenate([values, zero], axis=-1)
    patches = np.moveaxis(padded[..., layer.gather], -2, -3)
    return patches.reshape(*patches.shape[:3], layer.reads)


def unread(sensitivity: Array, kernel: Array, layer: Layer, ring: Arithmetic) -> Array:
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
