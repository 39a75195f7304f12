"""Losses with their weights: criteria of torch, callables of the user, ``loss(model, batch)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from thalweg.errors import InvalidProblem
from thalweg.problems.batches import batch_length
from thalweg.problems.criteria import Kind, TorchCriterion, is_torchs, name_of


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
        What the model returned; None for ``loss(model, batch)``.
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
        return Evaluation(*(tree_map_only(Tensor, Tensor.detach, part) for part in self))

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
        """Evaluate a batch."""


def as_loss(loss: Callable[..., Any]) -> Loss:
    """
    Wrap what the user gave as a loss.

    Parameters
    ----------
    loss : callable
        A criterion of torch (module or function), any callable ``(outputs, targets)``, or
        ``loss(model, batch)``, recognised by its first parameter being named ``model``.

    Returns
    -------
    Loss
        A callable ``(model, batch) -> Evaluation``.

    Raises
    ------
    InvalidProblem
        If it is no function, or sums over samples.
    """
    if isinstance(loss, type) or not callable(loss):
        raise InvalidProblem(
            f"loss must be a function, got {loss!r}; write nn.CrossEntropyLoss(), nn.MSELoss() or a"
            " function loss(model, batch) that returns a tensor."
        )
    if is_torchs(loss):
        return TorchLoss(TorchCriterion(loss))
    first = _first_parameter(loss)
    if first in ("net", "network", "module"):
        raise InvalidProblem(
            f"the loss's first parameter is named {first!r}: name it 'model' for loss(model,"
            " batch), or 'outputs' for a criterion (outputs, targets)."
        )
    return ModelLoss(loss) if first == "model" else CriterionLoss(loss)


class ModelLoss:
    """The user's ``loss(model, batch)``: per sample where it returns (n,), else a mean."""

    kind: Kind = "other"

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, model: nn.Module, batch: Any, /) -> Evaluation:
        """Evaluate a batch."""
        return _counted(_per_sample(self.function(model, batch), "loss(model, batch)"), batch)


class OutputLoss:
    """A loss of outputs and targets, on batches that are pairs ``(inputs, targets)``."""

    kind: Kind = "other"
    name: str

    def __call__(self, model: nn.Module, batch: Any, /) -> Evaluation:
        """Evaluate a batch."""
        inputs, _ = pair(batch)
        outputs = model(inputs)
        if not isinstance(outputs, Tensor):
            raise InvalidProblem(
                f"the model returns {type(outputs).__name__}, and {self.name} needs a tensor; write"
                " a loss(model, batch) that takes the tensor out, e.g."
                " `def loss(model, batch): return F.cross_entropy(model(batch[0]).logits, batch[1],"
                " reduction='none')`."
            )
        return self.of_outputs(outputs, batch)

    def of_outputs(self, outputs: Tensor, batch: Any) -> Evaluation:
        """Evaluate outputs that are at hand."""
        raise NotImplementedError


class CriterionLoss(OutputLoss):
    """The user's criterion ``(outputs, targets)``: per sample where it returns (n,), or a mean."""

    def __init__(self, criterion: Callable[..., Any]) -> None:
        self.criterion, self.name = criterion, name_of(criterion)

    def of_outputs(self, outputs: Tensor, batch: Any) -> Evaluation:
        """Evaluate outputs that are at hand."""
        losses = _per_sample(self.criterion(outputs, pair(batch)[1]), self.name)
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

    def weigh(self, batch: Any) -> Tensor | None:
        """Give the weights of a batch's samples, shape (n,), float64; None where all count one."""
        weights = self.criterion.weights(pair(batch)[1], may_ignore=self.may_ignore)
        return None if weights is None else _per_sample(weights.double(), self.name)

    @property
    def _sums(self) -> bool:
        return self.criterion.sums_outputs


def pair(batch: Any) -> tuple[Any, Any]:
    """
    Take a batch apart into inputs and targets.

    Raises
    ------
    InvalidProblem
        If it is something else than a pair.
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    keys = f" with keys {sorted(map(str, batch))}" if isinstance(batch, dict) else ""
    raise InvalidProblem(
        f"a criterion needs batches (inputs, targets), and a batch here is a"
        f" {type(batch).__name__}{keys}; write a loss(model, batch) that takes it apart, e.g."
        " `def loss(model, batch): return F.cross_entropy(model(batch['image']), batch['label'],"
        " reduction='none')`."
    )


def _counted(losses: Tensor, batch: Any) -> Evaluation:
    """Let a mean count as many times as the batch has samples."""
    if losses.dim():
        return Evaluation(losses)
    return Evaluation(losses, torch.full_like(losses, batch_length(batch)))


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


def _first_parameter(loss: Callable[..., Any]) -> str | None:
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        return next(iter(inspect.signature(function).parameters), None)
    except (TypeError, ValueError):  # builtins show no signature
        return None
