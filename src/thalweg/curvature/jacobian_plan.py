"""In which order a Jacobian's parts are taken, so that what is held fits in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from thalweg.curvature.jacobian_factors import Factor
from thalweg.curvature.jacobian_parts import (
    Columns,
    Part,
    Reading,
    Span,
    cotangents_of,
    make_parts,
)
from thalweg.curvature.output_rows import OutputRows
from thalweg.run.progress import Bar
from thalweg.tracing.autograd_graph import read_places

P = TypeVar("P", bound=Part)

# Numbers held at once beside the matrix (1 GB).
_HELD = 1 << 27
# What counts as one unit of progress: a million multiplications.
UNIT = 1_000_000
# A backward pass multiplies about twice what the forward pass before it does.
_BACK_AND_FORTH = 3


class Meter:
    """
    Tell a bar of multiplications, in whole units.

    Parameters
    ----------
    bar : Bar
        Of `UNIT` multiplications each.
    """

    def __init__(self, bar: Bar) -> None:
        self._bar, self._left = bar, 0

    def add(self, multiplications: int) -> None:
        """Count some more."""
        units, self._left = divmod(self._left + multiplications, UNIT)
        self._bar.update(units)


class Plan:
    """
    The parts of a Jacobian, in groups that are taken in one pass over the outputs.

    Parameters
    ----------
    rows : OutputRows
        The outputs.
    columns : bool
        Whether columns of the Jacobian are wanted; else products of its rows.
    read : bool
        Whether uses of weights are read off the graph; else rows are differentiated whole.
    """

    def __init__(self, rows: OutputRows, *, columns: bool, read: bool) -> None:
        self.rows = rows
        reading = Reading(rows) if read else None
        unknown = list(rows.names) if reading is None else reading.unknown
        self._reading = reading
        parts = [] if reading is None else make_parts(reading, rows, columns=columns, held=_HELD)
        self._known = _packed(parts, rows.samples)
        self._whole = _packed(self._of_unknown(unknown), rows.samples)

    @property
    def parts(self) -> list[Part]:
        """All of them."""
        groups: list[Sequence[Part]] = [*self._known, *self._whole]
        return [part for group in groups for part in group]

    @property
    def work(self) -> int:
        """Count the multiplications of all passes, roughly."""
        return self._pass_work * len(self._known) + self._whole_work * len(self._whole)

    @property
    def _pass_work(self) -> int:
        if self._reading is None:
            return 0
        uses = [placed.use for uses in self._reading.first.values() for placed in uses.values()]
        nodes: list[Any] = [use.edge.node for use in uses]
        shapes = [torch.Size(node._input_metadata[0].shape) for node in nodes]
        forward = sum(use.work(s.numel()) for use, s in zip(uses, shapes, strict=True))
        return _BACK_AND_FORTH * self.rows.rows * forward // self._reading.samples

    @property
    def _whole_work(self) -> int:
        work = self._pass_work or self.rows.rows * sum(self.rows.sizes().values())
        return _BACK_AND_FORTH * work

    def factors(self, meter: Meter) -> Iterator[tuple[Part, Factor]]:
        """Take the parts one pass after the other, and give each with what it holds."""
        for group in self._known:
            self._take(group, meter)
            yield from _ended(group)
        for whole in self._whole:
            self._take_whole(whole, meter)
            yield from _ended(whole)

    def _take(self, group: list[Part], meter: Meter) -> None:
        rows, names = self.rows, [name for part in group for name in part.names]
        assert self._reading is not None
        for part in group:
            part.begin(rows.samples, rows.count)
        for index, bounds in enumerate(rows.spans):
            span = Span(*bounds)
            leaves, outputs = rows.evaluate(index)
            named = {name: leaves[name] for name in names}
            uses = self._reading.uses(list(named), read_places(outputs, named), outputs)
            edges = [placed.use.edge for placed in uses.values()]
            for output in range(rows.count):
                slopes = cotangents_of(outputs[:, output].sum(), edges)
                for part in group:
                    part.add(span, output, uses, dict(zip(uses, slopes, strict=True)))
                meter.add(self._pass_work * span.size // rows.rows)

    def _take_whole(self, group: list[Columns], meter: Meter) -> None:
        rows, names = self.rows, [name for part in group for name in part.names]
        sizes = rows.sizes()
        for part in group:
            part.begin(rows.samples, rows.count)
        for index, bounds in enumerate(rows.spans):
            span = Span(*bounds)
            distinct = list(dict.fromkeys(names))
            work = self._whole_work // rows.rows
            report = partial(_add_rows, meter, work)
            blocks = rows.differentiate(distinct, index, report).split(
                [sizes[n] for n in distinct], 1
            )
            columns = dict(zip(distinct, blocks, strict=True))
            for part in group:
                part.put(span, torch.cat([columns[n][:, e] for n, e in part.entries], 1))

    def _of_unknown(self, names: list[str]) -> list[Columns]:
        """Cut the columns of tensors of unknown use so that each part can be held."""
        parts: list[Columns] = []
        for name in names:
            size = self.rows.sizes()[name]
            pieces = max(1, min(size, math.ceil(self.rows.rows * size / _HELD)))
            for entries in torch.arange(size).tensor_split(pieces):
                parts.append(Columns([(name, entries)], self.rows.count))
        return parts


def _add_rows(meter: Meter, work: int, count: int) -> None:
    meter.add(work * count)


def _ended(group: Sequence[Part]) -> Iterator[tuple[Part, Factor]]:
    for part in group:
        yield part, part.end()


def _packed(parts: list[P], samples: int) -> list[list[P]]:
    """Put parts into groups, each of which fits."""
    groups: list[list[P]] = []
    left = 0
    for part in parts:
        numbers = samples * part.numbers
        if not groups or numbers > left:
            groups.append([])
            left = _HELD
        groups[-1].append(part)
        left -= numbers
    return groups
