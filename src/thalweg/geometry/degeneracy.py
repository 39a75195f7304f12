"""How degenerate a point is: the nullity of the Jacobian, and what explains it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.curvature.gram import dense, gram
from thalweg.curvature.operators import Jacobian, RiskOperator
from thalweg.curvature.ranks import singular_cutoff
from thalweg.errors import InvalidArgument
from thalweg.geometry.counts import near_zero
from thalweg.geometry.density import spectral_density
from thalweg.geometry.kernel_sources import Explained, explain
from thalweg.geometry.symmetric_eigenvalues import symmetric_eigenvalues
from thalweg.landscape.protocols import require
from thalweg.landscape.provenance import Word
from thalweg.result import Result
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.progress import Progress, silent
from thalweg.tracing.chain import Network

Array = NDArray[np.float64]
Method = Literal["gram", "dense", "lanczos"]

# Exact eigenvalues up to this order: beyond, a dense matrix takes more than 3.2 GB.
LARGEST = 20_000
# Numbers of a dense Jacobian held at once (1 GB).
_HELD = 1 << 27
_CLEAR = 100.0
NOT_AVAILABLE = "not available"


@dataclass(frozen=True)
class Degeneracy(Result):
    """
    The rank of the outputs' Jacobian J at a point, with what explains its nullity.

    Attributes
    ----------
    weights, equations : int
        W and M = N C: J has shape (M, W).
    rank : int
        Number of eigenvalues of J J^T above ``threshold``.
    rank_low, rank_high : int
        The rank where the threshold is ten times larger or smaller; beyond exact eigenvalues, the
        95% interval of `near_zero`.
    nullity : int
        W - rank.
    threshold : float
        Smallest eigenvalue of J J^T that counts as positive.
    above, below : float
        Smallest eigenvalue above the threshold, and largest below it (0 where there is none).
    clear : bool
        Whether they are apart by a factor of 100 or more, and the threshold between.
    split : dict of str to int
        Directions of the kernel by what explains them, adding up to the nullity: ``dead units``,
        ``dead inputs``, ``rescaling``, ``batch norm``, ``layer norm``, ``attention``, ``unread
        outputs``, ``dependent inputs``, ``more weights than equations``, ``repeated samples``,
        ``rest``.
    broken : dict of str to int
        Directions of a kind that J does not map to zero: a symmetry that holds only nearly, as
        batch norm's scale does because of its eps.
    estimators : dict
        The nullity by each method that was used, with its interval where it has one.
    method : {"gram", "dense", "lanczos"}
        How eigenvalues were found.
    eigenvalues : ndarray
        Of J J^T or J^T J, whichever is smaller, float64, descending; those of the quadrature are
        not given.
    described : dict
        Of which function, and how.
    """

    weights: int
    equations: int
    rank: int
    rank_low: int
    rank_high: int
    nullity: int
    threshold: float
    above: float
    below: float
    clear: bool
    split: dict[str, int]
    broken: dict[str, int]
    estimators: dict[str, Any]
    method: Method
    described: dict[str, Word]
    eigenvalues: Array = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Give all but the eigenvalues as plain values."""
        return {k: v for k, v in vars(self).items() if k != "eigenvalues"}


@dataclass(frozen=True)
class _Spectrum:
    values: Array
    largest: float
    rank: int
    low: int
    high: int
    above: float
    below: float
    threshold: float
    method: Method


