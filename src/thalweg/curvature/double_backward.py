"""Functions that torch differentiates twice wrongly, or not at all, written out as right ones."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


def _squared_loss(
    input: Tensor, target: Tensor, *legacy: Any, reduction: str = "mean", **options: Any
) -> Tensor:
    """Spell out ``F.mse_loss``: torch crashes where its second derivative is traced (2.13)."""
    if legacy or any(option is not None for option in options.values()):
        torchs: Callable[..., Tensor] = partial(F.mse_loss, reduction=reduction, **options)
        return torchs(input, target, *legacy)
    squares = (input - target).square()
    reduced = {"mean": squares.mean, "sum": squares.sum}
    return reduced[reduction]() if reduction in reduced else squares


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Spell out weight norm: torch's second derivative of it is not even symmetric (2.13)."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _dense(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Take gradients whole that a call asks to be sparse: these cannot be viewed, nor summed."""
    signature = inspect.signature(function)

    def call(*args: Any, **options: Any) -> Tensor:
        given = signature.bind(*args, **options)
        if given.arguments.get("sparse"):
            given.arguments["sparse"] = False
        return function(*given.args, **given.kwargs)

    return call


def _gather(input: Tensor, *args: Any, sparse_grad: bool = False, **options: Any) -> Tensor:
    """Take the gradient whole, as `_dense` does."""
    return torch.gather(input, *args, **options)


_WRITTEN_OUT: dict[Callable[..., Any], Callable[..., Any]] = {
    F.mse_loss: _squared_loss,
    torch._weight_norm: _weight_norm,
    F.embedding: _dense(F.embedding),
    F.embedding_bag: _dense(F.embedding_bag),
    torch.gather: _gather,
    Tensor.gather: _gather,
}


class _WrittenOut(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _WRITTEN_OUT.get(func, func)(*args, **(kwargs or {}))


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """
    Choose, among equal functions, those that torch can differentiate twice and trace.

    Attention is computed by its formula: the fused kernels have no second derivative.
    """
    with sdpa_kernel(SDPBackend.MATH), _WrittenOut():
        yield


@cache
def load_forward_mode() -> None:
    """Import torch's forward-mode rules, which are scripted at first use: torch warns of itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")
