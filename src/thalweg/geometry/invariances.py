"""Directions of weight space in which no output changes: tangents of symmetries, dead weights."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from thalweg.evaluation.model_copy import to
from thalweg.geometry.scalings import Direction, Scalings
from thalweg.geometry.shifts import CHANNELS, Shifts, used_once
from thalweg.geometry.unread import Reads, UnreadOutputs
from thalweg.landscape.provenance import Word
from thalweg.run.progress import Bar
from thalweg.tracing.calls import arguments_of
from thalweg.tracing.chain import Network
from thalweg.tracing.channels import Channels
from thalweg.tracing.dims import data_of
from thalweg.tracing.flow import follow
from thalweg.tracing.functions import Reshape
from thalweg.tracing.graph import Graph, Node
from thalweg.tracing.kinds import CONVOLUTIONS, MOVES, NORMS, SAME
from thalweg.tracing.layers import layer_type
from thalweg.tracing.trace import trace

Indices = NDArray[np.int64]
Array = NDArray[np.float64]

KINDS = (
    *("dead units", "dead inputs", "rescaling", "batch norm", "layer norm", "attention"),
    *("unread outputs", "dependent inputs"),
)
# The kind whose directions have length one and stand at right angles, once made unit vectors.
ORTHONORMAL = "unread outputs"
# More directions along dependent inputs are left out: their rank beside the others takes the cube.
_DEPENDENT_AT_MOST = 1000
_FLAT = (nn.ReLU, nn.ReLU6)
_BATCH = 256
# Eigenvalues of the Gram matrix of inputs below this share of the largest count as zero.
_UNREAD = 1e-13


class Invariances:
    """
    The directions in which a network keeps its outputs on its samples, by kind.

    They are tangents at ``w``: of rescaling a channel's incoming against its outgoing weights, over
    all branches that meet in it; of mixing channels that only linear layers make and read; of a
    scale or shift that a norm takes away; of what attention does not see; weights of ReLU units
    that are off on all samples, and of inputs that no sample has; of what a layer makes and all
    linear layers behind it map to zero, and of combinations of what an inner layer reads that are
    the same in all samples.

    Parameters
    ----------
    network : Network
        An empirical risk.
    w : Tensor
        Shape (W,), float64.
    batch_statistics : bool
        Whether batch norm uses the statistics of the whole set, functions of the weights.

    Raises
    ------
    NotDefined
        If the network's structure cannot be read.
    """

    def __init__(self, network: Network, w: Tensor, *, batch_statistics: bool) -> None:
        self._network, self._batch, self._w = network, batch_statistics, w.cpu().numpy()
        self._model = network.model_in_double()
        named = dict(self._model.named_parameters())
        for name, tensor in network.space.unpack(w).items():
            named[name].data.copy_(tensor)
        self._places = {
            p.name: np.arange(p.start, p.start + p.size).reshape(p.shape)
            for p in network.space.parameters
            if not p.complex
        }
        self._left_out = 0
        self._step = self._at_once()
        self._graph: Graph = self._read(min(2, self._step))
        if not self._takes_any_number():
            self._graph = self._read(self._step)
        self._once = used_once(self._graph)
        trained = {name: self._places[name] for name in self._once if name in self._places}
        self._seen = _Seen(self._graph, batch_statistics, self._places, trained)
        self._channels = Channels(self._graph, self._places, batch_statistics=batch_statistics)

    def _read(self, samples: int) -> Graph:
        args, kwargs = self._call(0, samples)
        return trace(self._model, *args, **kwargs)

    def _takes_any_number(self) -> bool:
        """Whether the graph is that of any number of samples, not only of the example's."""
        if self._graph.how == "torch.fx" or self._step < 3:
            return True
        try:
            self._graph.run(self._inputs(0, 3), lambda node, value: None)
        except Exception:  # the program says in many ways that it is made for one number
            return False
        return True

    def _inputs(self, start: int, stop: int) -> list[Tensor]:
        leaves = tree_leaves(self._call(start, stop))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def _at_once(self) -> int:
        """Give how many samples are evaluated: a batch as given where they cannot be joined."""
        count = len(self._network.data)
        if not self._network.data.joined:
            return 1
        return count if self._batch else min(count, _BATCH)

    def _call(self, start: int, stop: int) -> tuple[Any, dict[str, Any]]:
        batch = to(self._network.data.slice(start, stop), torch.device("cpu"), torch.float64)
        return arguments_of(self._network.problem, self._model, batch)

    @property
    def passes(self) -> int:
        """How many pieces the samples are evaluated in."""
        return math.ceil(len(self._network.data) / self._step)

    def directions(self, bar: Bar) -> dict[str, list[Direction]]:
        """List the directions of each of `KINDS`; the bar is told of each of the `passes`."""
        self._look(bar)
        shifts = Shifts(self._graph, self._places, batch_statistics=self._batch)
        directions: dict[str, list[Direction]] = {kind: [] for kind in KINDS}
        directions["dead units"] += self._dead_units()
        directions["dead inputs"] += self._dead_inputs()
        for kind, direction in itertools.chain(self._scalings.directions(), shifts.directions()):
            directions[kind].append(direction)
        directions["unread outputs"] += UnreadOutputs(self._graph, self._places).directions()
        dependent = list(self._dependent_inputs())
        self._left_out = len(dependent) if len(dependent) > _DEPENDENT_AT_MOST else 0
        directions["dependent inputs"] += [] if self._left_out else dependent
        return directions

    @property
    def described(self) -> dict[str, Word]:
        """Say where symmetries were not looked for, once `directions` were listed."""
        missing = sorted(self._channels.unknown)
        if self._scalings.crowded:
            missing.append(f"sums of {self._scalings.crowded} channels of linear layers")
        if self._left_out:
            missing.append(f"{self._left_out} directions along dependent inputs")
        return {"symmetry": f"not looked for: {', '.join(missing)}"} if missing else {}

    @cached_property
    def _scalings(self) -> Scalings:
        variances = self._seen.variances
        return Scalings(self._channels, self._w, batch_statistics=self._batch, variances=variances)

    def _entries(self, node: Node, *names: str) -> Indices | None:
        """Places of a layer's tensors, a row for each channel that it gives; None if none."""
        tensors = [self._places.get(node.weights.get(name, "")) for name in names]
        parts = [t.reshape(len(t), -1) for t in tensors if t is not None]
        return np.concatenate(parts, 1) if parts else None

    def _dead_units(self) -> Iterator[Direction]:
        """Give the weights into and out of units that are off on every sample."""
        for node, highest in self._seen.highest.items():
            layer = data_of(node)
            if not set(layer.weights.values()) <= self._once:  # off here, and perhaps on there
                continue
            rows, read = self._entries(layer, "weight", "bias"), defaultdict(list)
            for number, columns in self._read_by(node, CHANNELS[_kind(layer)]):
                read[number].append(columns)
            for channel in np.flatnonzero(highest < 0).tolist():
                parts = [*([] if rows is None else [rows[channel]]), *read[channel]]
                for entry in np.concatenate(parts) if parts else ():
                    yield Direction(np.array([entry]), np.ones(1))

    def _read_by(self, node: Node, dim: int) -> Iterator[tuple[int, Indices]]:
        """Give the weights that read each channel of what a node gives, where layers do."""
        for arrival in follow(self._graph, node, dim, sums=False):
            reader = arrival.node
            if reader is None or _kind(reader) not in (nn.Linear, *CONVOLUTIONS):
                continue
            carried = arrival.carried.along(-1 if _kind(reader) is nn.Linear else 1)
            name, module = reader.weights.get("weight", ""), cast("Any", reader.module)
            weight = self._places.get(name) if name in self._once else None
            if carried is None or weight is None or getattr(module, "groups", 1) != 1:
                continue
            numbers = zip(carried.channels.tolist(), carried.factors.tolist(), strict=True)
            for place, (number, factor) in enumerate(numbers):
                if factor:
                    yield number, weight[:, place].reshape(-1)

    def _dead_inputs(self) -> Iterator[Direction]:
        """Give combinations of what first layers read that are zero on every sample."""
        for node, reads in self._seen.reads.items():
            weight = self._places[node.weights["weight"]]
            if node.weights["weight"] not in self._once:
                continue
            if _kind(node) is nn.Embedding:
                unread = np.setdiff1d(np.arange(len(weight)), np.concatenate(reads))
                yield from (Direction(np.array([e]), np.ones(1)) for e in weight[unread].flat)
                continue
            rows = self._entries(node, "weight", "bias")
            assert rows is not None
            bias = rows.shape[1] > weight[0].size
            for direction in _null_space(np.concatenate(reads), bias):
                kept = direction != 0
                yield from (Direction(row[kept], direction[kept]) for row in rows)

    def _dependent_inputs(self) -> Iterator[Direction]:
        """Give combinations of what inner layers read that are zero on every sample."""
        for node, reads in self._seen.inner.items():
            rows = self._entries(node, "weight", "bias")
            assert rows is not None
            for direction in reads.dependent:
                yield from (Direction(row, direction) for row in rows)

    def _look(self, bar: Bar) -> None:
        """See values on all samples."""
        count = len(self._network.data)
        for start in range(0, count, self._step):
            stop = min(start + self._step, count)
            # The last ones overlap: a graph may be that of one number of samples.
            self._graph.run(self._inputs(stop - min(self._step, count), stop), self._seen.look)
            bar.update()


