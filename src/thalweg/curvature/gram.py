"""The Gram matrix of a network's outputs, J J^T, and J itself, from what weights are used for."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from thalweg.curvature.jacobian_factors import Array, add_term, mirror
from thalweg.curvature.jacobian_parts import Irregular
from thalweg.curvature.jacobian_plan import UNIT, Meter, Plan
from thalweg.curvature.operators import Jacobian
from thalweg.curvature.output_rows import OutputRows
from thalweg.errors import InvalidArgument, NotDefined
from thalweg.run.progress import Progress, silent

_AGREEMENT = 1e-8
_BATCH_NORM = (
    "batchnorm={policy!r} makes each output depend on all samples, so a row of the Jacobian is no"
    " sample's own; write EmpiricalRisk(problem, batchnorm='frozen') or 'held'."
)
_GIVEN = (
    "a Gram matrix has a row for each output of each sample, and these data are batches as given,"
    " each of which counts as one; give samples that can be joined: tensors of one shape, or a"
    " Dataset."
)
log = logging.getLogger("thalweg")


def gram(
    jacobian: Jacobian,
    /,
    *,
    outputs: Sequence[int] | Tensor | None = None,
    progress: Progress = silent,
) -> Tensor:
    """
    Assemble the Gram matrix K = J J^T of a network's outputs.

    Under the squared loss J is the residuals' Jacobian, and K the tangent kernel. Where weights
    enter is read off the graph that autograd keeps of an evaluation, whatever modules or functions
    use them: products (linear layers, attention, recurrent layers), convolutions, tables of
    embeddings, scales and shifts contribute from what they read and the cotangents of what they
    give; other uses their gradients, a sample at a time. The sum is checked against one product
    with the Jacobian itself.

    Parameters
    ----------
    jacobian : Jacobian
        Of float64, on the CPU.
    outputs : sequence of int or Tensor, optional
        Only these outputs; or a matrix P, shape (k, C), of combinations of them.
    progress : Progress
        Counts multiplications, in millions.

    Returns
    -------
    Tensor
        Shape (N k, N k), float64; row ``i * k + p`` belongs to output p of sample i, as in
        ``jacobian``. Memory is that of K and 1 GB; where that does not hold what is needed, outputs
        are differentiated several times.

    Raises
    ------
    NotDefined
        If samples depend on one another (``batchnorm="batch"`` and ``"recalibrate"``), or are
        not told apart (batches as given).

    References
    ----------
    A. Jacot, F. Gabriel and C. Hongler, Neural Tangent Kernel (2018), section 4.

    Examples
    --------
    >>> import thalweg as tw
    >>> from torch import nn
    >>> data = (torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.ones(2, 1))
    >>> risk = tw.EmpiricalRisk(tw.Problem(nn.Linear(2, 1).double(), nn.MSELoss(), data))
    >>> gram(risk.jacobian(torch.zeros(3))).tolist()  # x x' + 1
    [[6.0, 4.0], [4.0, 10.0]]
    """
    measured = jacobian._pinned.measured
    if measured.norms and not measured.keeps_statistics:
        raise NotDefined(_BATCH_NORM.format(policy=measured.policy))
    rows = _rows(jacobian, outputs)
    matrix = np.zeros((rows.rows, rows.rows))
    for plan in _plans(rows, [(False, True), (True, True), (True, False)]):
        matrix[:] = 0.0
        try:
            _add_up(matrix, plan, progress)
        except Irregular:
            continue
        if _is_gram(matrix, rows):
            break
    return torch.from_numpy(matrix)


def dense(jacobian: Jacobian, /, *, progress: Progress = silent) -> Tensor:
    """
    Write out the Jacobian of a network's outputs, row by row, as `gram` does.

    Parameters
    ----------
    jacobian : Jacobian
        Of float64, on the CPU. Under ``batchnorm="batch"`` statistics are differentiated.
    progress : Progress
        Counts multiplications, in millions.

    Returns
    -------
    Tensor
        Shape (N C, W), float64.
    """
    rows = _rows(jacobian, None)
    matrix = np.zeros((rows.rows, sum(rows.sizes().values())))
    # Where samples depend on one another, no use of weights tells them apart.
    by_use = [] if jacobian._pinned.whole else [(True, True)]
    for plan in _plans(rows, [*by_use, (True, False)]):
        matrix[:] = 0.0
        try:
            _write_out(matrix, plan, progress)
        except Irregular:
            continue
        if _is_jacobian(matrix, rows):
            break
    return torch.from_numpy(matrix)


def pull_back(
    jacobian: Jacobian, y: Tensor, /, *, outputs: Sequence[int] | Tensor | None = None
) -> Tensor:
    """
    Multiply the transposed Jacobian by a vector.

    Parameters
    ----------
    jacobian, outputs
        As for `gram`.
    y : Tensor
        Shape (N k,), float64.

    Returns
    -------
    Tensor
        Shape (W,), float64.
    """
    return _rows(jacobian, outputs).pull_back(y)


def _rows(jacobian: Jacobian, outputs: Sequence[int] | Tensor | None) -> OutputRows:
    if jacobian.dtype != torch.float64 or jacobian.device.type != "cpu":
        raise InvalidArgument(
            f"got a Jacobian of {jacobian.dtype} on {jacobian.device}, expected float64 on the CPU:"
            " write risk.in_double().jacobian(w), or risk.gram(w)."
        )
    if not jacobian._pinned.samples.joined:
        raise NotDefined(_GIVEN)
    return OutputRows(jacobian, outputs)


def _plans(rows: OutputRows, ways: list[tuple[bool, bool]]) -> Iterator[Plan]:
    """Give plans, the next one where a Jacobian did not come out of the one before."""
    for columns, read in ways:
        if not read:
            log.info("%d outputs are differentiated whole, one after the other", rows.rows)
            rows.without_transforms()
        yield Plan(rows, columns=columns, read=read)


def _add_up(matrix: Array, plan: Plan, progress: Progress) -> None:
    pairs = len(matrix) ** 2 // 2
    total = plan.work + pairs * sum(part.depth for part in plan.parts)
    with progress(max(1, total // UNIT), "Gram matrix") as bar:
        meter = Meter(bar)
        for part, factor in plan.factors(meter):
            for term in factor.terms():
                add_term(matrix, term)
            meter.add(pairs * part.depth)
    mirror(matrix)


def _write_out(matrix: Array, plan: Plan, progress: Progress) -> None:
    starts = dict(zip(plan.rows.sizes(), _starts(plan.rows), strict=True))
    with progress(max(1, plan.work // UNIT), "Jacobian") as bar:
        for part, factor in plan.factors(Meter(bar)):
            places = [entries.numpy() + starts[name] for name, entries in part.entries]
            (term,) = factor.terms()
            matrix[:, np.concatenate(places)] = term.left


def _starts(rows: OutputRows) -> list[int]:
    return [0, *itertools.accumulate(rows.sizes().values())][:-1]


def _is_gram(matrix: Array, rows: OutputRows) -> bool:
    """Compare ``y^T K y`` with ``|J^T y|^2`` for a random y: equal only if K is right."""
    y = _random(rows)
    expected = float(rows.pull_back(y).square().sum())
    return abs(float(y.numpy() @ (matrix @ y.numpy())) - expected) <= _AGREEMENT * expected


def _is_jacobian(matrix: Array, rows: OutputRows) -> bool:
    """Compare ``J^T y`` with the product taken by autograd."""
    y = _random(rows)
    expected = rows.pull_back(y)
    apart = torch.from_numpy(y.numpy() @ matrix) - expected
    return float(apart.norm()) <= _AGREEMENT * float(expected.norm())


def _random(rows: OutputRows) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows.rows, dtype=torch.float64, generator=generator)
