"""Named tensors fitted to a model: which it takes, in which dtype, and what is left."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.errors import CheckpointMismatch, InvalidWeights
from thalweg.problems.entries import Entry, File, choose_entry
from thalweg.problems.state_names import COUNTS, EXTRA, ModelState, is_wrapper, last, pieces
from thalweg.problems.weight_files import NEST, few

# Entries that every trainer writes beside the weights.
_USUAL = re.compile("optim|sched|scaler|callback|loop|rng|random", re.IGNORECASE)
_SUMMED = (torch.float32, torch.float64)
_WHY = {
    ("integer", "real"): "integers would be quantized weights without their scales",
    ("integer", "complex"): "integers would be quantized weights without their scales",
    ("complex", "real"): "imaginary parts would be lost",
    ("real", "complex"): "imaginary parts are missing",
}


@dataclass(frozen=True)
class Fit:
    """
    A file's tensors under a model's names.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Those that the file has.
    lacking : tuple of str
        The model's names that it has not.
    notes : tuple of str
        What the file lacks or holds besides, and how its names were read.
    usual : tuple of str
        The same, where every such file does.
    """

    tensors: dict[str, Tensor]
    lacking: tuple[str, ...]
    notes: tuple[str, ...]
    usual: tuple[str, ...]


def fit(
    state: ModelState,
    tensors: Mapping[str, Tensor],
    *,
    entry: str | None = None,
    partial: bool = False,
    what: str = "the checkpoint",
) -> Fit:
    """
    Take a model's state out of a file.

    Parameters
    ----------
    state : ModelState
        What is expected.
    tensors : mapping of str to Tensor
        As `read_weights` gives them.
    entry : str, optional
        Which entry, where several fit.
    partial : bool
        Take what fits of the entry that fits best.
    what : str
        What the file is called in messages.

    Raises
    ------
    CheckpointMismatch
        If no entry fits, or several do; if numbers are of another kind than the model's.
    InvalidWeights
        If weights are NaN or infinite.
    """
    chosen = choose_entry(File(tensors, what), state, entry=entry, partial=partial)
    state = chosen.state
    converted = {
        short: _converted(short, chosen.tensor(short), state.tensors[short])
        for short in chosen.matched
    }
    converted = _complete_tied(converted, state, what)
    lacking = [s for s, name in state.names.items() if s not in converted and name in state.saved]
    notes = [*_unread_wrappers(chosen), *_lacks(chosen, lacking), *_besides(chosen, usual=False)]
    return Fit(
        {state.names[short]: tensor for short, tensor in converted.items()},
        tuple(state.names[short] for short in lacking),
        tuple(notes),
        tuple([*_usually(chosen, lacking), *_besides(chosen, usual=True)]),
    )


def _complete_tied(tensors: dict[str, Tensor], state: ModelState, what: str) -> dict[str, Tensor]:
    """Give tied weights under all their names; refuse values that differ between them."""
    completed = dict(tensors)
    for names in state.ties:
        present = [name for name in names if name in tensors]
        for name in present[1:]:
            first, repeated = tensors[present[0]], tensors[name]
            if first.shape != repeated.shape or not torch.equal(first, repeated):
                raise CheckpointMismatch(
                    f"{present[0]} and {name} are one tied tensor in the model and differ in"
                    f" {what}; it comes from a model in which they are not tied."
                )
        if present:
            completed |= {name: tensors[present[0]] for name in names}
    return completed


def _unread_wrappers(chosen: Entry) -> list[str]:
    """Say which wrappers' names stand in the file and not in the model."""
    removed: dict[str, None] = {}
    for short in chosen.matched:
        wrappers = [piece for piece in pieces(chosen.state.names[short]) if is_wrapper(piece)]
        for piece in filter(is_wrapper, pieces(chosen.under[short])):
            if piece in wrappers:
                wrappers.remove(piece)
            else:
                removed[piece] = None
    inner = chosen.state.prefix
    notes = [f"names of the model have {inner!r} before those of the file"] if inner else []
    if not removed:
        return notes
    return [
        *notes,
        f"names have {' and '.join(map(repr, removed))}, which a wrapper adds (data parallel,"
        " compiled, averaged, sharded or checkpointed models); stripped",
    ]


