"""The user's own module at other weights, for models of which no copy is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
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
        modules = list(model.modules())
        self._modules = [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]
        scripted = [m for m in modules if isinstance(m, torch.jit.ScriptModule)]
        self._depth = 0
        copies: dict[int, Any] = {}
        self._ours = [_with_own_tensors(module, copies) for module in self._modules]
        # TorchScript has no attributes of Python: its tensors stay, and their numbers change.
        self._tensors = list({id(t): t for m in scripted for t in _tensors(m)}.values())
        self._numbers = [tensor.detach().clone() for tensor in self._tensors]
        self._modes = dict.fromkeys(scripted, False)

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
        for place, tensor in enumerate(self._tensors):
            self._numbers[place], tensor.data = tensor.data, self._numbers[place]
        modes = {module: module.training for module in self._modes}
        for module, training in self._modes.items():
            module.training = training
        self._modes = modes
        return before


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


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
