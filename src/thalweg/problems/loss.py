"""Losses per sample: criteria of torch, callables of the user, ``loss(model, batch)``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.errors import InvalidProblem

Kind = Literal["squared", "logits", "probabilities", "signed", "classes", "other"]
Criterion = Callable[[Any, Any], Tensor]

# How each criterion's outputs are read where misclassified samples are counted.
_KINDS: dict[Any, Kind] = {
    nn.CrossEntropyLoss: "classes",
    nn.NLLLoss: "classes",
    nn.MultiMarginLoss: "classes",
    nn.MSELoss: "squared",
    nn.L1Loss: "other",
    nn.SmoothL1Loss: "other",
    nn.HuberLoss: "other",
    nn.KLDivLoss: "other",
    nn.PoissonNLLLoss: "other",
    nn.BCEWithLogitsLoss: "logits",
    nn.BCELoss: "probabilities",
    nn.SoftMarginLoss: "signed",
    F.cross_entropy: "classes",
    F.nll_loss: "classes",
    F.multi_margin_loss: "classes",
    F.mse_loss: "squared",
    F.l1_loss: "other",
    F.smooth_l1_loss: "other",
    F.huber_loss: "other",
    F.kl_div: "other",
    F.poisson_nll_loss: "other",
    F.binary_cross_entropy_with_logits: "logits",
    F.binary_cross_entropy: "probabilities",
    F.soft_margin_loss: "signed",
}
_ELEMENTWISE = {"squared", "other", "logits", "probabilities", "signed"}
_IGNORED = -100  # torch's default ignore_index

_SUM = (
    "{what} sums over the samples; the empirical risk is the mean over samples, so that no split"
    " of the data changes it. Write {write}."
)


class Loss(Protocol):
    """A loss as the risk evaluates it."""

    kind: Kind
    opaque: bool

    def __call__(self, model: nn.Module, batch: Any, /) -> tuple[Tensor, Tensor | None]:
        """Evaluate a batch: losses (n,), or their mean (0-d); and the outputs, where known."""


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
        A callable ``(model, batch) -> (losses, outputs)``.

    Raises
    ------
    InvalidProblem
        If it is no function, sums over samples, or weighs them by class.
    """
    if isinstance(loss, type) or not callable(loss):
        raise InvalidProblem(
            f"loss must be a function, got {loss!r}; write nn.CrossEntropyLoss(), nn.MSELoss() or a"
            " function loss(model, batch) that returns a tensor."
        )
    first = _first_parameter(loss)
    if first in ("net", "network", "module"):
        raise InvalidProblem(
            f"the loss's first parameter is named {first!r}: name it 'model' for loss(model,"
            " batch), or 'outputs' for a criterion (outputs, targets)."
        )
    if first == "model":
        return ModelLoss(loss)
    return CriterionLoss(loss)


class ModelLoss:
    """The user's ``loss(model, batch)``: per sample where it returns (n,), else a mean."""

    kind: Kind = "other"
    opaque = True

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, model: nn.Module, batch: Any, /) -> tuple[Tensor, Tensor | None]:
        """Evaluate a batch."""
        return _per_sample(self.function(model, batch), "loss(model, batch)"), None


class CriterionLoss:
    """A criterion ``(outputs, targets)`` on batches that are pairs ``(inputs, targets)``."""

    def __init__(self, criterion: Callable[..., Any]) -> None:
        self.kind: Kind = _KINDS.get(_key(criterion), "other")
        self.opaque = _key(criterion) not in _KINDS
        self.evaluate = criterion if self.opaque else _unreduced(criterion)
        self.name = _name(criterion)
        self.summed_outputs = getattr(criterion, "reduction", None) == "batchmean"

    def __call__(self, model: nn.Module, batch: Any, /) -> tuple[Tensor, Tensor | None]:
        """Evaluate a batch."""
        inputs, targets = pair(batch)
        outputs = model(inputs)
        if not isinstance(outputs, Tensor):
            raise InvalidProblem(
                f"the model returns {type(outputs).__name__}, and {self.name} needs a tensor; write"
                " a loss(model, batch) that takes the tensor out, e.g."
                " `def loss(model, batch): return F.cross_entropy(model(batch[0]).logits, batch[1],"
                " reduction='none')`."
            )
        return self.of_outputs(outputs, targets), outputs

    def of_outputs(self, outputs: Tensor, targets: Any) -> Tensor:
        """Evaluate outputs that are at hand: losses (n,), or their mean (0-d)."""
        if not self.opaque:
            self._check_shapes(outputs, targets)
        return _per_sample(self.evaluate(outputs, targets), self.name, self.summed_outputs)

    def _check_shapes(self, outputs: Tensor, targets: Tensor) -> None:
        if self.kind in _ELEMENTWISE and outputs.shape != targets.shape:
            raise InvalidProblem(
                f"{self.name} compares outputs of shape {tuple(outputs.shape)} with targets of"
                f" shape {tuple(targets.shape)}, which would be broadcast against each other; give"
                " targets of the outputs' shape: targets.reshape(N, 1), or one-hot rows."
            )

    def check_targets(self, targets: Tensor) -> None:
        """Refuse class targets that torch would pass over."""
        if self.kind != "classes" or targets.is_floating_point():
            return
        ignored = int((targets == _IGNORED).sum())
        if ignored:
            raise InvalidProblem(
                f"{ignored} targets are {_IGNORED}, which {self.name} ignores, so its mean is not a"
                " mean over samples. Leave those samples out, or write a loss(model, batch) that"
                " returns one loss per sample."
            )


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


