"""Batch-norm statistics as functions of the weights, and their first and second derivatives."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from thalweg.curvature.batch_functions import BatchFunctions
from thalweg.curvature.differences import along, double, in_double
from thalweg.curvature.double_backward import differentiable_twice
from thalweg.curvature.linearize import Tensors, stored_bytes
from thalweg.errors import first_line
from thalweg.evaluation.model_copy import CALIBRATION_BATCH, chunks
from thalweg.evaluation.saved_tensors import with_saved

log = logging.getLogger("thalweg")


class JointFunctions(BatchFunctions):
    """
    Functions of weights and statistics together, both of which vary.

    Parameters
    ----------
    pinned : BatchFunctions
        Of the same batches, with statistics that are held.
    """

    def __init__(self, functions: BatchFunctions) -> None:
        self.__dict__ |= vars(copy.copy(functions))
        self.weights = len(functions.primals)
        flat = tuple(tensor for pair in functions.statistics for tensor in pair)
        self.primals = (*functions.primals, *flat)

    @property
    def size(self) -> int:
        """Number of weights that vary, and of statistics."""
        return sum(primal.numel() for primal in self.primals)

    def _pick(
        self, primals: Tensors, _: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensors, list[tuple[Tensor, Tensor]]]:
        flat = primals[self.weights :]
        return primals[: self.weights], list(zip(flat[::2], flat[1::2], strict=True))


@dataclass(frozen=True)
class _Batch:
    """One calibration batch's moments, with the graphs that its products go through."""

    bounds: tuple[int, int]
    moments: Tensor  # E[x] and E[x^2] of all layers, by the batch's share, flat
    cotangent: Tensor
    pulled: Tensors  # the gradient of cotangent . moments, which depends on both
    leaves: Tensors

    def push(self, v: Tensors, *, curved: bool) -> tuple[Tensor, Tensors]:
        """Give the moments' derivative along v; and, if ``curved``, that of ``pulled``."""
        live = [i for i, part in enumerate(self.pulled) if part.requires_grad]
        first, *second = torch.autograd.grad(
            [self.pulled[i] for i in live],
            (self.cotangent, *(self.leaves if curved else ())),
            [v[i] for i in live],
            retain_graph=True,
            materialize_grads=True,
        )
        return first, tuple(second)

    def pull(self, cotangent: Tensor) -> Tensors:
        """Give the gradient of cotangent . moments."""
        return torch.autograd.grad(
            self.moments, self.leaves, cotangent, retain_graph=True, materialize_grads=True
        )


