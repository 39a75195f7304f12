"""Checkpoints at rest: one safetensors file each, readable by anyone, complete for a resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.errors import CheckpointRefused
from thalweg.run.files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

# Tensors under this prefix (optimizer, random state) belong to the resume, not to the model.
RESUME_PREFIX = "thalweg/"


def checkpoint_path(root: Path, trajectory: str, step: int) -> Path:
    """Say where the checkpoint of a trajectory at a step lies under ``root``."""
    return root / trajectory / f"{step:09d}.safetensors"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """
    Write one checkpoint atomically.

    Parameters
    ----------
    path : Path
        Where it shall lie.
    tensors : mapping of str to Tensor
        Weights and buffers under the names of the model's ``state_dict``; what only a resume
        needs under names that begin with ``thalweg/``.
    about : mapping
        JSON values: ``trajectory``, ``step``, ``parameters`` (names of the trainable weights in
        their order) and whatever else describes the moment.
    """
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": "pt", "thalweg": json.dumps(dict(about))}
    write_atomic(path, lambda temporary: save_file(plain, temporary, metadata=metadata))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """
    Read a checkpoint: all its tensors (on the CPU), and what it says about itself.

    Raises
    ------
    CheckpointRefused
        If the file is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, _about(file.metadata())
    except SafetensorError as error:
        raise CheckpointRefused(f"{path} is not a safetensors file ({error}).") from None


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Read what a checkpoint says about itself, without its tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return _about(file.metadata())
    except SafetensorError as error:
        raise CheckpointRefused(f"{path} is not a safetensors file ({error}).") from None


def _about(metadata: dict[str, str] | None) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((metadata or {}).get("thalweg", "{}"))
    return about
