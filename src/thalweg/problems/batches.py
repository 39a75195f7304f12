"""Batches: pytrees of tensors whose first dimension counts samples."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from thalweg.errors import InvalidProblem, NotDeterministic

# Batches and datasets up to this size are read once and held.
HELD_BYTES = 1 << 30
UNSHUFFLE = "write DataLoader(..., shuffle=False), or give the dataset itself (loader.dataset)"
UNAUGMENT = "leave augmentation and random transforms out of the data that are measured"


def plain_batch(batch: Any, what: str) -> Any:
    """Turn any mapping into a dict and arrays into tensors; refuse what holds no tensors."""
    if isinstance(batch, Mapping):
        return {key: plain_batch(value, what) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        parts = [plain_batch(element, what) for element in batch]
        return parts if isinstance(batch, list) else tuple(parts)
    if isinstance(batch, Tensor):
        return batch.detach()
    array = np.asarray(batch) if is_array(batch) else None
    if array is None or array.dtype.kind not in "biufc":
        of_objects = "" if array is None else f" of {array.dtype}"
        raise InvalidProblem(
            f"{what} hold a {type(batch).__name__}{of_objects} where a tensor is expected; make it"
            " a tensor in the dataset's __getitem__ or the loader's collate_fn, or write"
            " torch.as_tensor(x) of an array of numbers, torch.as_tensor(x.toarray()) of a sparse"
            " matrix."
        )
    with warnings.catch_warnings():
        # Nobody writes to it: a memory map need not be copied.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.as_tensor(array)


def is_array(data: Any) -> bool:
    """Say whether NumPy takes it for an array: its own, and tables of pandas and xarray."""
    return hasattr(type(data), "__array__")


def batch_length(batch: Any, what: str = "a batch") -> int:
    """
    Count the samples of a batch: the first dimension, which all its tensors share.

    Raises
    ------
    InvalidProblem
        If it has no tensors, or they differ.
    """
    leaves = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
    if not leaves or any(leaf.dim() == 0 for leaf in leaves):
        raise InvalidProblem(
            f"{what}: expected tensors whose first dimension counts samples. Of a stream of single"
            " samples write DataLoader(stream, batch_size=N)."
        )
    if any(leaf.layout != torch.strided for leaf in leaves):
        raise InvalidProblem(
            f"{what}: a sparse tensor cannot be cut into samples; give tw.Whole(data), or a dense"
            " one."
        )
    lengths = [len(leaf) for leaf in leaves]
    if len(set(lengths)) > 1:
        raise uneven(what, lengths)
    return lengths[0]


def concatenate(parts: list[Any], what: str) -> Any:
    """Join batches to one."""
    leaves = [tree_leaves(batch) for batch in parts]
    _, form = tree_flatten(parts[0])
    try:
        joined = [torch.cat(column) for column in zip(*leaves, strict=True)]
    except (RuntimeError, ValueError) as error:
        raise InvalidProblem(
            f"{what}: batches differ in form and cannot be joined ({error}); pad all samples to one"
            " length."
        ) from None
    return tree_unflatten(joined, form)


def equal(a: Any, b: Any) -> bool:
    """Say whether two batches hold the same numbers; NaN equals NaN."""
    first_leaves, second_leaves = tree_leaves(a), tree_leaves(b)
    return len(first_leaves) == len(second_leaves) and all(
        x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())
        for x, y in zip(first_leaves, second_leaves, strict=True)
    )


def digest(*tensors: Tensor) -> str:
    """Give a digest of tensors' shapes, types and values: 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        state.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        for rows in _rows(tensor.detach()):
            state.update(rows.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return state.hexdigest()


def _rows(tensor: Tensor) -> Iterator[Tensor]:
    """Give the numbers of a tensor in pieces; of a sparse one, its places and values."""
    if tensor.layout == torch.sparse_coo:
        whole = tensor.coalesce()
        components = [whole.indices(), whole.values()]
    elif tensor.layout != torch.strided:
        components = [tensor.to_dense()]
    else:
        components = [torch.atleast_1d(tensor)]
    for component in components:
        yield from component.split(4096)


def empty(what: str) -> InvalidProblem:
    """Describe data without samples."""
    return InvalidProblem(f"{what} are empty; a mean over samples needs at least one.")


def read_once(data: Iterator[Any], what: str) -> InvalidProblem:
    """Describe data that are gone once they have been read."""
    return InvalidProblem(
        f"{what} can be read only once (a {type(data).__name__}), and a landscape reads them at"
        " every point; give a list of batches (list(...)) or a DataLoader."
    )


def uneven(what: str, lengths: Sequence[int]) -> InvalidProblem:
    """Describe tensors that count samples differently."""
    return InvalidProblem(
        f"{what}: inputs and targets differ in length ({', '.join(map(str, lengths))}); expected"
        " the same number of samples in each tensor. What is one whole is tw.Whole(data)."
    )


def not_fixed(difference: str, advice: str) -> NotDeterministic:
    """Say how samples came to differ from look to look, and what to write."""
    return NotDeterministic(
        f"{difference}. A landscape is a function of the weights alone, so sample i must be the"
        f" same at every look: {advice}."
    )
