"""Losses with their weights: criteria of torch, callables of the user, ``loss(model, batch)``."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from thalweg.errors import InvalidProblem
from thalweg.problems.criteria import Kind, TorchCriterion, name_of
from thalweg.problems.draws import taken_apart
from thalweg.problems.given import Given, count_samples
from thalweg.problems.objects import unbox


class Evaluation(NamedTuple):
    """
    Losses of a batch, and how much each counts in the risk.

    Attributes
    ----------
    losses : Tensor
        Shape (n,), the mean loss of each sample; 0-d, the batch's mean, where the user's loss
        gives only that.
    weights : Tensor or None
        Shape (n,), or 0-d where the losses are: 1, the share of a sample's tokens or pixels that
        are not ignored, the weights of its classes, or what the problem's ``weight`` gives. None
        stands for a weight of 1 of each sample.
    outputs : Tensor or None
        What the model returned; a `Given` of that of each, of several batches as given; None for
        ``loss(model, batch)``.
    """

    losses: Tensor
    weights: Tensor | None = None
    outputs: Any = None

    @property
    def weight(self) -> float:
        """Add up the weights of the batch."""
        if self.weights is None:
            return float(len(self.losses))
        return float(self.weights.detach().double().sum())

    def detached(self) -> Evaluation:
        """Give the same numbers, of which nothing is remembered for derivatives."""
        losses, weights, outputs = self
        if isinstance(outputs, Tensor):  # a tree of tensors takes ten times as long
            outputs = outputs.detach()
        elif outputs is not None:
            outputs = tree_map_only(Tensor, Tensor.detach, outputs)
        return Evaluation(losses.detach(), None if weights is None else weights.detach(), outputs)

    def each(self) -> Tensor:
        """Give weights times losses, of the losses' shape."""
        if self.weights is None:
            return self.losses
        # The mean of nothing is no number, and counts nothing.
        nothing = self.weights == 0
        return torch.where(nothing, torch.zeros_like(self.losses), self.weights * self.losses)

    def total(self, dtype: torch.dtype | None = None) -> Tensor:
        """Sum weights times losses: 0-d, in ``dtype``, or that of the losses."""
        return self.each().sum(dtype=dtype or self.losses.dtype)

    def mean(self) -> Tensor:
        """Give the weighted mean of the losses, 0-d; 0 where nothing in the batch counts."""
        if self.weights is None:
            return self.losses.mean()
        weight = self.weights.sum()
        return self.total() / torch.where(weight == 0, torch.ones_like(weight), weight)


class Loss(Protocol):
    """A loss as the risk evaluates it."""

    kind: Kind

    def __call__(self, model: nn.Module, batch: Any, /) -> Evaluation:
        """Evaluate the samples of a batch."""

    def as_one(self, model: nn.Module, batch: Any, /) -> Evaluation:
        """Evaluate a batch that counts as one: its mean loss and its weight, both 0-d."""


class ModelLoss:
    """
    The user's ``loss(model, batch)``: per sample where it returns (n,), else a mean.

    Parameters
    ----------
    function : callable
        What the user gave.
    model_last : bool
        Whether it is ``loss(batch, model)``.
    """

    kind: Kind = "other"

    def __init__(self, function: Callable[..., Any], *, model_last: bool = False) -> None:
        self.function, self.model_last = function, model_last

    def __call__(self, model: nn.Module, batch: Any, /) -> Evaluation:
        """Evaluate the samples of a batch."""
        losses = self.function(*((batch, model) if self.model_last else (model, batch)))
        return _counted(_per_sample(losses, "loss(model, batch)"), batch)

    def as_one(self, model: nn.Module, batch: Any, /) -> Evaluation:
        """Evaluate a batch that counts as one."""
        return as_one(self(model, batch))


