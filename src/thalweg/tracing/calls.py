"""How a problem calls its model: with which arguments, read off a call that is stopped."""

from __future__ import annotations

from typing import Any

from torch import nn

from thalweg.errors import NotDefined
from thalweg.problems.problem import Problem


class _Stopped(Exception):
    """The model was called."""


def arguments_of(problem: Problem, model: nn.Module, batch: Any) -> tuple[Any, dict[str, Any]]:
    """
    Give the arguments that a problem calls a model with on a batch.

    Parameters
    ----------
    problem : Problem
        Its loss decides.
    model : nn.Module
        A copy of its model.
    batch : object
        On the model's device, in its dtype.

    Returns
    -------
    args : tuple
        By position.
    kwargs : dict
        By name.

    Raises
    ------
    NotDefined
        If the model is not called.
    """
    calls: list[tuple[Any, dict[str, Any]]] = []

    def stop(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        calls.append((args, kwargs))
        raise _Stopped

    handle = model.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        problem.evaluate(model, batch)
    except _Stopped:
        pass
    finally:
        handle.remove()
    if not calls:
        raise NotDefined("the loss does not call the model, so nothing is known of its inputs.")
    return calls[0]
