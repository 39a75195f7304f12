"""Tangents of shifts that what follows takes away: norms, biases, the softmax of attention."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from thalweg.geometry.scalings import Direction
from thalweg.tracing.flow import KEY, Arrival, Carried, follow
from thalweg.tracing.graph import Graph, Node
from thalweg.tracing.kinds import ATTENTION, CONVOLUTIONS, NORMS
from thalweg.tracing.layers import layer_type

Indices = NDArray[np.int64]
Array = NDArray[np.float64]
Part = tuple[Indices, Array]
# What makes up for a shift of a channel; None where nothing does.
Maker = Callable[[int], Part | None]

# The dimension of channels of what layers give.
CHANNELS: dict[type[nn.Module], int] = {
    nn.Linear: -1,
    nn.LayerNorm: -1,
    nn.Embedding: -1,
    **dict.fromkeys((*CONVOLUTIONS, *NORMS, nn.GroupNorm), 1),
}


class Shifts:
    """
    Directions along additions to what layers give.

    Parameters
    ----------
    graph : Graph
        The network, its weights at w.
    places : mapping of str to ndarray
        Places of each trained tensor's entries in the flat vector, in its shape.
    batch_statistics : bool
        Whether batch norm takes away means of the batch.
    """

    def __init__(
        self, graph: Graph, places: Mapping[str, Indices], *, batch_statistics: bool
    ) -> None:
        self._graph, self._places, self._batch = graph, places, batch_statistics
        self._once = used_once(graph)

    def directions(self) -> Iterator[tuple[str, Direction]]:
        """Give each direction with its kind."""
        for node in self._graph.nodes:
            kind = None if node.module is None else layer_type(node.module)
            if kind is nn.MultiheadAttention:
                yield from self._of_attention(node)
            elif kind in CHANNELS and node.shape is not None:
                yield from self._of_layer(node, CHANNELS[kind])
                if kind is nn.LayerNorm:
                    yield from self._of_readers(node)
            elif node.op == "tensor" and node.shape:
                yield from self._of_tensor(node)

    def _entries(self, node: Node, name: str) -> Indices | None:
        """Places of a layer's tensor that nothing else uses; None where it is not trained."""
        tensor = node.weights.get(name, "")
        return self._places.get(tensor) if tensor in self._once else None

    def _of_layer(self, node: Node, dim: int) -> Iterator[tuple[str, Direction]]:
        arrivals = follow(self._graph, node, dim, sums=True)
        if not arrivals:
            return
        norms = [arrival for arrival in arrivals if _takes_mean(arrival)]
        makers = [self._maker(arrival) for arrival in arrivals if arrival not in norms]
        bias = self._entries(node, "bias")
        if bias is not None and bias.ndim == 1:
            kind = _kind(arrivals, norms, makers)
            steps = [_step(bias, channel, makers) for channel in range(len(bias))]
            if not norms:
                yield from ((kind, Direction.of(step)) for step in steps if step is not None)
            elif None not in steps:
                yield kind, Direction.of([part for step in steps if step for part in step])
        if not makers:
            yield from self._of_columns(node)

    def _of_columns(self, node: Node) -> Iterator[tuple[str, Direction]]:
        """Add the same to all channels, for each number that a layer reads: norms take it away."""
        weight = self._entries(node, "weight")
        if weight is None or weight.ndim < 2 or node.module is None:
            return
        table = layer_type(node.module) is nn.Embedding
        for column in weight if table else weight.reshape(len(weight), -1).T:
            yield "layer norm", Direction(np.sort(column), np.ones(len(column)))

    def _of_readers(self, node: Node) -> Iterator[tuple[str, Direction]]:
        """Add the same, over the norm's scale, to all that reads a norm: its numbers sum to 0."""
        module: Any = node.module
        size = math.prod(module.normalized_shape)
        scale, shift = (
            fallback(size).double().cpu().numpy()
            if tensor is None
            else tensor.detach().cpu().numpy()
            for tensor, fallback in ((module.weight, torch.ones), (module.bias, torch.zeros))
        )
        if len(module.normalized_shape) > 1 or not scale.all():
            return
        constant = float((shift / scale).sum())
        for arrival in follow(self._graph, node, -1, sums=False):
            for weight, bias in self._matrices(arrival):
                carried = arrival.carried.along(-1)
                if carried is None or not _each_once(carried, size):
                    continue
                values = carried.factors.cpu().numpy() / scale[carried.channels.cpu().numpy()]
                for row, entries in enumerate(weight):
                    parts = [(entries, values)]
                    if bias is not None:
                        parts.append((bias[row : row + 1], np.array([-constant])))
                    if bias is not None or not constant:
                        yield "layer norm", Direction.of(parts)

    def _matrices(self, arrival: Arrival) -> Iterator[tuple[Indices, Indices | None]]:
        """Give the weights that read what arrives, rows by what they make, and their biases."""
        node = arrival.node
        kind = None if node is None or node.module is None else layer_type(node.module)
        if node is None or kind not in (nn.Linear, nn.MultiheadAttention):
            return
        if kind is nn.Linear:
            weight = self._entries(node, "weight")
            if weight is not None:
                yield weight, self._entries(node, "bias")
            return
        packed, bias = self._entries(node, "in_proj_weight"), self._entries(node, "in_proj_bias")
        if packed is not None and arrival.place < 3:
            biases = [None] * 3 if bias is None else np.split(bias, 3)
            yield np.split(packed, 3)[arrival.place], biases[arrival.place]

    def _of_tensor(self, node: Node) -> Iterator[tuple[str, Direction]]:
        entries = self._entries(node, "")
        arrivals = [] if entries is None else follow(self._graph, node, -1, sums=True)
        if entries is not None and arrivals and all(map(_takes_mean, arrivals)):
            for row in entries.reshape(-1, entries.shape[-1]):
                yield "layer norm", Direction(row, np.ones(len(row)))

    def _maker(self, arrival: Arrival) -> Maker:
        """Say what makes up for a shift of a channel where it arrives."""
        node, refused = arrival.node, _refusing(arrival.carried)
        if node is not None and node.op == ATTENTION and arrival.place == KEY:
            return _nothing  # the softmax takes away what is added to all keys
        kind = None if node is None or node.module is None else layer_type(node.module)
        if node is None or kind not in (nn.Linear, *CONVOLUTIONS, *NORMS):
            return refused
        carried = arrival.carried.along(-1 if kind is nn.Linear else 1)
        if carried is None:
            return refused
        if kind in NORMS and self._batch:
            return _nothing
        bias, module = self._entries(node, "bias"), cast("Any", node.module)
        if bias is None or (kind in CONVOLUTIONS and not _plain(module)):
            return refused
        matrix = module.weight.detach()
        if kind in NORMS:
            matrix = torch.diag(matrix / (module.running_var + module.eps).sqrt())
        elif kind in CONVOLUTIONS:
            matrix = matrix.flatten(2).sum(2)
        return _through(bias, matrix.cpu().numpy(), carried)

    def _of_attention(self, node: Node) -> Iterator[tuple[str, Direction]]:
        """Shift all keys alike, which the softmax takes away, or values, whose weights sum to 1."""
        module: Any = node.module
        bias, size = self._entries(node, "in_proj_bias"), module.embed_dim
        beside = [self._entries(node, name) for name in ("bias_k", "bias_v")]
        frozen = module.bias_k is not None and any(part is None for part in beside)
        if bias is None or module.add_zero_attn or frozen:
            return
        keys, values = ([] if part is None else [part.reshape(-1)] for part in beside)
        for channel in range(size):
            entries = np.array([bias[size + channel], *(k[channel] for k in keys)])
            yield "attention", Direction(entries, np.ones(len(entries)))
        outward = self._entries(node, "out_proj.bias")
        if outward is None:
            return
        matrix = module.out_proj.weight.detach().cpu().numpy()
        for channel in range(size):
            shifted = np.array([bias[2 * size + channel], *(v[channel] for v in values)])
            parts = [(shifted, np.ones(len(shifted))), (outward, -matrix[:, channel])]
            yield "attention", Direction.of(parts)


