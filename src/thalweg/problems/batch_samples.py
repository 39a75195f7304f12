"""Samples of a re-iterable of batches, such as a loader."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from thalweg.errors import InvalidProblem, OutOfBudget
from thalweg.problems.batches import (
    HELD_BYTES,
    UNAUGMENT,
    UNSHUFFLE,
    batch_length,
    concatenate,
    empty,
    equal,
    not_fixed,
    plain_batch,
)
from thalweg.problems.given import Batches, given_batch
from thalweg.problems.tensor_samples import TensorSamples

log = logging.getLogger("thalweg")


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
    def _held(self) -> TensorSamples | Batches:
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

    def _join(self, batches: list[Any]) -> Any:
        """Give all batches as one; None where they are not alike."""
        try:
            for batch in batches:
                batch_length(plain_batch(batch, self._what))
            return concatenate(batches, self._what)
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
            raise not_fixed(
                f"{self._what}: read twice, batches differ from sample {start} on; they are"
                " shuffled, augmented or can be read only once",
                f"{UNSHUFFLE}, and {UNAUGMENT}",
            )


def is_object(data: Any) -> bool:
    """Say whether data are an object that holds tensors, as graph libraries have them."""
    plain = (list, tuple, str, bytes, range, set, frozenset)
    if isinstance(data, plain) or not (hasattr(data, "to") or not isinstance(data, Iterable)):
        return False
    return bool(tree_leaves(given_batch(data)))


def _has_several_inputs(raw: Any) -> bool:
    """Say whether a batch has several inputs, which may count other things than samples."""
    several = isinstance(raw, (tuple, list)) and any(
        isinstance(element, (tuple, list, Mapping)) for element in raw
    )
    return several and all(isinstance(leaf, Tensor) for leaf in tree_leaves(raw))


def _holds_object(raw: Any) -> bool:
    """Say whether a batch holds an object with tensors in it."""
    return any(is_object(leaf) for leaf in tree_leaves(raw) if not isinstance(leaf, Tensor))
