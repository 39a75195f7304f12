"""Float32 is multiplied in float32: not in the shorter formats that torch may use instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any

import torch

_CUDNN: Any = torch.backends.cudnn
_MKLDNN: Any = torch.backends.mkldnn


def full_precision() -> AbstractContextManager[None]:
    """
    Multiply float32 in float32, by kernels that give the same bits each time.

    On GPUs torch convolves float32 in TF32, with 10 bits of mantissa, unless it is told otherwise,
    and ``torch.set_float32_matmul_precision`` allows such formats in products of matrices, on CPUs
    too: losses are then right to three digits, and differences of them are not right at all. What
    was set before holds again after the block.
    """
    return nullcontext() if _is_full() else _made_full()


def _is_full() -> bool:
    """Say whether there is nothing to set: 3 microseconds, where setting all takes 34."""
    if _has_gpu():
        return False
    if hasattr(_MKLDNN, "conv"):
        places: tuple[Any, ...] = (torch.backends, _MKLDNN.matmul, _MKLDNN.conv, _MKLDNN.rnn)
        if any(place.fp32_precision not in ("none", "ieee") for place in places):
            return False
    return torch.get_float32_matmul_precision() == "highest"


@cache
def _has_gpu() -> bool:
    return torch.cuda.is_available()


@contextmanager
def _made_full() -> Iterator[None]:
    with ExitStack() as stack:
        for kernel in _kernels():
            stack.callback(setattr, kernel, "fp32_precision", kernel.fp32_precision)
        for read, write, exact in _OF_ALL_KERNELS:
            # torch refuses to read them where single kernels have been set, which then rule.
            with suppress(RuntimeError):
                stack.callback(write, read())
                write(exact)
        for kernel in _kernels():
            kernel.fp32_precision = "ieee"
        yield


def _kernels() -> list[Any]:
    """What has a precision of its own, since torch 2.9."""
    if not hasattr(_CUDNN, "conv"):
        return []
    products: Any = torch.backends.cuda.matmul
    return [products, _CUDNN.conv, _CUDNN.rnn, _MKLDNN.matmul, _MKLDNN.conv, _MKLDNN.rnn]


# How a setting of all kernels is read and written, and what of it is exact.
_OF_ALL_KERNELS: list[tuple[Callable[[], Any], Callable[[Any], None], Any]] = [
    (lambda: _CUDNN.deterministic, lambda yes: setattr(_CUDNN, "deterministic", yes), True),
    (lambda: _CUDNN.allow_tf32, lambda yes: setattr(_CUDNN, "allow_tf32", yes), False),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
]
