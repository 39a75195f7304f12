"""Which equations of zero training error are independent: duplicates, contradictions, one-hot."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_SHOWN = 3


@dataclass(frozen=True)
class Equations:
    """
    The equations that are solved in place of ``f(x_i) = y_i`` for all i.

    Attributes
    ----------
    kept : ndarray
        Samples whose equations are used, int64: of equal samples the first.
    rows : ndarray
        Combinations of outputs, exact in float64, shape (k, C).
    sum : float or None
        Where all targets sum to this number and the last layer has more samples than it can tell
        apart: the sum of outputs is then held at it by linear equations on the last layer.
    notes : tuple of str
        What was done, in words.
    reasons : tuple of str
        Why no zero can exist.
    """

    kept: NDArray[np.int64]
    rows: Array
    sum: float | None = None
    notes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = field(default=())

    @property
    def norm(self) -> float:
        """Bound of the largest singular value of the rows."""
        # They are orthogonal: rows of the unit matrix, or differences of norms below 2.
        return 1.0 if np.isin(self.rows, (0.0, 1.0)).all() else 2.0


def independent_equations(
    samples: Array, targets: Array, features: int | None, chosen: list[int] | None
) -> Equations:
    """
    Find the independent equations of a problem.

    Parameters
    ----------
    samples : ndarray
        Inputs, shape (N, d).
    targets : ndarray
        Shape (N, C).
    features : int or None
        Number of trained weights of each unit of the last layer, its bias included; None where it
        has no trained bias or is no linear layer.
    chosen : list of int or None
        Outputs to use; None for all.

    Notes
    -----
    Where the targets of every sample sum to s, at a zero the sum of the last layer's rows, v, has
    ``v . (a_i, 1) = s`` for all samples. If these features span their space, as N > h + 1 of
    them do in general, v is (0, ..., 0, s) there: no lower weight can change the sum of the
    outputs, the rank of J falls by N - (h + 1), and all C outputs of each sample are never
    independent. Independent are the differences of outputs, C - 1 a sample, and the h + 1 linear
    equations ``v = (0, ..., 0, s)``; both hold only at zeros.

    Examples
    --------
    >>> x, y = np.arange(6.0)[:, None], np.eye(2)[[0, 1, 0, 1, 1, 0]]
    >>> found = independent_equations(x, y, 3, None)
    >>> found.rows.tolist(), found.sum
    ([[1.0, -1.0]], 1.0)
    """
    distinct, reasons, notes = _distinct(samples, targets)
    outputs = targets.shape[1]
    if chosen is not None:
        dropped = sorted(set(range(outputs)) - set(chosen))
        note = (
            f"outputs {dropped} are dropped and nothing is claimed of them: dimension and nullity"
            f" are those of the squared loss of outputs {sorted(set(chosen))} alone"
        )
        return Equations(distinct, np.eye(outputs)[chosen], None, (*notes, note), reasons)
    total = _common_sum(targets)
    if total is None or outputs < 2 or features is None or len(distinct) <= features:
        return Equations(distinct, np.eye(outputs), None, notes, reasons)
    note = (
        f"the targets of every sample sum to {total:g}, so {outputs} outputs a sample are not"
        f" independent: used are {outputs - 1} differences of outputs a sample and {features}"
        f" linear equations that hold the outputs' sum at {total:g}; together they say that all"
        f" {outputs} outputs are right"
    )
    return Equations(distinct, differences(outputs), total, (*notes, note), reasons)


def differences(outputs: int) -> Array:
    """
    Give C - 1 orthogonal combinations that sum to zero, exact in float64, of norms in [1, 2).

    Rows of Helmert's matrix, scaled by powers of two.

    Examples
    --------
    >>> differences(3).tolist()
    [[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]]
    """
    rows = np.zeros((outputs - 1, outputs))
    for k in range(1, outputs):
        rows[k - 1, :k], rows[k - 1, k] = 1.0, -k
        rows[k - 1] *= 0.5 ** math.floor(math.log2(math.sqrt(k * (k + 1))))
    return rows


def _distinct(
    samples: Array, targets: Array
) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    _, first, group = np.unique(samples, axis=0, return_index=True, return_inverse=True)
    same = first[group.reshape(-1)]
    twins = np.flatnonzero(same != np.arange(len(samples)))
    against = [i for i in twins if not np.array_equal(targets[i], targets[same[i]])]
    reasons: tuple[str, ...] = ()
    if against:
        pairs = ", ".join(f"{same[i]} and {i}" for i in against[:_SHOWN])
        more = ", ..." if len(against) > _SHOWN else ""
        reasons = (
            f"{len(against)} samples contradict another with the same input and another target"
            f" (samples {pairs}{more}): no function fits both",
        )
    notes: tuple[str, ...] = ()
    if len(twins) > len(against):
        notes = (
            f"{len(twins) - len(against)} samples are copies of others, with the same target: their"
            " equations are the same and are counted once",
        )
    return np.sort(first).astype(np.int64), reasons, notes


def _common_sum(targets: Array) -> float | None:
    """Give the number that every row sums to exactly, None if there is none."""
    total = math.fsum(targets[0])
    exact = all(math.fsum([*row, -total]) == 0.0 for row in targets)
    return total if exact else None
