"""In which order the numbers of images lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
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
    if isinstance(batch, Tensor):
        return batch.contiguous(memory_format=layout) if batch.dim() == 4 else batch
    if type(batch) is tuple:  # walking a tree takes 40 microseconds, as a small model does
        return tuple(lay_out(part, layout) for part in batch)
    return tree_map_only(Tensor, lambda tensor: lay_out(tensor, layout), batch)


class WatchGroupNorm(TorchFunctionMode):
    """
    See whether a group norm is taken within a context; not inside of TorchScript.

    On a CPU, torch 2.13 ends the process (a segmentation fault) where it differentiates a group
    norm of channels-last images by its weights but not by the images, as of a first layer, or of
    one behind frozen layers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function, and look at its name."""
        self.seen |= "group_norm" in getattr(func, "__name__", "")
        return func(*args, **dict(kwargs or {}))