class _Seen:
    """
    What values pass through a graph.

    Attributes
    ----------
    highest : dict of Node to ndarray
        The largest of each channel before a ReLU that reads a layer directly.
    variances : dict of Node to ndarray
        Of each channel before a batch norm that uses the batch's statistics.
    reads : dict of Node to list of ndarray
        What first layers multiply their kernels by, shape (reads, fan-in); rows that are read off
        a table.
    inner : dict of Node to Reads
        What the others multiply theirs by.
    """

    def __init__(
        self,
        graph: Graph,
        batch: bool,
        places: Mapping[str, Indices],
        once: Mapping[str, Indices],
    ) -> None:
        self.highest: dict[Node, Array] = {}
        self.variances: dict[Node, Array] = {}
        self.reads: dict[Node, list[Any]] = {}
        relus = [n for n in graph.nodes if _kind(n) in _FLAT and _kind(data_of(n)) in CHANNELS]
        alone = [n for n in relus if graph.readers(data_of(n)) == (n,)]
        norms = [n for n in graph.nodes if batch and _kind(n) in NORMS]
        first = [n for n in _first_layers(graph) if n.weights.get("weight", "") in places]
        self.inner = {
            n: Reads(n.weights.get("bias", "") in once)
            for n in graph.nodes
            if _kind(n) in (nn.Linear, nn.Conv2d)
            and n not in first
            and n.weights.get("weight", "") in once
        }
        self._readers: dict[Node, list[tuple[Callable[[Node, Tensor], None], Node]]]
        self._readers = defaultdict(list)
        ways: list[tuple[Callable[[Node, Tensor], None], list[Node]]]
        ways = [(self._rise, alone), (self._spread, norms), (self._read, first)]
        ways.append((self._read_inside, list(self.inner)))
        for see, nodes in ways:
            for node in nodes:
                self._readers[data_of(node)].append((see, node))
        self._inputs: dict[Node, Tensor] = {}

    def look(self, node: Node, value: Any) -> Any:
        """Take a value in; give it, or another where batch norm must use the batch's statistics."""
        if node in self._inputs:
            module, x = cast("Any", node.module), self._inputs.pop(node)
            weight, bias = module.weight, module.bias
            value = F.batch_norm(x, None, None, weight, bias, True, 0.0, module.eps)
        for see, reader in self._readers.get(node, ()):
            see(reader, value)
        return value

    def _rise(self, node: Node, value: Tensor) -> None:
        highest = value.movedim(CHANNELS[_kind(data_of(node))], 0).flatten(1).amax(1).cpu().numpy()
        self.highest[node] = np.maximum(self.highest.get(node, highest), highest)

    def _spread(self, node: Node, value: Tensor) -> None:
        self.variances[node] = value.movedim(1, 0).flatten(1).var(1, correction=0).cpu().numpy()
        self._inputs[node] = value

    def _read_inside(self, node: Node, value: Tensor) -> None:
        reads = self.inner[node]
        # Most layers read all there is on a few samples: what the rest reads is not written out.
        few = min(len(value), _few(node, value))
        for some in value.split([few, len(value) - few]):
            patches = _patches(node, some) if reads.open and len(some) else None
            if patches is not None:
                reads.add(patches)

    def _read(self, node: Node, value: Tensor) -> None:
        reads = value.unique() if _kind(node) is nn.Embedding else _patches(node, value)
        if reads is not None:
            self.reads.setdefault(node, []).append(reads.cpu().numpy())


