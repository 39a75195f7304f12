"""The largest of several means, judged on other samples than it was chosen on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Parts of the cross-fit: each is judged where the others have their maximum.
_FOLDS = 10
# Resamples of the bootstrap: a standard error is known to 4% of itself from so many.
_RESAMPLES = 400
# Numbers of a resample's counts held at once (128 MB).
_HELD = 1 << 24
# Samples up to which counts are kept for the next quantity (16 MB).
_KEPT_SAMPLES = 5_000


@dataclass(frozen=True)
class CrossFit:
    """
    The largest of several means, chosen on other samples than it is judged on.

    Attributes
    ----------
    value, stderr : float
        The mean of ``judged``, and its standard error with that of the choices.
    judged : float64 array
        Shape (samples,): each sample where the other folds have their maximum.
    """

    value: float
    stderr: float
    judged: Array


def crossfit(values: Array) -> CrossFit:
    """
    Estimate the largest of several means without profit from the choice, and its standard error.

    Each fold of the samples is judged where the other folds have their maximum. The standard error
    is a bootstrap's over samples, which repeats the choice in every resample: the choices of the
    folds depend on one another and on the data, so that the scatter of the judged values alone is
    too small. A sample drawn twice stays in its fold. In the mean the largest lies between this
    estimate and the largest mean of the samples: as if anywhere there, their distance over the root
    of 3 is added in squares.

    Parameters
    ----------
    values : float64 array
        Shape (points, samples).

    Returns
    -------
    CrossFit
        Its standard error is 0 of one sample.

    References
    ----------
    B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 6.

    Examples
    --------
    >>> found = crossfit(np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    >>> found.value, found.stderr
    (1.0, 0.0)
    """
    samples = values.shape[1]
    if samples == 1:
        return CrossFit(float(values.max()), 0.0, np.array([values.max()]))
    judged = np.empty(samples)
    for k, highest in enumerate(_highest(_sums(values, np.ones((1, samples))))[0]):
        judged[k::_FOLDS] = values[highest, k::_FOLDS]
    spread = np.concatenate([_means(values, counts) for counts in _resamples(samples)])
    below = float(values.mean(axis=1).max() - judged.mean())
    stderr = math.hypot(float(spread.std(ddof=1)), below / math.sqrt(3))
    return CrossFit(float(judged.mean()), stderr, judged)


def _sums(values: Array, counts: Array) -> Array:
    """Sum over folds with samples counted so many times: shape (resamples, folds, points)."""
    folds = range(min(_FOLDS, values.shape[1]))
    parts = [counts[:, k::_FOLDS] @ values[:, k::_FOLDS].T for k in folds]
    return np.stack(parts, axis=1)


def _highest(sums: Array) -> NDArray[np.int64]:
    """Choose each fold's point on the other folds: shape (resamples, folds)."""
    return np.asarray((sums.sum(axis=1, keepdims=True) - sums).argmax(axis=2))


def _means(values: Array, counts: Array) -> Array:
    """Cross-fit each resample: (resamples, samples) to (resamples,)."""
    sums = _sums(values, counts)
    judged = np.take_along_axis(sums, _highest(sums)[:, :, None], axis=2)
    means: Array = judged.sum(axis=(1, 2)) / counts.sum(axis=1)
    return means


def _resamples(samples: int) -> Iterable[Array]:
    """Give counts of how often each sample is drawn, some resamples at a time."""
    return _kept_resamples(samples) if samples <= _KEPT_SAMPLES else _draw_resamples(samples)


@lru_cache(maxsize=4)
def _kept_resamples(samples: int) -> tuple[Array, ...]:
    """Draw them once for all quantities of a line, and for the lines after it."""
    return tuple(_draw_resamples(samples))


def _draw_resamples(samples: int) -> Iterator[Array]:
    generator = np.random.default_rng(0)
    at_once = max(1, min(_RESAMPLES, _HELD // samples))
    shares = np.full(samples, 1 / samples)
    for start in range(0, _RESAMPLES, at_once):
        size = min(at_once, _RESAMPLES - start)
        yield generator.multinomial(samples, shares, size=size).astype(np.float64)
