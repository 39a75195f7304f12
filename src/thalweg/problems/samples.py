"""Samples at fixed places: what every kind of data becomes, so that sample i is always the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import default_collate as collate_default

from thalweg.errors import InvalidProblem, NotDeterministic, OutOfBudget
from thalweg.problems.batches import (
    HELD_BYTES,
    batch_length,
    concatenate,
    digest,
    empty,
    equal,
    plain_batch,
    read_once,
    uneven,
)
from thalweg.problems.given import Batches, Whole, given_batch

_PROBED = 16
_JOINED = "samples joined along the first dimension"
log = logging.getLogger("thalweg")

_FIXED = (
    "A landscape is a function of the weights alone, so sample i must be the same at every look:"
    " {write}."
)
_UNSHUFFLE = "write DataLoader(..., shuffle=False), or give the dataset itself (loader.dataset)"
_UNAUGMENT = "leave augmentation and random transforms out of the data that are measured"
_KINDS = (
    "a pair of tensors (inputs, targets), a dict of tensors, a torch.utils.data.Dataset, a"
    " re-iterable of batches such as a DataLoader, or tw.Batches or tw.Whole of anything"
)


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
    if _is_object(data) and anything:
        return _whole(data, what)
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise InvalidProblem(f"{what}: got {type(data).__name__}; give {_KINDS}.")
    return BatchSamples(data, what, anything)


class TensorSamples:
    """
    Samples held in memory.

    Parameters
    ----------
    batch : pytree of Tensor
        All samples as one batch: every tensor's first dimension is N.
    """

    joined, described = True, _JOINED

    def __init__(self, batch: Any) -> None:
        leaves, self._form = tree_flatten(batch)
        self._leaves: list[Tensor] = leaves
        self._size = len(leaves[0])
        # Put together at once: building a tree takes 20 microseconds.
        self._plain = type(batch) is tuple and all(isinstance(part, Tensor) for part in batch)
        several = isinstance(batch, (tuple, list)) and len(batch) > 1
        self._targets = batch[-1] if several and isinstance(batch[-1], Tensor) else None

    def __len__(self) -> int:
        """Count the samples."""
        return self._size

    @property
    def targets(self) -> Tensor | None:
        """The last tensor of a pair or tuple."""
        return self._targets

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all tensors."""
        return digest(*self._leaves)

    def slice(self, start: int, stop: int) -> Any:
        """Give a contiguous batch, a view."""
        return self._batch([leaf[start:stop] for leaf in self._leaves])

    def take(self, indices: Tensor) -> Any:
        """Give a batch of chosen samples."""
        return self._batch([leaf[indices.to(leaf.device)] for leaf in self._leaves])

    def _batch(self, leaves: list[Tensor]) -> Any:
        return tuple(leaves) if self._plain else tree_unflatten(leaves, self._form)


