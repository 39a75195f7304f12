"""A problem: a model, a loss and the data, as the user gives them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self, get_args
from warnings import warn
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from thalweg.errors import DependsOnBatches, InvalidArgument, InvalidProblem, NotDefined
from thalweg.problems.arrangement import TRIED, Arrangement
from thalweg.problems.batches import batch_length
from thalweg.problems.criteria import Kind, is_torchs
from thalweg.problems.draws import DrawnSamples, Draws, taken_apart
from thalweg.problems.forms import as_loss, check_loss
from thalweg.problems.given import Given
from thalweg.problems.lazy import is_materialized, materialize
from thalweg.problems.loss import Evaluation, Loss, OutputLoss, pair, together
from thalweg.problems.misclassification import wrong
from thalweg.problems.objects import unbox
from thalweg.problems.samples import Samples, as_samples
from thalweg.problems.weighing import Totals, Weighing

Split = Literal["train", "test"]

log = logging.getLogger("thalweg")


class _How(NamedTuple):
    """
    How a batch is evaluated.

    Attributes
    ----------
    keys : Tensor or None
        Of its random numbers, where these are held.
    given : bool
        Whether it is a batch as given.
    as_one : bool
        Whether its mean is wanted, and not the losses of its samples.
    """

    keys: Tensor | None
    given: bool = False
    as_one: bool = False


@dataclass(frozen=True, eq=False)
class Problem(Arrangement):
    """
    A model with its loss and data: what a landscape is measured on.

    Parameters
    ----------
    model : nn.Module
        With trainable parameters. It is never changed.
    loss : callable
        A criterion such as ``nn.CrossEntropyLoss()`` or ``F.mse_loss``; any callable
        ``(outputs, targets)``; or ``loss(model, batch)``: told apart by the names of its
        parameters, else by trying. The risk is the mean over samples: a loss per sample, shape
        (n,), serves best, a 0-d mean is accepted. Class weights and ignored targets of torch's
        criteria count as in torch's mean over all samples at once.
    train, test : data
        A pair of tensors ``(inputs, targets)``, a tuple ``(a, b, targets)`` for ``model(a, b)``, a
        ``torch.utils.data.Dataset``, or a re-iterable of batches such as a ``DataLoader`` without
        shuffling. Batches may be dicts of tensors where the loss is ``loss(model, batch)``.
        `Batches` takes batches as they are given, `Whole` what is one batch.
    weight : callable, optional
        From a batch to how much it counts: the weights of its samples, shape (n,), or, where the
        loss gives a batch's mean, their sum, such as its number of tokens that are no padding.
        The risk is the sum of weights times losses over the sum of weights. Takes the place of
        the criterion's own weights. By default these, or 1 for each sample.
    draws : {"fixed"}, optional
        Says that the model or the loss is meant to draw random numbers: each sample then keeps one
        draw, the same at every w and in any batch. Noise that is found is held so in any case,
        and that is said. Dropout that is off in evaluation mode stays off.
    name : str
        Stands in results.
    error : callable, optional
        ``(outputs, targets) -> bool (n,)``, True where a sample is misclassified; needed only
        where targets are neither classes nor one-hot.

    Attributes
    ----------
    spec : dict or None
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
    draws: Literal["fixed"] | None = field(default=None, kw_only=True)
    name: str = "problem"
    error: Callable[[Tensor, Any], Tensor] | None = None
    spec: dict[str, Any] | None = field(default=None, init=False, repr=False)
    _split: dict[str, Samples] = field(default_factory=dict, init=False, repr=False)
    _arranged: dict[str, Samples | DependsOnBatches] = field(
        default_factory=dict, init=False, repr=False
    )
    _wholes: dict[str, Samples] = field(default_factory=dict, init=False, repr=False)
    _totals: WeakKeyDictionary[Samples, Totals] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )
    _draws: Draws = field(default_factory=Draws, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_model(self.model)
        check_loss(self.loss)
        if self.draws not in (None, "fixed"):
            raise InvalidArgument(f"draws={self.draws!r}; write 'fixed' or leave it out.")
        if is_torchs(self.loss):
            _ = self._loss  # refuses a sum before data are read
        for split, data in (("train", self.train), ("test", self.test)):
            if data is not None:
                anything = not is_torchs(self.loss)
                self._split[split] = as_samples(data, what=f"the {split} data", anything=anything)
        if self.train is None:
            raise InvalidProblem("train is None: a problem needs training data; give (x, y).")
        if not is_materialized(self.model):
            first = self._split["train"].slice(0, 1)
            materialize(self.model, lambda: self.evaluate(self.model, first))

    @cached_property
    def _loss(self) -> Loss:
        return as_loss(self.loss, self._try)

    def _try(self, loss: Loss) -> Evaluation:
        """Evaluate what a loss may be on the first samples."""
        samples = self._split["train"]
        first = samples.slice(0, min(TRIED, len(samples)) if samples.joined else 1)
        if isinstance(first, Given):
            return self._look(loss.as_one, first.batches[0])
        return self._look(loss, first)

    def made_by(self, entry: str, settings: dict[str, Any]) -> Self:
        """Remember the entry and the settings that make this problem."""
        object.__setattr__(self, "spec", {"entry": entry, "settings": settings})
        return self

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The old name of ``spec``, which warns."""
        warn("Problem.recipe is called spec now", DeprecationWarning, stacklevel=2)
        return self.spec

    def samples(self, split: Split, *, batch_size: int | None = None) -> Samples:
        """
        Give the samples of a split, ``"train"`` or ``"test"``.

        Parameters
        ----------
        split : {"train", "test"}
            Which.
        batch_size : int, optional
            How many are to be evaluated at once. Where samples of a batch depend on one another,
            data of no more than that many are one whole.

        Raises
        ------
        InvalidProblem
            If there is no test data, or the loss is no mean over samples.
        """
        if split not in get_args(Split):
            raise InvalidArgument(f"split={split!r}; write 'train' or 'test'.")
        if split not in self._split:
            raise InvalidProblem(
                f"{self.name} has no test data; give Problem(model, loss, train, test)."
            )
        if split not in self._arranged:
            self._arranged[split] = self._arrange(split)
        arranged = self._arranged[split]
        if not isinstance(arranged, DependsOnBatches):
            return arranged
        if batch_size is None or batch_size < len(self._split[split]):
            raise arranged
        return self._whole(split)

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
            Losses, their weights in the risk, and what the model returned. Batches as given count
            as one each.
        """
        try:
            if isinstance(batch, Given):
                return together([self._evaluate_one(model, given) for given in batch.batches])
            plain, keys = taken_apart(batch)
            return self._weighing.weighed(self._losses(model, plain, _How(keys)), plain)
        except RuntimeError:
            _say_devices(model, batch)
            raise

    def _evaluate_one(self, model: nn.Module, batch: Any) -> Evaluation:
        boxed, keys = taken_apart(batch)
        how = _How(keys, given=True)
        return self._weighing.weighed_as_one(
            unbox(boxed),
            lambda plain: self._losses(model, plain, how._replace(as_one=True)),
            lambda plain: self._losses(model, plain, how),
        )

    def evaluate_outputs(self, outputs: Tensor, batch: Any) -> Evaluation:
        """
        Evaluate outputs that are at hand, of samples or of one batch as given.

        Raises
        ------
        NotDefined
            If the loss is a ``loss(model, batch)``.
        """
        loss = self._loss
        if not isinstance(loss, OutputLoss):
            raise NotDefined(
                f"{self.loss!r} takes the model, so there is no loss of outputs; write a criterion"
                " (outputs, targets)."
            )
        if isinstance(batch, Given):
            boxed, keys = taken_apart(batch.batches[0])
            how = _How(keys, given=True)
            evaluation = self._weighing.weighed_as_one(
                unbox(boxed),
                lambda plain: self._losses_of(loss, outputs, plain, how._replace(as_one=True)),
                lambda plain: self._losses_of(loss, outputs, plain, how),
            )
            return together([evaluation])
        plain, keys = taken_apart(batch)
        losses = self._losses_of(loss, outputs, plain, _How(keys))
        return self._weighing.weighed(losses, plain)

    def _losses(self, model: nn.Module, batch: Any, how: _How) -> Evaluation:
        loss = self._loss
        if how.keys is None:
            return loss.as_one(model, batch) if how.as_one else loss(model, batch)
        with self._draws.held("model", how.keys, given=how.given):
            if not isinstance(loss, OutputLoss):
                return loss.as_one(model, batch) if how.as_one else loss(model, batch)
            outputs = loss.outputs(model, batch)
        return self._losses_of(loss, outputs, batch, how)

    def _losses_of(self, loss: OutputLoss, outputs: Tensor, batch: Any, how: _How) -> Evaluation:
        with self._draws.held("criterion", how.keys, given=how.given):
            evaluate = loss.of_outputs_as_one if how.as_one else loss.of_outputs
            return evaluate(outputs, batch)

    @cached_property
    def _weighing(self) -> Weighing:
        return Weighing(self._loss, self.weight, own_error=self.error is not None)

    def totals(self, samples: Samples) -> Totals:
        """
        Add up the weights of all samples: a pass over their targets, if they differ.

        Parameters
        ----------
        samples : Samples
            Of `samples`.

        Raises
        ------
        InvalidProblem
            If nothing counts, or a batch as given does not say how much it counts.
        """
        if samples not in self._totals:
            self._totals[samples] = self._weighing.add_up(samples, self._look)
        return self._totals[samples]

    def weighed_by(self, samples: Samples) -> str | None:
        """Say how samples are weighed, in words; None where each counts one."""
        return self._weighing.words(samples)

    def wrong(self, outputs: Any, batch: Any) -> Tensor:
        """
        Say which samples of a batch are misclassified.

        Returns
        -------
        Tensor
            Shape (n,), bool; of batches as given, how many in each.

        Raises
        ------
        NotDefined
            If targets are no classes and no ``error`` was given.
        """
        if isinstance(batch, Given):
            parts = outputs.batches if isinstance(outputs, Given) else (outputs,)
            plain = (unbox(taken_apart(given)[0]) for given in batch.batches)
            return torch.stack([self.wrong(*two).sum() for two in zip(parts, plain, strict=True)])
        targets = pair(batch)[1]
        if self.error is None:
            misclassified = wrong(outputs, targets, self._loss.kind)
            counted = self._weighing.classified(batch)
            return misclassified if counted is None else misclassified & counted
        flags: Any = self.error(outputs, targets)
        if not (isinstance(flags, Tensor) and flags.shape == (len(outputs),)):
            got = tuple(flags.shape) if isinstance(flags, Tensor) else type(flags).__name__
            raise InvalidProblem(
                f"error(outputs, targets) must return a bool tensor of shape ({len(outputs)},), one"
                f" entry per sample, got {got}."
            )
        misclassified = flags.bool()
        return misclassified

    @property
    def output_kind(self) -> Kind:
        """How the loss reads outputs: ``"squared"``, ``"classes"``, ``"logits"``, ..."""
        return self._loss.kind

    def residuals(self, outputs: Any, batch: Any) -> Tensor:
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
        residuals: Tensor = outputs - pair(batch)[1]
        return residuals.flatten(1)

    def batch_size_of(self, batch: Any) -> int:
        """Count the samples of a batch."""
        return batch_length(batch)

    def drawn(self, samples: Samples) -> str | None:
        """Say how random numbers are held fixed, in words; None where none are drawn."""
        return samples.draws if isinstance(samples, DrawnSamples) else None

    @property
    def noisy_criterion(self) -> bool:
        """Whether the loss of given outputs draws random numbers."""
        return bool(self._draws.layouts.get("criterion"))


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


def _say_devices(model: nn.Module, batch: Any) -> None:
    weights = {str(p.device) for p in model.parameters()}
    data = {str(leaf.device) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)}
    if weights and data and weights != data:
        raise InvalidProblem(
            f"the weights lie on {', '.join(sorted(weights))}, the batch on"
            f" {', '.join(sorted(data))}; move both to one device: model.to(device), or"
            " EmpiricalRisk(problem, device=...)."
        ) from None
