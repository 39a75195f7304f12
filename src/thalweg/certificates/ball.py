"""How far a network's Jacobian can move over a ball of weights: bounds through the layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.certificates.chain import Chain, Layer
from thalweg.certificates.forward import Passed
from thalweg.certificates.nonlinearity import SOFTPLUS_ENDS
from thalweg.certificates.products import WIDER, norm

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ball:
    """
    What holds for all weights within a distance.

    Attributes
    ----------
    radius : float
        The distance rho, Euclidean.
    lipschitz : float
        Of the Jacobian J of all outputs of all samples: ``|J(w) - J(w')|_F <= lipschitz |w - w'|``.
    changes : int
        Units of some sample that may leave the piece of their activation: change the side of zero
        where it has two, or pass 20, where torch's softplus is another function.
    moved : ndarray
        How far the inputs of the last layer move, shape (N,).
    """

    radius: float
    lipschitz: float
    changes: int
    moved: Array


def bound_ball(chain: Chain, passed: list[Passed], radius: float) -> Ball:
    """
    Propagate bounds of values, first and second derivatives in w through the layers.

    With ``D`` and ``S`` bounds of the norms of the first and second derivative of a layer's
    inputs, an affine layer of norm ``omega`` gives ``D' = |(|(a, 1)|, omega D)|`` and, since the
    mixed derivative of ``W a`` is ``V Da``, ``S' = (omega S + ((omega S)^2 + 4 D^2)^(1/2)) / 2``;
    an activation gives ``sup|phi'| D'`` and ``sup|phi''| D_unit D' + sup|phi'| S'``, with
    ``D_unit`` the largest norm of one unit's derivative.

    Parameters
    ----------
    chain : Chain
        At the ball's centre.
    passed : list of Passed
        Its forward pass there.
    radius : float
        Of the ball.
    """
    samples = len(passed[0].size)
    moved = first = second = np.zeros(samples)
    changes, before = 0, moved
    for layer, layer_pass in zip(chain.layers, passed, strict=True):
        before = moved
        moved, first, second, sides = _through(layer, layer_pass, radius, (moved, first, second))
        changes += sides
    lipschitz = float(norm(second)) * WIDER
    return Ball(radius, lipschitz, changes, before)


State = tuple[Array, Array, Array]


def _through(
    layer: Layer, layer_pass: Passed, radius: float, state: State
) -> tuple[Array, Array, Array, int]:
    moved, first, second = state
    grown = radius if layer.trained[0] else 0.0
    omega = layer.gain + grown * layer.overlap
    lift = _lift(layer, layer_pass.size + layer_pass.input_error)
    shift = radius * lift + omega * moved
    lift = lift + layer.overlap * moved
    steep = np.hypot(lift, omega * first)
    widest = layer_pass.widest + layer_pass.input_error + layer.overlap * moved
    row = float(norm(layer.weight, axis=1).max()) + grown
    unit = np.hypot(widest * any(layer.trained), row * first)
    drift = radius * widest * any(layer.trained) + row * moved
    mixed = layer.overlap * first * layer.trained[0]
    carried = omega * second
    bent = (carried + np.sqrt(carried**2 + 4 * mixed**2)) / 2
    activation, around = layer.activation, (np.minimum(drift, shift) + layer_pass.error) * WIDER
    slope_bound, curvature = activation.bounds(float((layer_pass.reach + around).max()))
    near = layer_pass.steepest + curvature * around
    slope = np.full_like(near, slope_bound) if activation.sided else np.minimum(slope_bound, near)
    sides = int((layer_pass.gap <= around).sum()) if activation.sided else 0
    if activation.kind == "softplus":
        sides = int((layer_pass.reach + around >= SOFTPLUS_ENDS).sum())
    return (
        slope * shift * WIDER,
        slope * steep * WIDER,
        (curvature * unit * steep + slope * bent) * WIDER,
        sides,
    )


def _lift(layer: Layer, size: Array) -> Array:
    """Bound how much a change of the layer's own weights moves its outputs."""
    weight, bias = layer.trained
    return np.asarray(np.sqrt(weight * size**2 + bias * layer.positions))


def second_derivatives(chain: Chain, passed: list[Passed]) -> list[float]:
    """Bound each activation's second derivative as far as the pre-activations' errors reach."""
    return [
        layer.activation.bounds(float((layer_pass.reach + layer_pass.error).max()))[1]
        for layer, layer_pass in zip(chain.layers, passed, strict=True)
    ]
