"""Functions that are layers written another way: ``F.relu(x)`` is ``nn.ReLU()(x)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

Shape = tuple[int, ...]

# By torch's name of the function: the module, and its options in the order of the function.
_OPTIONS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "avg_pool2d": (
        nn.AvgPool2d,
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    ),
    "celu": (nn.CELU, ("alpha",)),
    "elu": (nn.ELU, ("alpha",)),
    "gelu": (nn.GELU, ("approximate",)),
    "leaky_relu": (nn.LeakyReLU, ("negative_slope",)),
    "max_pool2d": (nn.MaxPool2d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
    "relu": (nn.ReLU, ()),
    "relu6": (nn.ReLU6, ()),
    "selu": (nn.SELU, ()),
    "sigmoid": (nn.Sigmoid, ()),
    "silu": (nn.SiLU, ()),
    "softplus": (nn.Softplus, ("beta", "threshold")),
    "tanh": (nn.Tanh, ()),
}
_CONVOLUTIONS: dict[str, Callable[..., nn.Module]] = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
}
_GEOMETRY = ("stride", "padding", "dilation", "groups")
_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout")
_MOVES = ("flatten", "getitem", "reshape", "select", "slice", "squeeze", "unsafe_view", "unsqueeze")
_SAME = ("alias", "clone", "contiguous")


class Reshape(nn.Module):
    """
    Give each sample another shape, its entries in their order.

    Parameters
    ----------
    shape : tuple of int
        Of a sample.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Reshape (n, ...) to (n, *shape)."""
        return x.reshape(len(x), *self.shape)


def as_module(op: str, step: fx.Node, before: Shape, after: Shape) -> nn.Module | None:
    """
    Write a function of one tensor as a module.

    Parameters
    ----------
    op : str
        Torch's name of it.
    step : fx.Node
        Its arguments.
    before, after : tuple of int
        Shapes of what it reads and gives, samples first.

    Returns
    -------
    nn.Module or None
        None where no module is known to do the same.
    """
    if op in _SAME or (op in _DROPOUTS and _off(step)):
        return nn.Identity()
    if op in (*_MOVES, "view"):
        return _moved(op, step, before, after)
    return _with_options(*_OPTIONS[op], step) if op in _OPTIONS else None


def with_tensors(op: str, step: fx.Node, tensors: Sequence[Tensor], rank: int) -> nn.Module | None:
    """
    Write a function of one tensor and of weights as a module that holds these.

    Parameters
    ----------
    op : str
        Torch's name of it.
    step : fx.Node
        Its arguments.
    tensors : sequence of Tensor
        Weight, bias, ... in the order of the function.
    rank : int
        Number of dimensions of what it reads.

    Returns
    -------
    nn.Module or None
        None where no module is known to do the same.
    """
    module: nn.Module
    weight = tensors[0]
    if op == "linear" and weight.dim() == 2:
        outputs, inputs = weight.shape
        module = nn.Linear(inputs, outputs, device="meta")
        return _holding(module, {"weight": weight, "bias": _second(tensors)})
    if op in _CONVOLUTIONS and rank == weight.dim():
        given = dict(zip(_GEOMETRY, step.args[3:], strict=False)) | _only(step.kwargs, _GEOMETRY)
        options: dict[str, Any] = given | {"device": "meta"}
        channels = weight.shape[1] * options.get("groups", 1)
        module = _CONVOLUTIONS[op](channels, len(weight), tuple(weight.shape[2:]), **options)
        return _holding(module, {"weight": weight, "bias": _second(tensors)})
    if op == "batch_norm" and len(tensors) == 4 and step.args[5] is False:
        module = _NORMS[rank](len(weight), eps=float(step.args[7]), device="meta")  # type: ignore[arg-type]
        names = ("weight", "bias", "running_mean", "running_var")
        return _holding(module, dict(zip(names, tensors, strict=True))).eval()
    return None


def _second(tensors: Sequence[Tensor]) -> Tensor | None:
    return tensors[1] if len(tensors) > 1 else None


def _only(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in names}


def _holding(module: nn.Module, tensors: Mapping[str, Tensor | None]) -> nn.Module:
    for name, tensor in tensors.items():
        setattr(module, name, tensor)
    return module


def _with_options(kind: type[nn.Module], names: tuple[str, ...], step: fx.Node) -> nn.Module | None:
    given = dict(zip(names, step.args[1:], strict=False)) | dict(step.kwargs)
    for unused in ("inplace", "return_indices"):
        if given.get(unused) is False or unused == "inplace":
            given.pop(unused, None)
    in_place_last = len(step.args) == len(names) + 2 and isinstance(step.args[-1], bool)
    if set(given) - set(names) or len(step.args) > len(names) + 1 + in_place_last:
        return None
    if given.get("stride", 1) in ([], None):  # the size of the kernel
        del given["stride"]
    return kind(**given)


def _off(step: fx.Node) -> bool:
    training = step.kwargs.get("training", step.kwargs.get("train", True))
    return (step.args[2] if len(step.args) > 2 else training) is False


def _moved(op: str, step: fx.Node, before: Shape, after: Shape) -> nn.Module | None:
    """Reshape, if the entries of a sample are all there, in their order, and with their sample."""
    chosen = step.args[1] if op == "getitem" else ()
    parts = chosen if isinstance(chosen, tuple) else (chosen,)
    if any(isinstance(part, list | fx.Node) for part in parts):  # a selection in any order
        return None
    if before[:1] != after[:1] or math.prod(before) != math.prod(after):
        return None
    if before == after:
        return nn.Identity()
    return nn.Flatten() if len(after) == 2 else Reshape(after[1:])
