"""The state of an optimizer, or any other, as named tensors and JSON, and back, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.run.checkpoints import RESUME_PREFIX, why_not_storable

PREFIX = RESUME_PREFIX + "optimizer/"


def flatten_state(state: Any, *, prefix: str = PREFIX) -> tuple[dict[str, Tensor], Any]:
    """
    Part a state into its tensors and the structure that holds them.

    Parameters
    ----------
    state : object
        What ``optimizer.state_dict()`` or a module's ``get_extra_state()`` gives: dicts (keys text,
        numbers, or tuples of these), lists, tuples, sets, tensors, NumPy arrays and numbers, bytes
        and plain values.
    prefix : str
        What the names of the tensors begin with.

    Returns
    -------
    tensors : dict of str to Tensor
        Under names such as ``"thalweg/optimizer/state.0.exp_avg"``; not copied. A tensor that
        stands in several places is there once.
    structure : JSON value
        All the rest; `restore_state` puts both together again.

    Raises
    ------
    InvalidArgument
        If the state holds a value of another kind.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _Encoder(tensors, prefix).encode(state, "")


def restore_state(tensors: Mapping[str, Tensor], structure: Any, *, prefix: str = PREFIX) -> Any:
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
    if kind in ("tensor", "array", "number", "bytes"):
        tensor = tensors[prefix + value]
        return tensor if kind == "tensor" else _from_tensor(tensor, kind)
    if kind == "dtype":
        return getattr(torch, value)
    if kind == "complex":
        return complex(*value)
    if kind == "dict":
        rows = ([restore_state(tensors, part, prefix=prefix) for part in row] for row in value)
        return {key: item for key, item in rows}
    items = [restore_state(tensors, item, prefix=prefix) for item in value]
    return items if kind == "list" else {"tuple": tuple, "set": set}[kind](items)


def _from_tensor(tensor: Tensor, kind: str) -> Any:
    if kind == "bytes":
        return bytes(tensor.tolist())
    array = tensor.numpy()
    return array[()] if kind == "number" else array


class _Encoder:
    """Collects the tensors of one state, each once, and encodes the rest."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str) -> None:
        self._tensors, self._prefix = tensors, prefix
        self._paths: dict[int, str] = {}

    def encode(self, value: Any, path: str) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, Tensor):
            return {"tensor": self._keep(value, path)}
        if isinstance(value, Mapping) and all(map(_is_key, value)):
            rows = [
                [self._key(key, path), self.encode(item, _join(path, key))]
                for key, item in value.items()
            ]
            return {"dict": rows}
        # A named tuple would come back without its names.
        if isinstance(value, list | tuple | set) and not hasattr(value, "_fields"):
            items = [self.encode(item, _join(path, i)) for i, item in enumerate(value)]
            return {_container(value): items}
        return self._encode_rare(value, path)

    def _key(self, key: Any, path: str) -> Any:
        return self.encode(key, path) if isinstance(key, tuple) else key

    def _encode_rare(self, value: Any, path: str) -> Any:
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
            kind = "array" if isinstance(value, np.ndarray) else "number"
            return {kind: self._keep(torch.from_numpy(np.array(value)), path)}
        if isinstance(value, bytes):
            return {"bytes": self._keep(torch.tensor(list(value), dtype=torch.uint8), path)}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, int | float | str) and not isinstance(value, Enum):
            return value
        raise InvalidArgument(
            f"the state has {path or 'at its root'} = {_short(value)}"
            f" ({type(value).__name__}); a checkpoint holds tensors, arrays, numbers, text and"
            " containers of them. Keep such an object out of the state_dict."
        )

    def _keep(self, tensor: Tensor, path: str) -> str:
        if (reason := why_not_storable(tensor)) is not None:
            raise InvalidArgument(f"the state's tensor {path} cannot be kept: {reason}.")
        if id(tensor) not in self._paths:
            while self._prefix + path in self._tensors:
                path += "'"  # {"a.b": ..., "a": {"b": ...}}: two places, one path
            self._tensors[self._prefix + path] = tensor
            self._paths[id(tensor)] = path
        return self._paths[id(tensor)]


def _is_key(key: Any) -> bool:
    if isinstance(key, tuple) and not hasattr(key, "_fields"):
        return all(map(_is_key, key))
    return key is None or isinstance(key, bool | int | float | str)


def _container(value: list[Any] | tuple[Any, ...] | set[Any]) -> str:
    return "tuple" if isinstance(value, tuple) else "set" if isinstance(value, set) else "list"


def _short(value: Any, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


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
