"""Samples of a map-style dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from thalweg.errors import InvalidProblem, first_line
from thalweg.problems.batches import (
    HELD_BYTES,
    UNAUGMENT,
    batch_length,
    digest,
    empty,
    equal,
    not_fixed,
    plain_batch,
)
from thalweg.problems.tensor_samples import JOINED, TensorSamples

_PROBED = 16
KINDS = (
    "a pair of tensors (inputs, targets), a dict of tensors, a torch.utils.data.Dataset, a"
    " re-iterable of batches such as a DataLoader, or tw.Batches or tw.Whole of anything"
)


class DatasetSamples:
    """
    Samples of a map-style dataset: held where they are small, else collated batch by batch.

    Parameters
    ----------
    dataset : Dataset
        With ``__getitem__`` and ``__len__``.
    collate : callable
        Makes a batch of a list of samples.
    what : str
        How messages call it.
    batches : iterable, optional
        The loader that it was given as.
    """

    joined, described = True, JOINED

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Any],
        what: str,
        batches: Iterable[Any] | None = None,
    ) -> None:
        self._dataset, self._collate, self._what = dataset, collate, what
        self.batches = batches
        self._size = _length(dataset, what)
        probed = range(min(_PROBED, self._size))
        # Augmentation that draws from the global generator must not disturb the user's stream.
        with torch.random.fork_rng(devices=[]):
            first, again = self._collated(probed), self._collated(probed)
        if not equal(first, again):
            raise not_fixed(
                f"{what}: the same indices of {type(dataset).__name__} gave other samples the"
                " second time",
                UNAUGMENT,
            )
        sample = sum(t.numel() * t.element_size() for t in tree_leaves(first))
        self._small = sample // len(probed) * self._size <= HELD_BYTES

    def __len__(self) -> int:
        """Count the samples."""
        return self._size

    @property
    def targets(self) -> Tensor | None:
        """All targets, where the data are held."""
        return self._held.targets if self._small else None

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the content; of the first and last samples where the data are not held."""
        if self._small:
            return self._held.fingerprint
        probed = min(_PROBED, self._size)
        ends = [*range(probed), *range(self._size - probed, self._size)]
        return digest(torch.tensor(self._size), *tree_leaves(self._collated(ends)))

    def slice(self, start: int, stop: int) -> Any:
        """Give a contiguous batch."""
        return self._held.slice(start, stop) if self._small else self._collated(range(start, stop))

    def take(self, indices: Tensor) -> Any:
        """Give a batch of chosen samples."""
        return self._held.take(indices) if self._small else self._collated(indices.tolist())

    def _collated(self, indices: Iterable[int]) -> Any:
        rows = [self._dataset[i] for i in indices]
        try:
            raw = self._collate(rows)
        except (TypeError, RuntimeError) as error:
            raise _not_collated(self._what, rows[0], error) from None
        batch = plain_batch(raw, self._what)
        batch_length(batch, self._what)
        return batch

    @cached_property
    def _held(self) -> TensorSamples:
        return TensorSamples(self._collated(range(self._size)))


def _length(dataset: Any, what: str) -> int:
    try:
        size = len(dataset)
    except TypeError:
        raise InvalidProblem(
            f"{what}: {type(dataset).__name__} has no length; a map-style dataset has __len__ and"
            f" __getitem__. Give {KINDS}."
        ) from None
    if size == 0:
        raise empty(what)
    return size


def _not_collated(what: str, row: Any, error: Exception) -> InvalidProblem:
    return InvalidProblem(
        f"{what}: samples ({type(row).__name__}) do not make a batch"
        f" ({first_line(error)}); give tensors of one shape: transform images to tensors"
        " in __getitem__, pad sequences, or give a DataLoader with a collate_fn that does."
    )
