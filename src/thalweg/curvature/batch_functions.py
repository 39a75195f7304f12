"""An empirical risk held at one point: pure functions of the weights, a batch at a time."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from thalweg.curvature.double_backward import differentiable_twice
from thalweg.curvature.linearize import Tensors
from thalweg.errors import InvalidArgument, NotDefined
from thalweg.evaluation.layout import lay_out
from thalweg.evaluation.model_copy import ModelCopy, chunks
from thalweg.landscape.space import Parameter
from thalweg.problems.loss import Evaluation
from thalweg.problems.samples import Samples


def even_size(samples: int, most: int) -> int:
    """
    Choose a batch size near ``most`` that divides the samples, so that one shape is traced.

    Examples
    --------
    >>> even_size(2000, 64), even_size(1997, 64), even_size(10, 64)
    (50, 64, 10)
    """
    if samples <= most:
        return samples
    return next((size for size in range(most, most // 2, -1) if samples % size == 0), most)


class BatchFunctions:
    """
    The whole state of a risk and its batches, fixed for as long as products are taken.

    Whatever happens to the risk afterwards, to its weights, its frozen weights or its buffers,
    products stay those at ``w``. Batch-norm statistics are held at their values at ``w``, unless
    the policy is ``"batch"``, under which they are functions of the weights and are
    differentiated; `curvature.statistics` differentiates those that are re-estimated.

    Parameters
    ----------
    measured : ModelCopy
        Settled at ``w``.
    samples : Samples
        The N samples.
    batch_size : int
        Samples in a batch, at most.
    w : Tensor
        Shape (W,).
    layers : iterable of str, optional
        Only the weights of these layers vary; by default all do.
    weight : float
        Of all samples together: how much they count.
    """

    def __init__(
        self,
        measured: ModelCopy,
        samples: Samples,
        batch_size: int,
        w: Tensor,
        layers: Iterable[str] | None = None,
        *,
        weight: float,
    ) -> None:
        self.measured, self.samples, self.weight = measured, samples, weight
        self.whole = measured.policy == "batch" and bool(measured.norms)
        size = len(samples) if self.whole else even_size(len(samples), batch_size)
        self.bounds = list(_bounds(len(samples), size))
        self._set_weights(w.detach().to(measured.device, measured.dtype).clone(), layers)
        self.state = measured.fixed()
        self.statistics = [
            (mean.detach().clone(), var.detach().clone()) for mean, var in measured.norms.stored()
        ]

    def _set_weights(self, w: Tensor, layers: Iterable[str] | None) -> None:
        space = self.measured.space
        if isinstance(layers, str):
            raise InvalidArgument(f"layers={layers!r}; write a list of names: [{layers!r}].")
        chosen = set(space.layers if layers is None else layers)
        if not chosen:
            raise InvalidArgument(f"layers is empty; name some of {list(space.layers)}.")
        space.slices(chosen)  # raises where a layer is unknown
        varying = [p for p in space.parameters if p.layer in chosen]
        others = [p for p in space.parameters if p.layer not in chosen]
        self.varying, self.others = varying, others
        # Flat and real: complex weights are given their form where the model is called.
        primals = tuple(w[p.slice] if p.complex else w[p.slice].view(p.shape) for p in varying)
        self.primals = self.laid_out(primals)
        self.fixed = tuple(w[p.slice] for p in others)
        self.entries = torch.cat([torch.arange(p.slice.start, p.slice.stop) for p in varying])

    def at(self, constants: Tensors) -> BatchFunctions:
        """Give the same functions with the varying weights of `constants`."""
        functions = copy.copy(self)
        functions.primals = constants[: len(self.primals)]
        return functions

    @property
    def size(self) -> int:
        """Number of weights that vary."""
        return len(self.entries)

    def flatten(self, tensors: Tensors) -> Tensor:
        """Join tensors shaped as the varying weights."""
        return torch.cat([tensor.reshape(-1) for tensor in tensors])

    def unflatten(self, v: Tensor) -> Tensors:
        """Shape a flat vector as the varying weights."""
        parts = v.split([primal.numel() for primal in self.primals])
        return tuple(
            part.view(primal.shape) for part, primal in zip(parts, self.primals, strict=True)
        )

    def laid_out(self, tensors: Tensors) -> Tensors:
        """Lay tensors shaped as the varying weights out as the model's convolutions take them."""
        return cast(Tensors, lay_out(tensors, self.measured.layout))  # otherwise each call would

    def batch(self, index: int) -> tuple[Tensors, TreeSpec]:
        """Give all that batch ``index`` is a function of, the varying weights first."""
        return self._constants(*self.bounds[index])

    def first(self, count: int) -> tuple[Tensors, TreeSpec]:
        """Give the same of the first ``count`` samples, or of the first batch that is given."""
        start, stop = self.bounds[0]
        return self._constants(start, min(stop, count) if self.samples.joined else stop)

    def _constants(self, start: int, stop: int) -> tuple[Tensors, TreeSpec]:
        moved = self.measured.moved(self.samples.slice(start, stop))
        leaves, spec = tree_flatten(moved)
        flat = [tensor for pair in self.statistics for tensor in pair]
        return (*self.primals, *self.fixed, *self.state.values(), *flat, *leaves), spec

    def evaluate(self, primals: Tensors, constants: Tensors, spec: TreeSpec) -> Evaluation:
        """
        Evaluate losses and outputs of a batch: a pure function of its tensors.

        Parameters
        ----------
        primals : tuple of Tensor
            Values of the varying weights.
        constants, spec
            Of `batch`; the weights in it are passed over.
        """
        tensors, statistics, leaves = self._take_apart(constants)
        weights, statistics = self._pick(primals, statistics)
        tensors |= self._shaped(self.varying, weights)
        norms = self.measured.norms
        before = norms.stored()
        norms.store(statistics, differentiable=len(weights) < len(primals))
        try:
            mode = norms.mode("batch" if self.whole else "stored")
            with differentiable_twice(), mode:
                return self.measured.forward_with(tensors, tree_unflatten(leaves, spec))
        finally:
            norms.store(before)

    def _take_apart(
        self, constants: Tensors
    ) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]], list[Any]]:
        """Give the tensors that do not vary by name, batch-norm statistics, and the batch."""
        ends = itertools.accumulate(
            map(len, (self.primals, self.others, self.state, 2 * self.statistics))
        )
        first, second, third, fourth = ends
        named = self._shaped(self.others, constants[first:second])
        named |= dict(zip(self.state, constants[second:third], strict=True))
        flat = constants[third:fourth]
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        return named, pairs, list(constants[fourth:])

    def _pick(
        self, primals: Tensors, statistics: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensors, list[tuple[Tensor, Tensor]]]:
        """Tell weights from statistics, where these vary too."""
        return primals, statistics

    def named(self, primals: Tensors) -> dict[str, Tensor]:
        """Give all weights and buffers by name, the varying ones at ``primals``."""
        return {
            **self._shaped(self.varying, primals),
            **self._shaped(self.others, self.fixed),
            **self.state,
        }

    @staticmethod
    def _shaped(parameters: Sequence[Parameter], entries: Tensors) -> dict[str, Tensor]:
        pairs = zip(parameters, entries, strict=True)
        return {
            p.name: t if t.shape == p.shape and not p.complex else p.shaped(t.reshape(-1))
            for p, t in pairs
        }

    def loss(self, primals: Tensors, constants: Tensors, spec: TreeSpec) -> Tensor:
        """Evaluate this batch's share of the risk, 0-d."""
        return self.evaluate(primals, constants, spec).total() / self.weight

    def gradient(self, primals: Tensors, constants: Tensors, spec: TreeSpec) -> Tensors:
        """Differentiate this batch's share of the risk, once, by plain autograd."""
        if not self.measured.functional:
            return self._gradient_in_place(primals, constants, spec)
        leaves = tuple(primal.detach().requires_grad_() for primal in primals)
        with torch.enable_grad():
            loss = self.loss(leaves, constants, spec)
            if not loss.requires_grad:
                return tuple(torch.zeros_like(leaf) for leaf in leaves)
            return torch.autograd.grad(loss, leaves, materialize_grads=True)

    def value(self, primals: Tensors, constants: Tensors, spec: TreeSpec) -> Tensor:
        """Evaluate this batch's share of the risk without its derivatives, 0-d."""
        if self.measured.functional:
            return self.loss(primals, constants, spec).detach()
        with self._moved_to(primals):
            return self._share_in_place(constants, spec).detach()

    def _gradient_in_place(self, primals: Tensors, constants: Tensors, spec: TreeSpec) -> Tensors:
        """Take the gradient by moving, where a call cannot be given weights (TorchScript)."""
        with self.measured.at_work(), self._moved_to(primals), torch.enable_grad():
            self.measured.gradient.zero_()
            self._share_in_place(constants, spec).backward()
            slopes = self.measured.gradient.clone()
        parts = [slopes[p.slice] for p in self.varying]
        return tuple(a.view(b.shape) for a, b in zip(parts, primals, strict=True))

    @contextmanager
    def _moved_to(self, primals: Tensors) -> Iterator[None]:
        """Have the model be at these weights, and in the state of this point, inside the block."""
        measured = self.measured
        home, state, w = measured.weights.clone(), measured.fixed(), measured.weights.clone()
        for parameter, entries in zip(
            (*self.varying, *self.others), (*primals, *self.fixed), strict=True
        ):
            w[parameter.slice] = entries.detach().reshape(-1).to(w.dtype)
        try:
            measured.load(w)
            measured.set_fixed(self.state)
            with measured.norms.mode("batch" if self.whole else "stored"):
                yield
        finally:
            measured.load(home)
            measured.set_fixed(state)

    def _share_in_place(self, constants: Tensors, spec: TreeSpec) -> Tensor:
        batch = tree_unflatten(self._take_apart(constants)[2], spec)
        return self.measured.forward(batch)[0].total() / self.weight

    def outputs(self, primals: Tensors, constants: Tensors, spec: TreeSpec) -> Tensor:
        """
        Evaluate the network's outputs on a batch, shape (n, ...).

        Raises
        ------
        NotDefined
            If the loss shows no outputs, or a call cannot be given weights.
        """
        if not self.measured.functional:
            raise NotDefined(
                f"{self.measured.problem.name} keeps its weights where no call can replace them"
                " (TorchScript, lists of parameters), so there is no Jacobian or Gauss-Newton"
                " matrix of it; give the nn.Module that was scripted, and let its forward read"
                " self.weight."
            )
        outputs: Tensor | None = self.evaluate(primals, constants, spec).outputs
        if outputs is None:
            raise NotDefined(
                "Gauss-Newton and Jacobian need the network's outputs; this loss(model, batch)"
                " shows none. Write Problem(model, criterion, train) with a criterion"
                " (outputs, targets)."
            )
        return outputs

    def loss_of_outputs(self, outputs: Tensor, constants: Tensors, spec: TreeSpec) -> Tensor:
        """Evaluate this batch's share of the risk as a function of the outputs, 0-d."""
        leaves = self._take_apart(constants)[2]
        with differentiable_twice():
            evaluation = self.measured.problem.evaluate_outputs(
                outputs, tree_unflatten(leaves, spec)
            )
        return evaluation.total() / self.weight


def _bounds(samples: int, size: int) -> Iterable[tuple[int, int]]:
    if samples % size == 0:
        return [(start, start + size) for start in range(0, samples, size)]
    return chunks(samples, size)