def used_once(graph: Graph) -> set[str]:
    """Name the tensors of a model that one operation uses, and no other."""
    uses: list[str] = []
    for node in graph.nodes:
        own = [] if node.op == "tensor" else list(node.weights.values())
        read = [name for r in node.reads if r.op == "tensor" for name in r.weights.values()]
        uses += own + [name for name in read if name not in own]
    return {name for name, count in Counter(uses).items() if count == 1}


def _nothing(_: int) -> Part:
    """Make up by nothing: what is added is taken away."""
    return np.zeros(0, dtype=np.int64), np.zeros(0)


def _refusing(carried: Carried) -> Maker:
    """Make up by nothing for channels that do not arrive, and not at all for those that do."""
    arrived = set(carried.channels[carried.factors != 0].unique().tolist())
    return lambda channel: None if channel in arrived else _nothing(channel)


def _through(bias: Indices, matrix: Array, carried: Carried) -> Maker:
    """Make up by a bias for what a matrix makes of a shift."""
    channels, factors = carried.channels.cpu().numpy(), carried.factors.cpu().numpy()

    def maker(channel: int) -> Part | None:
        return bias, -matrix @ (factors * (channels == channel))

    return maker


def _step(bias: Indices, channel: int, makers: list[Maker]) -> list[Part] | None:
    """Shift a channel by its bias, and make up for it wherever it arrives."""
    made_up = [maker(channel) for maker in makers]
    kept = [part for part in made_up if part is not None]
    own = bias[channel : channel + 1], np.ones(1)
    return [own, *kept] if len(kept) == len(made_up) else None


def _kind(arrivals: list[Arrival], norms: list[Arrival], makers: list[Maker]) -> str:
    if norms:
        return "layer norm"
    if any(arrival.node is not None and arrival.node.op == ATTENTION for arrival in arrivals):
        return "attention"
    return "batch norm" if all(maker is _nothing for maker in makers) else "rescaling"


def _plain(module: Any) -> bool:
    """Whether a convolution gives a constant image for a constant one."""
    padded = isinstance(module.padding, str) or any(module.padding)
    return module.groups == 1 and not padded


def _each_once(carried: Carried, size: int) -> bool:
    """Whether all channels of a norm arrive, and each once."""
    here = carried.channels[carried.factors == 1]
    return bool(((carried.factors == 0) | (carried.factors == 1)).all()) and torch.equal(
        here.sort().values, torch.arange(size)
    )


def _takes_mean(arrival: Arrival) -> bool:
    """Whether a layer norm takes away what is added alike to all channels."""
    node = arrival.node
    if node is None or node.module is None or layer_type(node.module) is not nn.LayerNorm:
        return False
    shape: Any = node.module.normalized_shape
    channels, factors = arrival.carried.channels, arrival.carried.factors
    alike = bool((factors == factors[..., :1]).all())
    every_channel = bool((channels.sort(-1).values == torch.arange(channels.shape[-1])).all())
    return len(shape) == 1 and alike and every_channel