def degeneracy(
    risk: EmpiricalRisk,
    w: Tensor,
    *,
    rtol: float | None = None,
    probes: int = 10,
    steps: int = 60,
    seed: int = 0,
    progress: Progress = silent,
) -> Degeneracy:
    """
    Measure the nullity of the outputs' Jacobian at w, and split it into what explains it.

    At a point of zero squared loss the Hessian is J^T J up to a factor, so its nullity is that of
    J. The rank is read off the eigenvalues of the Gram matrix J J^T in float64. Of the kernel, the
    tangents of symmetries and the directions of dead weights are written out, checked to be mapped
    to zero by J, and counted as ranks one after the other, so that none counts twice. Of what is
    left, W > M explains as much as there are weights left beyond the equations.

    Parameters
    ----------
    risk : EmpiricalRisk
        Its loss must show outputs. Batch-norm statistics are held at the buffers where it says
        ``batchnorm="frozen"`` or ``"held"``; otherwise they are those of the whole set and are
        differentiated.
    w : Tensor
        Shape (W,).
    rtol : float, optional
        Singular values of J below this share of the largest count as zero; by default what
        rounding leaves: the root of max(M, W) eps.
    probes, steps : int
        Of the stochastic Lanczos quadrature, which estimates the nullity a second time, and is all
        there is where min(M, W) > 20,000.
    seed : int
        Of the quadrature's vectors and the checks'.
    progress : Progress
        A bar each for the matrix, its eigenvalues, their density, and what explains the kernel.

    Returns
    -------
    Degeneracy
        Rank, nullity and its split, with thresholds and gaps.

    Raises
    ------
    NotDefined
        If the loss shows no outputs.

    Examples
    --------
    Two weights that only act through their product: one equation, nullity one.

    >>> from torch import nn
    >>> from thalweg.problems import Problem
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> problem = Problem(model, nn.MSELoss(), (torch.ones(1, 1), torch.ones(1, 1)))
    >>> found = degeneracy(EmpiricalRisk(problem), torch.tensor([2.0, 0.5]))
    >>> found.nullity, {kind: count for kind, count in found.split.items() if count}
    (1, {'rescaling': 1})
    """
    if rtol is not None and not 0 < rtol < 1:
        raise InvalidArgument(f"rtol={rtol}; write a number between 0 and 1, or None.")
    require(risk, Network, "degeneracy", "give an EmpiricalRisk(problem)")
    exact = _in_float64(risk)
    w = risk.space.check(w).detach().to(exact.device, torch.float64)
    # A few products: what is kept to make many of them cheap costs more than they do.
    differences = exact.checked is not None and exact.checked.differences
    jacobian = exact.jacobian(w, method=None if differences else "recompute")
    matrix, method = _matrix(exact, w, jacobian, progress)
    jacobian = exact.jacobian(w) if method == "lanczos" else jacobian
    values, square = _eigenvalues(matrix, method, progress)
    op = _Product(jacobian) if square is None else square
    quadrature = spectral_density(op, probes=probes, steps=steps, seed=seed, progress=progress)
    spectrum = _spectrum(jacobian, values, method, rtol, quadrature)
    tolerance = math.sqrt(spectrum.threshold)
    explained = explain(exact, w, jacobian, tolerance=tolerance, seed=seed, progress=progress)
    return _answer(exact, jacobian, spectrum, explained, quadrature)


def _in_float64(risk: EmpiricalRisk) -> EmpiricalRisk:
    policy = "frozen" if risk.provenance.constant else "batch"
    if risk.dtype == torch.float64 and risk.policy == policy:
        return risk
    exact = EmpiricalRisk(
        risk.problem,
        split=risk.split,
        batchnorm=policy,
        dtype=torch.float64,
        device=risk.device,
        check=risk.checked or False,
    )
    exact.set_fixed(risk.fixed())
    return exact


def _matrix(
    risk: EmpiricalRisk, w: Tensor, jacobian: Jacobian, progress: Progress
) -> tuple[Tensor | None, Method]:
    """Give J J^T, or J itself where it has fewer columns than rows, if they can be held."""
    rows, columns = jacobian.shape
    mixed, joined = risk.provenance.batchnorm == "batch", risk.data.joined
    if rows <= min(columns, LARGEST) and joined and not mixed:
        return gram(_on_cpu(risk, w, jacobian), progress=progress), "gram"
    if min(rows, columns) > LARGEST or rows * columns > _HELD:
        return None, "lanczos"
    if not joined or (mixed and columns <= rows):
        many = risk.jacobian(w)
        return (many.to_dense() if columns <= rows else many.T.to_dense().T).cpu(), "dense"
    return dense(_on_cpu(risk, w, jacobian), progress=progress), "dense"


def _on_cpu(risk: EmpiricalRisk, w: Tensor, jacobian: Jacobian) -> Jacobian:
    exact = risk.in_double()
    return jacobian if exact is risk else exact.jacobian(w.cpu())


def _eigenvalues(
    matrix: Tensor | None, method: Method, progress: Progress
) -> tuple[Array, Tensor | None]:
    """Give the eigenvalues of J J^T or J^T J, whichever is smaller, and that matrix."""
    if matrix is None:
        return np.empty(0), None
    if method == "gram":
        return symmetric_eigenvalues(matrix, progress=progress).cpu().numpy(), matrix
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return torch.linalg.svdvals(tall).square().cpu().numpy(), tall.T @ tall


