"""What a node is applied to, and along which dimensions of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.tracing.graph import Node


def data_of(node: Node) -> Node:
    """Give what a layer is applied to, among what it reads: the rest are its weights."""
    return next((read for read in node.reads if read.op != "tensor"), node.reads[0])


def averaged_dims(node: Node, rank: int) -> list[int] | None:
    """Give the dimensions that a mean or sum is over; None for all."""
    stated: Any = node.step.kwargs.get("dim", (*node.step.args, None)[1])
    if stated is None or isinstance(stated, torch.dtype):
        return None
    dims = [stated] if isinstance(stated, int) else list(stated)
    return [dim % rank for dim in dims]


def lay_along(channels: Tensor, shape: tuple[int, ...] | None, dim: int) -> Tensor:
    """Lay a vector along a dimension of a shape."""
    assert shape is not None
    view = [1] * len(shape)
    view[dim] = -1
    return channels.view(view).expand(shape)
