"""Checkpoints at rest: one safetensors file each, readable by anyone, complete for a resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.errors import DamagedFile
from thalweg.run.tensors import opened_tensors, read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

# Tensors under this prefix (optimizer, random state) belong to the resume, not to the model.
RESUME_PREFIX = "thalweg/"
_SPARSE_PREFIX = RESUME_PREFIX + "sparse/"
_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64"),
    *("complex64", "complex128"),
)
# What a checkpoint says of tensors that the file format lacks: name to the form they are kept in.
_FORMS = "forms"
_PAIRS = "complex pairs"
# The parts of each sparse layout, by the method that gives them.
_SPARSE_PARTS = {
    "torch.sparse_coo": ("_indices", "_values"),
    "torch.sparse_csr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_bsr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_csc": ("ccol_indices", "row_indices", "values"),
    "torch.sparse_bsc": ("ccol_indices", "row_indices", "values"),
}


def checkpoint_path(root: Path, trajectory: str, step: int) -> Path:
    """Say where the checkpoint of a trajectory at a step lies under ``root``."""
    return root / trajectory / f"{step:09d}.safetensors"


def why_not_storable(tensor: Tensor) -> str | None:
    """
    Say why a checkpoint cannot hold a tensor; None if it can.

    Examples
    --------
    >>> import torch
    >>> why_not_storable(torch.eye(2).to_sparse()) is None
    True
    >>> why_not_storable(torch.empty(2, device="meta"))
    'it has no data (device meta)'
    """
    import torch
    from torch.nn.parameter import is_lazy

    if is_lazy(tensor):
        return "it is not initialized yet"
    # Tensors made of others (distributed, jagged, quantized by torchao) have no memory themselves.
    if hasattr(tensor, "__tensor_flatten__") or tensor.is_nested:
        return f"it is a {type(tensor).__name__}, not a plain tensor"
    if tensor.is_meta:
        return "it has no data (device meta)"
    if str(tensor.dtype).removeprefix("torch.") not in _DTYPES:
        return f"its dtype is {tensor.dtype}"
    if tensor.layout != torch.strided and str(tensor.layout) not in _SPARSE_PARTS:
        return f"its layout is {tensor.layout}"
    return None


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """
    Write one checkpoint atomically.

    Parameters
    ----------
    path : Path
        Where it shall lie.
    tensors : mapping of str to Tensor
        Weights and buffers under the names of the model's ``state_dict``; what only a resume
        needs under names that begin with ``thalweg/``. They may share memory. Complex tensors of
        double precision are kept as pairs of reals, sparse ones by their parts;
        `read_checkpoint` gives all back as they were.
    about : mapping
        JSON values: ``trajectory``, ``step``, ``parameters`` (names of the trainable weights in
        their order) and whatever else describes the moment.
    """
    stored, forms = _to_stored(tensors)
    described = {**about, _FORMS: forms} if forms else dict(about)
    write_tensors(path, stored, {"format": "pt", "thalweg": json.dumps(described)})


def read_checkpoint(path: Path, *, resume: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """
    Read a checkpoint: its tensors (on the CPU), and what it says about itself.

    Parameters
    ----------
    path : Path
        The file.
    resume : bool
        Read also what only a resume needs.

    Raises
    ------
    CheckpointRefused
        If the file is not a safetensors file.
    DamagedFile
        If it is not what was written.
    """
    tensors, metadata = read_tensors(path, lambda name: resume or _is_of_model(name))
    about = _about(path, metadata)
    return _from_stored(tensors, about.pop(_FORMS, {})), about


def _is_of_model(name: str) -> bool:
    return not name.startswith(RESUME_PREFIX) or name.startswith(_SPARSE_PREFIX)


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Read what a checkpoint says about itself, without its tensors."""
    with opened_tensors(path) as (_, metadata, _):
        about = _about(path, metadata)
    about.pop(_FORMS, None)
    return about


def trained_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read names and shapes, as the model has them, of the weights trained at a checkpoint."""
    with opened_tensors(path) as (file, metadata, _):
        about = _about(path, metadata)
        forms, stored = about.get(_FORMS, {}), set(file.keys())
        shapes = {}
        for name in about.get("parameters", []):
            form = forms.get(name, {})
            if isinstance(form, dict) and "size" in form:
                shapes[name] = tuple(form["size"])
            elif name in stored:
                shape = tuple(file.get_slice(name).get_shape())
                shapes[name] = shape[:-1] if form == _PAIRS else shape
    return shapes


def _about(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        about: dict[str, Any] = dict(json.loads(metadata.get("thalweg", "{}")))
    except (ValueError, TypeError, RecursionError):
        raise DamagedFile(f"{path} is damaged: what it says of itself is no JSON.") from None
    return about


def _to_stored(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Bring tensors into the forms a file holds; say which are not as they were."""
    import torch

    stored: dict[str, Tensor] = {}
    forms: dict[str, Any] = {}
    for name, trained in tensors.items():
        tensor = trained.detach()
        if tensor.layout != torch.strided:
            forms[name] = {
                "layout": str(tensor.layout),
                "size": list(tensor.shape),
                "coalesced": tensor.layout == torch.sparse_coo and tensor.is_coalesced(),
            }
            for attribute, values in _sparse_parts(tensor).items():
                stored[f"{_SPARSE_PREFIX}{name}/{attribute}"] = values
        elif tensor.dtype == torch.complex128:
            forms[name] = _PAIRS
            stored[name] = torch.view_as_real(tensor.resolve_conj())
        else:
            stored[name] = tensor
    return _unshared(stored), forms


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors to the CPU, each into memory of its own, as a safetensors file wants them."""
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        alone = tensor.cpu().resolve_conj().resolve_neg().contiguous()
        place = alone.untyped_storage().data_ptr()
        plain[name] = alone.clone() if place in seen else alone
        seen.add(place)
    return plain


def _sparse_parts(tensor: Tensor) -> dict[str, Tensor]:
    return {
        attribute: getattr(tensor, attribute)() for attribute in _SPARSE_PARTS[str(tensor.layout)]
    }


def _from_stored(tensors: dict[str, Tensor], forms: Mapping[str, Any]) -> dict[str, Tensor]:
    import torch

    for name, form in forms.items():
        if form == _PAIRS:
            # Files align numbers to 8 bytes; torch's kernels crash on complex ones not at 16.
            tensors[name] = torch.view_as_complex(tensors[name].clone())
            continue
        parts = [
            tensors.pop(f"{_SPARSE_PREFIX}{name}/{attribute}")
            for attribute in _SPARSE_PARTS[form["layout"]]
        ]
        tensors[name] = _sparse(form, parts)
    return tensors


def _sparse(form: Mapping[str, Any], parts: list[Tensor]) -> Tensor:
    import torch

    layout, size = form["layout"], form["size"]
    if layout == "torch.sparse_coo":
        indices, values = parts
        coalesced: bool = form["coalesced"]
        return torch.sparse_coo_tensor(
            indices, values, size, is_coalesced=coalesced, check_invariants=True
        )
    compressed, plain, values = parts
    kind = getattr(torch, layout.removeprefix("torch."))
    return torch.sparse_compressed_tensor(
        compressed, plain, values, size, layout=kind, check_invariants=True
    )
