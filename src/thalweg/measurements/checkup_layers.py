"""What inner layers compute, compared between points: linear CKA of their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.errors import ThalwegError, first_line
from thalweg.evaluation.call import one_function
from thalweg.evaluation.model_copy import to
from thalweg.measurements.checkup_sizes import Sizes
from thalweg.measurements.checkup_subject import Subject
from thalweg.risk import EmpiricalRisk

Array = NDArray[np.float64]
# Layers that are shown, spread over the depth, and the least number of them that is looked for.
_MOST, _LEAST = 8, 3
# Numbers of 4 bytes that all their outputs may hold together, and samples evaluated at once.
_HELD, _AT_ONCE = 10**8, 64
# What computes nothing of its own that would be worth comparing.
_PASSED = (nn.Dropout, nn.Identity, nn.Flatten, nn.Softmax, nn.LogSoftmax)


def inside(subject: Subject, place: int, sizes: Sizes) -> dict[str, Any]:
    """
    Evaluate inner layers at a point, on samples that all points share.

    Layers are those that one call of the model calls once and that give a tensor a sample: of the
    highest level of the model's modules that has three, at most eight.

    Returns
    -------
    dict
        ``layers``, names in the order in which they are called, and ``products``, shape
        (layers, N, N): of the outputs of each two samples. Or ``refused``, and why.
    """
    held, w = subject.at(place)
    risk = held.held_out() or held
    try:
        model = _model_at(risk, w)
        found = _layers(model, risk)
        if not found:
            return {"refused": "no inner layer is called once and gives a tensor a sample"}
        layers, numbers = found
        count = min(sizes["samples"], risk.samples, max(8, _HELD // numbers))
        chosen = torch.arange(risk.samples)[:: max(1, risk.samples // count)][:count]
        products = _products(model, risk, layers, chosen)
    except (ThalwegError, RuntimeError, TypeError) as error:  # models that are called otherwise
        return {"refused": first_line(error)}
    return {"layers": layers, "products": products, "judged": risk.split}


def _model_at(risk: EmpiricalRisk, w: Tensor) -> nn.Module:
    model = risk.model_in_double()
    own = dict(model.named_parameters())
    for name, tensor in risk.space.unpack(w).items():
        own[name].data.copy_(tensor)
    return model


def _layers(model: nn.Module, risk: EmpiricalRisk) -> tuple[list[str], int] | None:
    """Choose layers, and count what one sample's outputs of them hold."""
    size = min(2, risk.samples)
    seen: dict[str, list[int]] = {}

    def see(name: str, output: Any) -> None:
        fits = isinstance(output, Tensor) and output.dim() > 1 and len(output) == size
        seen.setdefault(name, []).append(output[0].numel() if fits else 0)

    with _watched(model, [name for name, _ in model.named_modules() if name], see):
        _run(model, risk, torch.arange(size))
    modules = dict(model.named_modules())
    fit = [
        name
        for name, numbers in seen.items()
        if len(numbers) == 1 and numbers[0] > 1 and not isinstance(modules[name], _PASSED)
    ][:-1]  # the last gives the outputs, which are compared anyway
    chosen = _of_a_level(fit, modules)
    return (chosen, sum(seen[name][0] for name in chosen)) if chosen else None


def _of_a_level(names: list[str], modules: dict[str, nn.Module]) -> list[str]:
    """Take the highest level that has enough layers, and of these some, spread over the depth."""
    chosen: list[str] = []
    for level in range(max((name.count(".") for name in names), default=0) + 1):
        chosen = [
            name
            for name in names
            if name.count(".") == level
            or (name.count(".") < level and not list(modules[name].children()))
        ]
        if len(chosen) >= _LEAST:
            break
    places = np.unique(np.linspace(0, len(chosen) - 1, min(_MOST, len(chosen))).round().astype(int))
    return [chosen[i] for i in places]


def _products(
    model: nn.Module, risk: EmpiricalRisk, layers: list[str], chosen: Tensor
) -> NDArray[np.float32]:
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}

    def see(name: str, output: Any) -> None:
        outputs[name].append(output.detach().flatten(1).float())

    with _watched(model, layers, see):
        for part in chosen.split(_AT_ONCE):
            _run(model, risk, part)
    joined = (torch.cat(outputs.pop(name)).double() for name in layers)
    centred = (values - values.mean(0) for values in joined)
    return np.stack([(values @ values.T).float().numpy() for values in centred])


def _run(model: nn.Module, risk: EmpiricalRisk, chosen: Tensor) -> None:
    batch = to(risk.data.take(chosen), torch.device("cpu"), torch.float64)
    with torch.no_grad(), one_function():
        risk.problem.evaluate(model, batch)


@contextmanager
def _watched(model: nn.Module, names: list[str], see: Any) -> Iterator[None]:
    """Show the outputs of modules as they are, before what comes next may change them."""
    modules = dict(model.named_modules())
    hooks = [
        modules[name].register_forward_hook(lambda _, __, output, name=name: see(name, output))
        for name in names
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def debiased_cka(first: Array, last: Array) -> float:
    """
    Compare two representations by the products of their samples.

    Parameters
    ----------
    first, last : float array
        Shape (N, N), N >= 4: of the centred outputs of each two samples.

    Returns
    -------
    float
        1 where alike up to rotation and scale; of unrelated ones 0 on average, however many
        numbers a layer gives, where the plain estimate tends to 1.

    References
    ----------
    Song et al., Feature Selection via Dependence Maximization (2012), equation 5; Kornblith et
    al. (2019).

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(40, 200))
    >>> round(debiased_cka(x @ x.T, 4 * x @ x.T), 12)
    1.0
    """
    a, b = _without_diagonal(first), _without_diagonal(last)
    norm = _independence(a, a) * _independence(b, b)
    return _independence(a, b) / float(np.sqrt(norm)) if norm > 0 else float("nan")


def _without_diagonal(products: Array) -> Array:
    values = np.array(products, dtype=np.float64)
    np.fill_diagonal(values, 0.0)
    return values


def _independence(a: Array, b: Array) -> float:
    """Estimate the Hilbert-Schmidt independence criterion without bias, up to a factor."""
    n = len(a)
    whole = a.sum() * b.sum() / ((n - 1) * (n - 2))
    crossed = 2 * float(a.sum(0) @ b.sum(0)) / (n - 2)
    return float((a * b).sum() + whole - crossed)
