"""How far a landscape rises around a point: in random directions, and in the worst."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument, ThalwegError
from thalweg.geometry.ascent import MEMORY, Ascent, highest
from thalweg.geometry.scales import Form, Scaled, perturbation_scales
from thalweg.landscape.protocols import (
    Curved,
    Function,
    Landscape,
    Responsive,
    Trainable,
    require,
)
from thalweg.result import Result
from thalweg.run.progress import Progress, silent
from thalweg.run.seeds import torch_generator

# Directions that raise one output against the others are tried for so many outputs at most.
_OUTPUTS = 10
_RANDOM = 2
_EIGENVECTORS = 2


@dataclass(frozen=True)
class AverageSharpness(Result):
    """
    The mean rise of a landscape under noise.

    Attributes
    ----------
    value : float
        Mean of L(w + noise) - L(w).
    stderr : float
        Its standard error over noise; the samples are those of the landscape.
    pairs : int
        Pairs of opposite noise.
    rises : tuple of float
        Mean rise of each pair: those of one seed at two points are of the same noise.
    """

    value: float
    stderr: float
    pairs: int
    rises: tuple[float, ...] = ()


@dataclass(frozen=True)
class WorstSharpness(Result):
    """
    The greatest rise of a landscape found on the boundary of a ball.

    Attributes
    ----------
    value : float
        L(w + displacement) - L(w): a lower bound of the greatest rise in the ball.
    displacement : Tensor
        Shape (W,), in the dtype and on the device of ``w``.
    heights : tuple of float
        Where the ascents stood when they ended or were given up, the highest first.
    gradients : int
        Values with gradients that were evaluated.
    products : int
        Products with the transposed Jacobian for starts, each about one gradient.
    status : {"converged", "max_gradients"}
        Whether no step from the highest point led higher. It remains a lower bound: other hills
        may be higher.
    """

    value: float
    displacement: Tensor
    heights: tuple[float, ...]
    gradients: int
    products: int
    status: Literal["converged", "max_gradients"]


def average_sharpness(
    landscape: Function,
    w: Tensor,
    *,
    noise: float = 0.05,
    form: Form = "plain",
    pairs: int = 20,
    seed: int = 0,
    progress: Progress = silent,
) -> AverageSharpness:
    """
    Measure how much a landscape rises under Gaussian noise on the weights, on average.

    Noise comes in pairs of opposite signs, which takes the slope at ``w`` out of the scatter.

    Parameters
    ----------
    landscape : Function
        Anything with a ``space`` and a ``value``.
    w : Tensor
        Shape (W,).
    noise : float
        Standard deviation of each weight, in units of ``form``: the noise is about ``noise * |w|``
        long.
    form : {"plain", "adaptive", "filter"}
        See `perturbation_scales`.
    pairs : int
        Of noise, at least 2.
    seed : int
        Of the noise.
    progress : Progress
        Told of every pair.

    Returns
    -------
    AverageSharpness
        ``value``, ``stderr``.

    Raises
    ------
    InvalidArgument
        If ``noise`` or ``pairs`` cannot be used.

    Examples
    --------
    >>> from thalweg.landscape import Quadratic
    >>> bowl = Quadratic(torch.full((1000,), 2.0, dtype=torch.float64))
    >>> answer = average_sharpness(bowl, bowl.centre, noise=0.1)
    >>> abs(answer.value - 10.0) < 4 * answer.stderr < 1.0
    True
    """
    require(landscape, Function, "average_sharpness", "give an EmpiricalRisk(problem)")
    if not noise > 0 or pairs < 2:
        raise InvalidArgument(
            f"got noise={noise}, pairs={pairs}; expected a positive size relative to w, as 0.05,"
            " and at least 2 pairs."
        )
    scales = perturbation_scales(landscape.space, w, form)
    generator = torch_generator(seed, "average_sharpness")
    base = landscape.value(w)
    rises = []
    with progress(pairs, "pairs of noise") as bar:
        for _ in range(pairs):
            drawn = torch.randn(len(w), generator=generator, dtype=torch.float64)
            step = (noise * scales * drawn).to(w.device, w.dtype)
            rises.append((landscape.value(w + step) + landscape.value(w - step)) / 2 - base)
            bar.update()
    sample = torch.tensor(rises, dtype=torch.float64)
    stderr = float(sample.std()) / math.sqrt(pairs)
    return AverageSharpness(float(sample.mean()), stderr, pairs, tuple(rises))


def worst_sharpness(
    landscape: Landscape,
    w: Tensor,
    *,
    radius: float = 0.01,
    form: Form = "plain",
    max_gradients: int = 60,
    eigenvectors: Tensor | None = None,
    starts: int | None = None,
    memory: int = MEMORY,
    seed: int = 0,
    progress: Progress = silent,
) -> WorstSharpness:
    """
    Search the highest point of a landscape within a ball around ``w``.

    Ascents by L-BFGS on the ball's boundary start along plus and minus the top eigenvectors of the
    Hessian, along the directions that raise one output against the others (on networks with ten
    classes a single ascent reaches one of about ten hills, 40 to 100 % of the highest), and at
    random; the best go on. The ball is ``|d / scale| <= radius * sqrt(W)``, in units of ``form``.

    Parameters
    ----------
    landscape : Landscape
        With a gradient; a Hessian and a Jacobian of outputs give better starts.
    w : Tensor
        Shape (W,).
    radius : float
        Relative to ``|w|``.
    form : {"plain", "adaptive", "filter"}
        See `perturbation_scales`.
    max_gradients : int
        Values with gradients that may be evaluated, at least 10.
    eigenvectors : Tensor, optional
        Shape (W, k): top eigenvectors of the Hessian in units of ``form`` (`Scaled`), where they
        are known already; by default two are computed.
    starts : int, optional
        Ascents that are begun, at most, each of which holds two vectors of W numbers; by
        default all.
    memory : int
        Steps that the ascent under way remembers, each two such vectors; where they are fewer than
        by default, the others, which wait, keep one.
    seed : int
        Of random starts.
    progress : Progress
        Told of every gradient.

    Returns
    -------
    WorstSharpness
        ``value``, a lower bound, with ``displacement`` and ``heights``.

    Raises
    ------
    InvalidArgument
        If ``radius`` or ``max_gradients`` cannot be used.

    Examples
    --------
    >>> from thalweg.landscape import Quadratic
    >>> bowl = Quadratic(torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64))
    >>> answer = worst_sharpness(bowl, bowl.centre, radius=0.1)  # |w|^2 is 3
    >>> round(answer.value, 9), answer.status
    (0.06, 'converged')
    """
    require(landscape, Landscape, "worst_sharpness", "give an EmpiricalRisk(problem)")
    if not radius > 0 or max_gradients < 10:
        raise InvalidArgument(
            f"got radius={radius}, max_gradients={max_gradients}; expected a positive radius"
            " relative to |w|, as 0.01, and at least 10 gradients."
        )
    scales = perturbation_scales(landscape.space, w, form)
    curved = _eigenvectors(landscape, w, scales, eigenvectors)[:, :_EIGENVECTORS].cpu()
    spare = None if starts is None else max(1, starts - 2 * curved.shape[1] - 1)
    responses = _responses(landscape, w, spare)
    # One after the other: each is as long as the weights.
    directions = chain(
        _both_signs(curved), (scales * response for response in responses), _random(len(w), seed)
    )
    length = radius * math.sqrt(len(w))
    moving = (start for start in islice(directions, starts) if bool(start.any()))
    with progress(max_gradients, "gradients of ascents") as bar:
        heights = _Heights(landscape, w, scales)
        ascents = highest(heights, moving, length, max_gradients, bar, memory=memory)
    return _answer(ascents, scales, w, len(responses))


def _answer(ascents: Sequence[Ascent], scales: Tensor, w: Tensor, products: int) -> WorstSharpness:
    best = ascents[0]
    return WorstSharpness(
        value=best.height,
        displacement=(scales * best.point).to(w.device, w.dtype),
        heights=tuple(ascent.height for ascent in ascents),
        gradients=sum(ascent.gradients for ascent in ascents),
        products=products,
        status="converged" if best.ended else "max_gradients",
    )


class _Heights:
    """The rise over ``w``, with coordinates in units of the scales."""

    def __init__(self, landscape: Landscape, w: Tensor, scales: Tensor) -> None:
        self.landscape, self.w, self.scales = landscape, w, scales.to(w.dtype)
        self.dtype = w.dtype
        self.base = landscape.value(w)

    def value(self, d: Tensor) -> float:
        """Evaluate it at d, shape (W,), on the CPU."""
        return self.landscape.value(self._place(d)) - self.base

    def value_and_gradient(self, d: Tensor) -> tuple[float, Tensor]:
        """Evaluate both."""
        place = self._place(d)
        if isinstance(self.landscape, Trainable):
            value, gradient = self.landscape.value_and_gradient(place)
        else:
            value, gradient = self.landscape.value(place), self.landscape.gradient(place)
        return value - self.base, gradient.cpu().to(self.dtype) * self.scales

    def _place(self, d: Tensor) -> Tensor:
        return self.w + (self.scales * d).to(self.w.device)


def _both_signs(vectors: Tensor) -> Iterator[Tensor]:
    for column in vectors.unbind(1):
        yield from (column, -column)


def _eigenvectors(landscape: Landscape, w: Tensor, scales: Tensor, known: Tensor | None) -> Tensor:
    if known is not None:
        return known
    if not isinstance(landscape, Curved):
        return torch.zeros(len(w), 0)
    from thalweg.geometry.spectrum import top_eigenvalues

    count = min(_EIGENVECTORS, len(w))
    scaled = Scaled(landscape.hessian(w), scales)
    return top_eigenvalues(scaled, count, rtol=1e-4, max_products=200).vectors


def _responses(landscape: Landscape, w: Tensor, most: int | None) -> list[Tensor]:
    """Give directions in which one output rises on average and the others fall."""
    if not isinstance(landscape, Responsive):
        return []
    try:
        jacobian = landscape.jacobian(w)
    except ThalwegError:  # outputs that are no table, or losses without outputs
        return []
    outputs = jacobian.shape[0] // landscape.samples
    rows = torch.eye(outputs, dtype=jacobian.dtype, device=jacobian.device)
    contrasts = torch.cat([rows, -rows]) if outputs == 1 else (rows - 1 / outputs)[:_OUTPUTS]
    contrasts = contrasts[:most]
    return [(jacobian.T @ row.repeat(landscape.samples)).cpu() for row in contrasts.unbind(0)]


def _random(size: int, seed: int) -> Iterator[Tensor]:
    generator = torch_generator(seed, "worst_sharpness")
    for _ in range(_RANDOM):
        yield torch.randn(size, generator=generator, dtype=torch.float64)