class ImageSamples:
    """
    Images held as bytes, made to normalized floats a batch at a time.

    Parameters
    ----------
    images : Tensor
        Shape (N, C, H, W), uint8; may be a memory-mapped file, and in ``channels_last`` order.
    targets : Tensor
        Shape (N, ...).
    mean, std : Tensor
        Of each channel, shape (C,), in units of bytes (0 to 255).
    """

    joined, described = True, _JOINED

    def __init__(self, images: Tensor, targets: Tensor, mean: Tensor, std: Tensor) -> None:
        if len(images) != len(targets):
            raise uneven("the data", [len(images), len(targets)])
        self.images, self._targets = images, targets
        # Rows as they lie in memory: gathering 100 images of 3x32x32 then takes 0.03 ms, not 0.17,
        # and normalizing by whole images 0.03 ms, not 0.3.
        last = images.is_contiguous(memory_format=torch.channels_last)
        self._order, self._back = ((0, 2, 3, 1), (0, 3, 1, 2)) if last else ((0, 1, 2, 3),) * 2
        self._rows = images.permute(self._order)
        self._shift = self._spread(mean)
        self._scale = self._spread(1 / std)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images)

    @property
    def targets(self) -> Tensor:
        """All targets."""
        return self._targets

    @cached_property
    def fingerprint(self) -> str:
        """Digest of images, targets and normalization."""
        return digest(self.images, self._targets, self._shift, self._scale)

    def slice(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Give a contiguous batch: float32 images, targets."""
        return self._normalized(self._rows[start:stop]), self._targets[start:stop]

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Give a batch of chosen images: float32 images, targets."""
        where = indices.to(self.images.device)
        return self._normalized(self._rows.index_select(0, where)), self._targets[where]

    def _normalized(self, rows: Tensor) -> Tensor:
        return rows.to(torch.float32).sub_(self._shift).mul_(self._scale).permute(self._back)

    def _spread(self, values: Tensor) -> Tensor:
        image = values.to(self.images.device, torch.float32).reshape(1, -1, 1, 1)
        return image.expand(1, *self.images.shape[1:]).permute(self._order).contiguous()


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

    joined, described = True, _JOINED

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
            raise NotDeterministic(
                f"{what}: the same indices of {type(dataset).__name__} gave other samples the"
                f" second time. {_FIXED.format(write=_UNAUGMENT)}"
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


class BatchSamples:
    """
    Samples of a re-iterable of batches, read when first needed: once to hold, once to compare.

    Batches that do not join to one are taken as they are given.

    Parameters
    ----------
    batches : iterable
        Of batches; iterated twice.
    what : str
        How messages call it.
    anything : bool
        Whether the loss may take more than tensors of one length.

    Attributes
    ----------
    batches : iterable
        As they were given.
    """

    def __init__(self, batches: Iterable[Any], what: str, anything: bool) -> None:
        self.batches, self._what, self._anything = batches, what, anything
        if isinstance(batches, Sequence) and not len(batches):
            raise empty(what)

    def __len__(self) -> int:
        """Count the samples."""
        return len(self._held)

    @property
    def joined(self) -> bool:
        """Whether they could be joined."""
        return self._held.joined

    @property
    def described(self) -> str:
        """How the data are taken."""
        return self._held.described

    @property
    def targets(self) -> Tensor | None:
        """All targets."""
        return self._held.targets

    @property
    def fingerprint(self) -> str:
        """Digest of the content."""
        return self._held.fingerprint

    def slice(self, start: int, stop: int) -> Any:
        """Give a contiguous batch."""
        return self._held.slice(start, stop)

    def take(self, indices: Tensor) -> Any:
        """Give a batch of chosen samples."""
        return self._held.take(indices)

    @cached_property
    def _held(self) -> Samples:
        # A loader draws from the global generator whenever it is begun.
        with torch.random.fork_rng(devices=[]):
            joined = self._join(self._read())
            if joined is None:
                return Batches(self.batches, what=self._what)
            samples = TensorSamples(joined)
            self._compare(samples)
        return samples

    def _read(self) -> list[Any]:
        parts: list[Any] = []
        size = 0
        for raw in self.batches:
            parts.append(self._plain(raw))
            size += sum(t.numel() * t.element_size() for t in tree_leaves(parts[-1]))
            if size > HELD_BYTES:
                raise OutOfBudget(
                    f"{self._what}: the batches exceed {HELD_BYTES >> 20} MiB, and a loader's are"
                    " held in memory; give the map-style dataset itself, whose samples are read"
                    " when needed."
                )
        if not parts:
            raise empty(self._what)
        return parts

    def _plain(self, raw: Any) -> Any:
        """Give a batch as tensors that share their first dimension, if it may not be otherwise."""
        try:
            batch = plain_batch(raw, self._what)
            batch_length(batch, self._what)
        except InvalidProblem:
            if not (self._anything or _holds_object(raw) or _has_several_inputs(raw)):
                raise
            return given_batch(raw)
        return batch

    def _join(self, parts: list[Any]) -> Any:
        """Give all batches as one; None where they are not alike."""
        try:
            for part in parts:
                batch_length(plain_batch(part, self._what))
            return concatenate(parts, self._what)
        except InvalidProblem as error:
            log.info("%s. They are taken as they are given, each as one.", str(error).rstrip("."))
            return None

    def _compare(self, samples: TensorSamples) -> None:
        start = 0
        for raw in self.batches:
            batch = plain_batch(raw, self._what)
            stop = start + batch_length(batch)
            if stop > len(samples) or not equal(batch, samples.slice(start, stop)):
                break
            start = stop
        if start != len(samples):
            write = f"{_UNSHUFFLE}, and {_UNAUGMENT}"
            raise NotDeterministic(
                f"{self._what}: read twice, batches differ from sample {start} on; they are"
                f" shuffled, augmented or can be read only once. {_FIXED.format(write=write)}"
            )


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
        raise NotDeterministic(
            f"{what} come from a DataLoader that shuffles. {_FIXED.format(write=_UNSHUFFLE)}"
        )
    whole = not loader.drop_last and loader.batch_size is not None
    if whole and isinstance(loader.sampler, SequentialSampler):
        try:
            return DatasetSamples(loader.dataset, loader.collate_fn, what, loader)
        except InvalidProblem:
            if loader.collate_fn is collate_default:
                raise
    return BatchSamples(loader, what, anything)


def _length(dataset: Any, what: str) -> int:
    try:
        size = len(dataset)
    except TypeError:
        raise InvalidProblem(
            f"{what}: {type(dataset).__name__} has no length; a map-style dataset has __len__ and"
            f" __getitem__. Give {_KINDS}."
        ) from None
    if size == 0:
        raise empty(what)
    return size


def _is_batch(data: Any) -> bool:
    """Say whether data are one batch of all samples: a pair, or a tuple of tensors."""
    if not (isinstance(data, (tuple, list)) and len(data) > 1):
        return False
    tensors = [isinstance(part, Tensor) or type(part).__name__ == "ndarray" for part in data]
    return any(tensors) if len(data) == 2 else isinstance(data, tuple) and tensors[-1]


def _has_one_length(data: Any) -> bool:
    try:
        batch_length(plain_batch(data, "the data"))
    except InvalidProblem:
        return False
    return True


def _is_object(data: Any) -> bool:
    """Say whether data are an object that holds tensors, as graph libraries have them."""
    plain = (list, tuple, str, bytes, range, set, frozenset)
    if isinstance(data, plain) or not (hasattr(data, "to") or not isinstance(data, Iterable)):
        return False
    return bool(tree_leaves(given_batch(data)))


def _has_several_inputs(raw: Any) -> bool:
    """Say whether a batch has several inputs, which may count other things than samples."""
    several = isinstance(raw, (tuple, list)) and any(
        isinstance(part, (tuple, list, Mapping)) for part in raw
    )
    return several and all(isinstance(leaf, Tensor) for leaf in tree_leaves(raw))


def _holds_object(raw: Any) -> bool:
    """Say whether a batch holds an object with tensors in it."""
    return any(_is_object(leaf) for leaf in tree_leaves(raw) if not isinstance(leaf, Tensor))


def _is_map_style(data: Any) -> bool:
    # The datasets of the Hugging Face hub are map-style without being torch's.
    is_dataset = isinstance(data, Dataset) or hasattr(data, "column_names")
    return is_dataset and hasattr(data, "__getitem__") and not isinstance(data, IterableDataset)


def _not_collated(what: str, row: Any, error: Exception) -> InvalidProblem:
    return InvalidProblem(
        f"{what}: samples ({type(row).__name__}) do not make a batch"
        f" ({str(error).splitlines()[0]}); give tensors of one shape: transform images to tensors"
        " in __getitem__, pad sequences, or give a DataLoader with a collate_fn that does."
    )
