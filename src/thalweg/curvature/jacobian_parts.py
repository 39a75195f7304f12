"""A Jacobian taken apart by what each tensor of weights is used for: what is held of each use."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from thalweg.curvature.jacobian_factors import Dense, Factor, Lookups, Patches, Rows
from thalweg.curvature.output_rows import OutputRows
from thalweg.tracing.autograd_graph import Place, read_places
from thalweg.tracing.uses import Layout, Lookup, Product, Scale, Use, as_it_is, find_layout

Path = tuple[str | int, ...]


class Irregular(Exception):
    """Batches use weights in different ways."""


@dataclass(frozen=True)
class Found:
    """A use in one batch, and where its samples lie."""

    use: Use
    layout: Layout


@dataclass(frozen=True)
class Span:
    """Samples of a batch: their places among all, and how many there are."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.stop - self.start


class Reading:
    """
    Which uses of weights tell samples apart, decided on a few, found again in batches.

    Parameters
    ----------
    rows : OutputRows
        The outputs.

    Attributes
    ----------
    first : dict of str to dict
        Uses of each tensor for those few, by their paths in the graph.
    samples : int
        How many they are.
    unknown : list of str
        Tensors that are used in a way that is not known.
    """

    def __init__(self, rows: OutputRows) -> None:
        self._rows = rows
        self._taken: set[Path] = set()
        self._opened: set[Path] = set()
        self._layouts: dict[Path, Layout] = {}
        self._places: dict[Path, float] = {}
        leaves, outputs = rows.evaluate_few()
        self.samples = len(outputs)
        places = read_places(outputs, leaves)
        self.unknown = self._decide(places, outputs)
        readable = {name: of_name for name, of_name in places.items() if name not in self.unknown}
        self.first: dict[str, dict[Path, Found]] = {
            name: self._follow(name, of_name, outputs) for name, of_name in readable.items()
        }

    def uses(
        self, names: Sequence[str], places: Mapping[str, Sequence[Place]], outputs: Tensor
    ) -> dict[Path, Found]:
        """
        Find the uses of some tensors in a batch.

        Raises
        ------
        Irregular
            If they are others than those that were decided on.
        """
        uses: dict[Path, Found] = {}
        for name in names:
            uses |= self._follow(name, places.get(name, ()), outputs)
        if set(uses) != {path for name in names for path in self.first[name]}:
            raise Irregular
        return uses

    def _decide(self, places: Mapping[str, Sequence[Place]], outputs: Tensor) -> list[str]:
        """Take each use whose cotangents tell samples apart, or look where the entries go on."""
        unknown: list[str] = []
        asked: list[tuple[Path, Place]] = [
            ((name, i), p) for name, of_name in places.items() for i, p in enumerate(of_name)
        ]
        while asked:
            layouts = self._layouts_of(
                {(*path, i): use for path, place in asked for i, use in enumerate(place.uses)},
                outputs,
            )
            further: list[tuple[Path, Place]] = []
            for path, place in asked:
                own = {(*path, i): layouts.get((*path, i)) for i in range(len(place.uses))}
                if own and None not in own.values():
                    self._taken.add(path)
                    self._layouts |= own  # type: ignore[arg-type]
                elif place.above is not None:
                    self._opened.add(path)
                    further += [((*path, "above", i), p) for i, p in enumerate(place.above)]
                else:
                    unknown.append(str(path[0]))
            asked = further
        return list(dict.fromkeys(unknown))

    def _moved(self, path: Path, use: Use, samples: int) -> bool:
        """Say whether samples may lie otherwise in this batch: of other lengths, or in no order."""
        layout = self._layouts[path]
        places = _places(use, layout) / samples
        return isinstance(layout.order, Tensor) or self._places.setdefault(path, places) != places

    def _layouts_of(self, uses: Mapping[Path, Use], outputs: Tensor) -> dict[Path, Layout]:
        """Find where samples lie in what operations give; leave out where they are mixed."""
        if not uses:
            return {}
        edges = [use.edge for use in uses.values()]
        generator = torch.Generator().manual_seed(0)
        mix = torch.randn(outputs.shape[1], dtype=outputs.dtype, generator=generator)
        numbers = torch.arange(1, len(outputs) + 1, dtype=outputs.dtype)
        pairs = zip(
            uses.items(),
            cotangents_of((outputs @ mix).sum(), edges),
            cotangents_of((outputs @ mix) @ numbers, edges),
            strict=True,
        )
        layouts = {
            path: find_layout(use.arrange(plain), use.arrange(numbered), use.dims, len(outputs))
            for (path, use), plain, numbered in pairs
        }
        return {path: layout for path, layout in layouts.items() if layout is not None}

    def _follow(self, name: str, places: Sequence[Place], outputs: Tensor) -> dict[Path, Found]:
        uses: dict[Path, Use] = {}
        asked: list[tuple[Path, Place]] = [((name, i), p) for i, p in enumerate(places)]
        while asked:
            path, place = asked.pop()
            if path in self._taken:
                uses |= {(*path, i): use for i, use in enumerate(place.uses)}
            elif path in self._opened and place.above is not None:
                asked += [((*path, "above", i), p) for i, p in enumerate(place.above)]
            else:
                raise Irregular
        if not set(uses) <= set(self._layouts):
            raise Irregular
        anew = {path: use for path, use in uses.items() if self._moved(path, use, len(outputs))}
        new_layouts = self._layouts_of(anew, outputs)
        if set(new_layouts) != set(anew):
            raise Irregular
        layouts = self._layouts | new_layouts
        return {path: Found(use, layouts[path]) for path, use in uses.items()}