class OutputLoss(ABC):
    """A loss of outputs and targets, on batches that are pairs ``(inputs, targets)``."""

    kind: Kind = "other"
    name: str

    def __call__(self, model: nn.Module, batch: Any, /) -> Evaluation:
        """Evaluate the samples of a batch."""
        return self.of_outputs(self.outputs(model, batch), batch)

    def as_one(self, model: nn.Module, batch: Any, /) -> Evaluation:
        """Evaluate a batch that counts as one."""
        return self.of_outputs_as_one(self.outputs(model, batch), batch)

    @abstractmethod
    def of_outputs(self, outputs: Tensor, batch: Any) -> Evaluation:
        """Evaluate outputs that are at hand, sample by sample."""

    def of_outputs_as_one(self, outputs: Tensor, batch: Any) -> Evaluation:
        """Evaluate outputs of a batch that counts as one."""
        return as_one(self.of_outputs(outputs, batch))

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Evaluate the model's outputs."""
        outputs = call(model, pair(batch)[0])
        if not isinstance(outputs, Tensor):
            raise InvalidProblem(
                f"the model returns {type(outputs).__name__}, and {self.name} needs a tensor; write"
                " a loss(model, batch) that takes the tensor out, e.g."
                " `def loss(model, batch): return F.cross_entropy(model(batch[0]).logits, batch[1],"
                " reduction='none')`."
            )
        return outputs


class CriterionLoss(OutputLoss):
    """
    The user's criterion ``(outputs, targets)``: per sample where it returns (n,), or a mean.

    Parameters
    ----------
    criterion : callable
        What the user gave.
    targets_first : bool
        Whether it is ``(targets, outputs)``.
    """

    def __init__(self, criterion: Callable[..., Any], *, targets_first: bool = False) -> None:
        self.criterion, self.name = criterion, name_of(criterion)
        self.targets_first = targets_first

    def of_outputs(self, outputs: Tensor, batch: Any) -> Evaluation:
        """Evaluate outputs that are at hand."""
        targets = pair(batch)[1]
        arguments = (targets, outputs) if self.targets_first else (outputs, targets)
        losses = _per_sample(self.criterion(*arguments), self.name)
        return _counted(losses, batch)._replace(outputs=outputs)


class TorchLoss(OutputLoss):
    """
    A criterion of torch: a loss and a weight of each sample, whose weighted mean is torch's.

    Parameters
    ----------
    criterion : TorchCriterion
        What is evaluated.

    Attributes
    ----------
    may_ignore : bool
        Whether some targets may be the ignored one: to be set False where none is.
    """

    def __init__(self, criterion: TorchCriterion) -> None:
        self.criterion, self.kind, self.name = criterion, criterion.kind, criterion.name
        self.may_ignore = True

    def of_outputs(self, outputs: Tensor, batch: Any) -> Evaluation:
        """Evaluate outputs that are at hand."""
        targets = pair(batch)[1]
        self.criterion.check_places(outputs)
        elements = self.criterion.elements(outputs, targets)
        weights = self.criterion.weights(targets, may_ignore=self.may_ignore)
        if weights is None:
            return Evaluation(_per_sample(elements, self.name, self._sums), None, outputs)
        counts = _per_sample(weights.to(elements.dtype), self.name)
        total = _per_sample(elements, self.name)
        losses = total / torch.where(counts == 0, torch.ones_like(counts), counts)
        return Evaluation(losses, counts, outputs)

    def of_outputs_as_one(self, outputs: Tensor, batch: Any) -> Evaluation:
        """Evaluate outputs of a batch that counts as one: torch's own mean, and its weight."""
        targets = pair(batch)[1]
        elements = self.criterion.elements(outputs, targets)
        weights = self.criterion.weights(targets)
        if weights is None:
            count = len(elements) if self._sums else elements.numel()
            return Evaluation(elements.sum() / count, elements.new_full((), count), outputs)
        weight = weights.to(elements.dtype).sum()
        mean = elements.sum() / torch.where(weight == 0, torch.ones_like(weight), weight)
        return Evaluation(mean, weight, outputs)

    def weigh(self, batch: Any) -> Tensor | None:
        """Give the weights of a batch's samples, shape (n,), float64; None where all count one."""
        weights = self.criterion.weights(pair(batch)[1], may_ignore=self.may_ignore)
        return None if weights is None else _per_sample(weights.double(), self.name)

    @property
    def _sums(self) -> bool:
        return self.criterion.sums_outputs


