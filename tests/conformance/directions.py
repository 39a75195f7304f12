"""Checks of a tool's own random directions, on a network of 78 filters of unequal size."""

from __future__ import annotations

import copy
from functools import lru_cache
from math import sqrt

import torch
from torch import Tensor, nn

from conformance import tasks
from conformance.adapter import Adapter, Failure, NotOffered, Task, flat, parts

DRAWS = 5


@lru_cache(maxsize=1)
def _task() -> Task:
    return tasks.wide()


def _drawn(adapter: Adapter, seed: int = 0) -> Tensor:
    task = Task(copy.deepcopy(_task().model), _task().criterion, _task().batches)
    return adapter.random_surface(task, points=3, seed=seed).directions.double()


def pairs_are_orthogonal(adapter: Adapter) -> str:
    """The cosine between the two directions is no more than that of independent Gaussians."""
    cosines = []
    for seed in range(DRAWS):
        a, b = _drawn(adapter, seed).T
        cosines.append(abs(float(a @ b / (a.norm() * b.norm()))))
    # Filters of unequal size leave about an eighth of the weights as degrees of freedom.
    limit = 3 / sqrt(len(flat(_task().model)) / 8)
    middle = sorted(cosines)[DRAWS // 2]
    if not middle <= limit:
        raise Failure(f"cosine {middle:.4f} between two random directions")
    return f"cosine {middle:.1e}"


def _filters(vector: Tensor, model: nn.Module) -> list[Tensor]:
    """Filters (rows) of all kernels, flattened."""
    return [row.reshape(-1) for part in parts(vector, model) if part.dim() > 1 for row in part]


def entries_are_gaussian(adapter: Adapter) -> str:
    """Within filters the entries of a direction have mean zero and the kurtosis of a Gaussian."""
    means, fourths, count = 0.0, 0.0, 0
    for seed in range(DRAWS):
        for vector in _drawn(adapter, seed).T:
            rows = _filters(vector, _task().model)
            scores = [float(row.sum() / row.norm()) for row in rows]
            means += sum(scores) / sqrt(len(rows))
            big = [row for row in rows if len(row) > 100]
            fourths += sum(float((row / row.std()).pow(4).sum()) for row in big)
            count += sum(len(row) for row in big)
    score, kurtosis = means / sqrt(2 * DRAWS), fourths / count
    if not abs(score) < 5:
        raise Failure(f"entries have a mean {abs(score):.0f} standard errors from zero")
    if not abs(kurtosis - 3) < 0.3:
        raise Failure(f"entries have kurtosis {kurtosis:.2f}; a Gaussian has 3")
    return f"mean at {score:.1f} standard errors, kurtosis {kurtosis:.2f}"


def _need_filterwise(adapter: Adapter) -> None:
    _drawn(adapter)  # may not be offered at all
    if not adapter.filterwise:
        raise NotOffered(f"{adapter.name} does not say that it scales by filter")


def norms_are_those_of_the_filters(adapter: Adapter) -> str:
    """Each filter of a direction has the norm of the network's filter, up to one common factor."""
    _need_filterwise(adapter)
    ratios = _ratios(_drawn(adapter)[:, 0])
    spread = float(ratios.max() / ratios.min() - 1)
    if not spread <= 1e-3:
        raise Failure(f"norms relative to the filters' differ by a factor {1 + spread:.1f}")
    return f"relative norms differ by {spread:.0e}"


def _ratios(vector: Tensor) -> Tensor:
    model = _task().model
    own, given = (_filters(v, model) for v in (vector, flat(model).double()))
    return torch.stack([a.norm() / b.norm() for a, b in zip(own, given, strict=True)])


def biases_follow_a_rule(adapter: Adapter) -> str:
    """Biases stay, or are one Gaussian group scaled to their norm as filters are to theirs."""
    _need_filterwise(adapter)
    vector = _drawn(adapter)[:, 0]
    common = float(_ratios(vector).median())
    model = _task().model
    moved = 0
    for bias, given in zip(parts(vector, model), parts(flat(model).double(), model), strict=True):
        if bias.dim() > 1 or not bool(bias.any()):
            continue
        moved += 1
        single = (bias / given).abs()
        if float(single.std() / single.mean()) < 0.1:
            raise Failure("every bias is moved by the same share of itself, none at random")
        if not abs(float(bias.norm() / given.norm()) / common - 1) < 1e-2:
            raise Failure("biases are scaled to another norm than theirs")
    return "scaled as one group" if moved else "left out"
