"""Samples at fixed places: what every kind of data becomes, so that sample i is always the same."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, cast

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import default_collate as collate_default

from thalweg.errors import InvalidProblem
from thalweg.problems.batch_samples import BatchSamples, is_object
from thalweg.problems.batches import (
    UNSHUFFLE,
    batch_length,
    empty,
    is_array,
    not_fixed,
    plain_batch,
    read_once,
)
from thalweg.problems.dataset_samples import KINDS, DatasetSamples
from thalweg.problems.given import Whole
from thalweg.problems.tensor_samples import TensorSamples

log = logging.getLogger("thalweg")


class Samples(Protocol):
    """
    N samples that can be taken in any order; or N batches as given, each taken as one.

    Attributes
    ----------
    joined : bool
        Whether any samples make a batch; given batches do not.
    described : str
        How the data are taken.
    targets : Tensor or None
        All targets, shape (N, ...), where they are at hand.
    fingerprint : str
        Digest of the content.
    """

    def __len__(self) -> int:
        """Count the samples N."""

    @property
    def joined(self) -> bool:
        """Whether any samples make a batch."""

    @property
    def described(self) -> str:
        """How the data are taken."""

    @property
    def targets(self) -> Tensor | None:
        """All targets."""

    @property
    def fingerprint(self) -> str:
        """Digest of the content."""

    def slice(self, start: int, stop: int) -> Any:
        """Give the samples ``start`` to ``stop`` as one batch."""

    def take(self, indices: Tensor) -> Any:
        """Give the samples of ``indices``, shape (n,), int64, as one batch."""


def as_samples(data: Any, *, what: str = "the data", anything: bool = False) -> Samples:
    """
    Make samples of what the user gave.

    Parameters
    ----------
    data : pair or dict of Tensor, Dataset, iterable of batches, or Samples
        A dataset or loader of up to 1 GiB is read once and held; its uneven last batch then
        counts by its samples. Batches that cannot be joined are taken as they are given.
    what : str
        How messages call it.
    anything : bool
        Whether the loss may take more than tensors of one length: where it is the user's own.

    Returns
    -------
    Samples
        Samples at fixed places.

    Raises
    ------
    InvalidProblem
        If the data are empty, can be read only once, or are of no known kind.
    NotDeterministic
        If they are shuffled or augmented; a loader is found out when it is first read.
    """
    if all(hasattr(type(data), name) for name in ("slice", "take", "fingerprint", "__len__")):
        return cast(Samples, data)
    if isinstance(data, Mapping) and anything and not _has_one_length(data):
        return _whole(data, what)
    if isinstance(data, (Tensor, Mapping)) or _is_batch(data):
        return _tensors(data, what)
    if isinstance(data, Iterator):
        raise read_once(data, what)
    if isinstance(data, DataLoader):
        return _loader(data, what, anything)
    if _is_map_style(data):
        return DatasetSamples(data, collate_default, what)
    if is_object(data) and anything:
        return _whole(data, what)
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise InvalidProblem(f"{what}: got {type(data).__name__}; give {KINDS}.")
    return BatchSamples(data, what, anything)


def _tensors(data: Any, what: str) -> TensorSamples:
    batch = plain_batch(data, what)
    if batch_length(batch, what) == 0:
        raise empty(what)
    return TensorSamples(batch)


def _whole(data: Any, what: str) -> Whole:
    log.info(
        "%s: a %s without a length of its own is taken as one whole.", what, type(data).__name__
    )
    return Whole(data, what=what)


def _loader(loader: DataLoader[Any], what: str, anything: bool) -> Samples:
    if isinstance(loader.sampler, RandomSampler):
        raise not_fixed(f"{what} come from a DataLoader that shuffles", UNSHUFFLE)
    whole = not loader.drop_last and loader.batch_size is not None
    if whole and isinstance(loader.sampler, SequentialSampler):
        try:
            return DatasetSamples(loader.dataset, loader.collate_fn, what, loader)
        except InvalidProblem:
            if loader.collate_fn is collate_default:
                raise
    return BatchSamples(loader, what, anything)


def _is_batch(data: Any) -> bool:
    """Say whether data are one batch of all samples: a pair, or a tuple of tensors."""
    if not (isinstance(data, (tuple, list)) and len(data) > 1):
        return False
    tensors = [isinstance(element, Tensor) or is_array(element) for element in data]
    return any(tensors) if len(data) == 2 else isinstance(data, tuple) and tensors[-1]


def _has_one_length(data: Any) -> bool:
    try:
        batch_length(plain_batch(data, "the data"))
    except InvalidProblem:
        return False
    return True


def _is_map_style(data: Any) -> bool:
    # The datasets of the Hugging Face hub are map-style without being torch's.
    is_dataset = isinstance(data, Dataset) or hasattr(data, "column_names")
    return is_dataset and hasattr(data, "__getitem__") and not isinstance(data, IterableDataset)
