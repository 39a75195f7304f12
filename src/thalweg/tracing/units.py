"""Which channels of a network may change places, when weights do, so that its outputs stay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.polynomial import PolynomialActivation
from thalweg.tracing.dims import averaged_dims, data_of, lay_along
from thalweg.tracing.graph import Graph, Node
from thalweg.tracing.kinds import ADDS, AVERAGES, ELEMENTWISE, NORMS
from thalweg.tracing.layers import layer_type
from thalweg.tracing.matrix_products import Products, same_along
from thalweg.tracing.ties import Ties

Indices = NDArray[np.int64]

_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_ELEMENTWISE_FUNCTIONS = frozenset(
    {
        *("abs", "clamp", "cos", "double", "elu", "erf", "exp", "float", "gelu", "hardtanh"),
        *("leaky_relu", "log", "neg", "pow", "reciprocal", "relu", "rsqrt", "rsub", "sigmoid"),
        *("silu", "sin", "softplus", "sqrt", "square", "tanh", "to", "to_copy", "type_as"),
    }
)


class _Same(Ties):
    """Channels that change places together: what is a power of another is that other."""

    def tie(self, i: int, j: int, power: float = 1.0) -> None:
        """Say that channels i and j are one."""
        super().tie(i, j)


@dataclass(frozen=True, eq=False)
class Exchange:
    """
    Channels of which any two may change places.

    Attributes
    ----------
    channels : tuple of int
        Their numbers, those that stand for all that are tied to them.
    uses : tuple of ndarray
        Places in the state of all that goes with them, int64, each of shape (channels, fan): row i
        and row j change places where channels i and j do, in one use after the other.
    """

    channels: tuple[int, ...]
    uses: tuple[Indices, ...]

    @property
    def size(self) -> int:
        """Number of channels."""
        return len(self.channels)


class Units(Products):
    """
    Channels of a network, told apart by what goes with them when they change places.

    As `Channels` does for factors, every entry of every tensor gets a number; operations tie
    numbers to one another: what is added changes places together, functions of each number let
    all pass, a norm over channels too. Channel 0 stays where it is: inputs, outputs, and all behind
    operations that nothing is known of.

    Parameters
    ----------
    graph : Graph
        The network.
    places : mapping of str to ndarray
        Places of each trained tensor's entries in the state, in its shape.
    statistics : mapping of int to ndarray
        Places of batch-norm statistics, by the ``id`` of the buffer.

    Attributes
    ----------
    heads : list of Head
        Attentions, whose heads may change places.
    """

    def __init__(
        self, graph: Graph, places: Mapping[str, Indices], statistics: Mapping[int, Indices]
    ) -> None:
        self._statistics = statistics
        super().__init__(graph, places, batch_statistics=False, ties=_Same())

    def exchanges(self) -> list[Exchange]:
        """List the largest sets of channels of which any two may change places."""
        rows: dict[int, dict[int, list[Indices]]] = defaultdict(lambda: defaultdict(list))
        for number, group in enumerate(self.groups):
            for place, factor in enumerate(group.factors.tolist()):
                rows[self.root(factor)][number].append(group.entries[place])
        alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
        within = self._rows_of_vectors()
        for root in sorted(rows.keys() - {0}):
            counts = ((number, len(parts)) for number, parts in rows[root].items())
            alike[*sorted(counts), *sorted(within[root])].append(root)
        return [
            Exchange(tuple(roots), _uses([rows[root] for root in roots]))
            for roots in alike.values()
            if len(roots) > 1
        ]

    def root(self, channel: int) -> int:
        """Give the channel that stands for all that are tied to one."""
        return self.ties.find(channel)[0]

    def numbers(self, node: Node) -> Any:
        """Give the channels of what a node gives, entry by entry."""
        return self._of(node)

    def _rows_of_vectors(self) -> dict[int, set[tuple[int, int]]]:
        within: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for number, vectors in enumerate(self.vectors):
            for row, channels in enumerate(vectors.tolist()):
                for channel in channels:
                    within[self.root(channel)].add((number, row))
        return within

    def _visit(self, node: Node) -> Any:
        kind = None if node.module is None else layer_type(node.module)
        rule = _LAYERS.get(kind) if kind is not None else None
        rule = rule or (None if kind is not None else _FUNCTIONS.get(node.op))
        return super()._visit(node) if rule is None else rule(self, node)

    def _bend(self, numbers: Tensor) -> None:
        """Let functions of each channel pass."""

    def _unit_by_unit(self, node: Node) -> Any:
        return self._same(node) if len(node.reads) == 1 else self._unknown(node)

    def _weighed(self, node: Node) -> Any:
        """Let a slope for each channel go with it."""
        slopes = self._entries(node, "weight")
        if slopes is not None and slopes.size == 1:
            return self._same(node)
        channels = self._vector(node.reads[0], 1)
        self._along(node, channels)
        return lay_along(channels, node.shape, 1)

    def _combined(self, node: Node) -> Any:
        """Tie what is added or multiplied; what is the same for all channels leaves them free."""
        if len(node.reads) == 1:
            return self._same(node)
        if len(node.reads) != 2 or node.shape is None:
            return self._unknown(node)
        first, second = (self._of(read) for read in node.reads)
        if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
            return self._unknown(node)
        if _for_all(second, first):
            return first.expand(node.shape)
        if _for_all(first, second):
            return second.expand(node.shape)
        self.ties.tie_all(first, second)
        return first.expand(node.shape)

    def _averaged(self, node: Node) -> Any:
        """Let what is the same along the sum pass; a sum over channels stays where they go."""
        numbers = self._of(node.reads[0])
        if not isinstance(numbers, Tensor) or node.shape is None or len(node.reads) != 1:
            return self._unknown(node)
        dims = averaged_dims(node, numbers.dim())
        dims = list(range(numbers.dim())) if dims is None else dims
        averages = numbers.amin(dims, keepdim=True)
        if torch.equal(averages.expand_as(numbers), numbers):
            return averages.reshape(node.shape)
        self._keep_rows(numbers, dims)
        return self._none(node)

    def _softmax(self, node: Node) -> Any:
        numbers = self._of(node.reads[0])
        stated = node.step.kwargs.get("dim", (*node.step.args, None)[1])
        dim = getattr(node.module, "dim", stated)
        if not isinstance(dim, int):
            return self._unknown(node)
        self._keep_rows(numbers, [dim])
        return numbers

    def _keep_rows(self, numbers: Tensor, dims: Sequence[int]) -> None:
        """Let channels change places only with those of one row: a sum over them is taken."""
        flat = numbers.movedim(tuple(dims), tuple(range(-len(dims), 0))).flatten(-len(dims))
        rows = flat.reshape(-1, flat.shape[-1]).unique(dim=0)
        if bool((rows != rows[:, :1]).any()):
            self.vectors.append(rows)

    def _normed(self, node: Node) -> Any:
        """Let a norm's scale and shift go with the channels that it reads."""
        module: Any = node.module
        if isinstance(module, nn.GroupNorm):
            channels = self._vector(data_of(node), 1)
            self.vectors.append(channels.view(module.num_groups, -1))
            self._along(node, channels)
            return lay_along(channels, node.shape, 1)
        if len(module.normalized_shape) > 1:
            return self._unknown(node)
        channels = self._vector(data_of(node), -1)
        self.vectors.append(channels[None])
        self._along(node, channels)
        return lay_along(channels, node.shape, -1)

    def _batch_normed(self, node: Node) -> Any:
        module: Any = node.module
        channels = self._vector(data_of(node), 1)
        self._along(node, channels)
        for buffer in (module.running_mean, module.running_var):
            if buffer is None:
                continue
            places = self._statistics.get(id(buffer))
            if places is None:
                self.ties.fix_all(channels)
            else:
                self._group(places[:, None], channels, 1)
        return lay_along(channels, node.shape, 1)

    def _along(self, node: Node, channels: Tensor) -> None:
        """Let a layer's scale and shift go with channels; one that is frozen holds them."""
        if self._frozen(node, "weight", "bias"):
            self.ties.fix_all(channels)
            return
        scale = self._entries(node, "weight")
        if scale is not None and self._claim(
            node.weights["weight"], "norm", channels[:0], channels
        ):
            self._group(scale[:, None], channels, 1)
        self._shift(node, channels)

    def _convolution(self, node: Node) -> Any:
        """Let a kernel for each channel go with it, where each is convolved by itself."""
        module: Any = node.module
        if module.groups == 1:
            return self._matrix(node, 1)
        if not module.groups == module.in_channels == module.out_channels:
            return self._unknown(node)
        channels = self._vector(data_of(node), 1)
        weight = self._entries(node, "weight")
        if weight is None or self._frozen(node, "bias"):
            self.ties.fix_all(channels)
        elif self._claim(node.weights["weight"], "depthwise", channels[:0], channels):
            self._group(weight.reshape(len(weight), -1), channels, 1)
        self._shift(node, channels)
        return lay_along(channels, node.shape, 1)


