"""Float32 is multiplied in float32: not in the shorter formats that torch may use instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

_CUDNN: Any = torch.backends.cudnn
_MKLDNN: Any = torch.backends.mkldnn


@contextmanager
def full_precision() -> Iterator[None]:
    """
    Multiply float32 in float32, by kernels that give the same bits each time.

    On GPUs torch convolves float32 in TF32, with 10 bits of mantissa, unless it is told otherwise,
    and ``torch.set_float32_matmul_precision`` allows such formats in products of matrices, on CPUs
    too: losses are then right to three digits, and differences of them are not right at all. What
    was set before holds again after the block.
    """
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
