"""An upper bound of how far a loss can rise over a ball of weights, through a chain of layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.certificates.bounds import MarginBounds
from thalweg.certificates.chain import Chain, Layer
from thalweg.certificates.extended import Double
from thalweg.certificates.forward import Passed, run_forward
from thalweg.certificates.products import UNIT, WIDER, norm
from thalweg.errors import NotDefined, ThalwegError
from thalweg.problems.problem import Problem
from thalweg.tracing.chain import Network

Array = NDArray[np.float64]
_LOSSES = "nn.CrossEntropyLoss of class numbers, nn.MSELoss or nn.BCEWithLogitsLoss, as they come"
# Inputs of a layer, cut into patches, that are held at once.
_HELD = 10**7


@dataclass(frozen=True)
class RiseBound:
    """
    How far a loss can rise at most.

    Attributes
    ----------
    value : float or None
        No weights in the ball have a larger L(w + d) - L(w), in exact arithmetic; None where
        nothing is proved.
    reason : str
        Why there is none.
    """

    value: float | None
    reason: str = ""


def bound_rise(landscape: object, w: Tensor, scales: Tensor, length: float) -> RiseBound:
    """
    Bound the greatest rise of a loss over a ball of weights.

    The ball is that of all d with ``|d / scales| <= length``. The derivative of a layer's outputs
    in ``d / scales`` is bounded over all of it: with D that of the layer's inputs, an affine layer
    of norm omega gives ``|(lift, omega D)|``, where ``lift`` is the largest norm of its inputs
    times the scales of one row, and an activation multiplies by its largest slope. Outputs move by
    ``length D`` at most, and a sample's loss by what its own slope and its largest curvature allow.

    Parameters
    ----------
    landscape : object
        Bounded where it is an empirical risk of a chain of layers with a loss that is known.
    w, scales : Tensor
        Shape (W,); scales are not negative.
    length : float
        In units of the scales.

    Returns
    -------
    RiseBound
        A reason in words where nothing is proved.

    Examples
    --------
    One weight, the square of w - 1 at w = 2, and steps up to 1: from 1 to 4.

    >>> from thalweg import EmpiricalRisk
    >>> data = (torch.ones(1, 1), torch.ones(1, 1))
    >>> risk = EmpiricalRisk(Problem(nn.Linear(1, 1, bias=False), nn.MSELoss(), data))
    >>> bound = bound_rise(risk, torch.tensor([2.0]), torch.ones(1), 1.0)
    >>> 3.0 <= bound.value < 3.00001
    True
    """
    if not isinstance(landscape, Network):
        return RiseBound(None, "no upper bound: it is known for networks alone")
    try:
        return _bound(landscape, w, scales.detach().double().cpu(), length)
    except ThalwegError as error:
        return RiseBound(None, f"no upper bound: {str(error).partition(';')[0]}")


def _bound(risk: Any, w: Tensor, scales: Tensor, length: float) -> RiseBound:
    loss = _known_loss(risk.problem)
    read = MarginBounds(risk, w, "absolute").chain  # compares the chain with the user's module
    here = w.detach().cpu().double()
    chain, count = Chain.of(read, here), len(read.samples)
    units = [
        _units(read.tensors(link, scales), layer)
        for link, layer in zip(_affine(read), chain.layers, strict=True)
    ]
    at_once = max(
        1, _HELD // max(layer.positions * layer.weight.shape[1] for layer in chain.layers)
    )
    rises = []
    for start in range(0, count, at_once):
        stop = min(start + at_once, count)
        samples = read.inputs(start, stop).flatten(1).numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            passed, outputs, error = run_forward(chain, samples, Double(read.largest_radius))
            moved = _moved(chain, passed, units, length)
            rises.append(_rises(loss, np.asarray(outputs), error, moved, read.targets(start, stop)))
    value = float(np.concatenate(rises).mean()) * WIDER
    if not math.isfinite(value):
        return RiseBound(None, "no upper bound: the bounds of its layers overflow")
    return RiseBound(value)


def _known_loss(problem: Problem) -> nn.Module:
    """Give the criterion, where it is one whose slopes are known."""
    loss = problem.loss
    if type(loss) not in (nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss) or any(
        (
            problem.weight is not None,
            getattr(loss, "reduction", "") != "mean",
            getattr(loss, "weight", None) is not None,
            getattr(loss, "pos_weight", None) is not None,
            getattr(loss, "label_smoothing", 0.0) != 0.0,
        )
    ):
        raise NotDefined(f"the loss is not one of {_LOSSES}.")
    assert isinstance(loss, nn.Module)
    return loss


def _affine(read: Any) -> list[Any]:
    """List the links that are affine layers, as `Chain.of` takes them."""
    return [link for link in read.links if isinstance(link.module, nn.Linear | nn.Conv2d)]


def _units(scales: dict[str, Tensor], layer: Layer) -> tuple[Array, Array]:
    """Give the scales of a layer's weights, shape (out, in), and biases, (out,): 0 if fixed."""
    weight, bias = np.zeros_like(layer.weight), np.zeros_like(layer.bias)
    if "weight" in scales:
        weight = scales["weight"].flatten(1).numpy()
    if "bias" in scales:
        bias = scales["bias"].numpy()
    return weight, bias


