"""How much the samples of a problem count, each and together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from thalweg.errors import InvalidProblem
from thalweg.problems.batches import batch_length
from thalweg.problems.draws import taken_apart
from thalweg.problems.given import count_samples
from thalweg.problems.loss import Evaluation, Loss, OutputLoss, TorchLoss, as_one, pair
from thalweg.problems.objects import unbox
from thalweg.problems.samples import Samples

Weight = Callable[[Any], Any]
Evaluate = Callable[[Callable[[nn.Module, Any], Evaluation], Any], Evaluation]
# Samples weighed at once.
_AT_ONCE = 1024


class Totals(NamedTuple):
    """
    What samples add up to.

    Attributes
    ----------
    weight : float
        Of all samples: what the risk divides by. N where each counts one.
    classified : int
        Number of samples that count in the classification error.
    """

    weight: float
    classified: int


class Weighing:
    """
    How much samples count: by the user's function, else by the loss, else one each.

    Parameters
    ----------
    loss : Loss
        The problem's.
    weight : callable or None
        The user's function of a batch.
    own_error : bool
        Whether the user says which samples are misclassified.
    """

    def __init__(self, loss: Loss, weight: Weight | None, *, own_error: bool) -> None:
        self.loss, self.weight, self.own_error = loss, weight, own_error

    def weighed(self, evaluation: Evaluation, batch: Any) -> Evaluation:
        """Let the user's weights take the place of the loss's own."""
        if self.weight is None:
            return evaluation
        weights = _fitted(self.weight(batch), evaluation.losses)
        return evaluation._replace(weights=weights)

    def weighed_as_one(
        self,
        batch: Any,
        alone: Callable[[Any], Evaluation],
        by_sample: Callable[[Any], Evaluation],
    ) -> Evaluation:
        """Evaluate a batch that counts as one: as such, or by samples where these have weights."""
        if self.weight is None:
            return alone(batch)
        weights = torch.as_tensor(self.weight(batch))
        if weights.numel() > 1:
            return as_one(self.weighed(by_sample(batch), batch))
        evaluation = alone(batch)
        return evaluation._replace(weights=_fitted(weights.sum(), evaluation.losses))

    def words(self, samples: Samples) -> str | None:
        """Say how samples are weighed; None where each counts one, and where there is only one."""
        if not samples.joined and len(samples) == 1:
            return None
        if self.weight is not None:
            return "as the problem says (weight=)"
        if isinstance(self.loss, TorchLoss) and self.loss.criterion.weighted:
            return "by class weights"
        if isinstance(self.loss, TorchLoss) and self.loss.may_ignore:
            return "by targets that are not ignored"
        return None if samples.joined else "by numbers of samples"

    def classified(self, batch: Any) -> Tensor | None:
        """Say which samples count in the classification error: (n,), bool; None where all do."""
        if self.own_error or not isinstance(self.loss, TorchLoss) or not self.loss.may_ignore:
            return None
        return self.loss.criterion.counted(pair(batch)[1])

    def add_up(self, samples: Samples, evaluate: Evaluate) -> Totals:
        """
        Add up the weights of all samples.

        Parameters
        ----------
        samples : Samples
            All.
        evaluate : callable
            Evaluates a loss on a batch as given, where only that tells its weight.

        Raises
        ------
        InvalidProblem
            If nothing counts, or a batch as given does not say how much it counts.
        """
        if not samples.joined:
            parts = self._of_given(samples, evaluate)
        elif self.words(samples) is None:
            return Totals(len(samples), len(samples))
        else:
            parts = self._of_joined(samples)
        weights, classified = zip(*parts, strict=True)
        weight = sum(weights)
        if not weight > 0:
            raise InvalidProblem(
                f"the weights of all samples add up to {weight:g}, expected a positive number; are"
                " all targets ignored?"
            )
        return Totals(weight, sum(classified))

    def _of_joined(self, samples: Samples) -> Iterator[tuple[float, int]]:
        for start in range(0, len(samples), _AT_ONCE):
            stop = min(start + _AT_ONCE, len(samples))
            batch = self._looked_at(samples, start, stop)
            counted = self.classified(batch)
            yield (
                self._weight_of(batch),
                stop - start if counted is None else int(counted.sum()),
            )

    def _looked_at(self, samples: Samples, start: int, stop: int) -> Any:
        """Give as much of a batch as weights need."""
        if self.weight is None and samples.targets is not None:
            return samples.targets[start:stop], samples.targets[start:stop]
        return taken_apart(samples.slice(start, stop))[0]

    def _weight_of(self, batch: Any) -> float:
        if self.weight is not None:
            return float(torch.as_tensor(self.weight(batch)).double().sum())
        weights = self.loss.weigh(batch) if isinstance(self.loss, TorchLoss) else None
        return float(batch_length(batch) if weights is None else weights.sum())

    def _of_given(self, samples: Samples, evaluate: Evaluate) -> Iterator[tuple[float, int]]:
        for i in range(len(samples)):
            boxed, _ = taken_apart(samples.slice(i, i + 1).batches[0])
            batch = unbox(boxed)
            if self.weight is not None:
                weight = self._weight_of(batch)
            elif isinstance(self.loss, TorchLoss):
                weights = self.loss.criterion.weights(pair(batch)[1])
                # Those of classes are added up in float64, whatever the outputs are.
                weight = (
                    evaluate(self.loss.as_one, boxed).weight
                    if weights is None
                    else float(weights.double().sum())
                )
            else:
                evaluation = evaluate(self.loss, boxed)
                if len(samples) > 1 and not evaluation.losses.dim() and not count_samples(batch):
                    raise _of_no_size(i, batch)
                weight = evaluation.weight
            yield weight, self._classified_in(batch)

    def _classified_in(self, batch: Any) -> int:
        if not isinstance(self.loss, OutputLoss):
            return 1
        counted = self.classified(batch)
        return count_samples(pair(batch)[1]) or 1 if counted is None else int(counted.sum())


def _fitted(weights: Any, losses: Tensor) -> Tensor:
    weights_tensor = torch.as_tensor(weights).to(losses.device, losses.dtype)
    if not losses.dim():
        return weights_tensor.sum()
    if weights_tensor.shape != losses.shape:
        raise InvalidProblem(
            f"weight= must give one number for each sample, shape {tuple(losses.shape)}, where the"
            f" loss gives one for each; got shape {tuple(weights_tensor.shape)}."
        )
    return weights_tensor


def _of_no_size(place: int, batch: Any) -> InvalidProblem:
    return InvalidProblem(
        f"batch {place} ({type(batch).__name__}) has one loss and does not say how many samples it"
        " has, so it is not known how much it counts beside the others. Return one loss per sample,"
        " shape (n,), or write Problem(..., weight=lambda batch: ...), a batch's number of samples,"
        " nodes or tokens."
    )
