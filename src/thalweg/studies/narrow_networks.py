"""Widths of networks with just as many weights as a count asks for: controls that nearly pass."""

from __future__ import annotations

from typing import Any

from torch import nn

from thalweg.problems.networks import MLP, AllConv

_SHAPES = {"digits": (1, 8, 8), "cifar10": (3, 32, 32)}
_SAMPLES = {"digits": 1437, "cifar10": 50_000}
CLASSES = 10


def samples_of(problem: dict[str, Any]) -> int:
    """
    Count the training samples of a built-in problem of images.

    Examples
    --------
    >>> samples_of({"entry": "digits", "settings": {"train_size": 2000}})
    1437
    """
    whole = _SAMPLES[problem["entry"]]
    size: int = problem["settings"].get("train_size", whole)
    return min(whole, size)


def weights_of(problem: dict[str, Any], widths: list[int]) -> int:
    """
    Count the trainable weights of a built-in problem's network at other widths.

    Examples
    --------
    >>> weights_of({"entry": "digits", "settings": {}}, [32, 64, 64])
    56554
    """
    settings, shape = problem["settings"], _SHAPES[problem["entry"]]
    if settings.get("network", "allconv") == "mlp":
        channels, height, width = shape
        network: nn.Module = MLP(channels * height * width, widths, CLASSES)
    else:
        network = AllConv(shape, CLASSES, widths, batchnorm=settings.get("batchnorm", True))
    count: int = sum(weight.numel() for weight in network.parameters())
    return count


def widths_around(problem: dict[str, Any], count: int, *, layers: int) -> tuple[list[int], ...]:
    """
    Find widths of which a network has just fewer weights than a count, and just more.

    Parameters
    ----------
    problem : dict
        ``entry``, ``"digits"`` or ``"cifar10"``, and ``settings``.
    count : int
        Of equations.
    layers : int
        Hidden layers. Those before the last are as wide as one another; the last is as wide as the
        count allows.

    Returns
    -------
    below, above : list of int
        Which differ by one unit in the last layer.

    Examples
    --------
    >>> digits = {"entry": "digits", "settings": {}}
    >>> below, above = widths_around(digits, 1437, layers=3)
    >>> below, above, weights_of(digits, below), weights_of(digits, above)
    ([8, 8, 8], [8, 8, 9], 1362, 1446)
    """
    body = 1
    while weights_of(problem, [body + 1] * layers) < count:
        body += 1
    last = body
    while weights_of(problem, [body] * (layers - 1) + [last + 1]) < count:
        last += 1
    return [body] * (layers - 1) + [last], [body] * (layers - 1) + [last + 1]