def _uses(members: list[dict[int, list[Indices]]]) -> tuple[Indices, ...]:
    """Stack, for each group of weights, the places of each channel's."""
    return tuple(
        np.stack([np.concatenate(rows[number]) for rows in members])
        for number in sorted(members[0])
    )


def _for_all(value: Tensor, channels: Tensor) -> bool:
    """Whether a value is one number of its own for all channels that another has."""
    if bool((value != value.reshape(-1)[0]).any()):
        return False
    return all(
        dim > value.dim() or value.shape[-dim] == 1 or same_along(channels, -dim)
        for dim in range(1, channels.dim() + 1)
    )


Rule = Callable[[Units, Node], Any]

_LAYERS: dict[type[nn.Module], Rule] = {
    nn.PReLU: Units._weighed,
    nn.LayerNorm: Units._normed,
    nn.RMSNorm: Units._normed,
    nn.GroupNorm: Units._normed,
    nn.Softmax: Units._softmax,
    nn.LogSoftmax: Units._softmax,
    nn.Conv1d: Units._convolution,
    nn.Conv2d: Units._convolution,
    nn.Conv3d: Units._convolution,
    PolynomialActivation: Units._unit_by_unit,
    **dict.fromkeys(ELEMENTWISE, Units._unit_by_unit),
    **dict.fromkeys((*NORMS, *_INSTANCE_NORMS), Units._batch_normed),
}
_FUNCTIONS: dict[str, Rule] = {
    "softmax": Units._softmax,
    "log_softmax": Units._softmax,
    **dict.fromkeys((*ADDS, "mul", "div"), Units._combined),
    **dict.fromkeys((*AVERAGES, "amax", "amin"), Units._averaged),
    **dict.fromkeys(_ELEMENTWISE_FUNCTIONS, Units._unit_by_unit),
}
