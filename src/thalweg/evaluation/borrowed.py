"""The user's own module at other weights, for models of which no copy is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from thalweg.problems.module_attributes import ModuleAttributes


class Borrowed:
    """
    Have a module hold other numbers inside a block, and give it back as it was, bit for bit.

    Functions that refer to a module or to its weights (a wrapped ``forward``, a hook that closes
    over them) are shared by all copies, and go on reading the original. It is then lent: inside the
    block its weights and buffers have the borrower's numbers, its modules the borrower's attributes
    and modes, and its containers the borrower's contents, among them hooks: some models put hooks
    in place at their first call. After it all is its own, also after an error.

    What is computed inside a block may refer to the weights, so derivatives are taken inside too.

    Parameters
    ----------
    model : nn.Module
        The user's.
    """

    def __init__(self, model: nn.Module) -> None:
        self._depth = 0
        tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
        self._tensors = list(tensors.values())
        self._numbers: list[tuple[Tensor, Tensor | None]] = [
            (tensor.detach().clone(), None) for tensor in self._tensors
        ]
        self._attributes = ModuleAttributes(model)

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
        with _disable_current_modes():  # the numbers of a tensor, while it is traced, are its own
            self._exchange_numbers()
        self._attributes.exchange()

    def _exchange_numbers(self) -> None:
        for place, tensor in enumerate(self._tensors):
            before = tensor.data, tensor.grad if tensor.is_leaf else None
            if before[1] is not None:
                tensor.grad = None  # of another precision, perhaps, than the numbers to come
            tensor.data, slope = self._numbers[place]
            if slope is not None:
                tensor.grad = slope
            self._numbers[place] = before
