"""Tangents of factors on a network's channels, and of mixings of channels, from its graph."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.tracing.channels import Channels
from thalweg.tracing.graph import Node

Indices = NDArray[np.int64]
Array = NDArray[np.float64]
# Directions of channels mixed with one another, the square of their number: more are not listed.
MIXED = 4096


@dataclass(frozen=True)
class Direction:
    """
    A sparse vector of weight space.

    Attributes
    ----------
    entries : ndarray
        Places in the flat vector, int64, shape (k,).
    values : ndarray
        float64, shape (k,).
    """

    entries: Indices
    values: Array

    @classmethod
    def of(cls, parts: list[tuple[Indices, Array]]) -> Direction:
        """Join parts; values at one place are added."""
        entries = np.concatenate([entries.reshape(-1) for entries, _ in parts])
        values = np.concatenate([values.reshape(-1) for _, values in parts])
        order = entries.argsort(kind="stable")
        entries, values = entries[order], values[order]
        first = np.flatnonzero(np.diff(entries, prepend=-1))
        if len(first) == len(entries):
            return cls(entries, values)
        return cls(entries[first], np.add.reduceat(values, first))


@dataclass
class _Class:
    """All that goes with one free factor."""

    # Weights by the group they belong to and by the sign of the factor's power.
    weights: dict[tuple[int, int], list[Indices]] = field(default_factory=lambda: defaultdict(list))
    values: list[tuple[Indices, Array]] = field(default_factory=list)
    vectors: list[tuple[int, int]] = field(default_factory=list)
    plain: bool = True
    read: bool = False
    normed: bool = False
    heads: bool = False

    @property
    def kind(self) -> str:
        """What explains its direction."""
        if self.normed and not self.read:
            return "batch norm"
        return "attention" if self.heads else "rescaling"

    @property
    def signature(self) -> tuple[object, ...]:
        """What it has in common with classes that it can be mixed with."""
        counts = sorted((key, len(rows)) for key, rows in self.weights.items())
        return *counts, *sorted(self.vectors)


class Scalings:
    """
    Directions along free factors of channels.

    Parameters
    ----------
    channels : Channels
        Which factors go with which.
    w : ndarray
        Shape (W,), float64.
    batch_statistics : bool
        Whether batch norm uses those of the batch.
    variances : mapping of Node to ndarray
        Of what each batch norm reads, where it does.

    Attributes
    ----------
    crowded : int
        Largest number of channels that could be mixed, and were too many; 0 for none.
    """

    def __init__(
        self,
        channels: Channels,
        w: Array,
        *,
        batch_statistics: bool,
        variances: Mapping[Node, Array],
    ) -> None:
        self._channels, self._w, self._batch = channels, w, batch_statistics
        self._variances = variances
        self._classes: dict[int, _Class] = defaultdict(_Class)
        self.crowded = 0
        self._add_weights()
        self._add_corrections()
        self._add_vectors()

    def directions(self) -> Iterator[tuple[str, Direction]]:
        """Give each direction with its kind."""
        alike: dict[tuple[object, ...], list[_Class]] = defaultdict(list)
        for scaling in self._classes.values():
            if scaling.plain and scaling.weights:
                alike[scaling.signature].append(scaling)
            elif scaling.values:
                yield scaling.kind, Direction.of(scaling.values)
        allowance = MIXED
        for classes in alike.values():
            if len(classes) ** 2 <= allowance:
                allowance -= len(classes) ** 2
                yield from self._mixings(classes)
            else:
                self.crowded = max(self.crowded, len(classes))
                yield from ((scaling.kind, Direction.of(scaling.values)) for scaling in classes)

    def _roots(self, factors: Indices) -> Iterator[tuple[int, int, float]]:
        """Give the place of each free factor, what it is tied to, and its power of that."""
        for place, factor in enumerate(factors.tolist()):
            root, power = self._channels.ties.find(factor)
            if root:
                yield place, root, power

    def _add_weights(self) -> None:
        for number, group in enumerate(self._channels.groups):
            for place, root, power in self._roots(group.factors):
                entries, scaling = group.entries[place], self._classes[root]
                scaling.weights[number, int(np.sign(power)) * group.sign].append(entries)
                scaling.values.append((entries, group.sign * power * self._w[entries]))
                scaling.plain &= abs(power) == 1
                scaling.read |= group.sign < 0

    def _add_corrections(self) -> None:
        for correction in self._channels.corrections:
            places = correction.scale if self._batch else correction.shift
            amounts = self._made_up(correction.node, correction.scale)
            for place, root, power in self._roots(correction.factors):
                scaling = self._classes[root]
                scaling.normed |= self._batch
                scaling.plain = False
                if places is not None:
                    entries = places[place : place + 1]
                    scaling.values.append((entries, power * amounts[place : place + 1]))

    def _made_up(self, node: Node, scale: Indices | None) -> Array:
        """
        Say what a batch norm's weight changes by for a factor on what it reads.

        With statistics of the batch a factor t changes normalized values by
        t (v + eps)^1/2 / (t^2 v + eps)^1/2, v their variance, and the scale makes up for it: to
        first order by eps / (v + eps). With stored ones the scale is divided by t, and the shift
        makes up for what the stored mean then misses.
        """
        module: Any = node.module
        if scale is None:
            return np.zeros(0)
        if self._batch:
            return np.asarray(-self._w[scale] * module.eps / (self._variances[node] + module.eps))
        share: Array = (
            (module.running_mean / (module.running_var + module.eps).sqrt()).cpu().numpy()
        )
        return -self._w[scale] * share

    def _add_vectors(self) -> None:
        for number, vectors in enumerate(self._channels.vectors):
            for row, factors in enumerate(vectors.cpu().numpy()):
                for _, root, _ in self._roots(factors):
                    if root in self._classes:
                        self._classes[root].vectors.append((number, row))
                        self._classes[root].heads |= len(factors) > 1

    def _mixings(self, classes: list[_Class]) -> Iterator[tuple[str, Direction]]:
        """Give the tangents of ``A -> G A, B -> B G^-1``, A making and B reading the channels."""
        rows = [
            {key: np.concatenate(w) for key, w in scaling.weights.items()} for scaling in classes
        ]
        for into, source in itertools.product(range(len(classes)), repeat=2):
            parts = [
                (rows[into][key], self._w[rows[source][key]])
                if key[1] > 0
                else (rows[source][key], -self._w[rows[into][key]])
                for key in rows[into]
            ]
            yield classes[into].kind, Direction.of(parts)