def _kind(node: Node) -> type[nn.Module]:
    """Give the class of a layer; that of a module that does nothing for other operations."""
    return nn.Module if node.module is None else layer_type(node.module)


def _first_layers(graph: Graph) -> Iterator[Node]:
    """List the layers that read inputs as they are, or moved about."""
    moved = {node for node in graph.nodes if node.op == "input"}
    for node in graph.nodes:
        data = [read for read in node.reads if read.op != "tensor"]
        if data and moved.issuperset(data):
            if _kind(node) in (nn.Linear, nn.Conv2d, nn.Embedding):
                yield node
            elif node.op in MOVES or _kind(node) in (*SAME, Reshape):
                moved.add(node)


def _patches(node: Node, x: Tensor) -> Tensor | None:
    """Give all that a first layer's kernels are multiplied by: shape (reads, fan-in)."""
    module: Any = node.module
    if _kind(node) is nn.Linear:
        return x.reshape(-1, x.shape[-1])
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return None
    size, stride = module.kernel_size, module.stride
    columns = F.unfold(x, size, dilation=module.dilation, padding=module.padding, stride=stride)
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])


def _few(node: Node, value: Tensor) -> int:
    """Count the samples in which a layer multiplies its kernel by four times its numbers."""
    if value.dim() == 1:
        return len(value)
    module = cast("nn.Linear | nn.Conv2d", node.module)
    places = value[0].numel() // value.shape[-1]
    if _kind(node) is not nn.Linear:
        assert node.shape is not None
        places = math.prod(node.shape[2:])
    return math.ceil(4 * module.weight[0].numel() / max(1, places))


def _null_space(reads: Array, bias: bool) -> Array:
    """
    Rows: combinations of inputs (and the bias, as last) that vanish on all samples.

    With fewer reads than inputs any data leave some: these are the work of W > M, and only inputs
    that are the same in all samples count then.
    """
    constant = (reads == reads[:1]).all(axis=0)
    kept = np.ones(reads.shape[1], dtype=bool)
    if len(reads) <= reads.shape[1]:
        kept, reads = constant, reads[:1]
    columns = reads[:, kept]
    if bias:
        columns = np.concatenate([columns, np.ones((len(columns), 1))], axis=1)
        kept = np.append(kept, True)
    values, vectors = np.linalg.eigh(columns.T @ columns)
    unread = vectors[:, values <= _UNREAD * values.max(initial=0.0)]
    combinations = np.zeros((unread.shape[1], len(kept)))
    combinations[:, kept] = unread.T
    return combinations
