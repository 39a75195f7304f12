"""Checkpoints of any origin: read without running code from them, and fitted to a model."""

from __future__ import annotations

import logging
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.errors import CheckpointMismatch, CheckpointRefused, InvalidWeights
from thalweg.run.checkpoints import RESUME_PREFIX, read_checkpoint

log = logging.getLogger("thalweg")

_PREFIXES = ("module.", "_orig_mod.")
_NESTS = ("state_dict", "model_state_dict", "model")
_SHOWN = 5
_SAFE = (
    "Save the weights alone, torch.save(model.state_dict(), 'w.pt'), or as"
    " safetensors.torch.save_file(model.state_dict(), 'w.safetensors')."
)


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """
    Read the tensors of a checkpoint, on the CPU.

    Parameters
    ----------
    path : str or Path
        A safetensors file, or a file of ``torch.save`` that holds tensors only, by name or under
        ``"state_dict"``, ``"model_state_dict"`` or ``"model"``.

    Returns
    -------
    tensors : dict of str to Tensor
        By their names in the file.
    about : dict
        What Thalweg wrote about the checkpoint; empty for others.

    Raises
    ------
    CheckpointRefused
        If reading would run code, or the file is truncated or no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not there"
        raise CheckpointRefused(f"{path} is {kind}; give a checkpoint file (.safetensors or .pt).")
    if _looks_like_safetensors(path):
        return read_checkpoint(path)
    return _tensors(_read_torch(path), path), {}


def fit_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    Bring a checkpoint's tensors into the form of the model's ``state_dict``.

    Wrappers' prefixes (``module.``, ``_orig_mod.``) are stripped, floats converted to the model's
    dtype, both names of tied weights given, and what only Thalweg's resume needs left out.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    tensors : mapping of str to Tensor
        As `load_weights` gives them.

    Returns
    -------
    dict of str to Tensor
        Ready for ``model.load_state_dict``.

    Raises
    ------
    CheckpointMismatch
        If weights are missing, unexpected or of another shape.
    InvalidWeights
        If weights are NaN or infinite.
    """
    expected = {k: v for k, v in model.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
    given = {k: v for k, v in tensors.items() if not k.startswith(RESUME_PREFIX)}
    given = _complete_tied(_without_prefixes(given, expected), expected)
    _compare(type(model).__name__, given, expected)
    _check_finite(given)
    return {name: given[name].to(target.dtype) for name, target in expected.items()}


def _looks_like_safetensors(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"  # 8 bytes of length, then a JSON header


def _read_torch(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise CheckpointRefused(
            f"{path} is truncated: a torch file without its end. Copy or download it again."
        )
    try:
        with warnings.catch_warnings():
            # Of pickle protocols torch does not write; what cannot be read is refused below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if str(error) else "a pickle"
        raise CheckpointRefused(
            f"{path} is a pickle that holds more than tensors, and loading it would run code from"
            f" it ({reason}). {_SAFE}"
        ) from None
    except (EOFError, RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointRefused(
            f"{path} cannot be read: truncated, or no checkpoint ({error}). {_SAFE}"
        ) from None


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for nest in _NESTS:
            if isinstance(content.get(nest), Mapping):
                return _tensors(content[nest], path)
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors:
            return tensors
    raise CheckpointRefused(
        f"{path} holds a {type(content).__name__} without named tensors; expected a state_dict, by"
        f" itself or under {', '.join(map(repr, _NESTS))}. {_SAFE}"
    )


def _without_prefixes(
    given: dict[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Strip wrappers' prefixes from names the model does not have, and say so."""
    stripped, removed = {}, set()
    for name, tensor in given.items():
        short = name
        while short not in expected and (found := _prefix(short)) is not None:
            head, short = found
            removed.add(head)
        stripped[short] = tensor
    if len(stripped) < len(given):
        return given  # two names fell together: the comparison names them
    if removed:
        log.warning(
            "checkpoint names begin with %s (a wrapper's: DataParallel, torch.compile); stripped.",
            " and ".join(sorted(repr(p) for p in removed)),
        )
    return stripped


def _prefix(name: str) -> tuple[str, str] | None:
    for prefix in _PREFIXES:
        # torch.compile of a part of a model leaves its mark inside the name.
        head, found, tail = name.partition(prefix)
        if found and (not head or prefix == "_orig_mod."):
            return prefix, head + tail
    return None


def _complete_tied(given: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tied weights under all their names; refuse values that differ between them."""
    answer = dict(given)
    for names in _ties(expected):
        known = [name for name in names if name in given]
        for name in known[1:]:
            first, other = given[known[0]], given[name]
            if first.shape != other.shape or not torch.equal(
                first.nan_to_num(), other.nan_to_num()
            ):
                raise CheckpointMismatch(
                    f"{known[0]} and {name} are one tied tensor in the model and differ in the"
                    " checkpoint; it comes from a model in which they are not tied."
                )
        if known:
            answer |= {name: given[known[0]] for name in names}
    return answer


def _ties(expected: Mapping[str, Tensor]) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for name, tensor in expected.items():
        groups.setdefault(id(tensor), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _compare(model: str, given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    shapes = [
        f"{name} (got {tuple(given[name].shape)}, expected {tuple(tensor.shape)})"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    parts = [
        f"{len(names)} {what}: {_first(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if parts:
        raise CheckpointMismatch(
            f"the checkpoint does not fit {model}: {'; '.join(parts)}. Build the model with the"
            " settings it was trained with (widths, batch norm, activation)."
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _check_finite(given: Mapping[str, Tensor]) -> None:
    for name, tensor in given.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise InvalidWeights(
                f"{name}: {bad} of {tensor.numel()} weights are NaN or infinite; the training"
                " diverged before this checkpoint. Take an earlier one."
            )
