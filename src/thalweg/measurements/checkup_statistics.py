"""The statistics of a check-up: calibration, paired comparisons, distances of functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.landscape.sample_means import mean_interval

Array = NDArray[np.float64]
# Of all comparisons of a pair together, after Holm: a check-up is made again and again.
LEVEL = 0.01
_BINS = 15
_RESAMPLES = 200
# Differences below such shares of the larger value are none: rounding; an eigenvalue's own error;
# of an ascent, which finds a lower bound and ends where chance led it.
_SAME = {"average": 0.01, "loss noise": 0.03, "eigenvalue": 0.02, "worst": 0.1}
_LARGER_IS_FLATTER = ("loss noise",)


def confidence(outputs: Array, kind: str) -> Array | None:
    """
    Give class probabilities, shape (N, C); None where outputs are none.

    ``kind`` is `Problem.output_kind`.
    """
    wide = outputs.ndim == 2 and outputs.shape[1] > 1
    if kind == "classes" and wide:
        shifted = np.exp(outputs - outputs.max(1, keepdims=True))
        return np.asarray(shifted / shifted.sum(1, keepdims=True), dtype=np.float64)
    single = outputs.reshape(len(outputs), -1)[:, :1].astype(np.float64)
    if kind in ("logits", "probabilities") and not wide:
        one = 1 / (1 + np.exp(-single)) if kind == "logits" else single
        return np.concatenate([1 - one, one], axis=1)
    return None


def calibration(probabilities: Array, wrong: Array) -> dict[str, float]:
    """
    Compare the probability of the predicted class with how often it is right.

    Parameters
    ----------
    probabilities : float64 array
        Shape (N, C).
    wrong : float64 array
        Shape (N,), positive where a sample is misclassified.

    Returns
    -------
    dict
        ``ece`` (expected calibration error over 15 bins of equal width) with ``ece_low`` and
        ``ece_high`` (bootstrap over samples), ``ece_of_chance`` (the 95% point of a network of the
        same probabilities that is calibrated: bins of few samples differ by chance), and
        ``excess`` (mean confidence minus accuracy) with its interval.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks (2017), equation 3.
    """
    sure, right = probabilities.max(1), (wrong == 0).astype(np.float64)
    generator = np.random.default_rng(0)
    rows = generator.integers(0, len(sure), (_RESAMPLES, len(sure)))
    drawn = [_ece(sure[row], right[row]) for row in rows]
    chance = generator.random((_RESAMPLES, len(sure))) < sure
    calibrated = [_ece(sure, row.astype(np.float64)) for row in chance]
    low, high = mean_interval(sure - right, largest=1.0)
    return {
        "ece": _ece(sure, right),
        "ece_low": float(np.quantile(drawn, 0.025)),
        "ece_high": float(np.quantile(drawn, 0.975)),
        "ece_of_chance": float(np.quantile(calibrated, 0.95)),
        "excess": float((sure - right).mean()),
        "excess_low": low,
        "excess_high": high,
    }


def _ece(sure: Array, right: Array) -> float:
    places = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(places, sure - right, _BINS)
    return float(np.abs(gaps).sum() / len(sure))


def compare_flatness(first: dict[str, Any], last: dict[str, Any]) -> list[dict[str, Any]]:
    """
    Test which of two points is flatter, by each invariant measure.

    Values are means over noise or over samples that both points share, so that differences are
    tested pairwise (Student's test), and the p-values corrected by Holm. A level of noise is
    compared by its logarithm.

    Parameters
    ----------
    first, last : dict
        Of `thalweg.measurements.checkup_flatness`, of the same sizes and seed.

    Returns
    -------
    list of dict
        ``measure``, ``first``, ``last``, ``p`` (after Holm) and ``flatter``: "first", "last" or
        "neither".
    """
    rows = []
    for name in common_measures(first, last):
        a, b = np.asarray(first[f"{name}_each"]), np.asarray(last[f"{name}_each"])
        if name in _LARGER_IS_FLATTER:
            a, b = np.log(a), np.log(b)
        rows.append(
            {"measure": name, "first": first[name], "last": last[name], "p": _paired(b - a)}
        )
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p": p, "flatter": _flatter(row["measure"], row["first"], row["last"], p)}
    return rows


def common_measures(first: dict[str, Any], last: dict[str, Any]) -> list[str]:
    """Name the invariant measures that were taken at both points."""
    return [name for name in _SAME if f"{name}_each" in first and f"{name}_each" in last]


def _flatter(measure: str, first: float, last: float, p: float) -> str:
    apart = abs(last - first) > _SAME[measure] * max(abs(first), abs(last))
    if not (apart and p < LEVEL):
        return "neither"
    rises = last > first
    return "last" if rises == (measure in _LARGER_IS_FLATTER) else "first"


def _paired(differences: Array) -> float:
    """Test whether a mean difference is zero; 1 where all are."""
    from scipy.stats import t as student

    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    mean = float(differences.mean())
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    statistic = mean / spread * math.sqrt(len(differences))
    return float(2 * student.sf(abs(statistic), len(differences) - 1))


def holm(p_values: list[float]) -> list[float]:
    """
    Correct p-values for their number (Holm, 1979).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def same_function(first: dict[str, Any], last: dict[str, Any]) -> dict[str, float]:
    """
    Compare what two points compute, and their weights.

    Parameters
    ----------
    first, last : dict
        Of `thalweg.measurements.checkup_parts.fit`.

    Returns
    -------
    dict
        ``disagree`` (share of samples whose predicted classes differ, with its interval), ``cka``
        (linear, of outputs), ``distance`` of weights, that distance over the length of the first,
        and their ``cosine``.

    References
    ----------
    Kornblith et al., Similarity of Neural Network Representations Revisited (2019), equation 5.
    """
    a, b = first["weights"], last["weights"]
    length = float(np.linalg.norm(a))
    answer = {
        "distance": float(np.linalg.norm(b - a)),
        "relative": float(np.linalg.norm(b - a)) / length,
        "cosine": float(a @ b) / (length * float(np.linalg.norm(b))),
    }
    if "outputs" not in first:
        return answer
    one, other = first["outputs"].astype(np.float64), last["outputs"].astype(np.float64)
    answer["cka"] = linear_cka(one, other)
    if one.ndim == 2 and one.shape[1] > 1:
        differ = (one.argmax(1) != other.argmax(1)).astype(np.float64)
        low, high = mean_interval(differ, largest=1.0)
        answer |= {"disagree": float(differ.mean()), "disagree_low": max(low, 0.0)}
        answer["disagree_high"] = min(high, 1.0)
    return answer


def quantiles(values: Array, shares: tuple[float, ...]) -> dict[float, tuple[float, float, float]]:
    """
    Give quantiles with intervals by order statistics, which hold in 95 % of cases or more.

    Returns
    -------
    dict
        By share: value, low, high.

    Examples
    --------
    >>> [round(v, 2) for v in quantiles(np.arange(1.0, 101.0), (0.5,))[0.5]]
    [50.5, 40.0, 61.0]
    """
    from scipy.stats import binom

    ordered, n = np.sort(values), len(values)
    found = {}
    for share in shares:
        low = int(binom.ppf(0.025, n, share)) - 1
        high = int(binom.ppf(0.975, n, share))
        ends = float(ordered[max(low, 0)]), float(ordered[min(high, n - 1)])
        found[share] = (float(np.quantile(ordered, share)), *ends)
    return found


def linear_cka(first: Array, last: Array) -> float:
    """
    Compare two representations of the same samples, shapes (N, C) and (N, D); 1 where alike.

    Examples
    --------
    >>> x = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
    >>> round(linear_cka(x, 2 * x[:, ::-1] + 1), 12)
    1.0
    """
    a, b = first - first.mean(0), last - last.mean(0)
    norm = float(np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    return float(np.square(a.T @ b).sum()) / norm if norm > 0 else math.nan
