"""What a computation takes, by counting its operations: the same at every run, unlike a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Rates(NamedTuple):
    """
    How fast a device is, roughly.

    Attributes
    ----------
    multiplications : float
        Floating-point operations of convolutions and matrix products, a second.
    bytes : float
        Written by any operation, a second.
    call : float
        Seconds that each operation takes at least.
    """

    multiplications: float
    bytes: float
    call: float


# A core as networks of 10^3 to 10^7 weights find it, within a factor of two; and a GPU.
_CORE, _GPU = Rates(1e11, 1e9, 1e-5), Rates(1e13, 1e12, 1e-5)


class CountOperations(TorchDispatchMode):
    """
    Count what torch computes within a context.

    Forward, backward and under the transforms of ``torch.func``; views are free.

    Attributes
    ----------
    multiplications, bytes, calls : int
        Floating-point operations of convolutions and matrix products; bytes of results;
        operations called.

    Examples
    --------
    >>> with CountOperations() as counted:
    ...     product = torch.ones(2, 3) @ torch.ones(3, 5)
    >>> counted.multiplications, counted.bytes, counted.calls
    (60, 124, 3)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiplications: int = 0
        self.bytes: int = 0
        self.calls: int = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Perform an operation, and count it."""
        named = dict(kwargs or {})
        result = func(*args, **named)
        if not func.is_view:
            self.calls += 1
            self.bytes += sum(map(_bytes, tree_leaves(result)))
            count: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
            if count is not None:
                # Rules for tensors of unusual layouts are missing, and then raise anything.
                with suppress(Exception):
                    self.multiplications += count(*args, **named, out_val=result)
        return result

    def seconds(self, device: torch.device) -> float:
        """Estimate how long all of it takes on one core, or on a GPU."""
        rates = _CORE if device.type == "cpu" else _GPU
        seconds = self.multiplications / rates.multiplications + self.bytes / rates.bytes
        return seconds + self.calls * rates.call


def _bytes(result: Any) -> int:
    """Count a tensor's bytes; a sparse one's as if it were dense, for it does not tell."""
    return result.numel() * result.element_size() if isinstance(result, Tensor) else 0
