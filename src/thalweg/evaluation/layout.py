"""In which order the numbers of images lie in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


def lay_out(batch: object, layout: torch.memory_format | None) -> object:
    """
    Lay a batch's images, (n, C, H, W), out in memory.

    Parameters
    ----------
    batch : object
        Tensors in tuples, lists and dicts.
    layout : torch.memory_format or None
        ``torch.channels_last`` has the channels of a pixel side by side,
        ``torch.contiguous_format`` the pixels of a channel; None leaves all as it is.
    """
    if layout is None:
        return batch
    return tree_map_only(
        Tensor, lambda t: t.contiguous(memory_format=layout) if t.dim() == 4 else t, batch
    )


class WatchGroupNorm(TorchDispatchMode):
    """
    See whether a group norm is taken within a context.

    On a CPU, torch 2.13 ends the process (a segmentation fault) where it differentiates a group
    norm of channels-last images by its weights but not by the images, as of a first layer, or of
    one behind frozen layers.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Perform an operation, and look at it."""
        self.seen |= func._overloadpacket is torch.ops.aten.native_group_norm
        return func(*args, **dict(kwargs or {}))
