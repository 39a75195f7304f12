"""The moments that an optimizer had gathered at a checkpoint, as directions of weight space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.dynamics.optimizer_state import restore_state
from thalweg.errors import InvalidArgument, ThalwegError
from thalweg.landscape.space import ParameterSpace
from thalweg.run import read_checkpoint

# What torch's optimizers call the mean of gradients, and that of their squares.
_MEANS = ("exp_avg", "momentum_buffer")
_SQUARES = ("exp_avg_sq", "square_avg", "sum", "exp_inf")
_NONE = (
    "planes along an optimizer's moments are those of a recorded checkpoint, which keeps its state:"
    " the last one of tw.train(..., run=...) or tw.record, with a method that has moments, as adam"
    " or sgd with momentum"
)


@dataclass(frozen=True)
class Moments:
    """
    Directions of an optimizer.

    Attributes
    ----------
    directions : list of Tensor
        Shape (W,) each, float64.
    names : list of str
        What each is.
    """

    directions: list[Tensor]
    names: list[str]


def optimizer_moments(file: Path | None, space: ParameterSpace) -> Moments:
    """
    Read the moments of a checkpoint.

    Parameters
    ----------
    file : Path
        A checkpoint that Thalweg recorded, with what a resume needs.
    space : ParameterSpace
        Whose weights were trained.

    Returns
    -------
    Moments
        The mean of gradients, first, and, where squares are gathered, too, the step that they
        lead to: that mean over the root of the squares.

    Raises
    ------
    InvalidArgument
        If the file keeps no moments, or those of other weights.
    """
    if file is None or file.suffix != ".safetensors":
        raise InvalidArgument(f"{file}: {_NONE}.")
    try:
        tensors, about = read_checkpoint(file)
        state = restore_state(tensors, about.get("optimizer"))
    except (ThalwegError, KeyError) as error:
        raise InvalidArgument(f"{file}: {error}; {_NONE}.") from None
    gathered = _gathered(state, space)
    mean = next((gathered[name] for name in _MEANS if name in gathered), None)
    square = next((gathered[name] for name in _SQUARES if name in gathered), None)
    if mean is None:
        raise InvalidArgument(f"{file} keeps no moments; {_NONE}.")
    if square is None:
        return Moments([mean], ["the optimizer's mean of gradients"])
    # As small as the square of rounding: weights that never had a gradient do not move.
    root = square.sqrt()
    step = mean / (root + 1e-8 * float(root.max()))
    return Moments(
        [mean, step],
        ["the optimizer's mean of gradients", "its step, the mean over the root of the squares"],
    )


def orthonormal(directions: Tensor) -> Tensor:
    """
    Make directions orthogonal and of length 1, in their order; each keeps its sense.

    Raises
    ------
    InvalidArgument
        If one lies among those before it.
    """
    lengths = directions.double().norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    basis, triangle = torch.linalg.qr(directions.double() / lengths)
    if float(triangle.diagonal().abs().min()) < 1e-6:
        raise InvalidArgument(
            "the optimizer's moments there are parallel, or zero; write --dims 1, or --directions"
            " principal."
        )
    signed: Tensor = basis * triangle.diagonal().sign()
    return signed.to(directions.dtype)


def _gathered(state: Any, space: ParameterSpace) -> dict[str, Tensor]:
    """Join what the optimizer gathered of each tensor of weights, in the order of the space."""
    entries = state.get("state") if isinstance(state, dict) else None
    if not isinstance(entries, dict) or not entries:
        return {}
    parts = [entries[key] for key in sorted(entries)]
    weights = space.unpack(torch.zeros(space.size)).values()
    shapes = [tuple(tensor.shape) for tensor in weights]
    joined: dict[str, Tensor] = {}
    for name in (*_MEANS, *_SQUARES):
        held = [part.get(name) for part in parts]
        if not all(isinstance(tensor, Tensor) for tensor in held):
            continue
        flat = torch.cat([tensor.double().flatten() for tensor in held])
        fits = len(held) == 1 or [tuple(tensor.shape) for tensor in held] == shapes
        if len(flat) == space.size and fits:
            joined[name] = flat
    return joined
