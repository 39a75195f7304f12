"""Functions that are layers written another way: ``F.relu(x)`` is ``nn.ReLU()(x)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
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


def with_tensors(
    op: str, step: fx.Node, tensors: Mapping[fx.Node, Tensor], rank: int
) -> nn.Module | None:
    """
    Write a function of one tensor and of weights as a module that holds these.

    Parameters
    ----------
    op : str
        Torch's name of it.
    step : fx.Node
        Its arguments.
    tensors : mapping of fx.Node to Tensor
        Those of its arguments that are tensors of the model.
    rank : int
        Number of dimensions of what it is applied to.

    Returns
    -------
    nn.Module or None
        None where no module is known to do the same.
    """
    arguments = _arguments(op, step)
    modules_tensors = {
        k: tensors.get(arguments[k]) for k in _HELD if isinstance(arguments.get(k), fx.Node)
    }
    if (
        op not in _BUILDERS
        or modules_tensors.get("weight") is None
        or None in modules_tensors.values()
    ):
        return None
    module = _BUILDERS[op](modules_tensors["weight"], arguments, rank)
    if module is None:
        return None
    for name in _HELD:
        if name in modules_tensors or hasattr(module, name):
            setattr(module, name, modules_tensors.get(name))
    return module.eval()


def _arguments(op: str, step: fx.Node) -> dict[str, Any]:
    """Give a function's arguments by name: torch.export's operators order some otherwise."""
    schema = getattr(step.target, "_schema", None)
    names = _SIGNATURES.get(op, ()) if schema is None else [a.name for a in schema.arguments]
    return dict(zip(names, step.args, strict=False)) | dict(step.kwargs)


def _linear(weight: Any, arguments: Mapping[str, Any], rank: int) -> nn.Module | None:
    if weight.dim() != 2:
        return None
    outputs, inputs = weight.shape
    return nn.Linear(inputs, outputs, device="meta")


def _convolution(weight: Any, arguments: Mapping[str, Any], rank: int) -> nn.Module | None:
    if rank != weight.dim():  # a sample without a batch around it
        return None
    names = ("stride", "padding", "dilation", "groups")
    options: dict[str, Any] = {name: arguments[name] for name in names if name in arguments}
    channels, size = weight.shape[1] * options.get("groups", 1), tuple(weight.shape[2:])
    kind: Any = _CONVOLUTIONS[rank]
    module: nn.Module = kind(channels, len(weight), size, **options, device="meta")
    return module


def _batch_norm(weight: Any, arguments: Mapping[str, Any], rank: int) -> nn.Module | None:
    stored = isinstance(arguments.get("running_mean"), fx.Node)
    if arguments.get("training", False) is not False or not stored:
        return None
    return _NORMS[rank](len(weight), eps=float(arguments.get("eps", 1e-5)), device="meta")


def _layer_norm(weight: Any, arguments: Mapping[str, Any], rank: int) -> nn.Module | None:
    return nn.LayerNorm(tuple(weight.shape), eps=float(arguments.get("eps", 1e-5)), device="meta")


def _group_norm(weight: Any, arguments: Mapping[str, Any], rank: int) -> nn.Module | None:
    groups, eps = arguments["num_groups"], float(arguments.get("eps", 1e-5))
    return nn.GroupNorm(groups, len(weight), eps=eps, device="meta")


def _embedding(weight: Any, arguments: Mapping[str, Any], rank: int) -> nn.Module | None:
    if arguments.get("max_norm") is not None:
        return None
    rows, columns = weight.shape
    return nn.Embedding(rows, columns, device="meta")


# Tensors that a layer may hold.
_HELD = ("weight", "bias", "running_mean", "running_var")
_CONVOLVED = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_SIGNATURES: dict[str, tuple[str, ...]] = {
    "linear": ("input", "weight", "bias"),
    "embedding": ("input", "weight", "padding_idx", "max_norm"),
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
    "batch_norm": (
        *("input", "running_mean", "running_var", "weight", "bias"),
        *("training", "momentum", "eps"),
    ),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _CONVOLVED),
}
_BUILDERS: dict[str, Callable[[Any, Mapping[str, Any], int], nn.Module | None]] = {
    "linear": _linear,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
}


def _with_options(kind: type[nn.Module], names: tuple[str, ...], step: fx.Node) -> nn.Module | None:
    options = dict(zip(names, step.args[1:], strict=False)) | dict(step.kwargs)
    for unused in ("inplace", "return_indices"):
        if options.get(unused) is False or unused == "inplace":
            options.pop(unused, None)
    in_place_last = len(step.args) == len(names) + 2 and isinstance(step.args[-1], bool)
    if set(options) - set(names) or len(step.args) > len(names) + 1 + in_place_last:
        return None
    if options.get("stride", 1) in ([], None):  # the size of the kernel
        del options["stride"]
    return kind(**options)


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