def _places(use: Use, layout: Layout) -> int:
    """Count the places along which samples are told apart."""
    node: Any = use.edge.node
    shape = tuple(node._input_metadata[use.edge.output_nr].shape)
    return use.arrange(torch.empty(shape, device="meta")).shape[layout.dim]


def cotangents_of(value: Tensor, edges: Sequence[GradientEdge]) -> list[Tensor]:
    """Differentiate a number in what operations give; zeros where it does not depend on them."""
    slopes = torch.autograd.grad(value, edges, retain_graph=True, allow_unused=True)
    shapes = (edge.node._input_metadata[edge.output_nr].shape for edge in edges)
    return [
        torch.zeros(tuple(shape), dtype=value.dtype) if slope is None else slope
        for slope, shape in zip(slopes, shapes, strict=True)
    ]


class Part(ABC):
    """
    Some columns of the Jacobian, as they are held while batches pass.

    Attributes
    ----------
    names : tuple of str
        The tensors they belong to.
    entries : list of (str, Tensor)
        Which column is which entry of which tensor, int64; of parts that hold columns.
    numbers : int
        Held for each sample.
    columns : int
        Number of columns.
    depth : int
        Multiplications for each pair of rows of a product of them.
    """

    names: tuple[str, ...]
    entries: list[tuple[str, Tensor]]
    numbers: int
    columns: int
    depth: int

    @abstractmethod
    def begin(self, samples: int, count: int) -> None:
        """Make room for all samples, each with ``count`` rows."""

    @abstractmethod
    def add(
        self, span: Span, output: int, uses: Mapping[Path, Found], slopes: Mapping[Path, Tensor]
    ) -> None:
        """Take what a batch gives for one output."""

    @abstractmethod
    def end(self) -> Factor:
        """Give it all, and hold it no longer."""


class _Outer(Part):
    """A product that acts once on each sample, and perhaps the bias on what it gives."""

    def __init__(self, path: Path, placed: Found, bias: str | None, count: int) -> None:
        self._path, self._bias = path, bias
        inputs, units = placed.use.entries.shape
        self.names = (str(path[0]),) if bias is None else (str(path[0]), bias)
        self._shape, self.entries = (inputs, units), []
        self.numbers, self.columns = inputs + count * units, inputs * units
        self.depth = inputs + units

    def begin(self, samples: int, count: int) -> None:
        inputs, units = self._shape
        self._inputs = np.zeros((samples, inputs))
        self._cotangents = np.zeros((samples, count, units))

    def add(
        self, span: Span, output: int, uses: Mapping[Path, Found], slopes: Mapping[Path, Tensor]
    ) -> None:
        inputs, cotangents = _parts([self._path], span, uses, slopes)
        if inputs.shape[1] != 1:
            raise Irregular
        self._inputs[span.start : span.stop] = inputs[:, 0]
        self._cotangents[span.start : span.stop, output] = cotangents[:, 0]

    def end(self) -> Factor:
        cotangents = self._cotangents.reshape(-1, self._cotangents.shape[-1])
        factor = Dense(self._inputs, cotangents, True, self._bias is not None)
        del self._inputs, self._cotangents
        return factor


