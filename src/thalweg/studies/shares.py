"""How a displacement splits over curvatures: the top eigenspace, slow directions, flat ones."""

from __future__ import annotations

from thalweg.geometry.spectral_measure import SpectralMeasure
from thalweg.studies.limits import RESOLUTION

# The top eigenspace: curvatures of at least this share of the largest.
TOP = 0.01


def shares(measure: SpectralMeasure, top: float) -> dict[str, float]:
    """
    Bracket the shares of a vector's squared length in three bands of curvature.

    Parameters
    ----------
    measure : SpectralMeasure
        Of the vector.
    top : float
        The largest curvature.

    Returns
    -------
    dict
        ``top_low`` and ``top_high``: along at least a hundredth of the largest curvature;
        ``flat_low`` and ``flat_high``: along less than `RESOLUTION` of it; ``slow_low`` and
        ``slow_high``: between; ``curvature``, the mean as a share of the largest.
    """
    flat, below = measure.up_to(RESOLUTION * top), measure.up_to(TOP * top)
    return {
        "top_low": 1 - below[1],
        "top_high": 1 - below[0],
        "slow_low": max(0.0, below[0] - flat[1]),
        "slow_high": max(0.0, below[1] - flat[0]),
        "flat_low": flat[0],
        "flat_high": flat[1],
        "curvature": measure.mean / top,
    }
