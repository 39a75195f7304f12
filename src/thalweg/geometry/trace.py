"""The trace of a symmetric operator by Hutch++, with an interval that holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.inner_products import inner, lengths, orthonormal
from thalweg.geometry.operator import SymmetricOperator
from thalweg.result import Result
from thalweg.run.progress import Bar, Progress, silent
from thalweg.run.seeds import torch_generator

_PILOT = 16  # samples that fix how many there will be
_FIRST_SKETCH = 8
# Numbers that products of columns may hold at once.
_HELD = 1 << 24
# Two-sided 98% of Student's t for an interval that is promised at 95%: samples of a remainder
# with few dominant eigenvalues are skewed.
_QUANTILE = 0.99

Status = Literal["converged", "exact", "max_products"]


@dataclass(frozen=True)
class Trace(Result):
    """
    A trace with its uncertainty.

    Attributes
    ----------
    value : float
        The estimate.
    stderr : float
        Its standard error; where it is exact, what rounding adds.
    error : float
        Half width of an interval around ``value`` that holds the trace in at least 95% of cases.
    products : int
        Products with single vectors spent.
    sketch : int
        Size of the subspace whose share of the trace is exact.
    samples : int
        Random vectors that estimate the rest.
    status : {"converged", "exact", "max_products"}
        Whether the standard error met the tolerance; ``"exact"`` where the subspace held all.
    """

    value: float
    stderr: float
    error: float
    products: int
    sketch: int
    samples: int
    status: Status


def trace(
    op: Any,
    *,
    rtol: float = 0.01,
    max_products: int = 300,
    seed: int = 0,
    progress: Progress = silent,
) -> Trace:
    """
    Estimate the trace of a symmetric operator by Hutch++.

    A sketch A S is orthonormalized to Q; tr(Q'AQ) is exact, and Hutchinson's estimator with random
    signs gives the trace of the rest, (1 - QQ')A(1 - QQ') (Meyer, Musco, Musco and Woodruff, SOSA
    2021, algorithm 1). The sketch doubles while the samples that the rest is expected to need are
    more than its own columns. Their number is then fixed by 16 pilot samples, and the error uses
    the pilots' variance with all samples' mean: Stein's two-stage procedure (Ann. Math. Stat. 16,
    1945), whose interval keeps its level, while stopping as soon as the error looks small does not.

    Parameters
    ----------
    op : LinearOperator, Tensor, or a SciPy operator
        Symmetric, shape (W, W), float32 or float64.
    rtol : float
        Standard error wanted, relative to the trace.
    max_products : int
        Products with single vectors that may be spent, at least 40.
    seed : int
        Of the random vectors.
    progress : Progress
        Shows the products.

    Returns
    -------
    Trace
        ``value``, ``stderr``, ``error`` (95%), ``products``, ``status``.

    Raises
    ------
    InvalidArgument
        If ``rtol`` or ``max_products`` cannot be used.
    NotSymmetric
        If the operator is not symmetric.
    NotFinite
        If a product holds NaN or infinite numbers.

    Examples
    --------
    >>> low_rank = torch.zeros(100, 100, dtype=torch.float64)
    >>> low_rank[0, 0], low_rank[1, 1] = 3.0, -1.0
    >>> answer = trace(low_rank)
    >>> round(answer.value, 9), answer.status
    (2.0, 'exact')
    """
    operator = SymmetricOperator(op)
    if not rtol > 0 or max_products < 2 * _FIRST_SKETCH + _PILOT + 8:
        raise InvalidArgument(
            f"got rtol={rtol}, max_products={max_products}; expected a positive tolerance and at"
            f" least {2 * _FIRST_SKETCH + _PILOT + 8} products."
        )
    estimate = _HutchPlusPlus(operator, rtol, max_products, torch_generator(seed, "trace"))
    with progress(min(max_products, operator.size), "trace products") as bar:
        return estimate.run(bar)


class _HutchPlusPlus:
    def __init__(
        self, op: SymmetricOperator, rtol: float, budget: int, generator: torch.Generator
    ) -> None:
        self.op, self.rtol, self.budget, self.generator = op, rtol, budget, generator
        self.q = torch.empty(op.size, 0, dtype=op.dtype, device=op.device)
        self.squares = 0.0  # of the entries of A, estimated from the sketch
        self.rough = 0.0  # the trace, estimated from the sketch
        self.core = torch.empty(0, 0, dtype=torch.float64)  # Q'AQ
        self.q_squares = 0.0  # of the entries of AQ
        self.scale = 0.0

    def run(self, bar: Bar) -> Trace:
        if self.op.size <= min(self.budget, 2 * _FIRST_SKETCH + _PILOT):
            return self._exactly(bar)
        self._sketch(_FIRST_SKETCH, bar)
        while self._worth_doubling():
            self._sketch(self.q.shape[1], bar)
        pilot = [self._sample(bar) for _ in range(_PILOT)]
        deviation = float(torch.tensor(pilot, dtype=torch.float64).std())
        head = float(self.core.diagonal().sum())
        floor = torch.finfo(self.op.dtype).eps * self.scale * math.sqrt(self.op.size)
        if deviation <= 4 * floor:
            return self._answer(head, pilot, deviation, "exact")
        needed = self._samples_for(deviation, abs(head + sum(pilot) / len(pilot)))
        allowed = max(_PILOT, min(needed, _PILOT + self.budget - self.op.products))
        samples = pilot + [self._sample(bar) for _ in range(allowed - _PILOT)]
        return self._answer(
            head, samples, deviation, "converged" if allowed >= needed else "max_products"
        )

    def _samples_for(self, deviation: float, size: float) -> int:
        target = self.rtol * size
        needed = (deviation / target) ** 2 if target > 0 else math.inf
        return 10**9 if needed > 10**9 else max(_PILOT, math.ceil(needed))

    def _answer(self, head: float, samples: list[float], deviation: float, status: Status) -> Trace:
        from scipy.stats import t as student

        stderr = deviation / math.sqrt(len(samples))
        return Trace(
            value=head + math.fsum(samples) / len(samples),
            stderr=stderr,
            error=float(student.ppf(_QUANTILE, _PILOT - 1)) * stderr,
            products=self.op.products,
            sketch=self.q.shape[1],
            samples=len(samples),
            status=status,
        )

    def _exactly(self, bar: Bar) -> Trace:
        """Multiply every unit vector: no more products than an estimate would take."""
        eye = torch.eye(self.op.size, dtype=self.op.dtype, device=self.op.device)
        product = self.op @ eye
        bar.update(self.op.size)
        self.op.check_symmetric(product, product.T, float(product.abs().max()))
        value = float(product.diagonal().double().sum())
        return Trace(value, 0.0, 0.0, self.op.products, self.op.size, 0, "exact")

    def _sketch(self, columns: int, bar: Bar) -> None:
        """Add columns to Q from fresh products."""
        start = torch.randn(self.op.size, columns, generator=self.generator, dtype=self.op.dtype)
        old = self.q.shape[1]
        new = orthonormal(self._outside(self._image(start.to(self.op.device), old)))
        new = orthonormal(self._outside(new))
        self.q = torch.cat([self.q, new], dim=1) if old else new
        rows, sizes = self._products_of(new)
        bar.update(2 * columns)
        self.scale = max(self.scale, float(sizes.max()))
        self.q_squares += float(sizes.square().sum())
        self._extend_core(rows, old)

    def _image(self, start: Tensor, old: int) -> Tensor:
        """Multiply random columns in their place; sum up what they tell of A."""
        squares = rough = 0.0
        for part in self._parts(start):
            product = self.op @ part
            squares += float(lengths(product.T).square().sum())
            rough += float(inner(part.T, product.T).trace())
            part.copy_(product)
        total = old + start.shape[1]
        self.squares = (self.squares * old + squares) / total
        self.rough = (self.rough * old + rough) / total
        return start

    def _parts(self, columns: Tensor) -> tuple[Tensor, ...]:
        """Part columns into as many as may be held twice."""
        parts: tuple[Tensor, ...] = columns.split(max(1, _HELD // self.op.size), dim=1)
        return parts

    def _products_of(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Give Q'A times columns, and the lengths of A times each, some at a time."""
        rows, sizes = [], []
        for part in self._parts(columns):
            product = self.op @ part
            rows.append(inner(self.q.T, product.T))
            sizes.append(lengths(product.T))
        return torch.cat(rows, dim=1), torch.cat(sizes)

    def _extend_core(self, columns: Tensor, old: int) -> None:
        corner = columns[old:]
        self.op.check_symmetric(corner, corner.T, self.scale)
        core = torch.zeros(len(columns), len(columns), dtype=torch.float64)
        core[:old, :old], core[:, old:], core[old:, :old] = self.core, columns, columns[:old].T
        self.core = core

    def _outside(self, v: Tensor) -> Tensor:
        """Project away what Q spans, in place."""
        if not self.q.shape[1]:
            return v
        project = v.addmv_ if v.dim() == 1 else v.addmm_
        return project(self.q, inner(self.q.T, v.movedim(0, -1)).to(self.q), alpha=-1)

    def _worth_doubling(self) -> bool:
        size = self.q.shape[1]
        if 4 * size > 2 * self.budget // 3 or 4 * size > self.op.size:
            return False
        # |(1-P)A(1-P)|^2 = |A|^2 - 2|AQ|^2 + |Q'AQ|^2, and a sample's variance is at most twice it.
        rest = self.squares - 2 * self.q_squares + float(self.core.square().sum())
        target = self.rtol * max(abs(self.rough), abs(float(self.core.diagonal().sum())))
        return 2 * max(rest, 0.0) > size * target**2

    def _sample(self, bar: Bar) -> float:
        signs = torch.randint(0, 2, (self.op.size,), generator=self.generator)
        z = (2 * signs - 1).to(self.op.device, self.op.dtype)
        z = self._outside(self._outside(z))
        product = self.op @ z
        bar.update()
        return float(inner(z, product))
