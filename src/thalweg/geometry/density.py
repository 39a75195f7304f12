"""The spectral density by stochastic Lanczos quadrature, and what is counted from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import InvalidArgument
from thalweg.geometry.lanczos import SearchSpace
from thalweg.geometry.operator import SymmetricOperator
from thalweg.landscape.protocols import words_of
from thalweg.run.progress import Bar, Progress, silent
from thalweg.run.seeds import torch_generator

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]


def spectral_density(
    op: Any,
    *,
    probes: int = 10,
    steps: int = 50,
    width: float | None = None,
    points: int = 1001,
    seed: int = 0,
    progress: Progress = silent,
) -> xr.Dataset:
    """
    Estimate the density of eigenvalues by stochastic Lanczos quadrature.

    From each random unit vector, ``steps`` products give a Gauss quadrature of the spectrum: nodes
    are the eigenvalues of the tridiagonal matrix, weights the squared first components of its
    eigenvectors (Golub and Meurant, Matrices, Moments and Quadrature, 2010, section 6.2; Ubaru,
    Chen and Saad, SIAM J. Matrix Anal. Appl. 38, 2017, algorithm 1). Orthogonalization is full, so
    that no eigenvalue appears as ghosts. Where fewer steps exhaust the space that the operator
    spans from a vector, the quadrature is exact and has fewer nodes.

    Parameters
    ----------
    op : LinearOperator, Tensor, or a SciPy operator
        Symmetric, shape (W, W), float32 or float64.
    probes : int
        Random vectors, at least 2: their scatter is the standard error.
    steps : int
        Products with each.
    width : float, optional
        Standard deviation of the Gaussian that smooths the nodes, in units of eigenvalues; by
        default one hundredth of the range of the nodes.
    points : int
        Eigenvalues at which the smoothed density is given.
    seed : int
        Of the random vectors.
    progress : Progress
        Shows the products.

    Returns
    -------
    xarray.Dataset
        ``density (eigenvalue)``, the share of eigenvalues per unit of eigenvalue, integrating to
        1, with ``density_stderr``; ``cumulative (eigenvalue)``, the share at or below, unsmoothed,
        with ``cumulative_stderr``; ``node`` and ``weight`` with dimensions (probe, step), NaN and
        0 where a quadrature has fewer nodes. Attributes: ``width``, ``size`` (W), ``probes``,
        ``steps``, ``products``, ``seed``, and what the operator says of itself (``op.described``).
        Any other smoothing comes from `smooth`.

    Raises
    ------
    InvalidArgument
        If an option cannot be used.
    NotSymmetric
        If the operator is not symmetric.
    NotFinite
        If a product holds NaN or infinite numbers.

    Examples
    --------
    >>> import torch
    >>> matrix = torch.diag(torch.tensor([0.0, 0.0, 0.0, 4.0], dtype=torch.float64))
    >>> density = spectral_density(matrix, probes=200)
    >>> abs(float(density["cumulative"].sel(eigenvalue=2.0, method="nearest")) - 0.75) < 0.1
    True
    """
    operator = SymmetricOperator(op)
    if probes < 2 or steps < 1 or points < 2 or (width is not None and not width > 0):
        raise InvalidArgument(
            f"got probes={probes}, steps={steps}, points={points}, width={width}; expected at least"
            " 2 probes, 1 step, 2 points, and a positive width or None."
        )
    nodes, weights = np.empty((probes, steps)), np.empty((probes, steps))
    with progress(probes * steps, "spectral density") as bar:
        for probe in range(probes):
            nodes[probe], weights[probe] = quadrature(operator, steps, seed, probe, bar)
    return density_of(nodes, weights, width, points).assign_attrs(
        **words_of(op),
        size=operator.size,
        probes=probes,
        steps=steps,
        products=operator.products,
        seed=seed,
    )


def quadrature(
    operator: SymmetricOperator, steps: int, seed: int, probe: int, bar: Bar
) -> tuple[Array, Array]:
    """
    Take one probe of a spectral density: nodes, ascending, and weights, shape (steps,) each.

    Where fewer steps exhaust the space, the rest is NaN and 0.
    """
    generator = torch_generator(seed, "spectral_density", probe)
    space = SearchSpace(operator, steps, generator)
    space.begin()
    bar.update()
    while not (space.full or space.invariant):
        space.extend()
        bar.update()
    pairs = space.ritz()
    values, first = pairs.values.numpy(), pairs.coefficients[0].numpy()
    nodes, weights = np.full(steps, np.nan), np.zeros(steps)
    nodes[: len(values)], weights[: len(values)] = values[::-1], (first**2)[::-1]
    return nodes, weights


def density_of(
    nodes: Array, weights: Array, width: float | None = None, points: int = 1001
) -> xr.Dataset:
    """Gather probes, shape (probes, steps), into what `spectral_density` returns."""
    import xarray as xr

    low, high = float(np.nanmin(nodes)), float(np.nanmax(nodes))
    if width is None:
        width = 0.01 * ((high - low) or abs(high) or 1.0)
    grid = np.linspace(low - 4 * width, high + 4 * width, points)
    data = xr.Dataset(
        {"node": (("probe", "step"), nodes), "weight": (("probe", "step"), weights)},
        coords={"eigenvalue": grid},
        attrs={"width": width},
    )
    data["density"], data["density_stderr"] = _mean(_smooth(nodes, weights, grid, width))
    data["cumulative"], data["cumulative_stderr"] = _mean(_cumulative(nodes, weights, grid))
    names = {"density": "share per unit of eigenvalue", "cumulative": "share at or below"}
    for name, words in names.items():
        data[name].attrs["long_name"] = words
        data[name + "_stderr"].attrs["long_name"] = f"standard error of the {words}"
    return data


def smooth(density: xr.Dataset, eigenvalue: Array, width: float) -> xr.Dataset:
    """
    Smooth the nodes of a spectral density anew.

    Parameters
    ----------
    density : xarray.Dataset
        Of `spectral_density`.
    eigenvalue : array of shape (points,)
        Where the density is wanted.
    width : float
        Standard deviation of the Gaussian, in units of eigenvalues.

    Returns
    -------
    xarray.Dataset
        ``density`` and ``density_stderr`` over ``eigenvalue``, per unit of eigenvalue.
    """
    import xarray as xr

    data = xr.Dataset(coords={"eigenvalue": np.asarray(eigenvalue, float)}, attrs={"width": width})
    grid = data.eigenvalue.to_numpy()
    curves = _smooth(density.node.to_numpy(), density.weight.to_numpy(), grid, width)
    data["density"], data["density_stderr"] = _mean(curves)
    return data


def _smooth(nodes: Array, weights: Array, grid: Array, width: float) -> Array:
    """Sum a Gaussian on each node: shape (probes, points)."""
    distances = (grid[None, :, None] - np.nan_to_num(nodes)[:, None, :]) / width
    bells = np.exp(-0.5 * distances**2) / (width * np.sqrt(2 * np.pi))
    curves: Array = np.einsum("pgs,ps->pg", bells, weights)
    return curves


def _cumulative(nodes: Array, weights: Array, grid: Array) -> Array:
    """Sum the weights of the nodes at or below each point: shape (probes, points)."""
    curves = np.empty((len(nodes), len(grid)))
    for curve, node, weight in zip(curves, nodes, weights, strict=True):
        sums = np.concatenate([[0.0], np.cumsum(weight)])
        curve[:] = sums[np.searchsorted(node, grid, side="right")]  # NaN sorts last
    return curves


def _mean(samples: Array) -> tuple[tuple[str, Array], tuple[str, Array]]:
    """Mean and standard error over probes, each with its dimension."""
    stderr = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return ("eigenvalue", samples.mean(axis=0)), ("eigenvalue", stderr)


@dataclass(frozen=True)
class NearZero:
    """
    How many eigenvalues lie near zero.

    Attributes
    ----------
    count : float
        Estimated number of eigenvalues with magnitude at most ``threshold``.
    stderr : float
        Its standard error over probes.
    low, high : float
        95% interval of Student's t over probes, cut off at 0 and W.
    threshold : float
        What counts as near.
    gap : tuple of float
        Largest magnitude of a node within the threshold (0 where there is none) and smallest
        beyond (infinite where there is none): a count is certain of its threshold where these are
        far apart.
    """

    count: float
    stderr: float
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
        that, and below the rounding of float32 products (1e-6 of the largest), it does not.

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
    >>> matrix = torch.diag(torch.tensor([0.0] * 60 + [1.0] * 40, dtype=torch.float64))
    >>> found = near_zero(spectral_density(matrix, probes=100), 0.1)
    >>> found.low < 60 < found.high
    True
    """
    if not threshold > 0:
        raise InvalidArgument(f"threshold={threshold}; write a positive eigenvalue.")
    from scipy.stats import t as student

    size = int(density.attrs["size"])
    nodes, weights = density.node.to_numpy(), density.weight.to_numpy()
    magnitudes = np.abs(np.where(weights > 0, nodes, np.nan))
    near = magnitudes <= threshold
    counts = size * np.where(near, weights, 0.0).sum(axis=1)
    count, stderr = float(counts.mean()), float(counts.std(ddof=1) / np.sqrt(len(counts)))
    half = float(student.ppf(0.975, len(counts) - 1)) * stderr
    within = float(np.max(magnitudes, where=near, initial=0.0))
    beyond = float(np.min(magnitudes, where=magnitudes > threshold, initial=np.inf))
    low, high = max(0.0, count - half), min(float(size), count + half)
    return NearZero(count, stderr, low, high, threshold, (within, beyond))
