"""What may change places in a network, read off its structure and tried on its data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from thalweg.errors import NotDefined
from thalweg.evaluation.model_copy import to
from thalweg.problems.functional import call_with
from thalweg.problems.module_attributes import left_alone
from thalweg.problems.problem import Problem
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.seeds import numpy_generator
from thalweg.tracing.calls import arguments_of
from thalweg.tracing.channels import Channels
from thalweg.tracing.graph import Graph
from thalweg.tracing.kinds import NORMS
from thalweg.tracing.layers import layer_type
from thalweg.tracing.matrix_products import Products
from thalweg.tracing.trace import trace
from thalweg.tracing.units import Exchange, Units

Indices = NDArray[np.int64]
Array = NDArray[np.float64]

# Samples on which outputs are compared; relative differences of outputs that are rounding.
_COMPARED = 64
SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Block:
    """
    Units of which any two may change places.

    Attributes
    ----------
    name : str
        Of the layer that makes them.
    uses : tuple of ndarray
        Places in the state of all that goes with them, each of shape (units, fan).
    trained : tuple of ndarray
        Those among them that are trained weights, not statistics of batch norm.
    channels : tuple of int
        Their numbers in the traced network.
    """

    name: str
    uses: tuple[Indices, ...]
    trained: tuple[Indices, ...]
    channels: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.uses[0])


@dataclass(frozen=True, eq=False)
class Mixed:
    """
    Channels that only linear maps make and read: an invertible map of them leaves the outputs.

    Attributes
    ----------
    made, read : ndarray
        Places of the weights that the map multiplies, and of those that its inverse transpose
        multiplies, each of shape (channels, fan).
    """

    made: Indices
    read: Indices


@dataclass(frozen=True, eq=False)
class Heads:
    """
    Heads of an attention, any two of which may change places.

    Attributes
    ----------
    whole : Block
        The heads.
    inside : tuple of tuple of Mixed
        Of each head: its queries with its keys, and its values with what reads them. Empty where
        these may not be mixed; their channels are blocks of their own then.
    """

    whole: Block
    inside: tuple[tuple[Mixed, ...], ...]


@dataclass(frozen=True, eq=False)
class Symmetries:
    """
    What may change places in the network of a risk.

    A *state* is a vector of the trained weights, W of them, and of the statistics of batch norm.

    Attributes
    ----------
    risk : EmpiricalRisk
        Of the network.
    graph : Graph
        Its structure.
    units : Units
        Its channels.
    blocks : list of Block
        Units that change places one by one.
    heads : list of Heads
        Those that do as a whole.
    left : list of str
        Blocks that were found in the structure, and changed the outputs when they were tried.
    """

    risk: EmpiricalRisk
    graph: Graph = field(repr=False)
    units: Units = field(repr=False)
    blocks: list[Block]
    heads: list[Heads]
    left: list[str]
    _model: Any = field(repr=False)
    _statistics: Mapping[str, slice] = field(repr=False)

    @property
    def weights(self) -> int:
        """Number of trained weights W."""
        return self.risk.space.size

    def state(self, w: Tensor, fixed: Mapping[str, Tensor]) -> Array:
        """Join trained weights, (W,), and the batch-norm statistics among named tensors."""
        parts = [w.detach().double().cpu().numpy()]
        parts += [fixed[name].double().cpu().numpy().reshape(-1) for name in self._statistics]
        return np.concatenate(parts)

    def statistics(self, state: Array) -> dict[str, Tensor]:
        """Name the batch-norm statistics of a state."""
        return {name: torch.from_numpy(state[at].copy()) for name, at in self._statistics.items()}

    def re_estimated(self, state: Array) -> Array:
        """Give a state the batch-norm statistics of the data, where the risk re-estimates them."""
        if not self._statistics or self.risk.policy in ("frozen", "held"):
            return state
        w = torch.from_numpy(state[: self.weights]).to(self.risk.device, self.risk.dtype)
        return self.state(w, self.risk.held(w).fixed())

    def outputs(self, state: Array, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """Evaluate the network, in float64, with the statistics of the state."""
        weights = torch.from_numpy(state[: self.weights])
        named = self.risk.space.unpack(weights) | self.statistics(state)
        with torch.no_grad(), left_alone(self._model):
            output = call_with(self._model, named, args, kwargs)
        return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]

    @contextmanager
    def at(self, state: Array) -> Iterator[None]:
        """Give the traced network the weights and statistics of a state, inside the block."""
        weights = torch.from_numpy(state[: self.weights])
        named = self.risk.space.unpack(weights) | self.statistics(state)
        tensors = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        before = {name: tensors[name].detach().clone() for name in named}
        try:
            for name, tensor in named.items():
                tensors[name].data.copy_(tensor)
            yield
        finally:
            for name, tensor in before.items():
                tensors[name].data.copy_(tensor)

    def call(self, start: int, stop: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the model's arguments for some samples."""
        return _arguments(self.risk, self._model, start, stop)

    def difference(self, state: Array, moved: Array) -> float:
        """
        Compare the outputs of two states on data.

        Returns
        -------
        float
            The largest difference, relative to the largest output.
        """
        return self.differences(state)(moved)

    def differences(self, state: Array) -> Callable[[Array], float]:
        """Give the function that compares other states with one, as `difference` does."""
        samples = len(self.risk.data)
        stop = min(samples, _COMPARED) if self.risk.data.joined else 1
        call = self.call(0, stop)
        outputs = self.outputs(state, *call)

        def difference(moved: Array) -> float:
            shares = [
                float((a - b).abs().max()) / max(float(a.abs().max()), 1e-300)
                for a, b in zip(outputs, self.outputs(moved, *call), strict=True)
                if a.is_floating_point() and a.numel()
            ]
            return max(shares, default=0.0)

        return difference


