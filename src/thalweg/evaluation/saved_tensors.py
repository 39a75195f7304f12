"""What autograd keeps of an evaluation for its backward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@contextmanager
def watch_saved() -> Iterator[list[Tensor]]:
    """
    List the tensors that graphs made inside of the block keep, in the order of their making.

    Yields
    ------
    list of Tensor
        Detached; those that are kept several times stand there as often.
    """
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        # Detached: a graph that keeps its own output as it is holds itself, and is never freed.
        saved.append(tensor.detach())
        return saved[-1]

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved
