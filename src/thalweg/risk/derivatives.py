"""Derivatives of the mean loss: gradients, training steps, and curvature as linear operators."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Literal

from torch import Tensor

from thalweg.curvature.batch_functions import BatchFunctions
from thalweg.curvature.operators import GaussNewton, Hessian, Jacobian
from thalweg.curvature.vector_products import Method, Plan
from thalweg.evaluation.batch_size import product_batch_size
from thalweg.evaluation.call import one_function
from thalweg.risk.mean_loss import MeanLoss


class Derivatives(MeanLoss):
    """Gradients of a mean loss, of all samples and of mini-batches, and its curvature."""

    def value(self, w: Tensor, batch: Tensor | None = None, /) -> float:
        """
        Evaluate the mean loss at ``w``.

        Parameters
        ----------
        w : Tensor
            Shape (W,).
        batch : Tensor, optional
            Indices of samples, shape (n,): their mean loss. Where batch-norm statistics change
            with ``w``, they are the batch's own then, as in `gradient`.

        Returns
        -------
        float
        """
        if batch is None:
            return super().value(w)
        measured = self._measured
        measured.load(w)
        with measured.norms.mode(self._step_mode(False)), measured.values():
            evaluation, _ = measured.forward(self._passes.data.take(batch))
            return float(evaluation.mean())

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """
        Evaluate the gradient at ``w``.

        Parameters
        ----------
        w : Tensor
            Shape (W,).
        batch : Tensor, optional
            Indices of samples, shape (n,): the gradient of their mean loss.

        Returns
        -------
        Tensor
            Shape (W,), in the risk's dtype.
        """
        return self.value_and_gradient(w, batch)[1]

    def value_and_gradient(self, w: Tensor, batch: Tensor | None = None, /) -> tuple[float, Tensor]:
        """Evaluate loss and gradient (of a mini-batch, where one is given) in one pass."""
        if batch is not None:
            loss, _, gradient = self.batch_gradient(w, batch, track=False)
            return float(loss), gradient.clone()
        passes = self._at(w)
        loss_sum, total = passes.gradient()
        return loss_sum, total.to(self.dtype)

    def hessian(
        self, w: Tensor, /, *, layers: Iterable[str] | None = None, method: Method | None = None
    ) -> Hessian:
        """
        Give the Hessian at ``w`` as a linear operator, shape (W, W).

        Parameters
        ----------
        w : Tensor
            Shape (W,).
        layers : iterable of str, optional
            Only the block of these layers' weights; ``op.entries`` are their places in ``w``.
        method : {"trace", "graph", "recompute"}, optional
            How products are computed; by default the fastest on the first batch. What is kept
            between products stays within the risk's ``memory``.

        Returns
        -------
        Hessian
            ``op @ v`` for v of shape (W,) or (W, k). It is the derivative of `gradient`, through
            batch-norm statistics where they depend on the weights; ``batchnorm="held"`` is half
            as dear.
        """
        return Hessian(self._plan(w, layers, method))

    def gauss_newton(
        self, w: Tensor, /, *, layers: Iterable[str] | None = None, method: Method | None = None
    ) -> GaussNewton:
        """
        Give the Gauss-Newton matrix at ``w`` as a linear operator, shape (W, W).

        Parameters are those of `hessian`, without the method ``"graph"``. Its factors are
        ``op.jacobian`` and ``op.loss_hessian``.
        """
        return GaussNewton(self._plan(w, layers, method))

    def jacobian(
        self, w: Tensor, /, *, layers: Iterable[str] | None = None, method: Method | None = None
    ) -> Jacobian:
        """
        Give the Jacobian of the outputs at ``w`` as a linear operator, shape (N C, W).

        Parameters are those of `hessian`, without the method ``"graph"``. Row ``i * C + c``
        belongs to output c of sample i; ``op.T`` is the transpose.
        """
        return Jacobian(self._plan(w, layers, method))

    def _plan(self, w: Tensor, layers: Iterable[str] | None, method: Method | None) -> Plan:
        self._settle(w)
        functions = BatchFunctions(
            *(self._measured, self._samples, self._product_batch, w, layers),
            weight=self.totals.weight,
        )
        through = self.policy == "recalibrate" and bool(self._measured.norms)
        return Plan(functions, self.described, method, self.memory, self._traces, through)

    @cached_property
    def _product_batch(self) -> int:
        if not self._samples.joined:
            return 1
        if self._given_batch_size is None:
            return product_batch_size(self._measured, self._samples, self.memory)
        # Products work on several times the numbers of a forward pass: half the batch.
        return max(1, self._given_batch_size // 2)

    def stepping(self) -> AbstractContextManager[None]:
        """Set up once, for the steps inside the block, what each would set up by itself."""
        return one_function()

    def batch_gradient(
        self, w: Tensor, batch: Tensor, /, *, track: bool = True
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """
        Take one training step's gradient, without waiting for any number.

        Parameters
        ----------
        w : Tensor
            Shape (W,).
        batch : Tensor
            Indices of samples, shape (n,).
        track : bool
            Let batch norm update the running buffers of the model's copy, as training does.

        Returns
        -------
        loss : Tensor
            Mean loss of the batch, weighted as torch's criterion weighs on this batch, 0-d.
        wrong : Tensor or None
            Number of misclassified samples, 0-d, of batches as given their number times the share
            of misclassified samples; None where it is not defined.
        gradient : Tensor
            Shape (W,); overwritten by the next call.
        """
        measured, passes = self._measured, self._passes
        measured.load(w)
        measured.gradient.zero_()
        mode = measured.norms.mode(self._step_mode(track))
        with one_function(), mode, measured.watching():
            evaluation, moved = measured.forward(passes.data.take(batch))
            loss = evaluation.mean()
            loss.backward()
        return loss.detach(), passes.wrong_in_step(evaluation.outputs, moved), measured.gradient

    def _step_mode(self, track: bool) -> Literal["stored", "running", "batch"]:
        if self._measured.keeps_statistics:
            return "stored"
        return "running" if track else "batch"
