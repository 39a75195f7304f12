"""Samples one by one: what interpolates well along the weights, and losses and errors from it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from thalweg.errors import NotDefined
from thalweg.evaluation.model_copy import chunks
from thalweg.problems.given import Given
from thalweg.problems.loss import Evaluation, pair

if TYPE_CHECKING:
    from thalweg.risk.risk import EmpiricalRisk

# Of more outputs a sample the losses alone are kept: the rest would cost more than it saves.
_OUTPUTS = 128


class PerSample:
    """
    Some samples of a risk, evaluated one by one at any point.

    A sample's features are the network's outputs where the loss is a function of them, per sample
    and of at most 128 numbers: they vary more smoothly along the weights than the loss, and give
    the error besides. Otherwise they are its loss and, where it is defined, 1 if it is
    misclassified and 0 if not.

    Parameters
    ----------
    risk : EmpiricalRisk
        Of any batch-norm policy under which samples do not depend on one another.
    indices : Tensor
        Shape (n,), int64: which samples.
    """

    def __init__(self, risk: EmpiricalRisk, indices: Tensor) -> None:
        self.risk, self.size = risk, len(indices)
        self._measured = risk._measured
        self._parts = [
            self._moved(indices[start:stop]) for start, stop in chunks(self.size, risk.batch_size)
        ]
        self._indices = indices

    def _moved(self, indices: Tensor) -> Any:
        return self._measured.moved(self.risk.data.take(indices))

    def features(self, w: Tensor) -> Tensor:
        """Evaluate features at ``w``: shape (n, features), in the risk's dtype."""
        self._measured.load(w)
        with self._measured.values():
            return torch.cat([self._of_part(batch) for batch in self._parts])

    @torch.no_grad()
    def measures(self, features: Tensor) -> dict[str, Tensor]:
        """
        Give losses and errors of features.

        Parameters
        ----------
        features : Tensor
            Shape (points, n, features): computed or interpolated.

        Returns
        -------
        dict
            ``loss`` and, where it is defined, ``error``, each of shape (points, n).
        """
        if not self.by_outputs:
            return dict(zip(("loss", "error"), features.unbind(2), strict=False))
        points = len(features)
        outputs = features.reshape(points * self.size, *self._shape)
        targets = tree_map_only(
            Tensor,
            lambda t: t.repeat(points, *[1] * (t.dim() - 1)),
            self._targets,
        )
        evaluation = self.risk.problem.evaluate_outputs(outputs, (None, targets))
        measures = {"loss": self._scaled(evaluation)}
        if self._has_error:
            measures["error"] = self._errors(outputs, (None, targets)).to(features.dtype)
        return {name: values.reshape(points, self.size) for name, values in measures.items()}

    @cached_property
    def by_outputs(self) -> bool:
        """Whether features are outputs."""
        losses, _, outputs = self._first
        if not self.risk.data.joined or self.risk.problem.noisy_criterion:
            return False
        return losses.dim() == 1 and outputs is not None and outputs[0].numel() <= _OUTPUTS

    @cached_property
    def _first(self) -> Evaluation:
        """The first sample's."""
        with self._measured.values():
            return self._measured.forward(_sample(self._parts[0], 0))[0]

    @cached_property
    def _shape(self) -> torch.Size:
        shape: torch.Size = self._first.outputs.shape
        return shape[1:]

    @cached_property
    def _has_error(self) -> bool:
        outputs = self._first.outputs
        try:
            if outputs is not None:
                self.risk.problem.wrong(outputs, _sample(self._parts[0], 0))
        except NotDefined:
            return False
        return outputs is not None

    @cached_property
    def _targets(self) -> Any:
        return pair(self._moved(self._indices))[1]

    def _of_part(self, batch: Any) -> Tensor:
        evaluation, _ = self._measured.forward(batch)
        outputs: Tensor | None = evaluation.outputs
        if self.by_outputs:
            assert outputs is not None
            return outputs.flatten(1)
        alone = evaluation.losses.dim() == 0
        columns = [self._one_by_one(batch) if alone else self._scaled(evaluation)]
        if self._has_error and outputs is not None:
            columns.append(self._errors(outputs, batch).to(columns[0].dtype))
        return torch.stack(columns, 1)

    def _one_by_one(self, batch: Any) -> Tensor:
        """Evaluate a loss that gives only means."""
        size = self.risk.problem.batch_size_of(batch)
        single = [self._scaled(self._measured.forward(_sample(batch, i))[0]) for i in range(size)]
        return torch.stack(single).reshape(-1)

    def _scaled(self, evaluation: Evaluation) -> Tensor:
        """Give losses as `EmpiricalRisk.sample_losses` does."""
        return evaluation.each() * (self.risk.samples / self.risk.totals.weight)

    def _errors(self, outputs: Tensor, batch: Any) -> Tensor:
        """Give errors as `EmpiricalRisk.evaluate_samples` does."""
        wrong = self.risk.problem.wrong(outputs, batch)
        return wrong * (self.risk.samples / self.risk.totals.classified)


def _sample(batch: Any, place: int) -> Any:
    if isinstance(batch, Given):
        return Given(batch.batches[place : place + 1])
    return tree_map_only(Tensor, lambda t: t[place : place + 1], batch)
