"""The spectral density by stochastic Lanczos quadrature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.dense_quadrature import dense_quadratures
from thalweg.geometry.lanczos import SearchSpace
from thalweg.geometry.operator import SymmetricOperator
from thalweg.geometry.stieltjes import share_stderr
from thalweg.landscape.protocols import words_of
from thalweg.run.bounds import check_memory
from thalweg.run.progress import Bar, Progress, silent
from thalweg.run.seeds import torch_generator

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]
# A Gaussian of this standard deviation, in units of range over steps, is resolved: what the
# quadrature misses of it is a thousandth of its height at the ends of the spectrum, less inside.
_RESOLVED = 1.2


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
        Random vectors, at least 2.
    steps : int
        Products with each.
    width : float, optional
        Standard deviation of the Gaussian that smooths the nodes, in units of eigenvalues; by
        default 1.2 / steps of the range of the nodes, which the quadrature resolves, or a hundredth
        of the range where that is more.
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
        0 where a quadrature has fewer nodes. Standard errors are of the random vectors alone.
        Beside them stands the quadrature's own error: at most ``bias`` (an attribute) for the
        density; for shares and counts `shares_below` and `near_zero` give intervals that hold it.
        Attributes: ``width``, ``bias``, ``rounding`` (what that of the products may do to an
        eigenvalue), ``size`` (W), ``probes``, ``steps``, ``products``, ``seed``, and what the
        operator says of itself (``op.described``). Any other smoothing comes from `smooth`.

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
    check_quadratures(probes, steps)
    with progress(probes * steps, "spectral density") as bar:
        if isinstance(op, Tensor):
            starts = [_start(seed, probe) for probe in range(probes)]
            nodes, weights, rounding = dense_quadratures(operator, steps, starts, bar)
        else:
            nodes, weights, rounding = _one_by_one(operator, steps, seed, probes, bar)
    return density_of(
        nodes, weights, operator.size, width=width, points=points, rounding=rounding
    ).assign_attrs(**words_of(op), products=operator.products, seed=seed)


def check_quadratures(probes: int, steps: int) -> None:
    """Refuse more probes and steps than memory holds, with all that is made of them."""
    # Nodes, weights, and a series of 8 times as many terms that they are smoothed with.
    check_memory(
        probes * (steps * 160 + 4000),
        f"a density of {probes} probes of {steps} steps",
        "Write fewer: 10 probes of 50 to 200 steps show a spectrum.",
    )


def _one_by_one(
    operator: SymmetricOperator, steps: int, seed: int, probes: int, bar: Bar
) -> tuple[Array, Array, float]:
    """Hold one basis at a time: of many weights more would not fit, and products save nothing."""
    nodes, weights = np.empty((probes, steps)), np.empty((probes, steps))
    rounding = 0.0
    for probe in range(probes):
        nodes[probe], weights[probe], floor = quadrature(operator, steps, seed, probe, bar)
        rounding = max(rounding, floor)
    return nodes, weights, rounding


def _start(seed: int, probe: int) -> Generator:
    return torch_generator(seed, "spectral_density", probe)


def quadrature(
    operator: SymmetricOperator, steps: int, seed: int, probe: int, bar: Bar
) -> tuple[Array, Array, float]:
    """
    Take one probe of a spectral density: nodes, ascending, and weights, shape (steps,) each.

    Where fewer steps exhaust the space, the rest is NaN and 0. The third is what rounding may do
    to an eigenvalue.
    """
    space = SearchSpace(operator, steps, _start(seed, probe))
    space.begin()
    bar.update()
    while not (space.full or space.invariant):
        space.extend()
        bar.update()
    pairs = space.ritz()
    values, first = pairs.values.cpu().numpy(), pairs.coefficients[0].cpu().numpy()
    nodes, weights = np.full(steps, np.nan), np.zeros(steps)
    nodes[: len(values)], weights[: len(values)] = values[::-1], (first**2)[::-1]
    return nodes, weights, space.floor


def density_of(
    nodes: Array,
    weights: Array,
    size: int,
    *,
    width: float | None = None,
    points: int = 1001,
    rounding: float = 0.0,
) -> xr.Dataset:
    """Gather probes, shape (probes, steps), into what `spectral_density` returns."""
    import xarray as xr

    probes, steps = nodes.shape
    low, high = float(np.nanmin(nodes)), float(np.nanmax(nodes))
    if width is None:
        width = max(0.01, _RESOLVED / steps) * ((high - low) or abs(high) or 1.0)
    grid = np.linspace(low - 4 * width, high + 4 * width, points)
    data = xr.Dataset(
        {"node": (("probe", "step"), nodes), "weight": (("probe", "step"), weights)},
        coords={"eigenvalue": grid},
        attrs={"size": size, "probes": probes, "steps": steps, "rounding": rounding},
    )
    data = data.merge(smooth(data, grid, width), combine_attrs="no_conflicts")
    shares = shares_at(nodes, weights, grid).mean(axis=0)
    data["cumulative"] = ("eigenvalue", shares, {"long_name": "share at or below"})
    data["cumulative_stderr"] = (
        "eigenvalue",
        share_stderr(shares, shares, size, probes),
        {"long_name": "standard error of the share at or below, over the random vectors"},
    )
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
        ``density`` and ``density_stderr`` over ``eigenvalue``, per unit of eigenvalue; attributes
        ``width``, and ``bias``: how far the quadrature may leave the mean over random vectors from
        the density (a bound from the polynomials that it integrates exactly).
    """
    import xarray as xr

    data = xr.Dataset(coords={"eigenvalue": np.asarray(eigenvalue, float)}, attrs={"width": width})
    grid = data.eigenvalue.to_numpy()
    nodes, weights = density.node.to_numpy(), density.weight.to_numpy()
    first, second = _smooth(nodes, weights, grid, width)
    stderr = share_stderr(first, second, int(density.attrs["size"]), len(nodes))
    words = "share per unit of eigenvalue"
    data["density"] = ("eigenvalue", first, {"long_name": words})
    data["density_stderr"] = (
        "eigenvalue",
        stderr,
        {"long_name": f"standard error of the {words}, over the random vectors"},
    )
    return data.assign_attrs(bias=_bias(nodes, width))


