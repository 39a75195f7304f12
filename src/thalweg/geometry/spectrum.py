"""The ends of a spectrum: the largest and the smallest eigenvalues of a symmetric operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.geometry.lanczos import RitzPairs, SearchSpace
from thalweg.geometry.operator import SymmetricOperator
from thalweg.result import Result
from thalweg.run.progress import Bar, Progress, silent
from thalweg.run.seeds import torch_generator

Which = Literal["largest", "smallest", "both"]
# Beyond the steps that showed the outermost eigenvalue once, a probe takes this many more. Measured
# on spectra of three trained networks with one of the four largest eigenvalues doubled, 144 runs:
# with 2 more, 17 miss a copy (none of the largest, most of one near the fifth); with 4 more, 4 do;
# with 6 more, none. Each costs a product, and 2 more keep five eigenvalues within 14 H.
_PATIENCE = 2


@dataclass(frozen=True)
class Eigenvalues(Result):
    """
    Eigenvalues at the ends of a spectrum.

    Attributes
    ----------
    values : Tensor
        float64, shape (k,), descending.
    vectors : Tensor
        Orthonormal eigenvectors, shape (W, k), in the operator's dtype and on its device.
    residuals : Tensor
        Norms of A v - value v, float64, shape (k,): an eigenvalue lies within each. What rounding
        may do, 100 eps of the operator's dtype times its norm, is in them.
    errors : Tensor
        Estimated errors of the values, float64, shape (k,): the residual, or its square over the
        gap to the neighbouring Ritz values where that is less; and what rounding may do. The
        operator is that of its dtype: a Hessian in float32 is a little off that in float64.
    products : int
        Products with single vectors spent, the probe for missed copies included.
    probed : int
        Of these, products of the probe.
    status : {"converged", "max_products"}
        Whether every error met the tolerance and the probe found nothing new.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    errors: Tensor
    products: int
    probed: int
    status: Literal["converged", "max_products"]