def exchange(state: Array, uses: Sequence[Indices], order: Indices) -> None:
    """Put unit ``order[i]`` in place i, in all its uses: the state is overwritten."""
    for rows in uses:
        state[rows] = state[rows[order]]


def find_symmetries(risk: EmpiricalRisk, w: Tensor) -> Symmetries:
    """
    Read the structure of a network, and try on data what it tells.

    Parameters
    ----------
    risk : EmpiricalRisk
        Of the network.
    w : Tensor
        Shape (W,): the point where it is tried.

    Raises
    ------
    NotDefined
        If the structure cannot be read.
    """
    model = risk.model_in_double()
    named = dict(model.named_parameters())
    for name, tensor in risk.space.unpack(w.detach().double().cpu()).items():
        named[name].data.copy_(tensor)
    places = {
        p.name: np.arange(p.start, p.start + p.size).reshape(p.shape)
        for p in risk.space.parameters
        if not p.complex
    }
    statistics = dict(_places_of_statistics(model, risk.space.size))
    buffers = dict(model.named_buffers())
    args, kwargs = _arguments(risk, model, 0, min(2, len(risk.data)))
    graph = trace(model, *args, **kwargs)
    by_id = {id(buffers[name]): np.arange(at.start, at.stop) for name, at in statistics.items()}
    units = Units(graph, places, by_id)
    named_blocks = _Names(risk, units.exchanges())
    heads = []
    if units.heads:  # what may be mixed is looked up weight by weight
        heads = list(_heads(units, Products(graph, places, batch_statistics=False), named_blocks))
    inside = {id(block) for head in heads for block in named_blocks.of_heads(head)}
    blocks = [block for block in named_blocks.blocks if id(block) not in inside and block.size > 1]
    symmetries = Symmetries(risk, graph, units, blocks, heads, [], model, statistics)
    return _tried(symmetries, symmetries.state(w, buffers))


