"""A proof that an exact zero of the training error lies next to a trained point."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from thalweg.certificates.certificate import Certificate, refused
from thalweg.certificates.chain import Chain
from thalweg.certificates.statement import Statement, check_same, state
from thalweg.certificates.zero_proof import prove
from thalweg.errors import NotDefined
from thalweg.landscape.protocols import require
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.progress import Progress, silent
from thalweg.tracing import chain as links

__all__ = ["Certificate", "Statement", "certify_zero", "prove"]


def certify_zero(
    risk: EmpiricalRisk,
    w: Tensor,
    /,
    *,
    outputs: Sequence[int] | None = None,
    strict: bool = False,
    progress: Progress = silent,
) -> Certificate:
    """
    Prove that an exact zero of the training error lies next to ``w``.

    Let F be the independent equations of zero squared error, M of them, and J their Jacobian. If
    the smallest singular value of J stays at least mu > 0 on the ball of radius rho around w, and
    ``|F(w)| <= eta < mu rho``, then F has an exact zero within eta / mu of w; the zeros in the
    ball form a manifold of dimension W - M; and at each of them the Hessian of the squared loss
    has nullity W - M.

    Parameters
    ----------
    risk : EmpiricalRisk
        With the squared loss; a chain of linear and convolutional layers and activations whose
        derivatives are bounded.
    w : Tensor
        Shape (W,); best from ``train(..., optimizer="gauss-newton")``. What is certified is the
        network with exactly these weights, as a function over the real numbers.
    outputs : sequence of int, optional
        Only these outputs, e.g. all classes but one. All that is claimed, nullity and dimension
        too, is then of the squared loss of these outputs, and nothing of the others.
    strict : bool
        Trust no library's matrix product: bounds rest on products of slices that are exact in
        any order. About six times the time of products.
    progress : Progress
        Counts stages.

    Returns
    -------
    Certificate
        A network whose structure is not known is refused, and so is each of: W < M, samples that
        contradict one another, a singular value or residual that is not good enough, a ReLU that
        could change its side within the smallest ball that would do.

    Raises
    ------
    NotDefined
        If the loss is not the squared loss.
    InvalidWeights
        If ``w`` is not a finite point of the space.

    References
    ----------
    L. V. Kantorovich and G. P. Akilov, Functional Analysis (1982), chapter XVIII; for
    underdetermined systems, B. T. Polyak, Gradient methods for solving equations and inequalities
    (1964). S. M. Rump, Verification of positive definiteness (2006).

    Examples
    --------
    >>> import thalweg as tw
    >>> import torch
    >>> problem = tw.load_problem("teacher", inputs=2, samples=5, widths=[8])
    >>> risk = tw.EmpiricalRisk(problem, dtype=torch.float64)
    >>> w = risk.space.pack(problem.model).double()
    >>> certify_zero(risk, w).verdict
    'refused'
    >>> w = tw.train(risk, w, optimizer="gauss-newton", steps=20).w
    >>> certificate = certify_zero(risk, w)
    >>> certificate.verdict, certificate.weights, certificate.equations, certificate.nullity
    ('certified', 33, 5, 28)
    """
    require(risk, links.Network, "certify_zero", "give an EmpiricalRisk(problem)")
    count = risk.residuals(w).shape[1]  # raises where there is no squared loss
    try:
        read = links.Chain(risk)
        statement = state(read, w, outputs=outputs, strict=strict)
        for moved in read.elsewhere(w.detach().cpu().double()):
            check_same(Chain.of(read, moved), statement.samples, read, moved, "elsewhere")
    except NotDefined as error:
        equations = risk.samples * (len(outputs) if outputs else count)
        return refused(equations, risk.space.size, (str(error),))
    return prove(statement, progress=progress)
