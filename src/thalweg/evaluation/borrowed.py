"""The user's own module at other weights, for models of which no copy is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Borrowed:
    """
    Have a module hold other numbers inside a block, and give it back as it was, bit for bit.

    Functions that refer to a module or to its weights (a wrapped ``forward``, a hook that closes
    over them) are shared by all copies, and go on reading the original. It is then lent: inside the
    block its weights and buffers have the borrower's numbers, its modules the borrower's attributes
    and modes; after it all is its own, also after an error.

    What is computed inside a block may refer to the weights, so derivatives are taken inside too.

    Parameters
    ----------
    model : nn.Module
        The user's.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._depth = 0
        tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
        self._tensors = list(tensors.values())
        self._numbers: list[tuple[Tensor, Tensor | None]] = [
            (tensor.detach().clone(), None) for tensor in self._tensors
        ]
        # TorchScript has no attributes of Python but its mode.
        self._modules = [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]
        self._attributes = [_own_dicts(vars(module)) for module in self._modules]
        self._scripted = [m for m in modules if isinstance(m, torch.jit.ScriptModule)]
        self._modes = [False for _ in self._scripted]

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Be the borrower's inside the block."""
        self._depth += 1
        try:
            if self._depth == 1:
                self._exchange()
            yield
        finally:
            if self._depth == 1:
                self._exchange()
            self._depth -= 1

    def _exchange(self) -> None:
        """Give the module what is held here, and hold what it had."""
        for place, tensor in enumerate(self._tensors):
            before = tensor.data, tensor.grad if tensor.is_leaf else None
            if before[1] is not None:
                tensor.grad = None  # of another precision, perhaps, than the numbers to come
            tensor.data, slope = self._numbers[place]
            if slope is not None:
                tensor.grad = slope
            self._numbers[place] = before
        for place, module in enumerate(self._modules):
            attributes = dict(vars(module))
            vars(module).clear()
            vars(module).update(self._attributes[place])
            self._attributes[place] = attributes
        for place, module in enumerate(self._scripted):
            before_, module.training = module.training, self._modes[place]
            self._modes[place] = before_


def _own_dicts(attributes: dict[str, Any]) -> dict[str, Any]:
    """Have assignments to weights and buffers, of other tensors, reach the borrower's dicts."""
    own = {name: dict(attributes[name]) for name in ("_parameters", "_buffers")}
    return attributes | own
