"""How many equations zero training error is, counted honestly."""

from __future__ import annotations

COUNTS = ("per_sample", "per_inequality", "per_output")
RATIOS = dict(zip(COUNTS, ("W / N", "W / N(C - 1)", "W / NC"), strict=True))


def equations(samples: int, outputs: int) -> dict[str, int]:
    """
    Count the equations of zero error in the three honest ways.

    Parameters
    ----------
    samples, outputs : int
        N and C.

    Returns
    -------
    dict
        ``per_sample``: N, one scalar output fitted exactly. ``per_inequality``: N (C - 1), every
        sample's class above all others; these are inequalities, and open. ``per_output``: N C, all
        outputs fitted exactly under the squared loss.

    Examples
    --------
    >>> equations(50_000, 10)
    {'per_sample': 50000, 'per_inequality': 450000, 'per_output': 500000}
    """
    free_outputs = max(1, outputs - 1)
    counts = (samples, samples * free_outputs, samples * outputs)
    return dict(zip(COUNTS, counts, strict=True))
