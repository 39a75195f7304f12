"""A box of weights without an error, proved anew for `checker` by intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from thalweg.certificates.checker_layers import (
    BATCH,
    SMOOTH,
    SOFTPLUS_ENDS,
    TINY,
    UNIT,
    WIDER,
    Array,
    Layer,
    derived,
    gamma,
    horner,
    need,
    product,
    read_network,
)


def prove_margin(
    content: dict[str, Any], arrays: dict[str, Array], progress: Callable[..., Any]
) -> tuple[dict[str, Any], list[str]]:
    """Carry intervals through the network: no sample is misclassified anywhere in the box."""
    layers = read_network(content, arrays, set())
    samples, labels = arrays["inputs"], arrays["targets"]
    halves, last, threshold = content["claim"]["half_widths"], layers[-1], content["outputs"]
    whole = isinstance(halves, list) and len(halves) == len(layers)
    need(whole and all(h > 0 for h in halves), "half-widths are not positive, one a layer")
    need(len(last.reads) == 1, "the last layer is a convolution")
    classes = len(last.weight)
    right = labels.shape[1] == 1 and np.isin(labels, np.arange(max(2, classes))).all()
    right = right and (threshold is None) == (classes > 1) and threshold in (None, 0.0, 0.5)
    need(right, "labels are no classes of the outputs, or the threshold is none")
    least, batches = [math.inf, math.inf], range(0, len(samples), BATCH)
    with progress(2 * len(batches), "proof of the box") as bar:
        for place in (0, 1):  # at the centre, and in the box
            room = [h * place * (1 + 4 * UNIT) for h in halves]
            for i in batches:
                some, named = samples[i : i + BATCH], labels[i : i + BATCH, 0]
                lowest = _least_margin(layers, some, named, room, threshold)
                least[place] = min(least[place], lowest)
                bar.update(1)
    reasons = (
        [] if least[1] > 0 else [f"margins in the box are only shown to be above {least[1]:.3g}"]
    )
    weights = sum(layer.size for layer in layers)
    proved = {"weights": weights, "samples": len(samples), "half_widths": halves}
    return proved | {"margin": least[0]}, reasons


def _least_margin(
    layers: list[Layer], x: Array, labels: Array, room: list[float], threshold: float | None
) -> float:
    center, radius = x, np.zeros(x.shape)
    for layer, half in zip(layers[:-1], room[:-1], strict=True):
        c, r = layer.patches(center), layer.patches(radius)
        inputs, size = c.shape[2], np.abs(c)
        z = product(c, layer.weight.T) + layer.bias
        wide = product(r + 2 * gamma(inputs + 4) * size, np.abs(layer.weight).T)
        wide += half * layer.trained[0] * (size + r).sum(axis=2, keepdims=True)
        wide += half * layer.trained[1] + 4 * UNIT * (np.abs(layer.bias) + np.abs(z))
        wide = wide * (1 + 4 * gamma(inputs + 8)) + TINY
        low, high = (end.transpose(0, 2, 1).reshape(len(x), -1) for end in (z - wide, z + wide))
        low, high = _enclosed(layer, low - 2 * UNIT * np.abs(low), high + 2 * UNIT * np.abs(high))
        center = (low + high) / 2
        radius = np.maximum(high - center, center - low) * (1 + 4 * UNIT) + TINY
    least, last = [], layers[-1]
    for label in np.unique(labels):
        chosen, rows = labels == label, np.array([[1.0 if label else -1.0]])
        if threshold is None:
            rows = np.delete(-np.eye(len(last.weight)), int(label), axis=0)
            rows[:, int(label)] = 1.0
        # The rows of a difference are bounded themselves: what two outputs share cancels.
        half, matrix = room[-1] * np.abs(rows).sum(axis=1)[0], product(rows, last.weight)
        wide = half * last.trained[0] * WIDER + 2 * UNIT * np.abs(matrix)
        c, r = center[chosen], radius[chosen] * WIDER
        size, inputs = np.abs(c), c.shape[1]
        middle = product(c, matrix.T)
        shift = product(rows, last.bias) - (threshold or 0.0) * rows[:, 0]
        lost = product(r, np.abs(matrix).T) + product(size + r, wide.T) + half * last.trained[1]
        lost += 2 * gamma(inputs + 8) * product(size, np.abs(matrix).T) + 8 * UNIT * np.abs(middle)
        lost += 8 * UNIT * (product(np.abs(rows), np.abs(last.bias)) + 1)
        margins = middle + shift - lost * (1 + 4 * gamma(inputs + 8)) - TINY
        least.append(float(margins.min()) if np.isfinite(margins).all() else -math.inf)
    return min(least)


def _enclosed(layer: Layer, low: Array, high: Array) -> tuple[Array, Array]:
    """Enclose the activation's values on intervals."""
    if layer.kind == "polynomial":  # by the Taylor series at the centre
        center = (low + high) / 2
        radius = np.maximum(high - center, center - low) * WIDER
        value, wrong = horner(layer.coefficients, center)
        spread, power = wrong, np.ones(center.shape)
        for k in range(1, len(layer.coefficients)):
            power = power * radius / k
            term, error = horner(derived(layer.coefficients, k), center)
            spread = spread + (np.abs(term).astype(np.float64) + error) * power
        value = value.astype(np.float64)
        spread = (spread + 2 * UNIT * np.abs(value)) * WIDER
        return value - spread, value + spread
    (first, wrong), (final, more) = (layer.evaluate(end, 0) for end in (low, high))
    bottom, turn = np.minimum(first, final), SMOOTH.get(layer.kind, (-math.inf,))[-1]
    if math.isfinite(turn):
        turned = layer.evaluate(np.array([turn]), 0)[0][0]
        bottom = np.where((low <= turn) & (turn <= high), np.minimum(bottom, turned), bottom)
    ends = layer.kind == "softplus" and bool((high >= SOFTPLUS_ENDS).any())
    need(not ends, "softplus beyond 20, where torch's is another function")
    room = (wrong + more + 64 * UNIT * (1 + np.abs(low) + np.abs(high))) * (
        layer.kind in SMOOTH or layer.sided
    )
    return bottom - room, np.maximum(first, final) + room
