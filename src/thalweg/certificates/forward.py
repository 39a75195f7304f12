"""A chain evaluated on samples with a bound on every error: values, slopes, cotangents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.certificates.chain import Chain, Layer
from thalweg.certificates.extended import Extended
from thalweg.certificates.nonlinearity import error_norm
from thalweg.certificates.products import UNIT, WIDER, Standard, Verified, extended_product, gamma
from thalweg.certificates.products import norm as _norm

Array = NDArray[np.float64]
Products = Standard | Verified


@dataclass(frozen=True)
class Passed:
    """
    What a forward pass knows about one layer; errors are Euclidean norms, one a sample.

    Attributes
    ----------
    inputs : ndarray
        What goes in, rounded to float64, as patches: shape (N, T, in).
    input_error : ndarray
        Of all patches of a sample together, shape (N,).
    size : ndarray
        Norm of the patches, from above, shape (N,).
    widest : ndarray
        The largest norm of one patch with its 1 for the bias, shape (N,).
    reach : ndarray
        The largest pre-activation's size, shape (N,).
    gap : ndarray
        The smallest, shape (N,).
    error : ndarray
        Of the pre-activations, shape (N,).
    slopes : ndarray
        Of the activation, rounded to float64, shape (N, units).
    slope_error : ndarray
        The largest error of a slope for the pre-activations as computed, shape (N,).
    """

    inputs: Array
    input_error: Array
    size: Array
    widest: Array
    reach: Array
    gap: Array
    error: Array
    slopes: Array
    slope_error: Array

    @property
    def steepest(self) -> Array:
        """The largest slope of the activation for the pre-activations as computed, shape (N,)."""
        return np.asarray(np.abs(self.slopes).max(axis=1) + self.slope_error)


def run_forward(chain: Chain, samples: Array, kind: Extended) -> tuple[list[Passed], Any, Array]:
    """
    Evaluate a chain in extended precision.

    Returns
    -------
    passed : list of Passed
        One a layer.
    outputs : extended array
        Shape (N, C).
    error : ndarray
        Bound of each sample's error in the outputs, shape (N,).
    """
    a, error = kind.of(samples), np.zeros(len(samples))
    passed: list[Passed] = []
    for layer in chain.layers:
        z, z_error, layer_pass = _through(layer, a, error, kind)
        values, wrong = layer.activation.evaluate(kind, z, 0)
        first, second = layer.activation.bounds(float((layer_pass.reach + z_error).max()))
        slope = np.minimum(first, layer_pass.steepest + second * z_error)
        if layer.activation.sided:  # its side may not be the one computed
            slope = np.full_like(slope, first)
        a, error = values, (slope * z_error + error_norm(wrong)) * WIDER
        passed.append(layer_pass)
    return passed, a, error


def _through(layer: Layer, a: Any, error: Array, kind: Extended) -> tuple[Any, Array, Passed]:
    samples, units, places = a.shape[0], len(layer.weight), layer.positions
    cut = a.reshape(samples, 1, -1) if layer.places is None else kind.take(a, layer.places)
    flat = cut.reshape(samples * places, -1)
    product, relative = extended_product(kind, flat, layer.weight)
    z = (product + kind.of(layer.bias)).reshape(samples, places, units)
    rounded = kind.parts(cut)[0]
    size = _norm(rounded, axis=(1, 2))
    height = 2 * _norm(kind.parts(z)[0], axis=(1, 2)) + np.sqrt(places) * _norm(layer.bias)
    z_error = relative * size * _norm(layer.weight) + kind.unit * height
    z_error = (z_error + layer.gain * error) * WIDER
    z = z.transpose(0, 2, 1).reshape(samples, -1)
    slopes, wrong = layer.activation.evaluate(kind, z, 1)
    slope = kind.parts(slopes)[0]
    heights = np.abs(kind.parts(z)[0])
    layer_pass = Passed(
        inputs=rounded,
        input_error=(layer.overlap * error + UNIT * size) * WIDER,
        size=size,
        widest=np.sqrt(_norm(rounded, axis=2).max(axis=1) ** 2 + 1) * WIDER,
        reach=heights.max(axis=1) * WIDER,
        gap=heights.min(axis=1) / WIDER,
        error=z_error,
        slopes=slope,
        slope_error=(wrong + UNIT * np.abs(slope)).max(axis=1) * WIDER,
    )
    return z, z_error, layer_pass


def run_backward(
    chain: Chain, passed: list[Passed], rows: Array, products: Products, seconds: list[float]
) -> list[tuple[Array, Array]]:
    """
    Pull combinations of the outputs back to every layer's pre-activations.

    Parameters
    ----------
    chain, passed
        As `run_forward` took and gave them.
    rows : ndarray
        The combinations, exact, shape (k, C).
    products : Standard or Verified
        How matrices are multiplied.
    seconds : list of float
        Bound of each activation's second derivative around the pre-activations.

    Returns
    -------
    list of (ndarray, ndarray)
        For each layer, the first first: cotangents, shape (N, k, T, out), and the bound of each
        one's error, shape (N, k).
    """
    samples, last = len(passed[0].inputs), chain.layers[-1]
    delta = np.broadcast_to(rows[:, None, :], (1, len(rows), 1, rows.shape[1]))
    if last.positions > 1:
        cut = rows.reshape(len(rows), len(last.weight), last.positions).transpose(0, 2, 1)
        delta = cut[None]
    error = np.zeros((1, len(rows)))
    cotangents = [(_everywhere(delta, samples), np.broadcast_to(error, (samples, len(rows))))]
    for index in range(len(chain.layers) - 1, 0, -1):
        layer, below, layer_pass = chain.layers[index], chain.layers[index - 1], passed[index - 1]
        pulled, wrong = _pull(layer, delta, error, products)
        delta, error = _times_slopes(pulled, wrong, layer_pass, seconds[index - 1])
        delta = delta.reshape(samples, len(rows), len(below.weight), below.positions)
        delta = np.ascontiguousarray(delta.transpose(0, 1, 3, 2))
        cotangents.append((delta, error))
    return cotangents[::-1]


def _everywhere(delta: Array, samples: int) -> Array:
    return np.ascontiguousarray(np.broadcast_to(delta, (samples, *delta.shape[1:])))


def _pull(layer: Layer, delta: Array, error: Array, products: Products) -> tuple[Array, Array]:
    """Go back through an affine layer: (n, k, T, out) to (n, k, inputs)."""
    count, outputs, places, units = delta.shape
    flat = delta.reshape(count * outputs * places, units)
    back = np.ascontiguousarray(layer.weight.T)
    slopes = products(flat, back).reshape(count, outputs, places, -1)
    size = _norm(delta, axis=(2, 3))
    rounding = products.relative(units) + gamma(layer.overlap**2 + 1)
    lost = rounding * size * _norm(layer.weight) * layer.overlap * 2
    wrong = (layer.gain * error + lost) * WIDER
    return layer.spread(slopes), wrong


def _times_slopes(
    pulled: Array, wrong: Array, layer_pass: Passed, second: float
) -> tuple[Array, Array]:
    """Go back through an activation."""
    steep = layer_pass.steepest[:, None]
    bent = (second * layer_pass.error + layer_pass.slope_error)[:, None]
    size = _norm(pulled, axis=2)
    error = steep * wrong + bent * (size + wrong) + 2 * UNIT * steep * size
    return pulled * layer_pass.slopes[:, None, :], error * WIDER
