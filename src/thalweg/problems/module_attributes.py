"""The attributes of a model's modules and what these contain, held so as to be put back."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from typing import Any

import torch
from torch import nn

# What can be emptied and filled again: torch's registries of weights, modules and hooks, and the
# containers that users write.
_CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)


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


def to_evaluation_mode(model: nn.Module) -> nn.Module:
    """Have a model evaluate; an exported program has one mode, that in which it was exported."""
    try:
        return model.eval()
    except NotImplementedError:
        for module in model.modules():
            module.training = False
        return model


def _refill(container: Any, contents: Any) -> None:
    container.clear()
    if isinstance(container, list | deque):
        container.extend(contents)
    else:
        container.update(contents)
