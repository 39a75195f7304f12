"""The noise of mini-batch gradients: its covariance beside isotropic noise of equal trace."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.trace import trace
from thalweg.landscape.protocols import Batched, Curved, placed, require, words_of
from thalweg.run.seeds import torch_generator


@runtime_checkable
class _CurvedBatched(Batched, Curved, Protocol):
    """A landscape with a Hessian, whose gradient can be taken over some of its samples."""


@dataclass(frozen=True)
class GradientNoise:
    """
    Covariance C of the gradients of single samples; that of batches of b, drawn alone, is C / b.

    Attributes
    ----------
    trace : float
        Of C.
    effective_rank : float
        ``(tr C)^2 / tr C^2``: W where C is isotropic.
    largest : float
        Share of the trace in C's largest eigenvalue.
    alignment, stderr : float
        ``tr(C H) W / (tr C tr H)``: how many times more a step of this noise lifts the loss than
        one of isotropic noise of equal trace, to second order. The error is the samples' and that
        of the Hessian's trace.
    samples, weights : int
        How many gradients were taken, and W.
    described : dict
        Which function was measured.

    References
    ----------
    Zhu et al., The Anisotropic Noise in Stochastic Gradient Descent (2019), equation 8.
    """

    trace: float
    effective_rank: float
    largest: float
    alignment: float
    stderr: float
    samples: int
    weights: int
    described: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and words, as JSON takes them."""
        return asdict(self)


def gradient_noise(
    landscape: _CurvedBatched,
    w: Tensor,
    *,
    samples: int = 500,
    max_products: int = 200,
    seed: int = 0,
) -> GradientNoise:
    """
    Measure the covariance of single samples' gradients, and how it lies to the Hessian.

    Parameters
    ----------
    landscape : landscape
        With samples and a Hessian.
    w : Tensor
        Shape (W,).
    samples : int
        Gradients at most, drawn without replacement.
    max_products : int
        With the Hessian, for its trace.
    seed : int
        Of both.

    Returns
    -------
    GradientNoise
        ``trace``, ``effective_rank``, ``largest``, ``alignment``.

    Raises
    ------
    InvalidArgument
        If there are fewer than two samples, or all gradients are alike.
    """
    require(landscape, _CurvedBatched, "gradient_noise", "give an EmpiricalRisk(problem)")
    landscape.space.check(w)
    w = placed(landscape, w)
    count = min(samples, landscape.samples)
    if count < 2:
        raise InvalidArgument(f"{count} samples; noise needs two or more.")
    generator = torch_generator(seed, "gradient noise")
    drawn = torch.randperm(landscape.samples, generator=generator)[:count]
    gradients = torch.stack([landscape.gradient(w, index[None]).double() for index in drawn])
    centred = gradients - gradients.mean(0)
    gram = centred @ centred.T / (count - 1)
    total = float(gram.trace())
    if not total > 0:
        raise InvalidArgument("all samples have the same gradient; there is no noise to measure.")
    hessian = landscape.hessian(w)
    lifted = (hessian @ centred.T.to(w)).double().to(centred)
    lifts, squares = (centred * lifted.T).sum(1), centred.square().sum(1)
    curvature = trace(hessian, rtol=0.01, max_products=max_products, seed=seed)
    mean = curvature.value / len(w)
    ratio = float(lifts.sum() / squares.sum())
    scatter = (lifts - ratio * squares).square().sum().sqrt() / squares.sum()
    relative = math.hypot(float(scatter) / ratio, curvature.error / curvature.value)
    return GradientNoise(
        trace=total,
        effective_rank=total**2 / float(gram.square().sum()),
        largest=float(torch.linalg.eigvalsh(gram)[-1]) / total,
        alignment=ratio / mean,
        stderr=abs(ratio / mean) * relative,
        samples=count,
        weights=len(w),
        described=words_of(landscape),
    )
