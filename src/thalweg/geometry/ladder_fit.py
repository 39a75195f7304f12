"""Extrapolates a ladder of ``beta E[L - L0]`` to low temperature and weak localization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]

# How much rarer each further multiplicity is taken to be before anything is seen.
_RARER = 4.0
MOST = 7  # multiplicities that are thought of
# Standard errors of few chains are uncertain themselves; no rung is trusted further than this.
_FLOOR = 1e-3
_POWERS = np.array([0.15, 0.25, 0.35, 0.5, 0.75, 1.0])
_SHIFTS = np.array([0.5, 1.0, 2.0, 3.0, 5.0])
_ABOVE = np.array([1.0, 2.0, 3.5, 5.0, 7.0, 10.0, 14.0, 20.0])


@dataclass(frozen=True)
class LadderFit:
    """
    What a ladder says of infinite beta.

    Attributes
    ----------
    value, low, high : float
        Mean and 95 % interval of the learning coefficient.
    multiplicity : int
        The most probable.
    probabilities : tuple of float
        Of multiplicity 1, 2, ...
    misfit : float
        Chi-squared per rung of the best form.
    """

    value: float
    low: float
    high: float
    multiplicity: int
    probabilities: tuple[float, ...]
    misfit: float


def fit_ladder(
    betas: Array,
    localizations: Array,
    means: Array,
    covariance: Array,
    *,
    power_share: float = 0.05,
    slowest: float = 0.25,
    most: int = MOST,
) -> LadderFit:
    """
    Fit ``lambda - (m - 1) / (x + c) - A beta^-p`` with ``x = log beta - s log localization``.

    The second term is what Watanabe's expansion of the free energy gives for multiplicity m, the
    third, with an A for each localization, stands for the next pole of the zeta function. All c, p
    and s of a grid are averaged over, weighted by how well they fit; so are m, of which each is
    taken to be four times rarer than the one before. lambda and A are Gaussian given these.

    Parameters
    ----------
    betas, localizations, means : array
        Shape (n,): of each rung; the last is ``beta E[L - L0]``.
    covariance : array
        Shape (n, n), of the errors of the means: chains that go from rung to rung take theirs
        along.
    power_share : float
        How large A is taken to be, as a share of the largest mean.
    slowest : float
        The least p.
    most : int
        The largest m: a pole has at most the order of the number of weights.

    References
    ----------
    Watanabe, Algebraic geometry and statistical learning theory (2009), theorem 6.7.
    """
    x, u = np.log(betas), np.log(localizations / localizations.min())
    m, c, p, s = (
        grid.ravel()
        for grid in np.meshgrid(
            np.arange(1, most + 1), _ABOVE, _POWERS[slowest <= _POWERS], _SHIFTS, indexing="ij"
        )
    )
    shifted = x[None, :] - s[:, None] * u[None, :]
    logs = (m - 1)[:, None] / (shifted - shifted.min(1, keepdims=True) + c[:, None])
    design = np.stack([np.ones_like(shifted), *_powers(x, localizations, p)], axis=2)
    weights = np.linalg.inv(covariance + np.diag((_FLOOR * means) ** 2))
    mean, variance, misfit, evidence = _gaussian(
        means[None, :] + logs, design, weights, power_share * float(np.abs(means).max())
    )
    log_weight = evidence - (m - 1) * np.log(_RARER)
    share = np.exp(log_weight - log_weight.max())
    share /= share.sum()
    probabilities = tuple(float(share[m == k].sum()) for k in range(1, most + 1))
    low, high = (_quantile(q, mean, variance, share) for q in (0.025, 0.975))
    return LadderFit(
        float(share @ mean),
        low,
        high,
        1 + int(np.argmax(probabilities)),
        probabilities,
        float(misfit.min()) / len(x),
    )


def _powers(x: Array, localizations: Array, p: Array) -> list[Array]:
    """Give ``-beta^-p`` of each localization, one at its warmest rung: shape (forms, n)."""
    columns = []
    for localization in np.unique(localizations):
        own = localizations == localization
        columns.append(np.where(own, -np.exp(-p[:, None] * (x - x[own].min()) * own), 0.0))
    return columns


def _gaussian(
    targets: Array, design: Array, weights: Array, spread: float
) -> tuple[Array, Array, Array, Array]:
    """Solve for lambda and A of each form: mean and variance of lambda, misfit, log evidence."""
    unknowns = design.shape[2]
    prior = np.diag([0.0] + [spread**-2] * (unknowns - 1))
    weighted = weights @ design
    matrix = weighted.transpose(0, 2, 1) @ design + prior
    solution = np.linalg.solve(matrix, (weighted * targets[:, :, None]).sum(1)[:, :, None])[:, :, 0]
    residual = targets - (design @ solution[:, :, None])[:, :, 0]
    misfit = ((residual @ weights) * residual).sum(1)
    # lambda is approached from below: a negative A is all but excluded.
    sizes = solution[:, 1:] / spread
    penalty = (sizes**2 + np.where(sizes < 0, (20 * sizes) ** 2, 0.0)).sum(1)
    evidence = -(misfit + penalty + np.linalg.slogdet(matrix)[1]) / 2
    return solution[:, 0], np.linalg.inv(matrix)[:, 0, 0], misfit, evidence


def _quantile(q: float, mean: Array, variance: Array, share: Array) -> float:
    from scipy.optimize import brentq
    from scipy.special import ndtr

    sd = np.sqrt(variance)
    low, high = float((mean - 10 * sd).min()), float((mean + 10 * sd).max())
    return float(brentq(lambda at: float(share @ ndtr((at - mean) / sd)) - q, low, high))