class _Spread(Part):
    """Products at several places of each sample: held as they are, where that is less."""

    def __init__(self, paths: Sequence[Path], uses: Mapping[Path, Found], places: int, count: int):
        self._paths = list(paths)
        inputs, units = uses[self._paths[0]].use.entries.shape
        self.names, self.entries = (str(self._paths[0][0]),), []
        self._shape = (places, inputs, units)
        self.numbers = places * (inputs + count * units)
        self.columns = self.depth = inputs * units

    def begin(self, samples: int, count: int) -> None:
        places, inputs, units = self._shape
        self._inputs = np.zeros((samples, places, inputs))
        self._cotangents = np.zeros((samples, count, places, units))

    def add(
        self, span: Span, output: int, uses: Mapping[Path, Found], slopes: Mapping[Path, Tensor]
    ) -> None:
        inputs, cotangents = _parts(self._paths, span, uses, slopes)
        if inputs.shape[1] != self._shape[0]:
            raise Irregular
        self._inputs[span.start : span.stop] = inputs
        self._cotangents[span.start : span.stop, output] = cotangents

    def end(self) -> Factor:
        factor = Patches(self._inputs, self._cotangents, True, False)
        del self._inputs, self._cotangents
        return factor


class _Table(Part):
    """Rows of a table that are read at several places of each sample."""

    def __init__(self, paths: Sequence[Path], uses: Mapping[Path, Found], places: int, count: int):
        self._paths = list(paths)
        size = uses[self._paths[0]].use.entries.shape[1]
        self.names, self.entries = (str(self._paths[0][0]),), []
        self._shape = (places, size)
        self.numbers = places * (1 + count * size)
        self.columns = self.depth = places * size

    def begin(self, samples: int, count: int) -> None:
        places, size = self._shape
        self._indices = np.zeros((samples, places), dtype=np.int64)
        self._cotangents = np.zeros((samples, count, places, size))

    def add(
        self, span: Span, output: int, uses: Mapping[Path, Found], slopes: Mapping[Path, Tensor]
    ) -> None:
        indices, cotangents = _parts(self._paths, span, uses, slopes)
        if indices.shape[1] != self._shape[0]:
            raise Irregular
        self._indices[span.start : span.stop] = indices
        self._cotangents[span.start : span.stop, output] = cotangents

    def end(self) -> Factor:
        factor = Lookups(self._indices, self._cotangents)
        del self._indices, self._cotangents
        return factor


class Columns(Part):
    """
    Columns as they are.

    Parameters
    ----------
    entries : list of (str, Tensor)
        Which of which tensor.
    count : int
        k.
    paths : sequence of path
        Uses that all have exactly these entries, or that share some of them with others.
    units : tuple of int or None
        First and last of the units to which the uses are narrowed; None for all.
    together : bool
        Whether uses share entries only in part, so that each is put in its place.
    """

    def __init__(
        self,
        entries: list[tuple[str, Tensor]],
        count: int,
        paths: Sequence[Path] = (),
        *,
        units: tuple[int, int] | None = None,
        together: bool = False,
    ) -> None:
        self.names = tuple(dict.fromkeys(name for name, _ in entries))
        self.entries, self._paths = entries, list(paths)
        self._units, self._together = units, together
        self.columns = self.depth = sum(len(places) for _, places in entries)
        self.numbers = count * self.columns

    def begin(self, samples: int, count: int) -> None:
        """Make room for all samples, each with ``count`` rows."""
        # Not zeros: memory that is read before it is written to is mapped twice.
        self._columns = np.empty((samples, count, self.columns))

    def add(
        self, span: Span, output: int, uses: Mapping[Path, Found], slopes: Mapping[Path, Tensor]
    ) -> None:
        """Take what a batch gives for one output."""
        here = self._columns[span.start : span.stop, output]
        if self._together:
            here[:] = 0.0
        for number, path in enumerate(self._paths):
            use, layout = uses[path].use, uses[path].layout
            use = use if self._units is None else use.narrow(*self._units)
            gradients = use.gradients(use.arrange(slopes[path]), layout, span.size).numpy()
            if self._together:
                here[:, use.entries.reshape(-1).numpy()] += gradients
            elif number == 0:
                here[:] = gradients
            else:
                here += gradients

    def put(self, span: Span, rows: Tensor) -> None:
        """Take a batch's rows as they are, shape (n k, columns)."""
        shape = (span.size, -1, self.columns)
        self._columns[span.start : span.stop] = rows.reshape(shape).numpy()

    def end(self) -> Rows:
        """Give it all, and hold it no longer."""
        rows = Rows(self._columns.reshape(-1, self.columns))
        del self._columns
        return rows


def _parts(
    paths: Sequence[Path], span: Span, uses: Mapping[Path, Found], slopes: Mapping[Path, Tensor]
) -> tuple[Tensor, Tensor]:
    """Join what several uses of one tensor read, and its cotangents, along a sample's places."""
    pairs = []
    for path in paths:
        use, layout = uses[path].use, uses[path].layout
        assert isinstance(use, Product | Lookup)
        pairs.append(use.parts(use.arrange(slopes[path]), layout, span.size))
    inputs, cotangents = zip(*pairs, strict=True)
    return torch.cat(inputs, 1), torch.cat(cotangents, 1)


