"""The norm of a convolution with zero padding and stride, from above, through its symbol."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from thalweg.certificates.products import WIDER, gamma, norm, spectral_bound

# Operations behind an entry of the symbol: of two phases each an angle, a sine and a cosine, in
# units of rounding with room to spare; then a product and a sum for each entry of the kernel.
_PHASES = 200


def convolution_norm(kernel: NDArray[np.float64], geometry: dict[str, list[int]]) -> float:
    r"""
    Bound the largest singular value of a convolution, as a map of whole images, from above.

    On a torus that holds the image and its padding nothing wraps around: the convolution is then a
    part of the cyclic one, whose norm is not smaller. That one is diagonal in frequencies f, with
    the symbol :math:`\sum_a K_a e^{i f a}`; a stride s adds up the :math:`s^2` frequencies that it
    cannot tell apart, divided by s.

    Parameters
    ----------
    kernel : ndarray
        Shape (out, in), flattened from (out, C, height, width).
    geometry : dict
        ``shape`` (C, H, W) of its input, ``kernel``, ``stride``, ``padding``, ``dilation``.

    References
    ----------
    H. Sedghi, V. Gupta and P. M. Long, The singular values of convolutional layers (ICLR 2019),
    theorem 6, here with padding, stride and dilation.

    Examples
    --------
    The mean of two neighbours, at every second of four places: rows of norm 1/sqrt(2) that share
    no place.

    >>> line = {"shape": [1, 1, 4], "kernel": [1, 2], "dilation": [1, 1]}
    >>> line |= {"stride": [1, 2], "padding": [0, 0]}
    >>> round(convolution_norm(np.array([[0.5, 0.5]]), line), 3)
    0.707
    """
    channels, *size = geometry["shape"]
    stride, padding = geometry["stride"], geometry["padding"]
    # The places of a torus, a multiple of the stride.
    places = [-(-(n + 2 * p) // s) * s for n, p, s in zip(size, padding, stride, strict=True)]
    phases = [
        _phases(n, k, d)
        for n, k, d in zip(places, geometry["kernel"], geometry["dilation"], strict=True)
    ]
    entries = kernel.reshape(len(kernel), channels, *geometry["kernel"])
    aliases = [np.arange(s) * (n // s) for n, s in zip(places, stride, strict=True)]
    largest = 0.0
    for f in range(places[0] // stride[0]):
        rows = np.tensordot(entries, phases[0][f + aliases[0]], (2, 1))  # (out, C, width, s)
        symbol = np.tensordot(rows, phases[1], (2, 1))  # (out, C, s, W)
        folded = symbol.reshape(*symbol.shape[:3], stride[1], -1)
        blocks = np.moveaxis(folded, -1, 0).reshape(folded.shape[-1], len(kernel), -1)
        largest = max(largest, float(spectral_bound(blocks).max()))
    sizes = np.abs(entries).sum((2, 3)) * math.sqrt(math.prod(stride))
    lost = gamma(_PHASES + 8 * math.prod(geometry["kernel"])) * float(norm(sizes))
    return (largest + lost) / math.sqrt(math.prod(stride)) * WIDER


def _phases(places: int, taps: int, dilation: int) -> NDArray[np.complex128]:
    """Give ``exp(2 pi i j a / places)`` for all frequencies j and taps a."""
    # Whole turns are taken off as integers, so that angles are below 2 pi.
    turns = np.outer(np.arange(places), np.arange(taps) * dilation) % places
    return np.asarray(np.exp(2j * np.pi * (turns / places)))