def _arguments(
    risk: EmpiricalRisk, model: Any, start: int, stop: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    joined = risk.data.joined
    samples = risk.data.slice(start, stop) if joined else risk.data.slice(start, start + 1)
    batch = to(samples, torch.device("cpu"), torch.float64)
    problem: Problem = risk.problem
    return arguments_of(problem, model, batch)


def _places_of_statistics(model: Any, start: int) -> Iterator[tuple[str, slice]]:
    for prefix, module in model.named_modules():
        if not isinstance(module, NORMS):
            continue
        for name in ("running_mean", "running_var"):
            if getattr(module, name) is not None:
                size = getattr(module, name).numel()
                yield f"{prefix}.{name}" if prefix else name, slice(start, start + size)
                start += size


class _Names:
    """Exchanges as blocks with names."""

    def __init__(self, risk: EmpiricalRisk, exchanges: Sequence[Exchange]) -> None:
        starts = [p.start for p in risk.space.parameters]
        layers = [p.layer for p in risk.space.parameters]
        self._size = risk.space.size
        self._seen: dict[str, int] = defaultdict(int)
        self._by_channel: dict[int, Block] = {}
        self.blocks: list[Block] = []
        for exchanged in exchanges:
            first = min(int(rows.min()) for rows in exchanged.uses)
            where = int(np.searchsorted(starts, first, side="right")) - 1
            block = self.block(layers[where], exchanged.uses, exchanged.channels)
            self.blocks.append(block)
            self._by_channel |= dict.fromkeys(exchanged.channels, block)

    def block(self, layer: str, uses: tuple[Indices, ...], channels: tuple[int, ...] = ()) -> Block:
        """Give a block a name that no other has."""
        self._seen[layer] += 1
        name = layer if self._seen[layer] == 1 else f"{layer} ({self._seen[layer]})"
        trained = tuple(rows for rows in uses if int(rows.max()) < self._size)
        return Block(name, uses, trained, channels)

    def with_channels(self, roots: Sequence[int]) -> Block | None:
        """Give the block of just these channels."""
        block = self._by_channel.get(roots[0])
        return block if block is not None and set(block.channels) == set(roots) else None

    def of_heads(self, heads: Heads) -> list[Block]:
        """List the blocks inside of heads that may be mixed."""
        return [self._by_channel[c] for c in heads.whole.channels] if heads.inside else []


def _heads(units: Units, channels: Channels, names: _Names) -> Iterator[Heads]:
    mixable = _mixable(channels)
    for head in units.heads:
        parts = [names.with_channels(_roots(units, row)) for row in head.queries]
        parts += [names.with_channels(_roots(units, row)) for row in head.values]
        count = len(head.queries)
        blocks = [block for block in parts if block is not None]
        if len(head.values) != count or len(blocks) != 2 * count or _shared(blocks):
            continue
        pairs = list(zip(blocks[:count], blocks[count:], strict=True))
        uses = _whole_uses(pairs)
        if uses is None:
            continue
        inside = [tuple(_mixed(block, mixable) for block in pair) for pair in pairs]
        mixed = all(part is not None for pair in inside for part in pair)
        first = [block.channels[0] for block in blocks] if mixed else []
        whole = names.block(f"{pairs[0][0].name} heads", uses, tuple(first))
        yield Heads(whole, tuple(inside) if mixed else ())  # type: ignore[arg-type]


def _roots(units: Units, row: Indices) -> list[int]:
    return [units.root(channel) for channel in row.tolist()]


def _shared(blocks: Sequence[Block]) -> bool:
    """Whether two heads have channels in common."""
    return len({id(block) for block in blocks}) < len(blocks)


def _whole_uses(pairs: Sequence[tuple[Block, Block]]) -> tuple[Indices, ...] | None:
    """Give the uses of heads as units; None where heads differ in shape."""
    uses: list[Indices] = []
    for blocks in zip(*pairs, strict=True):
        if len({tuple(rows.shape for rows in block.uses) for block in blocks}) > 1:
            return None
        uses += [
            np.stack([block.uses[k].reshape(-1) for block in blocks])
            for k in range(len(blocks[0].uses))
        ]
    return tuple(uses)


def _mixable(channels: Channels) -> dict[frozenset[int], dict[int, int]]:
    """
    Find channels that any invertible map may mix.

    Returns
    -------
    dict
        For the places of all weights that go with such channels, 1 for each place that the map
        multiplies and -1 for each that its inverse does.
    """
    rows: dict[int, dict[tuple[int, int], list[Indices]]]
    rows = defaultdict(lambda: defaultdict(list))
    for number, group in enumerate(channels.groups):
        for place, factor in enumerate(group.factors.tolist()):
            root, power = channels.ties.find(factor)
            if root and abs(power) == 1:
                side = int(np.sign(power)) * group.sign
                rows[root][number, side].append(group.entries[place])
    within: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for number, vectors in enumerate(channels.vectors):
        for row, factors in enumerate(vectors.tolist()):
            for factor in factors:
                within[channels.ties.find(factor)[0]].add((number, row))
    alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for root, weights in rows.items():
        counts = sorted((key, len(parts)) for key, parts in weights.items())
        alike[*counts, *sorted(within[root])].append(root)
    mixable = {}
    for roots in alike.values():
        sides = {
            int(entry): side
            for root in roots
            for (_, side), parts in rows[root].items()
            for entry in np.concatenate(parts)
        }
        mixable[frozenset(sides)] = sides
    return mixable


def _mixed(block: Block, mixable: Mapping[frozenset[int], dict[int, int]]) -> Mixed | None:
    sides = mixable.get(frozenset(int(e) for rows in block.uses for e in rows.flat))
    if sides is None:
        return None
    # A packed matrix makes queries and keys: the sign of a use is that of its first place; a use
    # of both signs is none of one map.
    parts: dict[int, list[Indices]] = {1: [], -1: []}
    for rows in block.uses:
        signs = np.vectorize(sides.__getitem__)(rows)
        for sign in (1, -1):
            columns = (signs == sign).all(axis=0)
            if columns.any():
                parts[sign].append(rows[:, columns])
    made, read = (np.concatenate(p, axis=1) if p else None for p in (parts[1], parts[-1]))
    if made is None or read is None:
        return None
    whole = made.size + read.size == sum(rows.size for rows in block.uses)
    return Mixed(made, read) if whole else None


def _tried(symmetries: Symmetries, state: Array) -> Symmetries:
    """Keep the blocks that leave the outputs on the data, tried one by one."""
    rng = numpy_generator(0, "symmetries")
    left: list[str] = []
    difference = symmetries.differences(state)

    def holds(block: Block) -> bool:
        moved = state.copy()
        exchange(moved, block.uses, rng.permutation(block.size))
        if difference(moved) <= SAME:
            return True
        left.append(block.name)
        return False

    blocks = [block for block in symmetries.blocks if holds(block)]
    heads = [head for head in symmetries.heads if head.whole.size == 1 or holds(head.whole)]
    if not blocks and not heads:
        unknown = ", ".join(sorted(symmetries.units.unknown)) or "none that hides any"
        raise NotDefined(
            "no units of this network may change places, so that there is nothing to align;"
            f" operations behind which none was looked for: {unknown}."
        )
    return Symmetries(
        *(symmetries.risk, symmetries.graph, symmetries.units, blocks, heads, left),
        *(symmetries._model, symmetries._statistics),
    )


def kind_of(node: Any) -> Any:
    """Give the class of a node's layer, or None."""
    return None if node.module is None else layer_type(node.module)


__all__ = ["Block", "Heads", "Mixed", "Symmetries", "exchange", "find_symmetries"]
