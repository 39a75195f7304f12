r"""
Interval bounds of a network's layers over a box of weights, in centre and radius, rounding counted.

A tensor of intervals is a centre c and a radius r >= 0. Every rule gives a centre and a radius such
that the exact result lies inside for every weight in the box and every input in its interval: what
float64 arithmetic may have done wrong is added to the radius. With n products summed in any order,
the computed sum misses the exact one by at most :math:`\gamma_n \sum |a_i b_i|`,
:math:`\gamma_n = n u / (1 - n u)`, u = 2**-53 (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, equation 3.5). The rules of interval products are those of Rump (BIT 39, 1999).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.certificates.activations import enclose_activation, is_activation
from thalweg.errors import NotDefined
from thalweg.tracing.functions import Reshape
from thalweg.tracing.layers import DROPOUTS, layer_type

UNIT = 2.0**-53
# Of denormal numbers, where relative bounds end.
TINY = 1e-300
_CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_KEPT = (nn.Identity, *DROPOUTS)
_MOVED = (nn.Flatten, nn.Unflatten, Reshape)
_MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_MEANS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


def gamma(n: int) -> float:
    """Give the factor of the rounding bound of n operations, with twice its room."""
    return 2 * n * UNIT


@dataclass(frozen=True)
class Box:
    """
    A tensor of intervals.

    Attributes
    ----------
    center, radius : Tensor
        float64, one shape; radius is not negative.
    """

    center: Tensor
    radius: Tensor

    @classmethod
    def point(cls, x: Tensor) -> Box:
        """Give the box that holds ``x`` alone."""
        return cls(x, torch.zeros_like(x))

    @classmethod
    def between(cls, low: Tensor, high: Tensor) -> Box:
        """Give a box that holds ``[low, high]``."""
        center = (low + high) / 2
        radius = torch.maximum(high - center, center - low)
        return cls(center, radius * (1 + 4 * UNIT) + TINY)

    @property
    def low(self) -> Tensor:
        """Lower bounds, rounded down."""
        low = self.center - self.radius
        return low - 2 * UNIT * low.abs()

    @property
    def high(self) -> Tensor:
        """Upper bounds, rounded up."""
        high = self.center + self.radius
        return high + 2 * UNIT * high.abs()

    def map(self, function: Callable[[Tensor], Tensor]) -> Box:
        """Move entries about."""
        return Box(function(self.center), function(self.radius))


def propagate(module: nn.Module, weights: dict[str, Tensor], half: dict[str, float], x: Box) -> Box:
    """
    Bound a layer's outputs.

    Parameters
    ----------
    module : nn.Module
        Linear, convolution, batch norm in evaluation mode, activation, pooling or flattening.
    weights : dict of str to Tensor
        Its trainable tensors, float64; those it has beyond are fixed.
    half : dict of str to float
        Half-width of the interval around every entry of each of them.
    x : Box
        Its inputs.

    Returns
    -------
    Box
        Its outputs.

    Raises
    ------
    NotDefined
        If no rule is known for the layer.
    """
    kind = layer_type(module)
    if kind in _KEPT:
        return x
    if kind in _MOVED:
        return x.map(module)
    if kind is nn.Linear:
        return _affine(module, F.linear, weights, half, x)
    if kind is nn.Embedding:
        return _looked_up(module, weights, half, x)
    if kind in _CONVOLUTIONS:
        return _affine(module, _convolution(module), weights, half, x)
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and kind in _NORMS:
        return _batch_norm(module, weights, half, x)
    if kind in _MAXIMA:
        return Box.between(module(x.low), module(x.high))
    if kind in _MEANS:
        return _mean(module, x)
    if is_activation(module):
        return Box.between(*enclose_activation(module, x.low, x.high))
    raise NotDefined(
        f"no interval rule for a layer of type {type(module).__name__}; known are linear and"
        " convolutional layers, embeddings, batch norm with frozen statistics, pooling,"
        " flattening, and the activations ReLU, LeakyReLU, ELU, SELU, GELU, SiLU, softplus, tanh,"
        " sigmoid and polynomials."
    )


def bound_product(
    linear: Callable[[Tensor, Tensor], Tensor], matrix: Tensor, half: float | Tensor, x: Box
) -> Box:
    """
    Bound ``linear(x, matrix)``, a sum of products, over a box of matrices.

    Parameters
    ----------
    linear : callable
        Bilinear; each of its entries is a sum of one product for each entry of ``matrix[0]``.
    matrix : Tensor
        float64, shape (outputs, ...).
    half : float or Tensor
        Half-width around every entry of it; a tensor has shape (outputs, 1, ...).
    x : Box
        The other factor.

    Returns
    -------
    Box
        Shape of ``linear(x.center, matrix)``.
    """
    terms = matrix[0].numel()
    size = x.center.abs()
    center = linear(x.center, matrix)
    # The first addend bounds rounding of the centre with it.
    radius = linear(x.radius + gamma(terms + 2) * size, matrix.abs())
    if not isinstance(half, float):
        radius = radius + linear(size + x.radius, half.expand_as(matrix))
    elif half:
        radius = radius + linear(size + x.radius, torch.full_like(matrix[:1], half))
    return Box(center, radius * (1 + gamma(terms + 8)) + TINY)


def _affine(
    module: nn.Module,
    linear: Callable[[Tensor, Tensor], Tensor],
    weights: dict[str, Tensor],
    half: dict[str, float],
    x: Box,
) -> Box:
    matrix, bias = _tensor(module, "weight", weights), _tensor(module, "bias", weights)
    assert matrix is not None
    if not matrix.numel():
        raise NotDefined(f"{module} has a width of zero: expected at least one input and output.")
    groups = int(getattr(module, "groups", 1))
    width: float | Tensor = half.get("weight", 0.0)
    if groups > 1:  # one row cannot stand for those of all groups
        width = torch.full_like(matrix[:, :1], float(width))
    product = bound_product(linear, matrix, width, x)
    if bias is None:
        return product
    bias = bias.view(-1, *(1,) * (matrix.dim() - 2))
    radius = product.radius + half.get("bias", 0.0)
    return _rounded(product.center + bias, radius)


def _convolution(module: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) or module.padding_mode != "zeros":
        raise NotDefined(
            f"no interval rule for {module}: convolutions are bounded with padding_mode='zeros'."
        )
    function = next(f for kind, f in _CONVOLUTIONS.items() if isinstance(module, kind))
    stride, padding, dilation = module.stride, module.padding, module.dilation
    groups = module.groups

    def convolve(x: Tensor, matrix: Tensor) -> Tensor:
        return function(x, matrix, None, stride, padding, dilation, groups)

    return convolve


def _looked_up(
    module: nn.Module, weights: dict[str, Tensor], half: dict[str, float], x: Box
) -> Box:
    """Read rows of a table by the numbers of tokens, which are exact."""
    if getattr(module, "max_norm", None) is not None:
        raise NotDefined(
            "no interval rule for an Embedding with max_norm, which changes its weights; make it"
            " without max_norm."
        )
    table = _tensor(module, "weight", weights)
    assert table is not None
    center = F.embedding(x.center, table)
    return Box(center, torch.full_like(center, half.get("weight", 0.0)))


def _batch_norm(
    module: nn.modules.batchnorm._BatchNorm,
    weights: dict[str, Tensor],
    half: dict[str, float],
    x: Box,
) -> Box:
    if module.running_mean is None or module.running_var is None:
        raise NotDefined(
            "batch norm without running statistics mixes samples: no interval rule. Write"
            " track_running_stats=True, and EmpiricalRisk(problem, batchnorm='frozen')."
        )
    shape = (1, -1, *(1,) * (x.center.dim() - 2))
    mean, inverse = module.running_mean.view(shape), (module.running_var + module.eps).rsqrt()
    # Square root and division are within 4 units of the exact ones.
    inverse = inverse.view(shape)
    shifted = _rounded(x.center - mean, x.radius)
    error = 8 * UNIT * shifted.center.abs()
    normal = _rounded(shifted.center * inverse, (shifted.radius + error) * inverse)
    scale, shift = _tensor(module, "weight", weights), _tensor(module, "bias", weights)
    if scale is None or shift is None:
        return normal
    scale, shift = scale.view(shape), shift.view(shape)
    width = half.get("weight", 0.0) * (normal.center.abs() + normal.radius)
    scaled = _rounded(scale * normal.center, scale.abs() * normal.radius + width)
    return _rounded(scaled.center + shift, scaled.radius + half.get("bias", 0.0))


def _mean(module: nn.Module, x: Box) -> Box:
    terms = x.center[0].numel()
    center = module(x.center)
    radius = module(x.radius + gamma(terms) * x.center.abs()) * (1 + gamma(terms))
    return Box(center, radius + TINY)


def _rounded(center: Tensor, radius: Tensor) -> Box:
    """Take up the rounding of one addition or multiplication, and of a few in the radius."""
    return Box(center, radius * (1 + 16 * UNIT) + 2 * UNIT * center.abs() + TINY)


def _tensor(module: nn.Module, name: str, weights: dict[str, Tensor]) -> Tensor | None:
    fixed: Tensor | None = getattr(module, name)
    return weights[name] if name in weights else None if fixed is None else fixed.detach()
