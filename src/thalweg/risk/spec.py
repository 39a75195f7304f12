"""What another process needs to make the same risk again: never a pickled model."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.problems import load_problem
from thalweg.risk.risk import EmpiricalRisk


def recipe_of(risk: EmpiricalRisk) -> dict[str, Any]:
    """
    Write down how a risk is made.

    Returns
    -------
    dict
        JSON values for `remake`.

    Raises
    ------
    InvalidArgument
        If its problem was put together by hand, or by settings that are no JSON values.
    """
    made = risk.problem.recipe
    if made is None:
        raise InvalidArgument(
            f"{risk.problem.name} was put together in this process, and workers of an engine make"
            " their own: they need an entry string. Write load_problem('path/file.py:make', ...),"
            " where make returns the Problem, or leave out engine."
        )
    try:
        plain = json.loads(json.dumps(made))
    except TypeError as error:
        raise InvalidArgument(
            f"the settings of {made['entry']!r} are no JSON values ({error}), so workers of an"
            " engine cannot be told them; write names and numbers, or leave out engine."
        ) from None
    return {
        "problem": plain,
        "split": risk.split,
        "batchnorm": risk.policy,
        "dtype": str(risk.dtype).removeprefix("torch."),
        "device": str(risk.device),
        # Measured here, so that all workers round alike.
        "batch_size": risk.batch_size,
        "memory": risk.memory,
    }


def remake(recipe: dict[str, Any], fixed: dict[str, Tensor]) -> EmpiricalRisk:
    """Make the risk of a recipe, with these frozen parameters and buffers."""
    problem = load_problem(recipe["problem"]["entry"], **recipe["problem"]["settings"])
    risk = EmpiricalRisk(
        problem,
        split=recipe["split"],
        batchnorm=recipe["batchnorm"],
        dtype=getattr(torch, recipe["dtype"]),
        device=recipe["device"],
        batch_size=recipe["batch_size"],
        memory=recipe["memory"],
    )
    risk.set_fixed(fixed)
    return risk
