"""Samples as a model takes them: converted once, not at every pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from thalweg.problems.batch_samples import BatchSamples
from thalweg.problems.dataset_samples import DatasetSamples
from thalweg.problems.samples import Samples
from thalweg.problems.tensor_samples import TensorSamples

_OF_TENSORS = (TensorSamples, DatasetSamples, BatchSamples)


class ConvertedSamples(TensorSamples):
    """
    Another form of samples, with the identity of those given.

    Parameters
    ----------
    batch : pytree of Tensor
        All samples as the model takes them: device, dtype and layout.
    given : Samples
        The samples as the user gave them.
    """

    def __init__(self, batch: Any, given: Samples) -> None:
        super().__init__(batch)
        self._given = given

    @property
    def targets(self) -> Tensor | None:
        """All targets, as they were given."""
        return self._given.targets

    @property
    def fingerprint(self) -> str:
        """Digest of what was given."""
        return self._given.fingerprint


def convert_once(samples: Samples, convert: Callable[[object], object], budget: int) -> Samples:
    """
    Convert samples once, where that takes memory at all, and no more than there is for it.

    Laying 2,000 images of 3x32x32 out channels last takes a twelfth of a pass over them.

    Parameters
    ----------
    samples : Samples
        Converted where they are joined tensors.
    convert : callable
        Gives a batch as the model takes it; the same tensors where nothing is to be done.
    budget : int
        Bytes that the converted tensors may take.

    Returns
    -------
    Samples
        Those given, or others that hold the same.
    """
    if not (isinstance(samples, _OF_TENSORS) and samples.joined):
        return samples
    first = samples.slice(0, 1)
    converted = convert(first)
    fits = len(samples) * sum(leaf.nbytes for leaf in _tensors(converted)) <= budget
    if not fits or _places(converted) <= _places(first):
        return samples
    return ConvertedSamples(convert(samples.slice(0, len(samples))), samples)


def _places(batch: object) -> set[int]:
    return {leaf.untyped_storage().data_ptr() for leaf in _tensors(batch)}


def _tensors(batch: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
