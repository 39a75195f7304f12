"""Extrapolates a ladder of ``beta E[L - L0]`` to low temperature and weak localization."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]

# How much rarer each further multiplicity is taken to be before anything is seen.
_RARER = 4.0
MOST = 7  # multiplicities that are thought of
# Standard errors of few chains are uncertain themselves; no rung is trusted further than this.
_FLOOR = 1e-3
# Forms of what is added below lambda: between these, derivatives of the forms carry on.
_GAPS = np.geomspace(0.02, 1.0, 16)
_ABOVE = np.geomspace(1.0, 40.0, 20)
_SHIFTS = np.array([0.5, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0])
_POWERS = np.array([0.15, 0.25, 0.5, 1.0])
_UNKNOWNS = 4  # of a form, about, where its misfit is judged
_FAR = 500.0  # of an exponent


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
        Chi-squared per degree of freedom of the best form, as errors were given.
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
    near_poles: bool = False,
) -> LadderFit:
    """
    Fit ``lambda - T(x + c) - A beta^-p`` with ``x = log beta - s log localization``.

    Poles of the zeta function at lambda and, d further on, at ``lambda + d`` make an integral
    ``beta^-lambda (1 - exp(-d (x + c)))``, of which minus the logarithm has the slope
    ``lambda - T`` with ``T = d / (exp(d (x + c)) - 1)``. Where they meet, d = 0, lambda has
    multiplicity 2 and T is ``1 / (x + c)``; multiplicity m has ``(m - 1) / (x + c)``. The term in
    A, one for each localization, stands for poles farther on. All d, c, s and p of a grid are
    averaged over, weighted by how well they fit and by how likely m is, each taken to be four
    times rarer than the one before. Given these lambda, A and small changes of d, c and s are
    Gaussian. Where even the best form misses the rungs by more than their errors, the errors are
    taken to be as large as it misses.

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
    near_poles : bool
        Whether poles at a distance d of 0.02 to 1 are thought of for multiplicity 1; else T is
        left out there. Rungs must be exact to some thousandths to tell these from multiplicity 2.

    References
    ----------
    Watanabe, Algebraic geometry and statistical learning theory (2009), theorem 6.7.
    """
    x, u = np.log(betas), np.log(localizations / localizations.min())
    powers = _POWERS[slowest <= _POWERS]
    forms = _join([_forms(m, powers, near_poles=near_poles) for m in range(1, most + 1)])
    term, changes = _poles(forms, x, u)
    columns = _powers(x, localizations, forms.power)
    design = np.stack([np.ones_like(term), *columns, *changes], axis=2)
    spread = power_share * float(np.abs(means).max())
    widths = np.column_stack([np.full((len(term), len(columns)), spread), forms.widths()])
    weights = np.linalg.inv(covariance + np.diag((_FLOOR * means) ** 2))
    solved = _gaussian(means + term, design, weights, widths, len(columns))
    excess = float(solved.misfit.min()) / max(1, len(x) - _UNKNOWNS)
    if excess > 1:
        solved = _gaussian(means + term, design, weights / excess, widths, len(columns))
    log_share = solved.evidence + forms.log_prior
    share = np.exp(log_share - log_share.max())
    share /= share.sum()
    probabilities = tuple(float(share[forms.multiplicity == m].sum()) for m in range(1, most + 1))
    low, high = (_quantile(q, solved.mean, solved.variance, share) for q in (0.025, 0.975))
    return LadderFit(
        float(share @ solved.mean),
        low,
        high,
        1 + int(np.argmax(probabilities)),
        probabilities,
        excess,
    )


@dataclass(frozen=True)
class _Forms:
    """Multiplicity, d, c, s, p and the logarithm of the prior of forms, each of shape (f,)."""

    multiplicity: Array
    gap: Array
    above: Array
    shift: Array
    power: Array
    log_prior: Array

    def widths(self) -> Array:
        """Give half of the grid's spacing in d, c and s, shape (f, 3)."""
        gap, above = (np.log(grid[1] / grid[0]) / 2 for grid in (_GAPS, _ABOVE))
        # A form without d has a change of nothing there, of any width.
        gaps = gap * np.where(self.gap > 0, self.gap, 1.0)
        return np.column_stack([gaps, above * self.above, self.shift / 4])


