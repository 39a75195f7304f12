"""The state of an optimizer as named tensors and JSON, and back, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.run.checkpoints import RESUME_PREFIX

PREFIX = RESUME_PREFIX + "optimizer/"


def flatten_state(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], Any]:
    """
    Part a ``state_dict`` into its tensors and the structure that holds them.

    Parameters
    ----------
    state : mapping
        What ``optimizer.state_dict()`` gives: dicts (keys text or numbers), lists, tuples, tensors
        and plain values.

    Returns
    -------
    tensors : dict of str to Tensor
        Under names such as ``"thalweg/optimizer/state.0.exp_avg"``; not copied.
    structure : JSON value
        All the rest; `restore_state` puts both together again.

    Raises
    ------
    InvalidArgument
        If the state holds a value of another kind.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _encode(dict(state), "", tensors)


def restore_state(tensors: Mapping[str, Tensor], structure: Any) -> Any:
    """
    Put a state together again from what `flatten_state` gave.

    Examples
    --------
    >>> state = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 1)}]}
    >>> restore_state(*flatten_state(state)) == state
    True
    """
    if not isinstance(structure, dict):
        return structure
    (kind, value), *_ = structure.items()
    if kind == "tensor":
        return tensors[PREFIX + value]
    if kind == "dict":
        return {key: restore_state(tensors, item) for key, item in value}
    items = [restore_state(tensors, item) for item in value]
    return tuple(items) if kind == "tuple" else items


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[PREFIX + path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        rows = [[key, _encode(item, _join(path, key), tensors)] for key, item in value.items()]
        return {"dict": rows}
    if isinstance(value, list | tuple):
        items = [_encode(item, _join(path, i), tensors) for i, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InvalidArgument(
        f"the optimizer's state has {path} = {value!r} ({type(value).__name__}); a checkpoint holds"
        " tensors, numbers, text and containers of them. Keep such an object out of the optimizer's"
        " state_dict."
    )


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def rng_tensors() -> dict[str, Tensor]:
    """Take the state of torch's global generators, of the CPU and of every CUDA device in use."""
    tensors = {RESUME_PREFIX + "rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states = torch.cuda.get_rng_state_all()
        tensors |= {f"{RESUME_PREFIX}rng/cuda.{i}": state for i, state in enumerate(states)}
    return tensors


def set_rng(tensors: Mapping[str, Tensor]) -> None:
    """Set torch's global generators to states that `rng_tensors` took, as far as they are there."""
    if RESUME_PREFIX + "rng/cpu" in tensors:
        torch.set_rng_state(tensors[RESUME_PREFIX + "rng/cpu"])
    for i in range(torch.cuda.device_count()):
        if f"{RESUME_PREFIX}rng/cuda.{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"{RESUME_PREFIX}rng/cuda.{i}"], i)