def _spectrum(
    jacobian: Jacobian, values: Array, method: Method, rtol: float | None, quadrature: Any
) -> _Spectrum:
    share = (singular_cutoff(jacobian.shape) if rtol is None else rtol) ** 2
    if method == "lanczos":
        return _estimated(quadrature, share)
    values = np.clip(np.sort(values)[::-1], 0.0, None)
    largest = float(values[0]) if len(values) else 0.0
    threshold = share * largest
    low, rank, high = (int((values > threshold * factor).sum()) for factor in (10.0, 1.0, 0.1))
    above = float(values[rank - 1]) if rank else 0.0
    below = float(values[rank]) if rank < len(values) else 0.0
    return _Spectrum(values, largest, rank, low, high, above, below, threshold, method)


class _Product:
    """J J^T or J^T J, whichever is smaller, as an operator."""

    def __init__(self, jacobian: Jacobian) -> None:
        rows, columns = jacobian.shape
        wide = rows <= columns
        self.first: RiskOperator = jacobian.T if wide else jacobian
        self.second: RiskOperator = jacobian if wide else jacobian.T
        size = min(rows, columns)
        self.shape, self.dtype, self.device = (size, size), jacobian.dtype, jacobian.device

    def __matmul__(self, v: Tensor) -> Tensor:
        return self.second @ (self.first @ v)


def _estimated(quadrature: Any, share: float) -> _Spectrum:
    size, steps = int(quadrature.attrs["size"]), int(quadrature.attrs["steps"])
    largest = float(np.nanmax(quadrature.node))
    threshold = max(share, 1 / steps**2) * largest
    crowd = near_zero(quadrature, threshold)
    return _Spectrum(
        values=np.empty(0),
        largest=largest,
        rank=round(size - crowd.count),
        low=math.floor(size - crowd.high),
        high=math.ceil(size - crowd.low),
        above=crowd.gap[1],
        below=crowd.gap[0],
        threshold=threshold,
        method="lanczos",
    )


def _estimators(jacobian: Jacobian, spectrum: _Spectrum, quadrature: Any) -> dict[str, Any]:
    """Count near-zero eigenvalues by each method, at one threshold that all of them resolve."""
    size, weights = min(jacobian.shape), jacobian.shape[1]
    coarse = max(spectrum.threshold, spectrum.largest / int(quadrature.attrs["steps"]) ** 2)
    if not coarse:
        return {"gram": weights, "density": weights, "learning_coefficient": NOT_AVAILABLE}
    near = near_zero(quadrature, coarse)
    exact = spectrum.method != "lanczos"
    counted = int((spectrum.values <= coarse).sum()) if exact else None
    beyond = weights - size
    return {
        "threshold": coarse,
        "gram": None if counted is None else beyond + counted,
        "density": beyond + near.count,
        "density_low": beyond + near.low,
        "density_high": beyond + near.high,
        "agree": None if counted is None else near.low <= counted <= near.high,
        "learning_coefficient": NOT_AVAILABLE,
    }


def _answer(
    risk: EmpiricalRisk,
    jacobian: Jacobian,
    spectrum: _Spectrum,
    explained: Explained,
    quadrature: Any,
) -> Degeneracy:
    equations, weights = jacobian.shape
    nullity = weights - spectrum.rank
    live = weights - sum(explained.counts.values())
    spare = max(0, live - equations)
    repeated = max(0, live - equations + explained.repeated) - spare
    split = explained.counts | {
        "more weights than equations": spare,
        "repeated samples": repeated,
        "rest": nullity - (weights - live) - spare - repeated,
    }
    return Degeneracy(
        weights=weights,
        equations=equations,
        rank=spectrum.rank,
        rank_low=spectrum.low,
        rank_high=spectrum.high,
        nullity=nullity,
        threshold=spectrum.threshold,
        above=spectrum.above,
        below=spectrum.below,
        clear=spectrum.above >= _CLEAR * spectrum.below and spectrum.low == spectrum.high,
        split=split,
        broken=explained.broken,
        estimators=_estimators(jacobian, spectrum, quadrature),
        method=spectrum.method,
        described=risk.described | {"weights": weights} | explained.described,
        eigenvalues=spectrum.values,
    )
