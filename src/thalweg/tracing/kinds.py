"""Kinds of modules and functions, by what they do to channels."""

from __future__ import annotations

from torch import nn

from thalweg.polynomial import PolynomialActivation
from thalweg.tracing.layers import DROPOUTS

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
AVERAGE_POOLS = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
)
MAXIMUM_POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
)
POOLS = (*AVERAGE_POOLS, *MAXIMUM_POOLS)
SAME = (nn.Identity, *DROPOUTS)
HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.PReLU)
ELEMENTWISE_BENT = (
    *(nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus, nn.ELU, nn.SELU, nn.CELU, nn.ReLU6),
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Mish),
    *(nn.Softsign, nn.LogSigmoid, nn.Tanhshrink),
)
ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, *ELEMENTWISE_BENT)
# No factor passes these, as everybody knows: nothing is missed where they stand.
BENT = (*ELEMENTWISE_BENT, nn.Softmax, nn.LogSoftmax, PolynomialActivation)
BENT_FUNCTIONS = frozenset({"softmax", "log_softmax", "sin", "cos", "exp", "erf", "abs", "rsub"})
# Functions that move entries about: they are applied to numbers of channels as they are.
MOVES = frozenset(
    {
        *("cat", "chunk", "clone", "concat", "contiguous", "expand", "expand_as", "flatten"),
        *("getitem", "movedim", "narrow", "permute", "repeat", "reshape", "reshape_as", "select"),
        *("slice", "split", "split_with_sizes", "squeeze", "stack", "swapaxes", "t", "transpose"),
        *("unbind", "unflatten", "unsafe_view", "unsqueeze", "view", "view_as", "alias", "detach"),
        *("Flatten", "Unflatten"),
    }
)
JOINS = frozenset({"cat", "concat", "stack", "expand_as", "reshape_as", "view_as"})
AVERAGES = frozenset({"mean", "sum"})
ADDS = frozenset({"add", "sub"})
ATTENTION = "scaled_dot_product_attention"
