"""Networks of the built-in problems: the paper's all-convolutional network, and an MLP."""

from __future__ import annotations

import copy
import difflib
import itertools
import math
import operator
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from thalweg.errors import InvalidArgument
from thalweg.run.bounds import check_memory
from thalweg.run.seeds import torch_generator

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}
# On [-5, 5] training with a degree of 10 diverges in its first epoch, on [-10, 10] it does not.
POLYNOMIAL_RADIUS = 10.0
# The time of a fit grows as the third power of the degree.
_HIGHEST_DEGREE = 200


def activation_module(activation: str | nn.Module | Callable[[Tensor], Tensor]) -> nn.Module:
    """
    Give an activation by name.

    Parameters
    ----------
    activation : str, nn.Module or callable
        ``"relu"``, ``"tanh"``, ``"gelu"``, ...; ``"poly10"``: the minimax polynomial of degree 10
        for the ReLU on [-10, 10]. A module is copied, an elementwise function wrapped.

    Returns
    -------
    nn.Module
        A new module.

    Raises
    ------
    InvalidArgument
        For a name that is not known.

    Examples
    --------
    >>> activation_module("tanh")
    Tanh()
    """
    if isinstance(activation, nn.Module):
        return copy.deepcopy(activation)
    if not isinstance(activation, str):
        return _Elementwise(activation)
    if match := re.fullmatch(r"poly(\d{1,9})", activation):
        return _polynomial(int(match[1]))
    if activation not in ACTIVATIONS:
        near = difflib.get_close_matches(activation, ACTIVATIONS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InvalidArgument(
            f"activation={activation!r} is not known; {hint}write one of {', '.join(ACTIVATIONS)},"
            " or 'poly10' for a polynomial of degree 10."
        )
    return ACTIVATIONS[activation]()


class AllConv(nn.Sequential):
    """
    The paper's network: convolutions of 3x3 with stride 2, no pooling, a linear layer on top.

    With the defaults it has 188,570 trainable weights (the paper's: about 190,000).

    Parameters
    ----------
    inputs : tuple of int
        Channels, height and width of an image.
    classes : int
        Number of outputs C.
    widths : sequence of int
        Channels of each convolution; each halves height and width, rounding up.
    activation : str, nn.Module or callable
        See `activation_module`.
    batchnorm : bool
        Normalize each convolution's output; its own bias is then left out, for it has no effect.
    seed : int
        Of the initialization (He's normal for kernels; biases zero), the only randomness.

    References
    ----------
    Q. Liao and T. Poggio, Theory II: Landscape of the Empirical Risk in Deep Learning (2017).

    Examples
    --------
    >>> sum(p.numel() for p in AllConv().parameters())
    188570
    >>> AllConv((1, 8, 8), widths=(32, 64, 64))(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        inputs: tuple[int, int, int] = (3, 32, 32),
        classes: int = 10,
        widths: Sequence[int] = (64, 64, 96, 104),
        activation: str | nn.Module | Callable[[Tensor], Tensor] = "relu",
        batchnorm: bool = True,
        *,
        seed: int = 0,
    ) -> None:
        _check_sizes(widths=widths, inputs=inputs, classes=[classes])
        channels, height, width = inputs
        _check_weights([channels, *widths], 9)
        layers: dict[str, nn.Module] = {}
        for number, width_out in enumerate(widths, 1):
            layers[f"conv{number}"] = _Conv(channels, width_out, bias=not batchnorm)
            if batchnorm:
                layers[f"norm{number}"] = nn.BatchNorm2d(width_out)
            layers[f"activation{number}"] = activation_module(activation)
            channels, height, width = width_out, (height + 1) // 2, (width + 1) // 2
        layers["flatten"] = nn.Flatten()
        layers["linear"] = _Linear(channels * height * width, classes)
        super().__init__(OrderedDict(layers))
        _initialize(self, seed)


class MLP(nn.Sequential):
    """
    A fully connected network.

    Parameters
    ----------
    inputs : int
        Number of inputs; of further dimensions the product.
    widths : sequence of int
        Units of each hidden layer; none makes a linear model.
    outputs : int
        Number of outputs.
    activation : str, nn.Module or callable
        See `activation_module`.
    bias : bool
        Give each layer a bias.
    seed : int
        Of the initialization (He's normal; biases zero), the only randomness.

    Examples
    --------
    >>> MLP(4, (3,), 2)(torch.zeros(5, 4)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        outputs: int,
        activation: str | nn.Module | Callable[[Tensor], Tensor] = "relu",
        bias: bool = True,
        *,
        seed: int = 0,
    ) -> None:
        _check_sizes(widths=widths, inputs=[inputs], outputs=[outputs])
        layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        sizes = [inputs, *widths]
        _check_weights([*sizes, outputs], 1)
        for number, (size, width_out) in enumerate(itertools.pairwise(sizes), 1):
            layers[f"linear{number}"] = _Linear(size, width_out, bias=bias)
            layers[f"activation{number}"] = activation_module(activation)
        layers[f"linear{len(sizes)}"] = _Linear(sizes[-1], outputs, bias=bias)
        super().__init__(OrderedDict(layers))
        _initialize(self, seed)


class _Conv(nn.Conv2d):
    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1, bias=bias)

    def reset_parameters(self) -> None:
        """Leave it to the seeded generator: torch would draw from the global one."""


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """Leave it to the seeded generator: torch would draw from the global one."""


class _Elementwise(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(x)


@torch.no_grad()
def _initialize(network: nn.Sequential, seed: int) -> None:
    generator = torch_generator(seed, "initialization")
    layers = [m for m in network if isinstance(m, (_Conv, _Linear))]
    for layer in layers:
        # He et al. (2015), equation 10: variance 2 / fan-in keeps a ReLU's signal; the linear
        # layer on top has none behind it.
        gain = 1.0 if layer is layers[-1] else 2.0
        layer.weight.normal_(0, math.sqrt(gain / layer.weight[0].numel()), generator=generator)
        if layer.bias is not None:
            layer.bias.zero_()


def _polynomial(degree: int) -> nn.Module:
    # Imported here: the fit draws SciPy in.
    from thalweg.polynomial import PolynomialActivation, fit_polynomial

    if degree > _HIGHEST_DEGREE:
        raise InvalidArgument(
            f"a polynomial of degree {degree}: fits are made up to degree {_HIGHEST_DEGREE}; write"
            " 'poly10', for example."
        )
    return PolynomialActivation(fit_polynomial(torch.relu, degree, radius=POLYNOMIAL_RADIUS))


def _check_weights(sizes: Sequence[int], kernel: int) -> None:
    """Refuse a network that memory does not hold, with its gradient and a step's two averages."""
    weights = kernel * sum(itertools.starmap(operator.mul, itertools.pairwise(sizes)))
    layers = 10_000 * len(sizes)
    check_memory(
        4 * 4 * weights + layers,
        f"a network of widths {shown_widths(sizes[1:])} ({weights:,} weights) and its training",
        "Write smaller widths.",
    )


def shown_widths(widths: Sequence[int]) -> str:
    """
    List the first widths of a network.

    Examples
    --------
    >>> shown_widths([64] * 10)
    '64, 64, 64, 64, ... (10 layers)'
    """
    first = ", ".join(map(str, widths[:4]))
    return first + f", ... ({len(widths)} layers)" * (len(widths) > 4)


def _check_sizes(**sizes: Sequence[int]) -> None:
    for name, values in sizes.items():
        if not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values):
            raise InvalidArgument(f"{name}: got {values!r}; write positive whole numbers.")