def _smooth(nodes: Array, weights: Array, grid: Array, width: float) -> tuple[Array, Array]:
    """Take means over probes of a Gaussian on each node, and of its square: shape (points,)."""
    distances = (grid[None, :, None] - np.nan_to_num(nodes)[:, None, :]) / width
    bells = np.exp(-0.5 * distances**2) / (width * np.sqrt(2 * np.pi))
    first, second = (np.einsum("pgs,ps->g", b, weights) / len(nodes) for b in (bells, bells**2))
    return first, second


def _bias(nodes: Array, width: float) -> float:
    """
    Bound what k nodes miss of the mean of a Gaussian over a measure on their range.

    They are exact for polynomials of degree 2 k - 1, so that the error is at most twice that of
    the best one, which the coefficients of Chebyshev's series beyond it bound.
    """
    from scipy.fft import dct

    if ended(nodes).all():
        return 0.0
    low, high = float(np.nanmin(nodes)), float(np.nanmax(nodes))
    relative = 2 * width / (high - low)
    steps = nodes.shape[1]
    terms = max(8 * steps, 512)
    places = np.cos(np.pi * (np.arange(terms) + 0.5) / terms)
    centres = np.linspace(-1 - 4 * relative, 1 + 4 * relative, 81)
    bells = np.exp(-0.5 * ((places - centres[:, None]) / relative) ** 2)
    beyond = np.abs(dct(bells, axis=1)[:, 2 * steps :]).sum(axis=1) / terms
    return float(2 * beyond.max() / (width * np.sqrt(2 * np.pi)))


def ended(nodes: Array) -> NDArray[np.bool_]:
    """Tell which quadratures ended early: these are the measure itself."""
    return np.asarray(np.isnan(nodes).any(axis=1))


def shares_at(nodes: Array, weights: Array, grid: Array) -> Array:
    """Sum the weights of the nodes at or below each point: shape (probes, points)."""
    curves = np.empty((len(nodes), len(grid)))
    for curve, node, weight in zip(curves, nodes, weights, strict=True):
        sums = np.concatenate([[0.0], np.cumsum(weight)])
        curve[:] = sums[np.searchsorted(node, grid, side="right")]  # NaN sorts last
    return curves