class Statistics:
    """
    The statistics s(w) that batch norm is given, pooled from calibration batches, and their slopes.

    With moments q = (E[x], E[x^2]) pooled over batches, the statistics are the mean q_1 and the
    variance q_2 - q_1^2. Products of the risk's Hessian are then those of the function of weights
    and statistics, chained with ds/dw, and a term of the second derivative of s.

    Parameters
    ----------
    pinned : BatchFunctions
        The point, settled, of a model with batch normalization.
    memory : int
        Budget in bytes for the graphs that are kept between products.

    Attributes
    ----------
    by_differences : bool
        Whether `push` takes differences, because torch has no second derivative here.
    error : float
        Largest relative error that these have had so far.
    """

    def __init__(self, functions: BatchFunctions, memory: int) -> None:
        self._left = memory
        self._kept: dict[tuple[int, int], _Batch] = {}
        self.pinned, self.joint = functions, JointFunctions(functions)
        self._counts = [norm.total for norm in functions.measured.norms.norms]
        self._means = torch.cat([mean for mean, _ in functions.statistics])
        self._sizes = [len(mean) for mean, _ in functions.statistics]
        assert functions.measured.calibration is not None
        self._samples = functions.measured.calibration
        self._cotangents = torch.zeros_like(torch.cat([self._means, self._means]))
        self.weighed = False
        self.by_differences = not functions.measured.twice_differentiable
        self.error = 0.0

    def weigh(self, cotangents: Tensors) -> None:
        """
        Weigh second derivatives of the statistics by derivatives of the risk.

        Parameters
        ----------
        cotangents : tuple of Tensor
            By mean and variance of each layer in turn.
        """
        self._cotangents, self.weighed = _by_kind(cotangents), True
        self._kept.clear()

    def push(self, v: Tensors) -> tuple[Tensors, Tensor]:
        """
        Differentiate along a direction of the weights.

        Returns
        -------
        statistics : tuple of Tensor
            Derivatives of mean and variance of each layer in turn.
        second : Tensor
            Flat, float64: derivative of the weighed statistics' gradient, the weights held.
        """
        moments = torch.zeros_like(self._cotangents)
        second = torch.zeros(self.pinned.size, dtype=torch.float64, device=moments.device)
        for batch in self._batches():
            first, curved = self._pushed(batch, v)
            moments += first
            if self.weighed:
                second += self.pinned.flatten(curved)
        mean, square = moments.chunk(2)
        variance = square - 2 * self._means * mean
        pairs = zip(mean.split(self._sizes), variance.split(self._sizes), strict=True)
        return tuple(slope for pair in pairs for slope in pair), second

    def _pushed(self, batch: _Batch, v: Tensors) -> tuple[Tensor, Tensors]:
        """Push v through a batch, by torch where it can."""
        if not self.by_differences:
            try:
                return batch.push(v, curved=self.weighed)
            except RuntimeError as error:  # NotImplementedError is one
                log.info("statistics by differences: %s", first_line(error))
                self.by_differences = True
        return self._differences(batch, v)

    def _differences(self, batch: _Batch, v: Tensors) -> tuple[Tensor, Tensors]:
        cotangent = batch.cotangent.detach().double()

        def slopes(primals: Tensors) -> Tensors:
            leaves = tuple(primal.detach().requires_grad_() for primal in primals)
            with torch.enable_grad():
                moments = self._moments(leaves, *batch.bounds)
            if not self.weighed:
                return (moments.detach(),)
            pulled = torch.autograd.grad(moments, leaves, cotangent, materialize_grads=True)
            return moments.detach(), *pulled

        (first, *second), error = along(slopes, in_double(self.pinned.primals), in_double(v))
        self.error = max(self.error, error)
        return first.to(self._means), tuple(part.to(self._means) for part in second)

    def pull(self, cotangents: Tensors, *, pushed: Tensors | None = None) -> Tensor:
        """
        Carry derivatives by mean and variance of each layer on to the weights.

        Parameters
        ----------
        cotangents : tuple of Tensor
            By mean and variance of each layer in turn.
        pushed : tuple of Tensor, optional
            What `push` gave: the weighed derivatives by the moments then change with the mean.

        Returns
        -------
        Tensor
            Flat, shaped as the varying weights, float64.
        """
        by_moments = self._of_moments(_by_kind(cotangents))
        if pushed is not None:
            shift = -2 * torch.cat(pushed[::2]) * self._cotangents.chunk(2)[1]
            by_moments = by_moments + torch.cat([shift, torch.zeros_like(shift)])
        total = torch.zeros(self.pinned.size, dtype=torch.float64, device=by_moments.device)
        for batch in self._batches():
            total += self.pinned.flatten(batch.pull(by_moments))
        return total

    def _of_moments(self, cotangents: Tensor) -> Tensor:
        """Turn derivatives by (mean, variance) into those by (E[x], E[x^2])."""
        by_mean, by_variance = cotangents.chunk(2)
        return torch.cat([by_mean - 2 * self._means * by_variance, by_variance])

    def _batches(self) -> Iterator[_Batch]:
        for bounds in chunks(len(self._samples), CALIBRATION_BATCH):
            batch = self._kept.get(bounds)
            if batch is None:
                batch, size = self._counted(*bounds)
                if size <= self._left:
                    self._kept[bounds] = batch
                    self._left -= size
            yield batch

    def _counted(self, start: int, stop: int) -> tuple[_Batch, int]:
        """Make a batch, and count the bytes that its graphs hold."""
        batch, saved = with_saved(lambda: self._batch(start, stop))
        return batch, stored_bytes(saved)

    def _batch(self, start: int, stop: int) -> _Batch:
        leaves = tuple(primal.detach().requires_grad_() for primal in self.pinned.primals)
        cotangent = self._of_moments(self._cotangents).requires_grad_()
        with torch.enable_grad():
            moments = self._moments(leaves, start, stop)
            pulled = torch.autograd.grad(
                moments, leaves, cotangent, create_graph=True, materialize_grads=True
            )
        return _Batch((start, stop), moments, cotangent, pulled, leaves)

    def _moments(self, primals: Tensors, start: int, stop: int) -> Tensor:
        """Evaluate a calibration batch's share of the moments of all layers, flat."""
        functions, norms = self.pinned, self.pinned.measured.norms
        batch = functions.measured.moved(self._samples.slice(start, stop))
        named = functions.named(primals)
        if (
            primals[0].dtype != functions.measured.dtype
        ):  # differences are taken in double precision
            named, batch = tree_map_only(Tensor, double, (named, batch))
        mode = norms.mode("differentiate")
        with differentiable_twice(), mode:
            functions.measured.forward_with(named, batch)
            rows = [
                [(mean * (n / total), square * (n / total)) for mean, square, n in norm.moments]
                for norm, total in zip(norms.norms, self._counts, strict=True)
            ]
        nothing = [(mean * 0, var * 0) for mean, var in functions.statistics]
        sums = [
            [torch.stack(part).sum(0) for part in zip(*row, strict=True)] if row else list(zero)
            for row, zero in zip(rows, nothing, strict=True)
        ]
        flat = torch.cat([mean for mean, _ in sums] + [square for _, square in sums])
        # Statistics of the inputs themselves depend on no weight: their slope is 0, not undefined.
        return flat if flat.requires_grad else flat + 0 * primals[0].sum()


def _by_kind(pairs: Tensors) -> Tensor:
    """Join the layers' means, then their variances."""
    return torch.cat([*pairs[::2], *pairs[1::2]])
