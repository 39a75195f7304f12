"""PyTorch models as networks with polynomial activations, and solutions loaded back into them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.layers import Layer, convolution, dense
from thalweg.algebra.network import Network, coefficients
from thalweg.algebra.system import ZeroSystem
from thalweg.errors import InvalidArgument, NotPolynomial

if TYPE_CHECKING:
    from torch import nn


def read_model(model: nn.Sequential, *, shape: Sequence[int] = ()) -> Network:
    """Architecture of a model made of linear layers and one polynomial activation.

    Parameters
    ----------
    model
        A `torch.nn.Sequential` of Linear, Conv1d, Conv2d, Flatten, and
        `thalweg.polynomial.PolynomialActivation` after every layer but the last; without any
        activation it is a linear network.
    shape
        Size of the input along each axis of the grid, for convolutions: ``(28, 28)``.

    Raises
    ------
    NotPolynomial
        For other activations and modules, and for activations that differ.
    InvalidArgument
        For convolutions with groups, dilation or another padding than zeros, or without `shape`.

    Examples
    --------
    >>> from torch import nn
    >>> from thalweg.polynomial import PolynomialActivation
    >>> cube = PolynomialActivation.from_coefficients([0, 0, 0, 1])
    >>> model = nn.Sequential(nn.Linear(2, 3), cube, nn.Linear(3, 1, bias=False))
    >>> read_model(model).size
    12
    """
    layers: list[Layer] = []
    activations: list[tuple[Fraction, ...]] = []
    grid = tuple(shape)
    for place, module in enumerate(model):
        kind = type(module).__name__
        if kind in ("Linear", "Conv1d", "Conv2d"):
            layer, grid = _layer(module, kind, grid, layers)
            layers.append(layer)
        elif hasattr(module, "basis") and hasattr(module, "coefficients"):
            if len(activations) != len(layers) - 1:
                raise _between(place)
            activations.append(_power_basis(module))
        elif kind not in ("Flatten", "Identity"):
            raise NotPolynomial(
                f"Module {place} is {kind}; expected Linear, Conv1d, Conv2d, Flatten or a"
                " PolynomialActivation. Put polynomials in place of other activations with"
                " thalweg.polynomial.replace_activations."
            )
    if not layers or len(activations) not in (0, len(layers) - 1):
        raise _between(len(model))
    if len(set(activations)) > 1:
        raise NotPolynomial("The activations differ; expected one polynomial for all layers.")
    return Network(tuple(layers), activations[0] if activations else coefficients((0, 1)))


def load_solution(
    model: nn.Sequential, system: ZeroSystem, weights: Array, signs: Array | None = None
) -> None:
    """Write a real solution into the model that the system's network was read from.

    Parameters
    ----------
    model
        Changed in place; gauge-fixed weights become `signs`, 1 by default.
    system
        The system that was solved.
    weights
        Free weights, real, shape (W,).
    signs
        Values of the fixed weights.

    Raises
    ------
    InvalidArgument
        If the model has other layers than the system's network.
    """
    import torch

    modules: list[Any] = [m for m in model if hasattr(m, "weight")]
    parts = system.layers(np.asarray(weights, dtype=float), signs)
    if len(modules) != len(parts) or any(
        m.weight.numel() != kernel.size or (m.bias is None) != (bias is None)
        for m, (kernel, bias) in zip(modules, parts, strict=False)
    ):
        raise InvalidArgument(
            f"The model has {len(modules)} layers of weights; expected the {len(parts)} of the"
            " system's network, each of the same size: give the model that read_model read."
        )
    with torch.no_grad():
        for module, (kernel, bias) in zip(modules, parts, strict=True):
            module.weight.copy_(torch.from_numpy(kernel.copy()).reshape(module.weight.shape))
            if bias is not None:
                module.bias.copy_(torch.from_numpy(bias.copy()))


def _between(place: int) -> NotPolynomial:
    return NotPolynomial(
        f"Before module {place}: expected a PolynomialActivation after every layer but the last, or"
        " none at all (a linear network)."
    )


def _layer(
    module: Any, kind: str, grid: tuple[int, ...], before: list[Layer]
) -> tuple[Layer, tuple[int, ...]]:
    bias = module.bias is not None
    if kind == "Linear":
        channels = before[-1].channels_out if before and grid else module.in_features
        layer = dense(
            channels, module.out_features, bias=bias, positions=module.in_features // channels
        )
        return layer, ()
    axes = len(module.kernel_size)
    plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
    if len(grid) != axes or not plain or isinstance(module.padding, str):
        raise InvalidArgument(
            f"{module}: expected a plain convolution (one group, no dilation, zero padding given in"
            f" numbers) and shape= with {axes} numbers; got shape {grid}."
        )
    layer = convolution(
        module.in_channels,
        module.out_channels,
        shape=grid,
        kernel=module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        bias=bias,
    )
    sizes = zip(grid, module.kernel_size, module.stride, module.padding, strict=True)
    return layer, tuple((size + 2 * p - k) // s + 1 for size, k, s, p in sizes)


def _power_basis(module: Any) -> tuple[Fraction, ...]:
    values = module.coefficients.detach().double().numpy()
    if module.basis == "chebyshev":
        values = np.polynomial.chebyshev.cheb2poly(values)
        values = values / float(module.radius) ** np.arange(len(values))
    return coefficients([float(v) for v in values])
