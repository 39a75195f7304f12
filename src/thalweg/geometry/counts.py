"""How many eigenvalues lie near zero or below a point, from a spectral density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thalweg.errors import InvalidArgument
from thalweg.geometry.density import Array, ended, shares_at
from thalweg.geometry.stieltjes import share_bounds, share_interval, share_stderr
from thalweg.result import Result

if TYPE_CHECKING:
    import xarray as xr


def _bounds(density: xr.Dataset, points: Array) -> tuple[Array, Array]:
    """Bound each probe's share of eigenvalues up to points: shape (probes, points) each."""
    nodes, weights = density.node.to_numpy(), density.weight.to_numpy()
    whole = ended(nodes) | (nodes.shape[1] == int(density.attrs["size"]))
    rows = [
        share_bounds(node[~np.isnan(node)], weight[~np.isnan(node)], points, whole=bool(complete))
        for node, weight, complete in zip(nodes, weights, whole, strict=True)
    ]
    low, high = np.array(rows).swapaxes(0, 1)
    return low, high


def shares_below(density: xr.Dataset, eigenvalues: Array) -> xr.Dataset:
    """
    Give the shares of eigenvalues at or below some points, with intervals for all they leave open.

    Parameters
    ----------
    density : xarray.Dataset
        Of `spectral_density`.
    eigenvalues : array of shape (points,)
        The points.

    Returns
    -------
    xarray.Dataset
        Over ``eigenvalue``: ``share``, by the quadrature; ``least`` and ``most``, what its moments
        prove (means over the random vectors); ``low`` and ``high``, a 95% interval of the share
        among all eigenvalues, which adds the scatter of the random vectors. Where the spectrum is
        wide and the steps are few the interval is wide, and more random vectors do not help.

    Examples
    --------
    >>> import torch
    >>> from thalweg.geometry import spectral_density
    >>> matrix = torch.diag(torch.logspace(-6, 0, 500, dtype=torch.float64))
    >>> found = shares_below(spectral_density(matrix, steps=20), np.array([1e-3, 0.1]))
    >>> bool(found.low[0] < 0.5 < found.high[0]), bool(found.low[1] < 5 / 6 < found.high[1])
    (True, True)
    """
    import xarray as xr

    points = np.asarray(eigenvalues, float)
    rounding = density.attrs["rounding"]
    size, probes = int(density.attrs["size"]), len(density.node)
    least = _bounds(density, points - rounding)[0].mean(axis=0)
    most = _bounds(density, points + rounding)[1].mean(axis=0)
    ends = [share_interval(*both, size, probes) for both in zip(least, most, strict=True)]
    low, high = np.array(ends).T
    share = shares_at(density.node.to_numpy(), density.weight.to_numpy(), points).mean(axis=0)
    columns = {"share": share, "least": least, "most": most, "low": low, "high": high}
    return xr.Dataset(
        {name: ("eigenvalue", column) for name, column in columns.items()},
        coords={"eigenvalue": points},
        attrs={"size": size},
    )


@dataclass(frozen=True)
class NearZero(Result):
    """
    How many eigenvalues lie near zero.

    Attributes
    ----------
    count : float
        Number of eigenvalues with magnitude at most ``threshold``, by the quadrature.
    stderr : float
        Its standard error over the random vectors alone.
    least, most : float
        What the quadrature proves of the count, in the mean over the random vectors: the
        inequalities of Chebyshev, Markov and Stieltjes at both ends, each moved by what rounding
        may do. More steps bring them together, more random vectors do not.
    low, high : float
        A 95% interval of the count: from ``least`` to ``most``, and the scatter of the random
        vectors beyond both. It holds the bias of the quadrature.
    threshold : float
        What counts as near.
    gap : tuple of float
        Largest magnitude of a node within the threshold (0 where there is none) and smallest
        beyond (infinite where there is none): a count is certain of its threshold where these are
        far apart.
    """

    count: float
    stderr: float
    least: float
    most: float
    low: float
    high: float
    threshold: float
    gap: tuple[float, float]


def near_zero(density: xr.Dataset, threshold: float) -> NearZero:
    """
    Count the eigenvalues near zero from a spectral density.

    Parameters
    ----------
    density : xarray.Dataset
        Of `spectral_density`.
    threshold : float
        Largest magnitude that counts as near, in units of eigenvalues. The quadrature tells apart
        what is wider than about the range of the spectrum over the square of ``steps``; below
        that, and below the rounding of the products (``density.rounding``), the interval is wide.

    Returns
    -------
    NearZero
        Count, standard error, interval, and the gap around the threshold.

    Raises
    ------
    InvalidArgument
        If the threshold is not positive.

    Examples
    --------
    >>> import torch
    >>> from thalweg.geometry import spectral_density
    >>> matrix = torch.diag(torch.tensor([0.0] * 60 + [1.0] * 40, dtype=torch.float64))
    >>> found = near_zero(spectral_density(matrix, probes=100), 0.1)
    >>> found.low < 60 < found.high
    True
    """
    if not threshold > 0:
        raise InvalidArgument(f"threshold={threshold}; write a positive eigenvalue.")
    size, probes = int(density.attrs["size"]), len(density.node)
    nodes, weights = density.node.to_numpy(), density.weight.to_numpy()
    magnitudes = np.abs(np.where(weights > 0, nodes, np.nan))
    near = magnitudes <= threshold
    share = float(np.where(near, weights, 0.0).sum(axis=1).mean())
    stderr = float(share_stderr(np.array(share), np.array(share), size, probes))
    least, most = _within(density, threshold)
    low, high = share_interval(least, most, size, probes)
    within = float(np.max(magnitudes, where=near, initial=0.0))
    beyond = float(np.min(magnitudes, where=magnitudes > threshold, initial=np.inf))
    return NearZero(
        count=size * share,
        stderr=size * stderr,
        least=size * least,
        most=size * most,
        low=size * low,
        high=size * high,
        threshold=threshold,
        gap=(within, beyond),
    )


def _within(density: xr.Dataset, threshold: float) -> tuple[float, float]:
    """Bound the share of magnitudes up to a threshold: means over probes."""
    rounding = density.attrs["rounding"]
    outer, inner = threshold + rounding, threshold - rounding
    before = [float(np.nextafter(-edge, -np.inf)) for edge in (outer, inner)]
    low, high = _bounds(density, np.array([outer, before[0], inner, before[1]]))
    most = (high[:, 0] - low[:, 1]).mean()
    if inner < 0:
        return 0.0, float(most)
    return float(np.maximum(low[:, 2] - high[:, 3], 0.0).mean()), float(most)
