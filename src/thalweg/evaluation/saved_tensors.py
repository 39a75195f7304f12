"""What autograd keeps of an evaluation for its backward passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


def with_saved(function: Callable[[], T]) -> tuple[T, list[Tensor]]:
    """
    Call a function, and list the tensors that graphs which it makes keep.

    Parameters
    ----------
    function : callable
        Called again, where it cannot be watched the first time.

    Returns
    -------
    value : object
        What it gives.
    saved : list of Tensor
        Detached, in the order of their making; those that are kept several times stand there as
        often. Where ``torch.func`` is used inside, which does not allow to be watched, all tensors
        that were made: more than are kept.
    """
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        # Detached: a graph that keeps its own output as it is holds itself, and is never freed.
        saved.append(tensor.detach())
        return saved[-1]

    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            return function(), saved
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
    with _Made() as made:
        return function(), made.tensors


class _Made(TorchDispatchMode):
    """Lists the tensors that are made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        self.tensors += [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
        return results