def pair(batch: Any) -> tuple[Any, Any]:
    """
    Take a batch apart into inputs and targets: of a tuple of three and more, the last are targets.

    Raises
    ------
    InvalidProblem
        If it is something else than a pair or tuple, or several given batches.
    """
    if isinstance(batch, Given):
        if len(batch.batches) > 1:
            raise InvalidProblem(
                "several batches as given have no inputs and targets in common; expected samples"
                " joined along the first dimension: give tensors of one shape, or a Dataset."
            )
        return pair(unbox(taken_apart(batch.batches[0])[0]))
    batch, _ = taken_apart(batch)
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, (tuple, list)) and len(batch) > 2:
        return tuple(batch[:-1]), batch[-1]
    keys = f" with keys {sorted(map(str, batch))}" if isinstance(batch, dict) else ""
    raise InvalidProblem(
        f"a criterion needs batches (inputs, targets), and a batch here is a"
        f" {type(batch).__name__}{keys}; write a loss(model, batch) that takes it apart, e.g."
        " `def loss(model, batch): return F.cross_entropy(model(batch['image']), batch['label'],"
        " reduction='none')`."
    )


def call(model: nn.Module, inputs: Any) -> Any:
    """
    Call a model on the inputs of a batch.

    Several inputs are given one by one, ``model(a, b)``, and a dict's by name, ``model(**inputs)``,
    where the model's forward takes them so; else as they are, ``model(inputs)``.
    """
    if isinstance(inputs, (tuple, list)) and _takes(model, *inputs):
        return model(*inputs)
    if isinstance(inputs, dict) and all(isinstance(key, str) for key in inputs):
        return model(**inputs) if _takes(model, **inputs) else model(inputs)
    try:
        return model(inputs)
    except TypeError as error:
        if not isinstance(inputs, (tuple, list)):
            raise
        raise InvalidProblem(
            f"{type(model).__name__} does not take {len(inputs)} inputs one by one, and fails on"
            f" their tuple ({error}). Write a forward that takes as many as a batch has, e.g."
            " model(*batch[:-1]), or a loss(model, batch) that takes what is wanted, batch[0] and"
            " batch[2]."
        ) from error


def _takes(model: nn.Module, *positional: Any, **named: Any) -> bool:
    try:
        inspect.signature(model.forward).bind(*positional, **named)
    except TypeError:
        return False
    except ValueError:  # TorchScript shows no signature
        return True
    return True


def _counted(losses: Tensor, batch: Any) -> Evaluation:
    """Let a mean count as many times as the batch has samples, where it says how many."""
    if losses.dim():
        return Evaluation(losses)
    return Evaluation(losses, torch.full_like(losses, count_samples(batch) or 1))


def together(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Put evaluations of batches that count as one each side by side."""
    losses = torch.stack([evaluation.losses for evaluation in evaluations])
    weights = torch.stack([cast(Tensor, evaluation.weights) for evaluation in evaluations])
    outputs = tuple(evaluation.outputs for evaluation in evaluations)
    shown = all(output is not None for output in outputs)
    several = Given(outputs) if len(outputs) > 1 else outputs[0]
    return Evaluation(losses, weights, several if shown else None)


def as_one(evaluation: Evaluation) -> Evaluation:
    """Let the losses of a batch be one."""
    weight = torch.full_like(evaluation.losses.detach().sum(), evaluation.weight)
    return Evaluation(evaluation.mean(), weight, evaluation.outputs)


def _per_sample(losses: Any, name: str, summed: bool = False) -> Tensor:
    if not isinstance(losses, Tensor):
        raise InvalidProblem(
            f"{name} must return a tensor of losses, shape (n,) or a 0-d mean, got"
            f" {type(losses).__name__}; return the tensor itself, without .item()."
        )
    if losses.dim() < 2:
        return losses
    flat = losses.flatten(1)
    return flat.sum(1) if summed else flat.mean(1)
