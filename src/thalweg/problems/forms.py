"""What kind of loss a function is: a criterion (outputs, targets), or loss(model, batch)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from thalweg.errors import InvalidProblem
from thalweg.problems.criteria import TorchCriterion, is_torchs
from thalweg.problems.loss import CriterionLoss, Evaluation, Loss, ModelLoss, TorchLoss

_MODEL = {"model", "net", "network", "module"}
_OUTPUTS = {
    *("output", "outputs", "out", "input", "inputs", "logit", "logits", "score", "scores"),
    *("pred", "preds", "prediction", "predictions", "predicted", "y_pred", "yhat", "y_hat"),
}
_TARGETS = {
    *("target", "targets", "label", "labels", "truth", "y_true", "y"),
}
_RULE = (
    "A loss is a criterion (outputs, targets), with a parameter of such a name, or a loss(model,"
    " batch), with a parameter named 'model'"
)


def check_loss(loss: object) -> None:
    """
    Refuse what is no function.

    Raises
    ------
    InvalidProblem
        If it is none.
    """
    if isinstance(loss, type) or not callable(loss):
        raise InvalidProblem(
            f"loss must be a function, got {loss!r}; write nn.CrossEntropyLoss(), nn.MSELoss() or a"
            " function loss(model, batch) that returns a tensor."
        )


def as_loss(loss: Callable[..., Any], attempt: Callable[[Loss], Evaluation] | None = None) -> Loss:
    """
    Wrap what the user gave as a loss.

    Parameters
    ----------
    loss : callable
        A criterion of torch (module or function), any callable ``(outputs, targets)`` (or
        ``(targets, outputs)``, where names of its parameters tell), or
        ``loss(model, batch)`` or ``loss(batch, model)``: told apart by the names of its
        parameters, where these tell, else by trying.
    attempt : callable, optional
        Evaluates a loss on some data, or raises. Without it, a function whose names do not tell
        is taken for a criterion.

    Returns
    -------
    Loss
        A callable ``(model, batch) -> Evaluation``.

    Raises
    ------
    InvalidProblem
        If it is no function, sums over samples, or cannot be told apart.
    """
    check_loss(loss)
    if is_torchs(loss):
        return TorchLoss(TorchCriterion(loss))
    first, second = _parameters(loss)
    _check_count(loss)
    if (first in _MODEL) != (second in _MODEL):
        return ModelLoss(loss, model_last=second in _MODEL)
    if first in _TARGETS and second in _OUTPUTS:
        return CriterionLoss(loss, targets_first=True)
    if first in _OUTPUTS or second in _TARGETS - {"y"} or attempt is None or first is None:
        return CriterionLoss(loss)
    return _tried(loss, attempt)


def _tried(loss: Callable[..., Any], attempt: Callable[[Loss], Evaluation]) -> Loss:
    """Take the one form in which the loss can be evaluated."""
    forms: dict[str, Loss] = {
        "(outputs, targets)": CriterionLoss(loss),
        "(model, batch)": ModelLoss(loss),
        "(batch, model)": ModelLoss(loss, model_last=True),
    }
    works, fails = [], []
    for name, form in forms.items():
        try:
            with warnings.catch_warnings(action="ignore"):
                attempt(form)
            works.append(name)
        except Exception as error:  # whatever a function says of arguments that are not its own
            fails.append(f"as {name}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
    if len(works) == 1:
        return forms[works[0]]
    outcome = f"works as {' and as '.join(works)}" if works else f"fails {'; '.join(fails)}"
    named = ", ".join(name or "?" for name in _parameters(loss))
    raise InvalidProblem(f"the loss ({named}), called on the first samples, {outcome}. {_RULE}.")


def _check_count(loss: Callable[..., Any]) -> None:
    """Refuse a function that needs more than two arguments, or takes fewer."""
    parameters = _signature(loss)
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p.name for p in plain if p.default is p.empty]
    several = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if not parameters or (len(needed) <= 2 and (len(plain) >= 2 or several)):
        return
    write = "`lambda model, batch: loss(model, *batch)`"
    if isinstance(loss, nn.Module):
        write = "`lambda model, batch: criterion(model(batch[0]), *batch[1:])`"
        write += ", or `criterion(*model(*batch))` where the model gives all that it compares"
    raise InvalidProblem(
        f"the loss takes {len(needed)} arguments ({', '.join(p.name for p in plain)}), expected 2."
        f" {_RULE}. Write e.g. {write}."
    )


def _parameters(loss: Callable[..., Any]) -> tuple[str | None, str | None]:
    """Give the names of the first two parameters, None where there is none or it is not known."""
    first, second, *_ = [*(parameter.name for parameter in _signature(loss)), None, None]
    return first, second


def _signature(loss: Callable[..., Any]) -> list[inspect.Parameter]:
    function = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # builtins show no signature
        return []
