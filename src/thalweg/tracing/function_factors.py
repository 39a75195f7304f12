"""How functions tie the factors of what they read to those of what they give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from thalweg.polynomial import PolynomialActivation
from thalweg.tracing.channel_factors import ChannelFactors
from thalweg.tracing.dims import averaged_dims
from thalweg.tracing.graph import Node
from thalweg.tracing.kinds import JOINS


class FunctionFactors(ChannelFactors):
    """Rules of functions without weights: what moves, adds, averages, multiplies and attends."""

    def _moved(self, node: Node) -> Any:
        values = {read: self._of(read) for read in node.reads}
        chosen = len(values) > 1 and node.op not in JOINS  # by a tensor of indices
        if chosen or any(value is None for value in values.values()):
            return self._unknown(node)
        return self._graph.apply(node, values)

    def _same(self, node: Node) -> Any:
        return self._of(node.reads[0])

    def _homogeneous(self, node: Node) -> Any:
        numbers = self._of(node.reads[0])
        self._bend(numbers)
        return numbers

    def _polynomial(self, node: Node) -> Any:
        """Let a monomial raise factors to its power."""
        power = monomial(node.module)
        if power is None:
            return self._unknown(node)
        before = self._of(node.reads[0])
        inputs, places = before.unique(return_inverse=True)
        outputs = self.ties.new(len(inputs))
        self.ties.tie_all(outputs, inputs, power)
        self._bend(before)
        return outputs[places]

    def _averaged(self, node: Node) -> Any:
        """Tie what is averaged, and let it pass."""
        numbers = self._of(node.reads[0])
        dims = averaged_dims(node, numbers.dim())
        if dims is None or 0 in dims or node.shape is None:
            return self._unknown(node)
        averages = numbers.amin(dims, keepdim=True)
        self.ties.tie_all(numbers, averages)
        return averages.reshape(node.shape)

    def _added(self, node: Node) -> Any:
        """Tie what is added; a number that is added leaves no factor."""
        if len(node.reads) != 2:
            self._fix(node.reads[0])
            return self._none(node)
        first, second = (self._of(read) for read in node.reads)
        self.ties.tie_all(first, second)
        return first.expand(node.shape)

    def _multiplied(self, node: Node) -> Any:
        """Let numbers pass; divide a tensor of the model by the factor of what it multiplies."""
        if len(node.reads) == 1 and not isinstance(node.step.args[0], int | float):
            return self._same(node)
        if len(node.reads) != 2 or node.shape is None:
            return self._unknown(node)
        first, second = node.reads
        if node.op == "mul" and first.op == "tensor":
            first, second = second, first
        if node.op == "mul" and second.weights.get("", "") in self._places:
            return self._scaled(node, second, first)
        if node.op == "mul" and self._has_factors(second):
            first, second = second, first
        if self._has_factors(second):
            return self._unknown(node)
        self._fix(second)
        numbers = self._of(first).expand(node.shape)
        if _differs_along(numbers, second.shape):
            self._bend(numbers)
        return numbers

    def _scaled(self, node: Node, tensor: Node, factor: Node) -> Any:
        places = self._places[tensor.weights[""]]
        assert node.shape is not None
        spread = torch.arange(places.size).view(places.shape).expand(node.shape)
        numbers = self._of(factor).expand(node.shape)
        read = torch.zeros(places.size, dtype=torch.int64)
        read[spread.reshape(-1)] = numbers.reshape(-1)  # one of those that each entry multiplies
        self.ties.tie_all(numbers, read[spread])
        outputs = self.ties.new(places.size)
        if self._claim(tensor.weights[""], "scale", read, outputs):
            self._group(places.reshape(-1, 1), outputs, 1)
            self._group(places.reshape(-1, 1), read, -1)
        self._bend(torch.cat([read, outputs]))
        return outputs[spread]

    def _dot_product(self, node: Node) -> Any:
        """Tie queries to keys and let values pass, a head at a time."""
        if node.shape is None or len(node.reads) < 3 or node.step.kwargs.get("enable_gqa"):
            return self._unknown(node)
        for mask in node.reads[3:]:
            self._fix(mask)
        heads = []
        for read in node.reads[:3]:
            numbers = self._of(read)
            shared = numbers.amin((0, -2), keepdim=True)
            self.ties.tie_all(numbers, shared)
            heads.append(shared)
        queries, keys, values = heads
        self.ties.tie_all(queries, keys, -1.0)
        self.vectors += [shared.reshape(-1, shared.shape[-1]) for shared in heads]
        return values.expand(node.shape)


def _differs_along(numbers: Tensor, shape: tuple[int, ...] | None) -> bool:
    """Whether numbers differ where a tensor of a shape, which is broadcast, may differ too."""
    if shape is None:
        return True
    return any(
        size > 1 and bool((numbers != numbers.narrow(dim, 0, 1)).any())
        for dim, size in zip(range(-len(shape), 0), shape, strict=True)
    )


def monomial(module: nn.Module | None) -> float | None:
    """
    Give d where a polynomial is a multiple of ``x**d``.

    Examples
    --------
    >>> monomial(PolynomialActivation.from_coefficients([0, 0, 0, 2.0]))
    3.0
    """
    if not isinstance(module, PolynomialActivation) or module.basis != "power":
        return None
    powers = torch.nonzero(module.coefficients).flatten().tolist()
    return float(powers[0]) if len(powers) == 1 and powers[0] > 0 else None