def top_eigenvalues(
    op: Any,
    k: int,
    *,
    which: Which = "largest",
    rtol: float = 1e-3,
    max_products: int = 1000,
    basis: int | None = None,
    probe: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Eigenvalues:
    """
    Compute the largest or smallest eigenvalues by thick-restart Lanczos.

    Krylov vectors of one start vector see one copy of a repeated eigenvalue. So once k values have
    converged, a new random start vector, orthogonal to all that was found, is followed for some
    steps; where it shows an eigenvalue that belongs among the k, the search goes on until all have
    converged and a further probe shows nothing.

    Parameters
    ----------
    op : LinearOperator, Tensor, or a SciPy operator
        Symmetric, shape (W, W), float32 or float64. Symmetry is checked at each step, at no cost.
    k : int
        How many, at most W.
    which : {"largest", "smallest", "both"}
        Which end in the order of the real line; ``"both"`` gives the ceil(k / 2) largest and the
        floor(k / 2) smallest.
    rtol : float
        Error allowed, relative to each value. An eigenvalue at zero has none, so that errors below
        the rounding of the products (100 eps times their size) also do.
    max_products : int
        Products with single vectors that may be spent.
    basis : int, optional
        Vectors of W numbers held at once; by default 2k + 30.
    probe : int, optional
        Products of a probe. By default two more than it took the first start vector to show
        anything beyond the k-th value: a missed copy of the outermost eigenvalue is then found
        almost surely, one close to the k-th perhaps not, for which give 20 or more; 0 asks for no
        probe. With one eigenvalue at an end, copies change nothing and no probe is taken.
    seed : int
        Of the start vectors.
    progress : Progress
        Shows the products.

    Returns
    -------
    Eigenvalues
        ``values`` (descending), ``vectors``, ``residuals``, ``errors``, ``products``, ``probed``
        and ``status``.

    Raises
    ------
    InvalidArgument
        If ``k``, ``which`` or ``rtol`` cannot be used.
    NotSymmetric
        If the operator is not symmetric.
    NotFinite
        If a product holds NaN or infinite numbers.

    Examples
    --------
    >>> import torch
    >>> matrix = torch.diag(torch.tensor([3.0, 3.0, 1.0, 0.0, -2.0], dtype=torch.float64))
    >>> top_eigenvalues(matrix, 3).values.numpy().round(6)
    array([3., 3., 1.])
    """
    operator = SymmetricOperator(op)
    ends = _ends(k, which, operator.size)
    capacity = 2 * k + 30 if basis is None else basis
    if not 0 < rtol < 1 or capacity < min(k + 3, operator.size) or max_products < 1:
        raise InvalidArgument(
            f"got rtol={rtol}, basis={capacity}, max_products={max_products}; expected rtol between"
            f" 0 and 1, a basis of at least k + 3 = {k + 3} vectors, and a positive budget."
        )
    space = SearchSpace(operator, capacity, torch_generator(seed, "top_eigenvalues"))
    search = _Search(space, ends, rtol, min(max_products, 10**9), probe)
    with progress(max_products, "Lanczos products") as bar:
        search.run(bar)
    return search.answer()


def _ends(k: int, which: str, size: int) -> tuple[int, int]:
    """Split k into (largest, smallest)."""
    if not 1 <= k <= size:
        raise InvalidArgument(
            f"k={k} eigenvalues of an operator of size {size}; write 1 <= k <= W."
        )
    ends = {"largest": (k, 0), "smallest": (0, k), "both": (k - k // 2, k // 2)}
    if which not in ends:
        raise InvalidArgument(f"which={which!r}; write 'largest', 'smallest' or 'both'.")
    return ends[which]


class _Search:
    """Grow a search space until the wanted Ritz values have converged and a probe is silent."""

    def __init__(
        self,
        space: SearchSpace,
        ends: tuple[int, int],
        rtol: float,
        max_products: int,
        probe: int | None,
    ) -> None:
        self.space, self.rtol, self.max_products, self.probe = space, rtol, max_products, probe
        self.top, self.bottom = ends
        self.probed = 0
        self.history: list[tuple[float, float]] = []  # outermost Ritz values of the first run
        self.converged = False

    def run(self, bar: Bar) -> None:
        """Alternate between convergence and probes."""
        self._converge(bar)
        while self.converged and not self.space.complete and self._probe(bar):
            self._converge(bar)
        # A probe that moves no value may still show a neighbour nearer than was known.
        if self.converged and not self._met(self.space.ritz()):
            self._converge(bar)

    def answer(self) -> Eigenvalues:
        """Collect the wanted pairs; fewer than k where the budget was less than that."""
        pairs = self.space.ritz()
        chosen = self._wanted(len(pairs.values))
        return Eigenvalues(
            values=pairs.values[chosen],
            vectors=self.space.vectors(pairs.coefficients[:, chosen]),
            residuals=pairs.residuals[chosen] + self.space.floor,
            errors=pairs.errors()[chosen] + self.space.floor,
            products=self.space.op.products,
            probed=self.probed,
            status="converged" if self.converged else "max_products",
        )

    def _wanted(self, m: int) -> list[int]:
        if m <= self.top + self.bottom:
            return list(range(m))
        return [*range(self.top), *range(m - self.bottom, m)]

    @property
    def _spent(self) -> bool:
        return self.space.op.products >= self.max_products

    def _converge(self, bar: Bar) -> None:
        pairs: RitzPairs | None = None
        self.converged = self.space.complete
        while not self.converged and not self._spent:
            self._step(pairs, bar)
            pairs = self.space.ritz()
            if not self.probed:
                self.history.append((float(pairs.values[0]), float(pairs.values[-1])))
            self.converged = self._met(pairs)

    def _step(self, pairs: RitzPairs | None, bar: Bar) -> None:
        if self.space.full:  # also where the probe before has filled it
            self._restart(pairs or self.space.ritz())
            pairs = None
        coefficients = None
        if pairs is not None:
            coefficients = pairs.coefficients[:, self._wanted(len(pairs.values))]
        self.space.extend(coefficients)
        bar.update()

    def _restart(self, pairs: RitzPairs) -> None:
        """Keep the wanted pairs and, halfway to a full basis, their neighbours."""
        m = len(pairs.values)
        spare = (self.space.capacity - self.top - self.bottom) // 2
        above = self.top + (spare if not self.bottom else spare // 2 if self.top else 0)
        below = self.bottom + (spare if not self.top else spare // 2 if self.bottom else 0)
        self.space.compress(pairs, [*range(above), *range(m - below, m)])

    def _met(self, pairs: RitzPairs) -> bool:
        m = len(pairs.values)
        if m < self.top + self.bottom:
            return False
        if m == self.top + self.bottom and not (self.space.invariant or self.space.complete):
            return False
        chosen = self._wanted(m)
        allowed = (self.rtol * pairs.values[chosen].abs()).clamp_min(self.space.floor)
        return bool((pairs.errors()[chosen] <= allowed).all())

    def _probe(self, bar: Bar) -> bool:
        """Follow a new start vector; tell whether it moved a wanted value, so that work is left."""
        before = self.space.ritz()
        steps = self._probe_steps(before) if self.probe is None else self.probe
        for step in range(steps):
            if self._spent:
                self.converged = False
                return False
            if self.space.full:
                self._restart(before)
            self.space.begin() if step == 0 else self.space.extend()
            self.probed += 1
            bar.update()
            now = self.space.ritz()
            if self._moved(before, now):
                return True
            before = now
            if self.space.complete:
                break
        return False

    def _moved(self, before: RitzPairs, now: RitzPairs) -> bool:
        old = before.values[self._wanted(len(before.values))]
        new = now.values[self._wanted(len(now.values))]
        allowed = (self.rtol * new.abs()).clamp_min(self.space.floor)
        return bool(((new - old).abs() > allowed).any())

    def _probe_steps(self, pairs: RitzPairs) -> int:
        """Count the steps after which the first start vector showed more than the k-th value."""
        steps = 0
        if self.top > 1:
            edge = float(pairs.values[self.top - 1]) * (1 + self.rtol)
            steps = next((i + 1 for i, (high, _) in enumerate(self.history) if high > edge), 0)
        if self.bottom > 1:
            edge = float(pairs.values[-self.bottom]) * (1 + self.rtol)
            below = (i + 1 for i, (_, low) in enumerate(self.history) if low < edge)
            steps = max(steps, next(below, 0))
        return steps + _PATIENCE if steps else 0
