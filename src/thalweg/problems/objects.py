"""Batches that hold more than tensors (graphs, records, words), as trees of the tensors in them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import register_pytree_node, tree_leaves

_LEFT_ALONE = (nn.Module, type, ModuleType, FunctionType, MethodType)
_numbers = itertools.count()


class Boxed:
    """
    Any structure of Python, known by the tensors in it: a node of torch's trees.

    Parameters
    ----------
    structure : object
        Containers and objects; never changed.
    tensors : list of Tensor
        What stands in place of its tensors, in the order in which they are met.
    number : int, optional
        Tells it from others; copies with other tensors keep it.
    """

    def __init__(self, structure: Any, tensors: list[Tensor], number: int | None = None) -> None:
        self.structure, self.tensors = structure, tensors
        self.number = next(_numbers) if number is None else number

    def open(self) -> Any:
        """Give a copy of the structure with these tensors in it."""
        tensors = iter(self.tensors)
        return _Mapping(lambda _: next(tensors))(self.structure)


class _Shell:
    """What a box is beside its tensors; equal where it is of one box."""

    def __init__(self, structure: Any, number: int) -> None:
        self.structure, self.number = structure, number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shell) and self.number == other.number

    def __hash__(self) -> int:
        return self.number

    def __repr__(self) -> str:
        return f"{type(self.structure).__name__} {self.number}"


register_pytree_node(
    Boxed,
    lambda box: (box.tensors, _Shell(box.structure, box.number)),
    lambda tensors, shell: Boxed(shell.structure, list(tensors), shell.number),
)


def box(batch: Any) -> Any:
    """Give a batch as a tree of tensors: as it is where it is one, else in a box."""
    if all(isinstance(leaf, Tensor) for leaf in tree_leaves(batch)):
        return batch
    tensors: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    _Mapping(keep)(batch)
    # Detached ones are other objects, so that an opened box is a copy wherever it holds any.
    return Boxed(batch, [tensor.detach() for tensor in tensors])


def unbox(batch: Any) -> Any:
    """Give what was boxed, with the tensors that the box holds now."""
    return batch.open() if isinstance(batch, Boxed) else batch


class _Mapping:
    """Replace all tensors of a structure, each once, copying whatever leads to one."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self._done: dict[int, Any] = {}
        self._leading: set[int] = set()

    def __call__(self, structure: Any) -> Any:
        self._leading = _leading_to_tensors(structure)
        return self._mapped(structure)

    def _mapped(self, value: Any) -> Any:
        key = id(value)
        if key not in self._leading:
            return value
        if key not in self._done:
            self._replace(value, key)
        return self._done[key]

    def _replace(self, value: Any, key: int) -> None:
        if isinstance(value, Tensor):
            self._done[key] = self.function(value)
        elif isinstance(value, tuple):
            parts = [self._mapped(child) for child in value]
            named = hasattr(value, "_fields")
            self._done[key] = type(value)(*parts) if named else type(value)(parts)
        else:
            new = self._done[key] = copy.copy(value)  # before its parts, which may refer to it
            for place, child in _children(value):
                _put_child(new, place, self._mapped(child))


def _children(value: Any) -> list[tuple[Any, Any]]:
    """Give what a value holds, with the places where."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, (Tensor, *_LEFT_ALONE)) or not hasattr(value, "__dict__"):
        return []
    return list(vars(value).items())


def _put_child(value: Any, place: Any, child: Any) -> None:
    if isinstance(value, (dict, list)):
        value[place] = child
    else:
        vars(value)[place] = child


def _leading_to_tensors(structure: Any) -> set[int]:
    """Find all that a structure holds, by identity, from which a tensor can be reached."""
    holders: dict[int, list[int]] = {id(structure): []}
    waiting, pending = [structure], []
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            pending.append(id(value))
        for _, child in _children(value):
            if id(child) not in holders:
                holders[id(child)] = []
                waiting.append(child)
            holders[id(child)].append(id(value))
    leading: set[int] = set()
    while pending:
        key = pending.pop()
        if key not in leading:
            leading.add(key)
            pending += holders[key]
    return leading
