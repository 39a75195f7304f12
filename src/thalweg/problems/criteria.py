"""Criteria of torch, element by element, and how much each element counts in torch's mean."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.errors import DependsOnBatches, InvalidProblem

Kind = Literal["squared", "logits", "probabilities", "signed", "classes", "other"]

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
# Their mean divides by the weights of what counts; that of the others, by the number of elements.
_BY_CLASS_WEIGHT = (nn.CrossEntropyLoss, nn.NLLLoss, F.cross_entropy, F.nll_loss)
_BY_ELEMENT_WEIGHT = (F.mse_loss, F.l1_loss)
_IGNORED = -100  # torch's default ignore_index
_NEXT_TO_NOTHING = 1e-12

SUMMED = (
    "{what} sums over the samples; the empirical risk is the mean over samples, so that no split"
    " of the data changes it. Write {write}."
)


def is_torchs(loss: object) -> bool:
    """Say whether a loss is a criterion of torch whose elements are known here."""
    return _key(loss) is not None


def name_of(criterion: object) -> str:
    """Give what a criterion is called."""
    plain = criterion.func if isinstance(criterion, partial) else criterion
    return str(getattr(plain, "__name__", type(plain).__name__))


class TorchCriterion:
    """
    A criterion of torch, taken apart.

    torch's mean over a batch is ``sum(elements) / sum(weights)``, with the elements of
    ``reduction="none"`` and the weights of `weights`.

    Parameters
    ----------
    criterion : callable
        For which `is_torchs` holds: a module, a function, or a ``functools.partial`` of one.

    Raises
    ------
    InvalidProblem
        If it sums over samples.
    """

    def __init__(self, criterion: Any) -> None:
        key, options = _key(criterion), _options(criterion)
        self.name, self.kind = name_of(criterion), _KINDS[key]
        reduction = _reduction(options)
        if reduction == "sum":
            raise InvalidProblem(SUMMED.format(what=self.name, write="reduction='mean'"))
        self.sums_outputs = reduction == "batchmean"
        means = reduction == "mean"
        self._class_weights: Tensor | None = None
        self.ignored: int | None = None
        if key in _BY_CLASS_WEIGHT and means:
            self._class_weights = _class_weights(options)
            self.ignored = options.get("ignore_index", _IGNORED)
        self._by_element = key in _BY_ELEMENT_WEIGHT and means
        by_class = key in _BY_CLASS_WEIGHT or self.kind == "classes"
        names = () if by_class else ("weight", "pos_weight")
        self._placed = [options[name] for name in names if options.get(name) is not None]
        self._holds_tensors = any(isinstance(value, Tensor) for value in options.values())
        self._unreduced = _unreduced(criterion)
        self._cast: dict[tuple[torch.device, torch.dtype], Callable[..., Tensor]] = {}

    @property
    def places(self) -> bool:
        """Whether there are weights that may belong to places in a batch."""
        return bool(self._placed)

    @property
    def weighted(self) -> bool:
        """Whether elements count by the weights of their classes."""
        return self._class_weights is not None

    def elements(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Evaluate the loss of each element: shape (n, ...)."""
        if self.kind == "classes":
            targets = _class_numbers(targets)
            _check_classes(self.name, outputs, targets)
        else:
            _check_shapes(self.name, outputs, targets)
            targets = targets if targets.is_floating_point() else targets.to(outputs.dtype)
        try:
            return self._at(outputs)(outputs, targets)
        except IndexError:
            raise _unknown_classes(self.name, outputs, targets) from None

    def weights(self, targets: Tensor, *, may_ignore: bool = True) -> Tensor | None:
        """
        Say how much each element counts.

        Parameters
        ----------
        targets : Tensor
            Class numbers of any width, or anything else.
        may_ignore : bool
            Whether some targets may be the ignored one.

        Returns
        -------
        Tensor or None
            Of the elements' shape, bool or float; None where all count one.
        """
        if self._by_element and self._placed:
            weights: Tensor = self._placed[0]
            return weights
        if self.ignored is None or targets.is_floating_point():
            return None
        if self._class_weights is None:
            return targets != self.ignored if may_ignore else None
        classes = _class_numbers(targets)
        counted = classes != self.ignored
        class_weights = self._class_weights.to(targets.device)
        return class_weights[torch.where(counted, classes, 0)] * counted

    def counted(self, targets: Tensor) -> Tensor | None:
        """Say which samples count as classified, shape (n,), bool; None where all do."""
        if self.ignored is None or targets.dim() != 1 or targets.is_floating_point():
            return None
        return targets != self.ignored

    def check_places(self, outputs: Tensor) -> None:
        """
        Refuse weights that belong to places in a batch.

        Raises
        ------
        DependsOnBatches
            If there are any.
        """
        for weight in self._placed:
            if weight.dim() == outputs.dim() and weight.shape[0] != 1:
                raise DependsOnBatches(
                    f"{self.name} has a weight of shape {tuple(weight.shape)} for outputs of shape"
                    f" {tuple(outputs.shape)}: a weight for each place in a batch, which says"
                    " nothing of other batches. Put the weights of the samples beside their"
                    " targets, and write a loss(model, batch) that returns each sample's loss,"
                    " shape (n,), and Problem(..., weight=lambda batch: ...) if they are to count"
                    " in the mean, too."
                )

    def _at(self, outputs: Tensor) -> Callable[..., Tensor]:
        """Give the criterion with its own tensors as the outputs are."""
        if not self._holds_tensors:
            return self._unreduced
        place = outputs.device, outputs.dtype
        if place not in self._cast:
            self._cast[place] = _moved(self._unreduced, *place)
        return self._cast[place]