def make_parts(reading: Reading, rows: OutputRows, *, columns: bool, held: int) -> list[Part]:
    """
    Decide what is held of each tensor's uses.

    Parameters
    ----------
    reading : Reading
        Of the outputs.
    rows : OutputRows
        The outputs.
    columns : bool
        Whether columns of the Jacobian are wanted, each in its place; else products of its rows.
    held : int
        Numbers that a part may hold.
    """
    return _Maker(reading, rows, columns, held).parts()


class _Maker:
    def __init__(self, reading: Reading, rows: OutputRows, columns: bool, held: int) -> None:
        self._reading, self._rows, self._columns, self._held = reading, rows, columns, held
        self._done: set[str] = set()

    def parts(self) -> list[Part]:
        """Make the parts of all known tensors."""
        parts: list[Part] = []
        # Products first: they take biases with them.
        kinds = sorted(self._reading.first, key=lambda name: not self._is_product(name))
        for name in kinds:
            if name not in self._done and self._reading.first[name]:
                self._done.add(name)
                parts += self._of_tensor(name)
        return parts

    def _is_product(self, name: str) -> bool:
        uses = self._reading.first[name].values()
        return all(isinstance(placed.use, Product) for placed in uses)

    def _of_tensor(self, name: str) -> list[Part]:
        uses = self._reading.first[name]
        groups: list[list[Path]] = []
        for path, placed in uses.items():
            for group in groups:
                if torch.equal(uses[group[0]].use.entries, placed.use.entries):
                    group.append(path)
                    break
            else:
                groups.append([path])
        entries = [uses[group[0]].use.entries.reshape(-1) for group in groups]
        apart = len(torch.cat(entries).unique()) == sum(map(len, entries))
        same_kind = all(len({type(uses[path].use) for path in group}) == 1 for group in groups)
        if apart and same_kind:
            return [part for group in groups for part in self._of_group(name, group)]
        whole = torch.arange(self._rows.sizes()[name])
        return [Columns([(name, whole)], self._rows.count, list(uses), together=True)]

    def _of_group(self, name: str, paths: list[Path]) -> list[Part]:
        uses, count = self._reading.first[name], self._rows.count
        first = uses[paths[0]].use
        if not self._columns and isinstance(first, Product | Lookup):
            places = self._places(name, paths)
            if isinstance(first, Product) and places == 1:
                return [_Outer(paths[0], uses[paths[0]], self._bias(paths[0]), count)]
            kind = _Spread if isinstance(first, Product) else _Table
            part = kind(paths, uses, places, count)
            if part.numbers < count * first.entries.numel():
                return [part]
        return self._in_columns(name, paths)

    def _in_columns(self, name: str, paths: list[Path]) -> list[Part]:
        """Cut columns so that each part can be held."""
        use, count = self._reading.first[name][paths[0]].use, self._rows.count
        size = use.entries.numel()
        pieces = min(use.units, math.ceil(self._rows.rows * size / self._held))
        if pieces <= 1:
            return [Columns([(name, use.entries.reshape(-1))], count, paths)]
        ends = [use.units * i // pieces for i in range(pieces + 1)]
        answer: list[Part] = []
        for bounds in itertools.pairwise(ends):
            entries = [(name, use.narrow(*bounds).entries.reshape(-1))]
            answer.append(Columns(entries, count, paths, units=bounds))
        return answer

    def _places(self, name: str, paths: list[Path]) -> int:
        total = 0
        for path in paths:
            placed = self._reading.first[name][path]
            assert isinstance(placed.use, Product | Lookup)
            read = placed.use.inputs if isinstance(placed.use, Product) else placed.use.indices
            by_sample = placed.layout.by_sample(read, self._reading.samples)
            total += by_sample.shape[1] * (
                1 if isinstance(placed.use, Product) else by_sample[0, 0].numel()
            )
        return total

    def _bias(self, path: Path) -> str | None:
        """Find the tensor that is added, and used for nothing else, to what a product gives."""
        product = self._reading.first[str(path[0])][path].use
        for name, uses in self._reading.first.items():
            if name in self._done or len(uses) != 1 or product.arrange is not as_it_is:
                continue
            use = next(iter(uses.values())).use
            same = use.edge.node is product.edge.node and use.entries.shape == (1, product.units)
            if same and isinstance(use, Scale) and use.factor is None:
                self._done.add(name)
                return name
        return None