def _moved(
    chain: Chain, passed: list[Passed], units: list[tuple[Array, Array]], length: float
) -> Array:
    """Bound how far each sample's outputs move over the ball, shape (N,)."""
    steep = moved = np.zeros(len(passed[0].size))
    for layer, layer_pass, (weight, bias) in zip(chain.layers, passed, units, strict=True):
        largest = float(weight.max(initial=0.0))
        # An error of the inputs, or their way, meets the largest scale.
        around = layer.overlap * moved + layer_pass.input_error
        lift = _lift(layer_pass.inputs, weight, bias) + largest * around
        omega = layer.gain + length * largest * layer.overlap
        steep = np.hypot(lift, omega * steep) * WIDER
        drift = length * steep
        reach = (drift + layer_pass.error) * WIDER
        slope, curvature = layer.activation.bounds(float((layer_pass.reach + reach).max()))
        slopes = np.full_like(steep, slope)
        if not layer.activation.sided:
            slopes = np.minimum(slopes, layer_pass.steepest + curvature * reach)
        steep = slopes * steep * WIDER
        moved = length * steep * WIDER
    return moved


def _lift(inputs: Array, weight: Array, bias: Array) -> Array:
    """Bound the largest norm of one row's scales times its inputs, at all places: shape (N,)."""
    squares = np.square(inputs).sum(axis=1) @ np.square(weight).T
    squares = squares + inputs.shape[1] * np.square(bias)
    return np.asarray(np.sqrt(squares.max(axis=1)) * WIDER)


def _rises(loss: nn.Module, outputs: Array, error: Array, moved: Array, targets: Tensor) -> Array:
    """Bound each sample's rise by its slope in the outputs and the largest curvature."""
    way = (moved + 2 * error) * WIDER  # the outputs at w are known up to their error
    if type(loss) is nn.CrossEntropyLoss:
        slopes = _slopes_of_classes(loss, outputs, targets)
        # The Hessian of log-sum-exp has no eigenvalue above 1/2, its gradient no entry above 1.
        return np.minimum((slopes + error) * way + way**2 / 4, math.sqrt(2) * way) * WIDER
    wanted = targets.reshape(len(outputs), -1).double().numpy()
    if wanted.shape != outputs.shape:
        raise NotDefined(f"targets have shape {wanted.shape}, outputs {outputs.shape}.")
    entries = outputs.shape[1]
    if type(loss) is nn.MSELoss:
        slopes = 2 * (norm(outputs - wanted, axis=1) + error)
        return np.asarray((slopes * way + way**2) / entries * WIDER)
    if wanted.min() < 0 or wanted.max() > 1:
        raise NotDefined("targets of nn.BCEWithLogitsLoss lie outside of [0, 1].")
    probabilities = torch.from_numpy(outputs).sigmoid().numpy()
    slopes = norm(probabilities - wanted, axis=1) + 16 * entries * UNIT
    return np.asarray(
        np.minimum((slopes + error) * way + way**2 / 8, math.sqrt(entries) * way) / entries * WIDER
    )


def _slopes_of_classes(loss: nn.Module, outputs: Array, targets: Tensor) -> Array:
    """Give the norm of each sample's gradient of the cross entropy in its outputs, from above."""
    classes = outputs.shape[1]
    known = targets.dim() == 1 and not targets.is_floating_point()
    if not known or int(targets.min()) < 0 or int(targets.max()) >= classes:
        raise NotDefined(f"targets are not class numbers from 0 to {classes - 1}.")
    slopes = torch.from_numpy(outputs).softmax(1)
    slopes[torch.arange(len(slopes)), targets.long()] -= 1.0
    return np.asarray(norm(slopes.numpy(), axis=1) + 16 * classes * UNIT)
