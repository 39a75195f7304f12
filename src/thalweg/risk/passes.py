"""Passes of a split's samples through the model: values, by sample too, and the full gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from thalweg.errors import NotDefined, NotDeterministic
from thalweg.evaluation.call import one_function
from thalweg.evaluation.model_copy import ModelCopy, chunks
from thalweg.problems.loss import Evaluation
from thalweg.problems.samples import Samples
from thalweg.problems.weighing import Totals

_CHECKED = 64


class Passes:
    """
    The samples of a split, evaluated batch by batch at the point where the model is.

    Parameters
    ----------
    measured : ModelCopy
        Settled at the point.
    data : Samples
        Those of the split.
    totals : Totals
        What the samples add up to: their weight in the value, and in the error.
    batch_size : callable
        Gives the number of samples evaluated at once.
    """

    def __init__(
        self, measured: ModelCopy, data: Samples, totals: Totals, batch_size: Callable[[], int]
    ) -> None:
        self.measured, self.data = measured, data
        self.totals, self.batch_size = totals, batch_size

    @property
    def count(self) -> int:
        """Number of samples N."""
        return len(self.data)

    def bounds(self) -> Iterator[tuple[int, int]]:
        """Cut the samples into the batches of a pass."""
        whole = self.measured.policy == "batch" and bool(self.measured.norms)
        yield from chunks(self.count, self.count if whole else self.batch_size())

    @property
    def _mode(self) -> Literal["batch", "stored"]:
        return "batch" if self.measured.policy == "batch" else "stored"

    def _pass(self) -> Iterator[tuple[Evaluation, object]]:
        for start, stop in self.bounds():
            batch = self.data.slice(start, stop)
            with self.measured.norms.mode(self._mode):
                yield self.measured.forward(batch)

    def evaluate(self, *, count_wrong: bool) -> dict[str, float]:
        """Evaluate ``loss`` and, where it is wanted and defined, ``error``."""
        loss, wrong, defined = 0.0, 0, count_wrong
        with self.measured.values():
            for evaluation, moved in self._pass():
                loss += float(evaluation.total(torch.float64))
                count = self._count_wrong(evaluation.outputs, moved) if defined else None
                defined = count is not None
                wrong += int(count) if count is not None else 0
        values = {"loss": loss / self.totals.weight}
        return values | ({"error": wrong / self.totals.classified} if defined else {})

    def losses(self, start: int, stop: int) -> Tensor:
        """Evaluate samples' losses, scaled so that the plain mean of all is the value."""
        return self.of_samples(start, stop)[0]

    def of_samples(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Evaluate samples' losses and, where they are defined, their errors, scaled likewise."""
        with self.measured.norms.mode(self._mode):
            evaluation, moved = self.measured.forward(self.data.slice(start, stop))
            losses = evaluation.each() * (self.count / self.totals.weight)
            wrong = self._wrong(evaluation.outputs, moved)
            if wrong is not None:
                wrong = wrong.to(losses.dtype) * (self.count / self.totals.classified)
            if losses.dim():
                return losses, wrong
            if self._mode == "batch" and bool(self.measured.norms):
                raise NotDefined(
                    "losses of single samples are not defined: under batchnorm='batch' they depend"
                    " on all samples, and this loss gives only their mean. Return one loss per"
                    " sample, shape (n,), or write batchnorm='frozen'."
                )
            # The user's loss gives only means, so samples go through it one at a time.
            single = [
                self.measured.forward(self.data.slice(i, i + 1))[0].each()
                for i in range(start, stop)
            ]
        return torch.stack(single).reshape(-1) * (self.count / self.totals.weight), wrong

    def _as_one_batch(self, start: int, stop: int) -> Tensor:
        """Give what a batch adds to the value: by sample, or as a whole."""
        with self.measured.norms.mode(self._mode):
            evaluation, _ = self.measured.forward(self.data.slice(start, stop))
        return evaluation.each() / self.totals.weight

    def residuals(self, batch: object) -> Tensor:
        """Evaluate outputs minus targets of a batch."""
        with self.measured.norms.mode(self._mode):
            evaluation, moved = self.measured.forward(batch)
        outputs = evaluation.outputs
        if outputs is None:
            raise NotDefined(
                "residuals need a squared loss with outputs; this loss(model, batch) shows none."
                " Write Problem(model, nn.MSELoss(), train)."
            )
        return self.measured.problem.residuals(outputs, moved)

    def _count_wrong(self, outputs: Any, moved: object) -> Tensor | None:
        wrong = self._wrong(outputs, moved)
        return None if wrong is None else wrong.sum()

    def wrong_in_step(self, outputs: Any, moved: object) -> Tensor | None:
        """Count the misclassified samples of a training step's batch."""
        wrong = self._count_wrong(outputs, moved)
        if wrong is None or self.data.joined:
            return wrong
        return wrong * (self.count / self.totals.classified)

    def _wrong(self, outputs: Any, moved: object) -> Tensor | None:
        if outputs is None:
            return None
        single = isinstance(outputs, Tensor)
        outputs = outputs.detach() if single else tree_map_only(Tensor, Tensor.detach, outputs)
        try:
            return self.measured.problem.wrong(outputs, moved)
        except NotDefined:
            return None

    def check_classifies(self) -> None:
        """Raise, and say why, where the classification error is not defined."""
        with self.measured.values():
            evaluation, moved = self.measured.forward(self.data.slice(0, 1))
        if evaluation.outputs is None:
            raise NotDefined(
                "classification error needs outputs, and this loss shows none. Write a criterion"
                " (outputs, targets) in place of loss(model, batch)."
            )
        self.measured.problem.wrong(evaluation.outputs, moved)

    def gradient(self) -> tuple[float, Tensor]:
        """Evaluate loss and gradient (float64) of all samples, through statistics that vary."""
        with one_function(), self.measured.at_work():
            loss, total, cotangents = self._at_statistics()
            if cotangents:
                total += self._through_statistics(cotangents)
        return loss, total

    def _at_statistics(self) -> tuple[float, Tensor, list[tuple[Tensor, Tensor]]]:
        measured = self.measured
        total = self._zeros()
        leaves = self._open_statistics()
        loss = 0.0
        for evaluation, _ in self._pass():
            batch_loss = evaluation.total() / self.totals.weight
            measured.gradient.zero_()
            batch_loss.backward()
            total += measured.gradient
            loss += float(batch_loss.detach())
        return loss, total, self._close_statistics(leaves)

    def _zeros(self) -> Tensor:
        size, device = self.measured.space.size, self.measured.device
        return torch.zeros(size, dtype=torch.float64, device=device)

    def _open_statistics(self) -> list[tuple[Tensor, Tensor]]:
        measured = self.measured
        if not measured.norms or measured.policy != "recalibrate":
            return []
        leaves = [
            (mean.detach().requires_grad_(), var.detach().requires_grad_())
            for mean, var in measured.norms.stored()
        ]
        measured.norms.store(leaves)
        return leaves

    def _close_statistics(self, leaves: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        if not leaves:
            return []
        self.measured.norms.store([(mean.detach(), var.detach()) for mean, var in leaves])
        # A layer that is never called has no slope.
        return [(_slope(mean), _slope(var)) for mean, var in leaves]

    def _through_statistics(self, cotangents: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Carry the risk's derivative by the statistics on to the weights, a batch at a time."""
        measured, norms = self.measured, self.measured.norms
        total = self._zeros()

        def add(_: int) -> None:
            paired = norms.pull_back(cotangents)
            if paired.requires_grad:  # statistics of the inputs depend on no weight
                measured.gradient.zero_()
                paired.backward()
                total.add_(measured.gradient)

        with norms.mode("collect"):
            measured.each_calibration(add)
        return total

    def check_deterministic(self) -> None:
        """
        Evaluate the first samples twice.

        Raises
        ------
        NotDeterministic
            If the answers differ.
        """
        stop = min(_CHECKED if self.data.joined else 1, self.count)
        with self.measured.values():
            first, again = self._as_one_batch(0, stop), self._as_one_batch(0, stop)
        if not torch.equal(torch.nan_to_num(first), torch.nan_to_num(again)):
            raise NotDeterministic(
                f"{self.measured.problem.name}: the first {stop} samples evaluated twice gave two"
                " answers. A landscape needs a deterministic model and fixed data: draw noise by"
                " torch's own functions, whose numbers are then held fixed (draws='fixed'), or"
                " switch it off, and leave out augmentation and shuffling."
            )


def _slope(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
