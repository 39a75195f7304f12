"""A module called with other tensors in place of its own, each of which is replaced once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def call_with(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """
    Call a module with these tensors in place of its own of the same names.

    Tied tensors are replaced under all their names. A module that stands in two places is one
    module: torch (2.13) replaces its tensors twice, and gives it back with those of the first
    time instead of its own.

    Parameters
    ----------
    module : nn.Module
        Left as it was.
    tensors : mapping of str to Tensor
        By any of their names in the module.
    args, kwargs
        Of the call.

    Examples
    --------
    >>> import torch
    >>> line = nn.Linear(2, 2, bias=False)
    >>> twice = nn.Sequential(line, line)
    >>> call_with(twice, {"0.weight": 2 * torch.eye(2)}, (torch.ones(1, 2),)).tolist()
    [[4.0, 4.0]]
    >>> isinstance(line.weight, nn.Parameter)
    True
    """
    if isinstance(module, nn.DataParallel):  # torch refuses it; on one device it is what it holds
        inner = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        return call_with(module.module, inner, args, kwargs)
    places: dict[int, list[str]] = defaultdict(list)
    for name, identity in _named_tensors(module):
        places[identity].append(name)
    aliases = dict(_named_tensors(module, remove_duplicate=False))
    by_name = {
        place: tensor
        for name, tensor in tensors.items()
        for place in (places[aliases[name]] if name in aliases else [name])
    }
    return functional_call(module, by_name, args, dict(kwargs or {}), tie_weights=False)


def _named_tensors(module: nn.Module, *, remove_duplicate: bool = True) -> list[tuple[str, int]]:
    """Give names and identities of tensors, of each module under one name or under all."""
    return [
        (f"{prefix}.{local}" if prefix else local, id(tensor))
        for prefix, submodule in module.named_modules(remove_duplicate=remove_duplicate)
        for tensors in (submodule._parameters, submodule._buffers)
        for local, tensor in tensors.items()
        if tensor is not None
    ]
