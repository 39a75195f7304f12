"""Batches as they are given, each of which is one unit, and data that are one whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from thalweg.errors import InvalidProblem, NotDeterministic, OutOfBudget
from thalweg.problems.batches import HELD_BYTES, batch_length, digest, empty, plain_batch, read_once
from thalweg.problems.objects import box, unbox


class Given(NamedTuple):
    """
    Some given batches, each of which counts as one.

    Attributes
    ----------
    batches : tuple
        As they were given, in boxes where they are no trees of tensors.
    """

    batches: tuple[Any, ...]


class Batches:
    """
    Batches as they are given: no sample is taken out of its batch.

    For data whose batches cannot be joined (graphs, sequences padded batch by batch), and for
    losses that compare the samples of a batch. The risk is the mean of the batches' losses,
    weighted by their numbers of samples (of tokens or pixels that are not ignored, of class
    weights), or by ``Problem(weight=...)``. One batch is one step of training.

    Parameters
    ----------
    batches : iterable
        A list of batches, or anything that gives the same ones each time it is iterated, such as a
        ``DataLoader`` without shuffling. A batch may be or hold any object.

    Raises
    ------
    InvalidProblem
        If there are none, or they can be read only once.
    NotDeterministic
        When they are first needed: if they differ between two readings.

    Examples
    --------
    >>> x, y = torch.randn(10, 3), torch.zeros(10, 1)
    >>> batches = Batches([(x[:6], y[:6]), (x[6:], y[6:])])
    >>> len(batches), batches.described
    (2, 'batches as given (2 batches)')
    """

    joined = False
    targets = None

    def __init__(self, batches: Iterable[Any], *, what: str = "the data") -> None:
        if isinstance(batches, Iterator):
            raise read_once(batches, what)
        if isinstance(batches, Sequence) and not len(batches):
            raise empty(what)
        if isinstance(batches, (Tensor, str, bytes)) or not isinstance(batches, Iterable):
            raise InvalidProblem(
                f"{what}: got {type(batches).__name__}; Batches takes a list of batches or a"
                " DataLoader, Whole(data) what is one batch."
            )
        self._batches, self._what = batches, what

    def __len__(self) -> int:
        """Count the batches."""
        return len(self._held)

    @property
    def described(self) -> str:
        """How the data are taken."""
        return f"batches as given ({len(self)} batches)"

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all tensors."""
        return digest(*tree_leaves(self._held))

    def slice(self, start: int, stop: int) -> Given:
        """Give some consecutive batches."""
        return Given(tuple(self._held[start:stop]))

    def take(self, indices: Tensor) -> Given:
        """Give chosen batches."""
        return Given(tuple(self._held[i] for i in indices.tolist()))

    @cached_property
    def _held(self) -> list[Any]:
        # A loader draws from the global generator whenever it is begun.
        with torch.random.fork_rng(devices=[]):
            batches = list(self._read())
            if not isinstance(self._batches, Sequence):
                self._compare(batches)
        if not batches:
            raise empty(self._what)
        return batches

    def _read(self) -> Iterator[Any]:
        size = 0
        for raw in self._batches:
            batch = given_batch(raw)
            size += sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(batch))
            if size > HELD_BYTES and not isinstance(self._batches, Sequence):
                raise OutOfBudget(
                    f"{self._what}: the batches exceed {HELD_BYTES >> 20} MiB, and given ones are"
                    " held in memory; give fewer of them."
                )
            yield batch

    def _compare(self, batches: list[Any]) -> None:
        again = [digest(*tree_leaves(given_batch(raw))) for raw in self._batches]
        if again != [digest(*tree_leaves(batch)) for batch in batches]:
            raise NotDeterministic(
                f"{self._what}: read twice, the batches differ; they are shuffled, augmented or can"
                " be read only once. A landscape is a function of the weights alone: write"
                " DataLoader(..., shuffle=False), or hold the batches in a list: list(loader)."
            )


class Whole(Batches):
    """
    Data that are one indivisible whole: a graph, or a set whose samples are all compared.

    Parameters
    ----------
    batch : object
        Anything that the loss takes.

    Examples
    --------
    >>> Whole({"nodes": torch.zeros(5, 2), "edges": torch.zeros(2, 9)}).described
    'one whole'
    """

    def __init__(self, batch: Any, *, what: str = "the data") -> None:
        super().__init__([batch], what=what)

    @property
    def described(self) -> str:
        """How the data are taken."""
        return "one whole"


def given_batch(raw: Any) -> Any:
    """Give a batch as a tree of tensors, arrays made tensors, what is neither in a box."""
    try:
        return plain_batch(raw, "batches")
    except InvalidProblem:
        return box(tree_map(_tensor, raw))


def count_samples(batch: Any) -> int | None:
    """Count the samples of a given batch; None where it does not say how many it has."""
    opened = unbox(batch)
    try:
        return batch_length(given_batch(opened))
    except InvalidProblem:
        pass
    counts = (getattr(opened, name, None) for name in ("num_graphs", "batch_size"))
    size = next((count for count in counts if isinstance(count, int)), None)
    if size is None and hasattr(type(opened), "__len__") and not isinstance(opened, _CONTAINERS):
        size = len(opened)
    return size


_CONTAINERS = (dict, list, tuple, Tensor)


def _tensor(leaf: Any) -> Any:
    return torch.as_tensor(leaf) if type(leaf).__name__ == "ndarray" else leaf
