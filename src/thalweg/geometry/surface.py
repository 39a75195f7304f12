"""The loss surface: the landscape on a grid of points around w, in one to three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.blocks import Blocks
from thalweg.geometry.directions import cosines, not_orthogonal, random_directions
from thalweg.geometry.exact_surface import exact
from thalweg.geometry.grid import AXES, Extent, Grid, axes
from thalweg.geometry.job import Job
from thalweg.geometry.points_plane import PointsPlane
from thalweg.geometry.tolerance import Goal, estimate, hindrance
from thalweg.landscape.protocols import (
    Function,
    Sampled,
    at_least_its_precision,
    require,
    words_of,
)
from thalweg.problems.between import FixedParts, States
from thalweg.run import Engine, Run
from thalweg.run.progress import Progress, silent

if TYPE_CHECKING:
    import xarray as xr

_LABELS = {
    "loss": ("training loss", "1"),
    "error": ("misclassified training samples", "share"),
    "test_loss": ("test loss", "1"),
    "test_error": ("misclassified test samples", "share"),
    "samples": ("training samples evaluated", "samples"),
    "test_samples": ("test samples evaluated", "samples"),
    "finite": ("whether the losses are finite", ""),
}
_EXACT = "0: every sample was evaluated in every cell"
_ESTIMATED = (
    "of the mean of true minus interpolated values over a random subset of `samples` samples, those"
    " with extreme losses among them with certainty; 0 in cells where every sample was evaluated"
)


def surface(
    risk: Function,
    w: Tensor,
    *,
    directions: Tensor | PointsPlane | int = 2,
    extent: Extent = 1.0,
    points: int | Sequence[int] = 51,
    tolerance: float | None = None,
    relative: bool = True,
    test: bool = True,
    run: Run | None = None,
    engine: Engine | None = None,
    task_timeout: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> xr.Dataset:
    """
    Evaluate a landscape on a grid around a point, exactly or to a stated tolerance.

    Cell (x, y, z) is the landscape at ``w + x d0 + y d1 + z d2``; the cell at 0, which an odd
    number of points contains, is its value at ``w`` to the last bit. Batch normalization follows
    the risk's policy in each cell; neither the user's model nor its buffers are touched.

    Parameters
    ----------
    risk : Function
        An `EmpiricalRisk`, or anything with a ``space`` and a ``value``.
    w : Tensor
        Shape (W,): the centre.
    directions : Tensor, PointsPlane or int
        Shape (W, k) with k from 1 to 3, of any lengths and angles (`random_directions`,
        `principal_directions`, eigenvectors of the Hessian); what `through_points` returns, with
        ``w`` its origin; or a number of random directions, scaled by filter. Through whole states,
        the frozen weights and buffers of a cell are the points' own, mixed by its barycentric
        coordinates: the attribute ``between`` says which differ. Otherwise those of the risk are in
        every cell.
    extent : float, pair of float, or sequence of pairs
        From -extent to extent, (low, high), or such a pair for each axis, in units of the
        directions.
    points : int or sequence of int
        Number of points along every axis, or along each.
    tolerance : float, optional
        The error that a cell's loss may have with probability 95% (1.96 standard errors). By
        default there is none: every sample is evaluated in every cell.
    relative : bool
        Whether ``tolerance`` is a share of the range of the losses on the grid, or in their units.
    test : bool
        Evaluate the test data as well, where there are any.
    run : Run, optional
        Keep finished blocks of cells there: called again with the same arguments after a kill,
        this function goes on where it was.
    engine : Engine, optional
        Compute the blocks there, such as in `LocalProcesses` or on a cluster; needs ``run``, and a
        problem of `load_problem`, which workers make again by its entry string. By default they
        are computed in this process.
    task_timeout : float, optional
        Seconds that a block may take on the engine, see `thalweg.run.run_tasks`.
    seed : int
        Of random directions and random subsets of samples.
    progress : Progress
        Told of every cell.

    Returns
    -------
    xarray.Dataset
        Over dims ``x``, ``y``, ``z`` (as many as there are directions): ``loss`` and, where it is
        defined, ``error`` (share of samples), ``test_loss``, ``test_error``, float64, each with
        its standard error ``*_stderr``, 0 where all samples were evaluated; ``samples`` and
        ``test_samples``, the numbers of samples evaluated; ``finite``, False where a loss is
        infinite or NaN, which is kept as it is. Attributes say which function was measured, and
        how: ``direction_norms`` and ``direction_cosines`` (of each pair); ``mode`` ("exact" or
        "to a tolerance"), and then ``nodes`` along each axis, ``evaluations`` of single samples
        and ``evaluations_exact``, what exact cells would cost.

    Raises
    ------
    InvalidArgument
        If directions, extent and points do not fit together or are not finite, or ``w`` is not the
        origin of the plane.
    InvalidWeights
        If ``w`` is no point of the space, or not finite.

    Notes
    -----
    To a tolerance, every sample's outputs (or losses) are evaluated at a few nodes of the grid and
    interpolated from there; the mean of true minus interpolated values over a random subset of
    samples, which all cells share, corrects each cell without bias, and gives its standard error.
    Samples with extreme losses at nodes are in every cell (attribute ``stratum``: how many). A
    pilot subset chooses nodes and sizes. Where that would cost no less, cells are exact, and the
    attribute ``why_exact`` says why. The tolerance binds losses; errors carry their own standard
    errors.

    Examples
    --------
    >>> from thalweg.problems import Problem
    >>> from thalweg.risk import EmpiricalRisk
    >>> x = torch.eye(2)
    >>> problem = Problem(torch.nn.Linear(2, 1), torch.nn.MSELoss(), (x, torch.zeros(2, 1)))
    >>> w = torch.tensor([3.0, 4.0, 0.0])  # loss (9 (1 + x)^2 + 16 (1 + x)^2) / 2 along w
    >>> found = surface(EmpiricalRisk(problem), w, directions=w[:, None], points=3)
    >>> found.loss.values.tolist(), found.x.values.tolist()
    ([0.0, 12.5, 50.0], [-1.0, 0.0, 1.0])
    """
    space = require(risk, Function, "surface", "give an EmpiricalRisk(problem)").space
    space.check(w)
    attrs: dict[str, Any] = {}
    if isinstance(directions, int):
        directions = random_directions(space, w, directions, seed=seed)
        rule = f"random, Gaussian, scaled by filter, seed {seed}"
        attrs["directions"] = rule + not_orthogonal(directions)
    states, anchors = States([w], [], FixedParts()), None
    if isinstance(directions, PointsPlane):
        _check_origin(w, directions)
        states, anchors, directions = directions.states, directions.anchors, directions.directions
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        raise InvalidArgument(f"tolerance={tolerance}; write a positive number or None.")
    job = Job(risk, _grid(risk, w, directions, extent, points), test, anchors)
    goal = None if tolerance is None else Goal(tolerance, relative, seed)
    with states.visited(risk):
        blocks = Blocks(job, run, engine, task_timeout)
        with blocks.hold():
            columns, about = _columns(blocks, goal, progress)
    return _dataset(risk, job.grid, columns, attrs | states.told | about)


def _check_origin(w: Tensor, plane: PointsPlane) -> None:
    if not torch.equal(w.to(plane.origin), plane.origin):
        raise InvalidArgument(
            "w is not where the plane through the points begins; write"
            " surface(risk, plane.origin, directions=plane)."
        )


def _grid(
    risk: Function, w: Tensor, directions: Tensor, extent: Extent, points: int | Sequence[int]
) -> Grid:
    if directions.dim() == 1:
        directions = directions[:, None]
    if directions.dim() != 2 or len(directions) != len(w) or not 1 <= directions.shape[1] <= 3:
        raise InvalidArgument(
            f"directions of shape {tuple(directions.shape)}; expected ({len(w)}, k) with k from 1"
            " to 3: one column a direction."
        )
    # A float64 risk is to see the grid in float64.
    dtype = at_least_its_precision(risk, w)
    grid = Grid(
        w.detach().to(dtype), directions.detach(), axes(extent, points, directions.shape[1])
    )
    grid.check_reach()
    return grid


def _columns(
    blocks: Blocks, goal: Goal | None, progress: Progress
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """All columns of the data set by name, and how they were made."""
    job = blocks.job
    why = "" if goal is None else hindrance(job)
    accuracy = {} if goal is None else {"tolerance": goal.tolerance, "relative": int(goal.relative)}
    if goal is None or why:
        about = {"mode": "exact", "stderr": _EXACT} | ({"why_exact": why} if why else {})
        return _exact_columns(blocks, progress), accuracy | about
    columns: dict[str, NDArray[Any]] = {}
    attrs: dict[str, Any] = {"seed": goal.seed, **accuracy}
    for split in job.risks:
        estimates, about = estimate(blocks, split, goal, progress)
        columns |= {split + name: column for name, column in estimates.items()}
        attrs |= {split + name: value for name, value in about.items()}
    attrs["stderr"] = _EXACT if attrs["mode"] == "exact" else _ESTIMATED
    return columns, attrs


def _exact_columns(blocks: Blocks, progress: Progress) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = dict(exact(blocks, progress))
    for name, values in list(columns.items()):
        columns[f"{name}_stderr"] = np.zeros_like(values)
    for split, risk in blocks.job.risks.items():
        samples = risk.samples if isinstance(risk, Sampled) else 1
        columns[f"{split}samples"] = np.full(len(blocks.job.grid), samples)
    return columns


def _dataset(
    risk: Function, grid: Grid, columns: dict[str, NDArray[Any]], attrs: dict[str, Any]
) -> xr.Dataset:
    import xarray as xr

    dims = AXES[: len(grid.axes)]
    shaped = {name: column.reshape(grid.shape) for name, column in columns.items()}
    losses = [values for name, values in shaped.items() if name.endswith("loss")]
    shaped["finite"] = np.asarray(np.isfinite(losses).all(0))
    variables: dict[str, Any] = {}
    for name, values in shaped.items():
        measured = name.removesuffix("_stderr")
        label, units = _LABELS[measured]
        about = {"long_name": label, "units": units}
        if name != measured:
            about |= {"long_name": f"standard error of the {label}", "is": attrs["stderr"]}
            values = np.where(np.isfinite(shaped[measured]), values, np.nan)
        variables[name] = (dims, values, about)
    lengths = grid.directions.double().norm(dim=0).tolist()
    coords = {
        dim: (dim, axis, {"units": f"lengths of direction {i} (norm {length:.6g})"})
        for i, (dim, axis, length) in enumerate(zip(dims, grid.axes, lengths, strict=True))
    }
    attrs = {**words_of(risk), **attrs, "direction_norms": lengths}
    if len(lengths) > 1:
        attrs["direction_cosines"] = cosines(grid.directions)
    return xr.Dataset(variables, coords, attrs)
