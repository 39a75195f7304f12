"""Lazy layers: they know their sizes once they have seen data."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.parameter import is_lazy

log = logging.getLogger("thalweg")


def is_materialized(model: nn.Module) -> bool:
    """Say whether all weights and buffers have their shapes."""
    return not any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers()))


def materialize(model: nn.Module, evaluate: Callable[[], object]) -> None:
    """
    Give lazy layers their shapes and first weights by one pass, as torch does at a first call.

    Parameters
    ----------
    model : nn.Module
        The user's own: it is this one that has no weights yet.
    evaluate : callable
        Runs it on a sample.
    """
    log.warning(
        "%s has lazy layers: your model was run on one sample, to give them their sizes and first"
        " weights.",
        type(model).__name__,
    )
    modes = {module: module.training for module in model.modules()}
    model.eval()  # batch norm takes no statistics from it
    try:
        with torch.no_grad():
            evaluate()
    finally:
        for module, training in modes.items():
            module.training = training
