"""A problem: a model, a loss and the data, as the user gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from thalweg.errors import InvalidArgument, InvalidProblem, NotDefined
from thalweg.problems.batches import batch_length
from thalweg.problems.criteria import Kind
from thalweg.problems.lazy import is_materialized, materialize
from thalweg.problems.loss import Evaluation, Loss, OutputLoss, TorchLoss, as_loss, pair
from thalweg.problems.misclassification import wrong
from thalweg.problems.reduction import check_reduction
from thalweg.problems.samples import Samples, as_samples
from thalweg.problems.untouched import Untouched
from thalweg.run.seeds import torch_generator

Split = Literal["train", "test"]

# Samples that a loss of the user's own is looked at on, and how far its weights are moved there.
_PROBED = 128
_MOVE = 0.1
# Samples weighed at once.
_WEIGHED = 1024


class Totals(NamedTuple):
    """
    What a split adds up to.

    Attributes
    ----------
    weight : float
        Of all samples: what the risk divides by. N where each counts one.
    classified : int
        Number of samples that count in the classification error.
    """

    weight: float
    classified: int


@dataclass(frozen=True, eq=False)
class Problem:
    """
    A model with its loss and data: what a landscape is measured on.

    Parameters
    ----------
    model : nn.Module
        With trainable parameters. It is never changed.
    loss : callable
        A criterion such as ``nn.CrossEntropyLoss()`` or ``F.mse_loss``; any callable
        ``(outputs, targets)``; or ``loss(model, batch)``, recognised by the name of its first
        parameter. The risk is the mean over samples: a loss per sample, shape (n,), serves best,
        a 0-d mean is accepted. Class weights and ignored targets of torch's criteria count as in
        torch's mean over all samples at once.
    train, test : data
        A pair of tensors ``(inputs, targets)``, a ``torch.utils.data.Dataset``, or a re-iterable
        of batches such as a ``DataLoader`` without shuffling. Batches may be dicts of tensors
        where the loss is ``loss(model, batch)``.
    weight : callable, optional
        From a batch to how much it counts: the weights of its samples, shape (n,), or, where the
        loss gives a batch's mean, their sum, such as its number of tokens that are no padding.
        The risk is the sum of weights times losses over the sum of weights. Takes the place of
        the criterion's own weights. By default these, or 1 for each sample.
    name : str
        Stands in results.
    error : callable, optional
        ``(outputs, targets) -> bool (n,)``, True where a sample is misclassified; needed only
        where targets are neither classes nor one-hot.

    Attributes
    ----------
    recipe : dict or None
        ``entry`` and ``settings`` of the `load_problem` that made it: with them other processes
        make it again. None where it was put together by hand.

    Raises
    ------
    InvalidProblem
        If parts do not fit together; the message says what to write.
    NotDeterministic
        If the data answer differently when asked twice.

    Examples
    --------
    >>> x, y = torch.zeros(4, 3), torch.tensor([0, 1, 0, 1])
    >>> problem = Problem(nn.Linear(3, 2), nn.CrossEntropyLoss(), (x, y))
    >>> evaluation = problem.evaluate(problem.model, problem.samples("train").slice(0, 4))
    >>> evaluation.losses.shape, evaluation.outputs.shape
    (torch.Size([4]), torch.Size([4, 2]))
    """

    model: nn.Module
    loss: Callable[..., Any]
    train: Any
    test: Any = None
    weight: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    name: str = "problem"
    error: Callable[[Tensor, Any], Tensor] | None = None
    recipe: dict[str, Any] | None = field(default=None, init=False, repr=False)
    _split: dict[str, Samples] = field(default_factory=dict, init=False, repr=False)
    _checked: set[str] = field(default_factory=set, init=False, repr=False)
    _totals: dict[str, Totals] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_model(self.model)
        _ = self._loss
        for split, data in (("train", self.train), ("test", self.test)):
            if data is not None:
                self._split[split] = as_samples(data, what=f"the {split} data")
        if self.train is None:
            raise InvalidProblem("train is None: a problem needs training data; give (x, y).")
        if not is_materialized(self.model):
            first = self._split["train"].slice(0, 1)
            materialize(self.model, lambda: self.evaluate(self.model, first))

    @cached_property
    def _loss(self) -> Loss:
        return as_loss(self.loss)

    def made_by(self, entry: str, settings: dict[str, Any]) -> Self:
        """Remember the entry and the settings that make this problem."""
        object.__setattr__(self, "recipe", {"entry": entry, "settings": settings})
        return self

    def samples(self, split: Split) -> Samples:
        """
        Give the samples of a split, ``"train"`` or ``"test"``.

        Raises
        ------
        InvalidProblem
            If there is no test data.
        """
        if split not in get_args(Split):
            raise InvalidArgument(f"split={split!r}; write 'train' or 'test'.")
        if split not in self._split:
            raise InvalidProblem(
                f"{self.name} has no test data; give Problem(model, loss, train, test)."
            )
        samples = self._split[split]
        self._check(split, samples)
        return samples

    def evaluate(self, model: nn.Module, batch: Any) -> Evaluation:
        """
        Evaluate a batch.

        Parameters
        ----------
        model : nn.Module
            The problem's model, or a copy with other weights.
        batch : object
            As `samples` gives it, on the model's device.

        Returns
        -------
        Evaluation
            Losses, their weights in the risk, and what the model returned.
        """
        try:
            return self._weighed(self._loss(model, batch), batch)
        except RuntimeError:
            _say_devices(model, batch)
            raise

    def evaluate_outputs(self, outputs: Tensor, batch: Any) -> Evaluation:
        """
        Evaluate outputs that are at hand.

        Raises
        ------
        NotDefined
            If the loss is a ``loss(model, batch)``.
        """
        if not isinstance(self._loss, OutputLoss):
            raise NotDefined(
                f"{self.loss!r} takes the model, so there is no loss of outputs; write a criterion"
                " (outputs, targets)."
            )
        return self._weighed(self._loss.of_outputs(outputs, batch), batch)

    def _weighed(self, evaluation: Evaluation, batch: Any) -> Evaluation:
        """Let the user's weights take the place of the loss's own."""
        if self.weight is None:
            return evaluation
        weights = _given_weights(self.weight(batch), evaluation.losses)
        return evaluation._replace(weights=weights)

    @property
    def weighted(self) -> bool:
        """Whether samples may count differently in the risk."""
        own = isinstance(self._loss, TorchLoss) and (
            self._loss.criterion.weighted or self._loss.may_ignore
        )
        return self.weight is not None or own

    def totals(self, split: Split) -> Totals:
        """
        Add up the weights of all samples of a split: a pass over its targets, if they differ.

        Raises
        ------
        InvalidProblem
            If nothing counts.
        """
        if split not in self._totals:
            self._totals[split] = self._add_up(split, self.samples(split))
        return self._totals[split]

    def _add_up(self, split: str, samples: Samples) -> Totals:
        weight, classified = 0.0, 0
        starts = range(0, len(samples), _WEIGHED) if self.weighted else ()
        for start in starts:
            batch = self._part(samples, start, min(start + _WEIGHED, len(samples)))
            weight += self._weight_of(batch)
            counted = self.classified(batch)
            classified += batch_length(batch) if counted is None else int(counted.sum())
        if starts and not weight > 0:
            raise InvalidProblem(
                f"{self.name}: the weights of all {split} samples add up to {weight:g}, expected a"
                " positive number; are all targets ignored?"
            )
        return Totals(weight, classified) if starts else Totals(len(samples), len(samples))

    def _part(self, samples: Samples, start: int, stop: int) -> Any:
        """Give as much of a batch as weights need."""
        if self.weight is None and samples.targets is not None:
            return samples.targets[start:stop], samples.targets[start:stop]
        return samples.slice(start, stop)

    def _weight_of(self, batch: Any) -> float:
        if self.weight is not None:
            return float(torch.as_tensor(self.weight(batch)).double().sum())
        weights = self._loss.weigh(batch) if isinstance(self._loss, TorchLoss) else None
        return float(batch_length(batch) if weights is None else weights.sum())

    def wrong(self, outputs: Tensor, batch: Any) -> Tensor:
        """
        Say which samples of a batch are misclassified: shape (n,), bool.

        Raises
        ------
        NotDefined
            If targets are no classes and no ``error`` was given.
        """
        targets = pair(batch)[1]
        if self.error is None:
            answer, counted = wrong(outputs, targets, self._loss.kind), self.classified(batch)
            return answer if counted is None else answer & counted
        answer = self.error(outputs, targets)
        if not (isinstance(answer, Tensor) and answer.shape == (len(outputs),)):
            got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise InvalidProblem(
                f"error(outputs, targets) must return a bool tensor of shape ({len(outputs)},), one"
                f" entry per sample, got {got}."
            )
        return answer.bool()

    def classified(self, batch: Any) -> Tensor | None:
        """Say which samples count in the classification error: (n,), bool; None where all do."""
        if self.error is not None or not isinstance(self._loss, TorchLoss):
            return None
        targets = pair(batch)[1]
        return self._loss.criterion.counted(targets) if self._loss.may_ignore else None

    @property
    def output_kind(self) -> Kind:
        """How the loss reads outputs: ``"squared"``, ``"classes"``, ``"logits"``, ..."""
        return self._loss.kind

    def residuals(self, outputs: Tensor, batch: Any) -> Tensor:
        """
        Give outputs minus targets: shape (n, C).

        Raises
        ------
        NotDefined
            If the loss is not the squared loss.
        """
        if self._loss.kind != "squared":
            raise NotDefined(
                "residuals are outputs minus targets under the squared loss, and the loss is"
                f" {self.loss!r}; write Problem(model, nn.MSELoss(), ...) or target='onehot'."
            )
        targets: Tensor = pair(batch)[1]
        return (outputs - targets).flatten(1)

    def batch_size_of(self, batch: Any) -> int:
        """Count the samples of a batch."""
        return batch_length(batch)

    def _check(self, split: str, samples: Samples) -> None:
        """Look at the loss on real data, once a split."""
        if split in self._checked:
            return
        if isinstance(self._loss, TorchLoss):
            self._find_ignored(self._loss, samples)
        elif len(samples) > 1 and not _mixes_by_itself(self.model):
            self._check_reduction(samples)
        self._checked.add(split)

    def _find_ignored(self, loss: TorchLoss, samples: Samples) -> None:
        """Have targets looked at for ignored ones, batch by batch, only where there may be any."""
        ignored, targets = loss.criterion.ignored, samples.targets
        found = ignored is not None and (targets is None or bool((targets == ignored).any()))
        loss.may_ignore = found or (bool(self._checked) and loss.may_ignore)

    def _check_reduction(self, samples: Samples) -> None:
        """Evaluate random samples, whole and in parts, at the user's weights and at others."""
        look = Untouched(self.model)
        order = torch.randperm(len(samples), generator=torch_generator(0, "reduction"))[:_PROBED]
        cut = max(1, len(order) // 3)  # unequal: the mean must be weighted
        where = next(self.model.parameters())
        whole, *parts = (
            _to(samples.take(part), where) for part in (order, order[:cut], order[cut:])
        )
        for move in (0.0, _MOVE):
            evaluate = partial(look, self.evaluate, move=move)
            check_reduction(evaluate, whole, parts, (cut, len(order) - cut))


def _given_weights(weights: Any, losses: Tensor) -> Tensor:
    given = torch.as_tensor(weights).to(losses.device, losses.dtype)
    if not losses.dim():
        return given.sum()
    if given.shape != losses.shape:
        raise InvalidProblem(
            f"weight= must give one number for each sample, shape {tuple(losses.shape)}, where the"
            f" loss gives one for each; got shape {tuple(given.shape)}."
        )
    return given


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidProblem(
            f"model must be a torch.nn.Module, got {type(model).__name__}; give the network itself:"
            " Problem(model, loss, train)."
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidProblem(
            f"{type(model).__name__} has no trainable parameters: a landscape needs at least one."
            " Set requires_grad=True on the weights whose landscape is wanted."
        )


def _mixes_by_itself(model: nn.Module) -> bool:
    # Batch norm without running statistics mixes samples whatever the loss is.
    norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase))
    return any(not norm.track_running_stats for norm in norms)


def _to(batch: Any, where: Tensor) -> Any:
    return torch.utils._pytree.tree_map_only(
        Tensor,
        lambda t: t.to(where.device, where.dtype if t.is_floating_point() else t.dtype),
        batch,
    )


def _say_devices(model: nn.Module, batch: Any) -> None:
    weights = {str(p.device) for p in model.parameters()}
    data = {str(leaf.device) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)}
    if weights and data and weights != data:
        raise InvalidProblem(
            f"the weights lie on {', '.join(sorted(weights))}, the batch on"
            f" {', '.join(sorted(data))}; move both to one device: model.to(device), or"
            " EmpiricalRisk(problem, device=...)."
        ) from None