def _forms(multiplicity: int, powers: Array, *, near_poles: bool) -> _Forms:
    """Make the forms of one multiplicity; where d is 0, T is ``(m - 1) / (x + c)``."""
    gaps, above, shifts = np.zeros(1), _ABOVE, _SHIFTS
    if multiplicity == 1:
        gaps, above, shifts = (
            (_GAPS, above, shifts) if near_poles else (gaps, above[:1], shifts[:1])
        )
    gap, c, s, p = (
        axis.ravel() for axis in np.meshgrid(gaps, above, shifts, powers, indexing="ij")
    )
    log_prior = -np.log(len(gap)) - (multiplicity - 1) * np.log(_RARER)
    same = np.ones_like(gap)
    return _Forms(multiplicity * same, gap, c, s, p, log_prior * same)


def _join(parts: list[_Forms]) -> _Forms:
    return _Forms(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(_Forms))
    )


def _poles(forms: _Forms, x: Array, u: Array) -> tuple[Array, list[Array]]:
    """Give T of each form at each rung, shape (f, n), and minus its changes with d, c and s."""
    shifted = x - forms.shift[:, None] * u
    warmest = shifted.argmin(1)
    shifted = shifted - shifted.min(1, keepdims=True) + forms.above[:, None]
    gap, order = forms.gap[:, None], (forms.multiplicity - 1)[:, None]
    near = gap > 0
    d = np.where(near, gap, 1.0)
    growth = np.minimum(d * shifted, _FAR)
    less = np.expm1(growth)
    term = np.where(near, d / less, order / shifted)
    slope = np.where(near, -((d / less) ** 2) * np.exp(growth), -order / shifted**2)
    with_gap = np.where(near, 1 / less - growth * np.exp(growth) / less**2, 0.0)
    return term, [-with_gap, -slope, slope * (u - u[warmest][:, None])]


def _powers(x: Array, localizations: Array, p: Array) -> list[Array]:
    """Give ``-beta^-p`` of each localization, one at its warmest rung: shape (forms, n)."""
    columns = []
    for localization in np.unique(localizations):
        own = localizations == localization
        columns.append(np.where(own, -np.exp(-p[:, None] * (x - x[own].min()) * own), 0.0))
    return columns


@dataclass(frozen=True)
class _Solved:
    """Mean and variance of lambda, misfit and logarithm of the evidence of forms, shape (f,)."""

    mean: Array
    variance: Array
    misfit: Array
    evidence: Array


def _gaussian(
    targets: Array, design: Array, weights: Array, widths: Array, positive: int
) -> _Solved:
    """
    Solve for lambda and the other unknowns, which have priors of given widths.

    The first ``positive`` of these are all but never negative: lambda is approached from below.
    """
    precisions = np.column_stack([np.zeros(len(widths)), widths**-2.0])
    weighted = weights @ design
    matrix = weighted.transpose(0, 2, 1) @ design
    diagonal = np.arange(design.shape[2])
    matrix[:, diagonal, diagonal] += precisions
    right = (weighted * targets[:, :, None]).sum(1)
    solution = np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
    residual = targets - (design @ solution[:, :, None])[:, :, 0]
    misfit = ((residual @ weights) * residual).sum(1)
    sizes = solution[:, 1:] / widths
    below = np.minimum(sizes[:, :positive], 0)
    penalty = (sizes**2).sum(1) + ((20 * below) ** 2).sum(1)
    volume = np.linalg.slogdet(matrix)[1] + 2 * np.log(widths).sum(1)
    evidence = -(misfit + penalty + volume) / 2
    return _Solved(solution[:, 0], np.linalg.inv(matrix)[:, 0, 0], misfit, evidence)


def _quantile(q: float, mean: Array, variance: Array, share: Array) -> float:
    from scipy.optimize import brentq
    from scipy.special import ndtr

    sd = np.sqrt(variance)
    low, high = float((mean - 10 * sd).min()), float((mean + 10 * sd).max())
    return float(brentq(lambda at: float(share @ ndtr((at - mean) / sd)) - q, low, high))
