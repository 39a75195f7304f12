"""How much noise on its weights a network bears: levels at which loss or error has risen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.scales import Form, perturbation_scales
from thalweg.landscape.protocols import Function, evaluator, require
from thalweg.result import Result
from thalweg.run.progress import Progress, silent
from thalweg.run.seeds import torch_generator

Status = Literal["converged", "above", "below"]
# Sizes of noise that are looked at, relative to the weights.
_LEAST, _MOST = 1e-4, 4.0
# Bisection ends when a level is known to this share of itself.
_RESOLVED = 0.02


@dataclass(frozen=True)
class NoiseLevel(Result):
    """
    A size of noise at which something has risen, as a median over copies.

    Attributes
    ----------
    value : float
        Median over copies, relative to the weights.
    low, high : float
        An interval that holds the median over all noise in at least 95 % of cases, by order
        statistics of the copies; the resolution of the bisection is added.
    copies : NDArray
        float64, shape (copies,): the level of each.
    status : {"converged", "above", "below"}
        ``"above"`` where half of the copies bear all that was tried, ``"below"`` where none was
        small enough.
    """

    value: float
    low: float
    high: float
    copies: NDArray[np.float64]
    status: Status


def noise_level(
    landscape: Function,
    w: Tensor,
    *,
    quantity: Literal["loss", "error"] = "loss",
    rise: float = 0.1,
    form: Form = "adaptive",
    copies: int = 20,
    seed: int = 0,
    progress: Progress = silent,
) -> NoiseLevel:
    """
    Find the size of Gaussian noise that raises the loss, or the error, by a given amount.

    Each copy has noise of its own, whose size alone is changed, by bisection on its logarithm. The
    level of the loss is the noise of a PAC-Bayes bound whose empirical risk is ``rise`` above that
    of ``w`` in the middle copy; that of the error is the radius within which half of the copies
    keep their error.

    Parameters
    ----------
    landscape : Function
        For ``"error"`` one that counts misclassified samples, an `EmpiricalRisk`.
    w : Tensor
        Shape (W,).
    quantity : {"loss", "error"}
        What must rise.
    rise : float
        By how much: of the loss in its unit, of the error as a share of samples.
    form : {"plain", "adaptive", "filter"}
        Units of the noise, see `perturbation_scales`.
    copies : int
        Number of copies, at least 6: the least with an interval of 95 %.
    seed : int
        Of the noise.
    progress : Progress
        Told of every copy.

    Returns
    -------
    NoiseLevel
        ``value`` with ``low`` and ``high``.

    Raises
    ------
    InvalidArgument
        If ``rise``, ``copies`` or ``quantity`` cannot be used.

    References
    ----------
    Neyshabur et al., Exploring Generalization in Deep Learning (2017), section 2.

    Examples
    --------
    >>> from thalweg.landscape import Quadratic
    >>> bowl = Quadratic(torch.full((10_000,), 2.0, dtype=torch.float64))
    >>> level = noise_level(bowl, bowl.centre, rise=0.01 * 10_000)  # E of the rise is noise^2 W
    >>> round(level.value, 2), level.low <= 0.1 <= level.high
    (0.1, True)
    """
    require(landscape, Function, "noise_level", "give an EmpiricalRisk(problem)")
    if not rise > 0 or copies < 6:
        raise InvalidArgument(
            f"got rise={rise}, copies={copies}; expected a positive rise and at least 6 copies."
        )
    evaluate = evaluator(landscape)
    base = evaluate(w)
    if quantity not in base:
        raise InvalidArgument(
            f"quantity={quantity!r} is not counted here; write one of {', '.join(base)}."
        )
    scales = perturbation_scales(landscape.space, w, form)
    generator = torch_generator(seed, "noise_level")
    levels = []
    with progress(copies, "noisy copies") as bar:
        for _ in range(copies):
            noise = scales * torch.randn(len(w), generator=generator, dtype=torch.float64)

            def risen(size: float, noise: Tensor = noise) -> bool:
                value = evaluate(w + (size * noise).to(w.device, w.dtype))[quantity]
                return not value - base[quantity] <= rise  # what is not finite has risen

            levels.append(_bisect(risen))
            bar.update()
    return _median(np.sort(np.array(levels)))


def _bisect(risen: object) -> float:
    assert callable(risen)
    low, high = _LEAST, _MOST
    if risen(low):
        return 0.0
    if not risen(high):
        return math.inf
    while high > (1 + _RESOLVED) * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if risen(middle) else (middle, high)
    return math.sqrt(low * high)


def _median(levels: NDArray[np.float64]) -> NoiseLevel:
    from scipy.stats import binom

    count = len(levels)
    cut = int(binom.ppf(0.025, count, 0.5))  # P(at most cut - 1 of them below) <= 0.025
    low, high = float(levels[cut - 1]), float(levels[count - cut])
    value = float((levels[(count - 1) // 2] + levels[count // 2]) / 2)
    status: Status = "above" if math.isinf(value) else "converged" if value > 0 else "below"
    margin = 1 + _RESOLVED / 2
    return NoiseLevel(value, low / margin, high * margin, levels, status)
