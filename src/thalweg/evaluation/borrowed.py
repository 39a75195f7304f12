"""The user's own module at other weights, for models of which no copy is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Borrowed:
    """
    Have a module hold other tensors inside a block, and give it back as it was, bit for bit.

    Functions that refer to a module (a wrapped ``forward``, a hook that closes over it) are shared
    by all its copies, and go on reading the original. It is then lent: inside the block it has
    weights, buffers and attributes of the borrower, after it all of its own, also after an error.

    Parameters
    ----------
    model : nn.Module
        The user's.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        self._depth = 0
        copies: dict[int, Any] = {}
        self._ours = [_with_own_tensors(module, copies) for module in self._modules]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Be the borrower's inside the block."""
        if self._depth:
            yield
            return
        theirs = self._exchange(self._ours)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._ours = self._exchange(theirs)

    def _exchange(self, attributes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give each module other attributes; return those it had."""
        before = [dict(vars(module)) for module in self._modules]
        for module, others in zip(self._modules, attributes, strict=True):
            vars(module).clear()
            vars(module).update(others)
        return before


def _with_own_tensors(module: nn.Module, copies: dict[int, Any]) -> dict[str, Any]:
    def own(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        if id(tensor) not in copies:
            clone = tensor.detach().clone()
            parameter = isinstance(tensor, nn.Parameter)
            copies[id(tensor)] = nn.Parameter(clone, tensor.requires_grad) if parameter else clone
        answer: Tensor = copies[id(tensor)]
        return answer

    return vars(module) | {
        "_parameters": {name: own(tensor) for name, tensor in module._parameters.items()},
        "_buffers": {name: own(tensor) for name, tensor in module._buffers.items()},
    }
