"""The attributes of a model's modules and what these contain, held so as to be put back."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# What can be emptied and filled again: torch's registries of weights, modules and hooks, and the
# containers that users write.
_CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)
_MISSING = object()


class ModuleAttributes:
    """
    The attributes of a model's modules at one time, with the contents of their containers.

    Some models change themselves when they are called: they keep what they computed, or put hooks
    in place at their first call. A container stays the same object, whatever is put into it:
    functions that refer to it go on reading the model's.

    Parameters
    ----------
    model : nn.Module
        Whose attributes are held as they are now.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        # TorchScript has no attributes of Python but its mode.
        self._modules = [m for m in modules if not isinstance(m, torch.jit.ScriptModule)]
        self._attributes = [dict(vars(module)) for module in self._modules]
        values = (value for held in self._attributes for value in held.values())
        containers = {id(value): value for value in values if type(value) in _CONTAINERS}
        self._containers = list(containers.values())
        self._contents = [container.copy() for container in self._containers]
        self._scripted = [m for m in modules if isinstance(m, torch.jit.ScriptModule)]
        self._modes = [module.training for module in self._scripted]

    def each(self) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
        """Give each module with the attributes that are held of it."""
        return zip(self._modules, self._attributes, strict=True)

    def each_container(self) -> Iterator[tuple[Any, Any]]:
        """Give each container with the contents that are held of it."""
        return zip(self._containers, self._contents, strict=True)

    def exchange(self) -> None:
        """Give the model what is held here, and hold what it had."""
        for place, module in enumerate(self._modules):
            attributes = dict(vars(module))
            vars(module).clear()
            vars(module).update(self._attributes[place])
            self._attributes[place] = attributes
        for place, container in enumerate(self._containers):
            if container or self._contents[place]:
                contents = container.copy()
                _refill(container, self._contents[place])
                self._contents[place] = contents
        for place, module in enumerate(self._scripted):
            mode, module.training = module.training, self._modes[place]
            self._modes[place] = mode


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Put back whatever the model changes of itself in the block."""
    own = ModuleAttributes(model)
    try:
        yield
    finally:
        own.exchange()


class Kept:
    """
    What a call of a model has left in it, to be taken away before the next one.

    Some models keep what they computed from their weights, and read it at other weights: a table of
    attention biases, made at the first call in evaluation mode.

    Parameters
    ----------
    before : ModuleAttributes
        The model before its first call; it is looked at now, after it.
    """

    def __init__(self, before: ModuleAttributes) -> None:
        self._attributes = [
            (vars(module), name, held.get(name, _MISSING))
            for module, held in before.each()
            for name in vars(module).keys() | held.keys()
            if vars(module).get(name, _MISSING) is not held.get(name, _MISSING)
        ]
        self._containers = [
            (container, contents)
            for container, contents in before.each_container()
            if not _is_alike(container, contents)
        ]
        left = [owner.get(name) for owner, name, _ in self._attributes]
        left += [container for container, _ in self._containers]
        self.tensors = any(True for _ in tensors_within(left))

    def take_away(self) -> None:
        """Put attributes and contents back as they were before the first call."""
        for owner, name, value in self._attributes:
            if value is _MISSING:
                owner.pop(name, None)
            else:
                owner[name] = value
        for container, contents in self._containers:
            _refill(container, contents)


def tensors_within(value: Any, depth: int = 4) -> Iterator[Tensor]:
    """Find tensors in a value, and in what it holds."""
    yield from _within(value, set(), depth)


def _within(value: Any, seen: set[int], depth: int) -> Iterator[Tensor]:
    if id(value) in seen or depth < 0:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, set, deque, Mapping)):
        for element in value.values() if isinstance(value, Mapping) else value:
            yield from _within(element, seen, depth - 1)
    elif not isinstance(value, nn.Module | type) and hasattr(value, "__dict__"):
        yield from _within(vars(value), seen, depth - 1)


def to_evaluation_mode(model: nn.Module) -> nn.Module:
    """
    Have a model evaluate, as after a training: some forget on the way what they kept of before.

    An exported program has one mode, that in which it was exported.
    """
    try:
        if any(type(module).train is not nn.Module.train for module in model.modules()):
            model.train()
        return model.eval()
    except NotImplementedError:
        for module in model.modules():
            module.training = False
        return model


def _is_alike(container: Any, contents: Any) -> bool:
    if len(container) != len(contents):
        return False
    if isinstance(container, dict):
        return all(contents.get(key, _MISSING) is value for key, value in container.items())
    if isinstance(container, set):
        return bool(container == contents)
    return all(one is other for one, other in zip(container, contents, strict=True))


def _refill(container: Any, contents: Any) -> None:
    container.clear()
    if isinstance(container, list | deque):
        container.extend(contents)
    else:
        container.update(contents)