def check_reduction(
    loss: Callable[[Any], Tensor], batch: Any, halves: tuple[Any, Any], sizes: tuple[int, int]
) -> None:
    """
    Find out whether a scalar loss is a mean over samples: evaluate a batch and its two parts.

    Parameters
    ----------
    loss : callable
        From a batch to a tensor, 0-d or (n,).
    batch : object
        The whole batch.
    halves : tuple
        Its two parts.
    sizes : tuple of int
        Numbers of samples of the parts.

    Raises
    ------
    InvalidProblem
        If the loss is a sum over samples, or a sample's loss depends on its batch.
    """
    whole, first, second = (loss(part).double() for part in (batch, *halves))
    if whole.dim():
        parts, summed = torch.cat([first, second]), None
    else:
        n, m = sizes
        parts, summed = (n * first + m * second) / (n + m), first + second
    if not bool(torch.isfinite(whole).all()) or _close(whole, parts):
        return
    if summed is not None and _close(whole, summed):
        raise InvalidProblem(
            _SUM.format(what="the loss", write="loss.mean() in place of loss.sum(), or return (n,)")
        )
    raise InvalidProblem(
        f"the loss depends on how samples are put into batches: {_mean(whole):.6g} on a batch of"
        f" {sum(sizes)}, {_mean(parts):.6g} as the mean over its parts of {sizes[0]} and"
        f" {sizes[1]}. Expected a mean over samples: return one loss per sample, shape (n,), from"
        " loss(model, batch), and have no class weights, no ignored tokens and no terms that mix"
        " samples."
    )


def _close(a: Tensor, b: Tensor) -> bool:
    scale = float(torch.maximum(a.abs().max(), b.abs().max()))
    # Sums in another order move a float32 loss by 1e-6; a wrong reduction moves it by much more.
    return a.shape == b.shape and bool(((a - b).abs() <= 1e-4 * scale + 1e-12).all())


def _mean(losses: Tensor) -> float:
    return float(losses.mean())


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


def _key(criterion: Any) -> Any:
    if isinstance(criterion, partial):
        criterion = criterion.func
    try:
        key = type(criterion) if isinstance(criterion, nn.Module) else criterion
        return key if key in _KINDS else None
    except TypeError:  # not hashable
        return None


def _name(criterion: Any) -> str:
    if isinstance(criterion, partial):
        criterion = criterion.func
    return str(getattr(criterion, "__name__", type(criterion).__name__))


def _unreduced(criterion: Any) -> Criterion:
    options = _options(criterion)
    name = _name(criterion)
    if options.get("reduction", "mean") == "sum":
        raise InvalidProblem(_SUM.format(what=name, write="reduction='mean'"))
    if options.get("weight") is not None:
        raise InvalidProblem(
            f"{name} has class weights (weight=...), so its mean is not a mean over samples: it"
            " would depend on the batches. Leave them out, or write a loss(model, batch) that"
            " returns each sample's weighted loss, shape (n,)."
        )
    if options.get("ignore_index", _IGNORED) != _IGNORED:
        raise InvalidProblem(
            f"{name} has ignore_index={options['ignore_index']}, so its mean is not a mean over"
            " samples. Leave the ignored samples out of the data, or write a loss(model, batch)"
            " that returns one loss per sample, shape (n,)."
        )
    if isinstance(criterion, nn.Module):
        single: Criterion = copy.copy(criterion)
        single.reduction = "none"  # type: ignore[attr-defined]
        return single
    return partial(criterion, reduction="none")


def _options(criterion: Any) -> dict[str, Any]:
    if isinstance(criterion, partial):
        return dict(criterion.keywords)
    names = ("reduction", "weight", "ignore_index")
    return {name: getattr(criterion, name) for name in names if hasattr(criterion, name)}


def _first_parameter(loss: Callable[..., Any]) -> str | None:
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        return next(iter(inspect.signature(function).parameters), None)
    except (TypeError, ValueError):  # builtins show no signature
        return None
