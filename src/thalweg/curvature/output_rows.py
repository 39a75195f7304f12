"""A network's outputs, batch by batch, as functions of its weights, and their derivatives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import jacrev, vmap
from torch.utils._pytree import TreeSpec

from thalweg.curvature.linearize import Tensors
from thalweg.curvature.operators import Jacobian
from thalweg.errors import InvalidArgument, first_line
from thalweg.evaluation.vectorized import vectorized

# Samples of which the graph is read.
_FEW = 4
# Rows of the Jacobian that one backward pass takes, where it can take several.
_ROWS = 32
log = logging.getLogger("thalweg")


class OutputRows:
    """
    Chosen outputs of a network on its data, the rows of a Jacobian.

    Parameters
    ----------
    jacobian : Jacobian
        Of float64.
    outputs : sequence of int or Tensor, optional
        Only these outputs; or a matrix P, shape (k, C), of combinations of them.

    Attributes
    ----------
    names : tuple of str
        Tensors of weights, in the order of the Jacobian's columns.
    count : int
        k, the number of rows of a sample.
    """

    def __init__(self, jacobian: Jacobian, outputs: Sequence[int] | Tensor | None) -> None:
        self._functions = jacobian._pinned
        self.names = tuple(parameter.name for parameter in self._functions.varying)
        self._projection = _projection(outputs, jacobian._shapes[0][1:].numel())
        self.count = len(self._projection)
        self.samples = sum(stop - start for start, stop in self.spans)
        # The way that worked last is tried first.
        ways = [self._by_sample, self._together, self._one_by_one]
        self._ways: list[Callable[..., Tensor]] = ways

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last sample of each batch."""
        return self._functions.bounds

    @property
    def rows(self) -> int:
        """M = N k."""
        return self.samples * self.count

    def sizes(self) -> dict[str, int]:
        """Count the entries of each tensor of weights."""
        sizes = (primal.numel() for primal in self._functions.primals)
        return dict(zip(self.names, sizes, strict=True))

    def evaluate(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        """Evaluate a batch: weights, by name, and outputs, shape (n, k), in autograd's graph."""
        start, stop = self.spans[index]
        return self._evaluate(*self._functions.batch(index), stop - start)

    def evaluate_few(self) -> tuple[dict[str, Tensor], Tensor]:
        """Evaluate the first samples of a batch; all of it, where it is not made of samples."""
        sizes = [stop - start for start, stop in self.spans]
        constants, spec = self._functions.batch(sizes.index(max(sizes)))
        shared, data = self._of_samples(constants, spec, max(sizes))
        if data is None:
            return self._evaluate(constants, spec, max(sizes))
        few = min(_FEW, max(sizes))
        return self._evaluate((*shared, *(leaf[:few] for leaf in data)), spec, few)

    def _evaluate(
        self, constants: Tensors, spec: TreeSpec, samples: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        leaves = tuple(primal.detach().requires_grad_() for primal in self._functions.primals)
        with torch.enable_grad():
            outputs = self._functions.outputs(leaves, constants, spec)
            chosen = outputs.reshape(samples, -1) @ self._projection.T
        return dict(zip(self.names, leaves, strict=True)), chosen

    def _of_samples(
        self, constants: Tensors, spec: TreeSpec, samples: int
    ) -> tuple[Tensors, Tensors | None]:
        """Take a batch apart: what its samples share, and tensors of a row for each, if so made."""
        first = len(constants) - spec.num_leaves
        shared, data = constants[:first], constants[first:]
        of_samples = not self._functions.whole and all(
            isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == samples for leaf in data
        )
        return shared, data if of_samples else None

    def pull_back(self, y: Tensor) -> Tensor:
        """Multiply the transposed Jacobian by y, shape (N k,): shape (W,)."""
        total = torch.zeros(self._functions.size, dtype=torch.float64)
        for index, (start, stop) in enumerate(self.spans):
            leaves, outputs = self.evaluate(index)
            along = outputs.reshape(-1) @ y[start * self.count : stop * self.count]
            total += _slopes(along, list(leaves.values()))
        return total

    def differentiate(
        self, names: Sequence[str], index: int, told: Callable[[int], None]
    ) -> Tensor:
        """
        Differentiate a batch's outputs in some tensors of weights, whatever they are used for.

        Parameters
        ----------
        names : sequence of str
            The tensors.
        index : int
            Which batch.
        told : callable
            Is told of each few rows that are done, how many.

        Returns
        -------
        Tensor
            Shape (n k, entries of these tensors).
        """
        while True:
            way = self._ways[0]
            try:
                with vectorized():
                    return way(names, index, told)
            except Exception as error:  # torch's transforms know many models, not all
                if len(self._ways) == 1:
                    raise
                reason = first_line(error)
                log.info("rows of the Jacobian not %s: %s", way.__name__.strip("_"), reason)
                del self._ways[0]

    def without_transforms(self) -> None:
        """Take each batch as a whole from now on: for samples that depend on one another."""
        self._ways = [way for way in self._ways if way != self._by_sample]

    def _by_sample(self, names: Sequence[str], index: int, told: Callable[[int], None]) -> Tensor:
        """Differentiate each sample by itself, all of them at once (``torch.func``)."""
        functions = self._functions
        constants, spec = functions.batch(index)
        start, stop = self.spans[index]
        shared, data = self._of_samples(constants, spec, stop - start)
        if data is None:
            raise InvalidArgument("a batch is not made of its samples alone")
        chosen = [self.names.index(name) for name in names]

        def of_sample(*sample: Tensor) -> tuple[Tensor, ...]:
            batch = tuple(leaf.unsqueeze(0) for leaf in sample)

            def outputs(*varied: Tensor) -> Tensor:
                primals = list(functions.primals)
                for place, tensor in zip(chosen, varied, strict=True):
                    primals[place] = tensor
                values = functions.outputs(tuple(primals), (*shared, *batch), spec)
                return self._projection @ values.reshape(-1)

            slopes: Any = jacrev(outputs, tuple(range(len(chosen))))
            parts: tuple[Tensor, ...] = slopes(*(functions.primals[place] for place in chosen))
            return tuple(part.flatten(1) for part in parts)

        at_once = max(1, 4 * (stop - start) // self.count)
        blocks: list[Tensor] = []
        for some in zip(*(leaf.split(at_once) for leaf in data), strict=True):
            blocks.append(torch.cat(vmap(of_sample)(*some), 2).flatten(0, 1).detach())
            told(len(blocks[-1]))
        return torch.cat(blocks)

    def _together(self, names: Sequence[str], index: int, told: Callable[[int], None]) -> Tensor:
        """Pull several unit vectors back at once."""
        leaves, outputs = self.evaluate(index)
        given = [leaves[name] for name in names]
        units = torch.eye(outputs.numel(), dtype=outputs.dtype).view(-1, *outputs.shape)
        blocks: list[Tensor] = []
        for block in units.split(_ROWS):
            slopes: Tensors = torch.autograd.grad(
                *(outputs, given, block),
                retain_graph=True,
                materialize_grads=True,
                is_grads_batched=True,
            )
            blocks.append(torch.cat([slope.flatten(1) for slope in slopes], 1))
            told(len(block))
        return torch.cat(blocks)

    def _one_by_one(self, names: Sequence[str], index: int, told: Callable[[int], None]) -> Tensor:
        """Pull one unit vector back after the other."""
        leaves, outputs = self.evaluate(index)
        given = [leaves[name] for name in names]
        rows: list[Tensor] = []
        for entry in outputs.reshape(-1):
            rows.append(_slopes(entry, given))
            told(1)
        return torch.stack(rows)


def _slopes(value: Tensor, given: list[Tensor]) -> Tensor:
    slopes = torch.autograd.grad(value, given, retain_graph=True, materialize_grads=True)
    return torch.cat([slope.reshape(-1) for slope in slopes])


def _projection(outputs: Sequence[int] | Tensor | None, count: int) -> Tensor:
    unit = torch.eye(count, dtype=torch.float64)
    if outputs is None:
        return unit
    if isinstance(outputs, Tensor) and outputs.dim() == 2:
        if outputs.shape[1] != count or not len(outputs):
            raise InvalidArgument(
                f"outputs has shape {tuple(outputs.shape)}, expected (k, {count}): the network has"
                f" {count} outputs."
            )
        return outputs.detach().to("cpu", torch.float64)
    chosen = [int(index) for index in outputs]
    if not chosen or not all(0 <= index < count for index in chosen):
        raise InvalidArgument(f"outputs={chosen}; name some of 0 to {count - 1}.")
    return unit[chosen]