def _lacks(chosen: Entry, lacking: Sequence[str]) -> list[str]:
    model, notes = chosen.state.called, []
    taken = [short for short in lacking if last(short) not in COUNTS]
    if taken:
        notes.append(
            f"{_tensors(taken)} of {len(chosen.state.saved)} taken from the problem, not from"
            f" the file: {few(taken)}"
        )
        notes.append(f"{_tensors(chosen.matched)} taken from the file: {few(chosen.matched)}")
    unsaved = _unsaved(chosen, weights=True)
    if unsaved:
        notes.append(
            f"{_tensors(unsaved)} that the model's state_dict leaves out, the problem's:"
            f" {few(unsaved)}"
        )
    if chosen.reshaped:
        notes.append(f"{_tensors(chosen.reshaped)} of another shape in it")
    if chosen.unexpected:
        notes.append(
            f"{_tensors(chosen.unexpected)} of it without a place in {model}, not used:"
            f" {few(chosen.unexpected)}"
        )
    extra = [short for short in chosen.under if last(short) == EXTRA] or chosen.state.extra
    if extra:
        notes.append(
            f"{_number(extra, 'extra state')} taken from the problem, not from the file:"
            f" {few(extra)}"
        )
    return notes


def _usually(chosen: Entry, lacking: Sequence[str]) -> list[str]:
    notes = [f"the weights are those of its entry {chosen.label!r}"] if chosen.prefix else []
    counts = [short for short in lacking if last(short) in COUNTS]
    if counts:
        notes.append(f"{_number(counts, 'count')} of batches, the problem's")
    unsaved = _unsaved(chosen, weights=False)
    if unsaved:
        notes.append(
            f"{_number(unsaved, 'buffer')} that files do not hold (persistent=False), the"
            f" problem's: {few(unsaved)}"
        )
    return notes


def _unsaved(chosen: Entry, *, weights: bool) -> list[str]:
    """Parameters, or buffers, that neither the model's ``state_dict`` nor the file holds."""
    return [
        short
        for short, name in chosen.state.names.items()
        if name in chosen.state.unsaved
        and short not in chosen.under
        and isinstance(chosen.state.unsaved[name], nn.Parameter) == weights
    ]


def _besides(chosen: Entry, *, usual: bool) -> list[str]:
    """Say what the file holds besides the entry."""
    own = {name for short, name in chosen.under.items() if NEST not in short}
    own |= {chosen.under[short] for short in chosen.present}
    unmatched = [
        name
        for name in chosen.file.names.values()
        if name not in own and bool(NEST in name and _USUAL.search(name)) == usual
    ]
    return [f"{_tensors(unmatched)} besides, not used: {few(unmatched)}"] if unmatched else []


def _tensors(names: Sequence[str]) -> str:
    return _number(names, "tensor")


def _number(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' * (len(names) > 1)}"


def _converted(name: str, tensor: Tensor, target: Tensor) -> Tensor:
    """
    Copy a tensor, in no less precision than the file's or the model's.

    Raises
    ------
    CheckpointMismatch
        If it has complex numbers for real ones, or integers for floating-point numbers, or the
        reverse.
    InvalidWeights
        If it has NaN, or infinite weights.
    """
    kind, expected = _kind(tensor.dtype), _kind(target.dtype)
    counted = expected == "integer" and kind == "real" and torch.equal(tensor, tensor.round())
    if kind != expected and not counted:
        raise CheckpointMismatch(
            f"{name} is {tensor.dtype} in the checkpoint and {target.dtype} in the model:"
            f" {_WHY.get((kind, expected), 'numbers of another kind')}. Give a checkpoint of the"
            " model's kind of numbers."
        )
    converted = tensor.detach().to(_wider(tensor.dtype, target.dtype), copy=True)
    if expected == "integer" and not torch.equal(converted.to(tensor.dtype), tensor):
        raise CheckpointMismatch(
            f"{name} has numbers that are none of the model's {target.dtype}; give a checkpoint of"
            " the model's kind of numbers."
        )
    _check_finite(name, converted, weights=isinstance(target, nn.Parameter))
    return converted


def _wider(got: torch.dtype, expected: torch.dtype) -> torch.dtype:
    if _kind(expected) == "integer" or got.itemsize < expected.itemsize:
        return expected
    return torch.promote_types(got, expected)


def _kind(dtype: torch.dtype) -> str:
    return "complex" if dtype.is_complex else "real" if dtype.is_floating_point else "integer"


def _check_finite(name: str, tensor: Tensor, *, weights: bool) -> None:
    # Buffers may be infinite: masks of attention are.
    if tensor.dtype in _SUMMED and torch.isfinite(tensor.sum()):
        return  # the sum is much cheaper, and finite only where all of them are
    bad = int((~torch.isfinite(tensor)).sum() if weights else torch.isnan(tensor).sum())
    if bad:
        kind = "weights are NaN or infinite" if weights else "entries are NaN"
        raise InvalidWeights(
            f"{name}: {bad} of {tensor.numel()} {kind}; the training diverged before this"
            " checkpoint. Take an earlier one."
        )