def _key(criterion: Any) -> Any:
    if isinstance(criterion, partial):
        criterion = criterion.func
    if isinstance(criterion, nn.Module):  # or of a class that adds nothing to its forward
        if _acted_on(criterion):
            return None
        own: Any = type(criterion)
        bases: list[Any] = [base for base in own.__mro__ if base in _KINDS]
        return next((base for base in bases if own.forward is base.forward), None)
    try:
        return criterion if criterion in _KINDS else None
    except TypeError:  # not hashable
        return None


def _acted_on(criterion: nn.Module) -> bool:
    """Say whether a call of a module does more than its class's forward."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        any(vars(criterion).get(name) for name in hooks)
        or "forward" in vars(criterion)
        or type(criterion).__call__ is not nn.Module.__call__
    )


def _options(criterion: Any) -> dict[str, Any]:
    if isinstance(criterion, partial):
        return dict(criterion.keywords)
    names = ("reduction", "weight", "pos_weight", "ignore_index", "label_smoothing")
    return {name: getattr(criterion, name) for name in names if hasattr(criterion, name)}


def _class_weights(options: dict[str, Any]) -> Tensor | None:
    weights: Tensor | None = options.get("weight")
    if weights is None or not options.get("label_smoothing"):
        return weights
    # A class of weight 0 has a loss under label smoothing, of the other classes, which counts in
    # torch's sum: a weight that is next to nothing lets it be a weight times a mean.
    return weights.clamp_min(_NEXT_TO_NOTHING * float(weights.max()))


def _reduction(options: dict[str, Any]) -> str:
    """Give the reduction, also where torch's old arguments say it."""
    if options.get("reduce") is False:
        return "none"
    if options.get("size_average") is False:
        return "sum"
    return str(options.get("reduction", "mean"))


def _unreduced(criterion: Any) -> Callable[..., Tensor]:
    if isinstance(criterion, nn.Module):
        single: Any = copy.copy(criterion)
        single.reduction = "none"
        return single  # type: ignore[no-any-return]
    if isinstance(criterion, partial):
        of_reduction = ("size_average", "reduce", "reduction")
        options = {
            name: value for name, value in criterion.keywords.items() if name not in of_reduction
        }
        return partial(criterion.func, *criterion.args, **options, reduction="none")
    return partial(criterion, reduction="none")


def _moved(criterion: Any, device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    if isinstance(criterion, nn.Module):
        return copy.deepcopy(criterion).to(device, dtype)
    moved = {
        name: value.to(device, dtype) if isinstance(value, Tensor) else value
        for name, value in criterion.keywords.items()
    }
    return partial(criterion.func, *criterion.args, **moved)


def _class_numbers(targets: Tensor) -> Tensor:
    return targets if targets.is_floating_point() else targets.long()


def _check_classes(name: str, outputs: Tensor, targets: Tensor) -> None:
    numbers = (*outputs.shape[:1], *outputs.shape[2:])
    if targets.is_floating_point() and targets.shape != outputs.shape:
        raise InvalidProblem(
            f"{name} takes class numbers, or probabilities of the outputs' shape"
            f" {tuple(outputs.shape)}, and targets are numbers with a fraction, of shape"
            f" {tuple(targets.shape)}; give targets.long() if they are classes."
        )
    if not targets.is_floating_point() and targets.shape != numbers:
        raise InvalidProblem(
            f"{name} takes outputs of shape (n, C, ...) and class numbers of shape (n, ...): for"
            f" outputs of shape {tuple(outputs.shape)}, {numbers}, and targets have shape"
            f" {tuple(targets.shape)}. Give targets.squeeze(1), targets.argmax(1) of one-hot rows,"
            " or outputs with the classes in the second dimension, outputs.transpose(1, 2)."
        )


def _unknown_classes(name: str, outputs: Tensor, targets: Tensor) -> InvalidProblem:
    least, most, classes = int(targets.min()), int(targets.max()), outputs.shape[1]
    return InvalidProblem(
        f"{name}: class numbers of a batch reach from {least} to {most}, and outputs of shape"
        f" {tuple(outputs.shape)} are of the classes 0 to {classes - 1}. Give the model an output"
        " for each class, number the classes from 0, or name the one that is no class:"
        " ignore_index."
    )


def _check_shapes(name: str, outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape:
        raise InvalidProblem(
            f"{name} compares outputs of shape {tuple(outputs.shape)} with targets of"
            f" shape {tuple(targets.shape)}, which would be broadcast against each other; give"
            " targets of the outputs' shape: targets.reshape(N, 1), or one-hot rows."
        )
