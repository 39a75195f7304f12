"""A problem: a model, a loss and the data, as the user gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from thalweg.errors import InvalidArgument, InvalidProblem, NotDefined
from thalweg.problems.batches import batch_length
from thalweg.problems.lazy import is_materialized, materialize
from thalweg.problems.loss import CriterionLoss, Kind, Loss, as_loss, check_reduction, pair
from thalweg.problems.misclassification import wrong
from thalweg.problems.samples import Samples, as_samples

Split = Literal["train", "test"]

_PROBED = 8


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
        a 0-d mean is accepted.
    train, test : data
        A pair of tensors ``(inputs, targets)``, a ``torch.utils.data.Dataset``, or a re-iterable
        of batches such as a ``DataLoader`` without shuffling. Batches may be dicts of tensors
        where the loss is ``loss(model, batch)``.
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
    >>> losses, outputs = problem.forward(problem.model, problem.samples("train").slice(0, 4))
    >>> losses.shape, outputs.shape
    (torch.Size([4]), torch.Size([4, 2]))
    """

    model: nn.Module
    loss: Callable[..., Any]
    train: Any
    test: Any = None
    name: str = "problem"
    error: Callable[[Tensor, Any], Tensor] | None = None
    recipe: dict[str, Any] | None = field(default=None, init=False, repr=False)
    _split: dict[str, Samples] = field(default_factory=dict, init=False, repr=False)

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
            materialize(self.model, lambda: self.forward(self.model, first))

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

    def forward(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor | None]:
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
        losses : Tensor
            Shape (n,), one per sample; 0-d, their mean, where the user's loss gives only that.
        outputs : Tensor or None
            What the model returned; None for ``loss(model, batch)``.
        """
        try:
            return self._loss(model, batch)
        except RuntimeError:
            _say_devices(model, batch)
            raise

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """
        Evaluate the loss of outputs that are at hand: shape (n,), or 0-d as in `forward`.

        Raises
        ------
        NotDefined
            If the loss is a ``loss(model, batch)``.
        """
        if not isinstance(self._loss, CriterionLoss):
            raise NotDefined(
                f"{self.loss!r} takes the model, so there is no loss of outputs; write a criterion"
                " (outputs, targets)."
            )
        return self._loss.of_outputs(outputs, pair(batch)[1])

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
            return wrong(outputs, targets, self._loss.kind)
        answer = self.error(outputs, targets)
        if not (isinstance(answer, Tensor) and answer.shape == (len(outputs),)):
            got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise InvalidProblem(
                f"error(outputs, targets) must return a bool tensor of shape ({len(outputs)},), one"
                f" entry per sample, got {got}."
            )
        return answer.bool()

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
        checked = self.__dict__.setdefault("_checked", set())
        if split in checked:
            return
        loss = self._loss
        if isinstance(loss, CriterionLoss) and not loss.opaque:
            if samples.targets is not None:
                loss.check_targets(samples.targets)
        elif len(samples) > 1 and not _mixes_by_itself(self.model):
            self._check_reduction(samples)
        checked.add(split)

    @torch.no_grad()
    def _check_reduction(self, samples: Samples) -> None:
        stop = min(_PROBED, len(samples))
        cut = (stop + 1) // 2 if stop < 4 else stop // 2 - 1  # unequal: the mean must be weighted
        where = next(self.model.parameters())
        whole, first, second = (
            _to(samples.slice(*bounds), where) for bounds in ((0, stop), (0, cut), (cut, stop))
        )
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            check_reduction(
                lambda batch: self.forward(self.model, batch)[0],
                whole,
                (first, second),
                (cut, stop - cut),
            )
        finally:
            for module, training in modes.items():
                module.training = training


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
