"""A proof that an exact zero of the training error lies next to a trained point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.certificates.ball import Ball, bound_ball, second_derivatives
from thalweg.certificates.chain import Chain
from thalweg.certificates.eigenvalue import smallest_eigenvalue, smallest_singular_value
from thalweg.certificates.equations import Equations, independent_equations
from thalweg.certificates.extended import Double, Extended
from thalweg.certificates.forward import Passed, run_forward
from thalweg.certificates.products import WIDER, Standard, Verified, norm
from thalweg.errors import InvalidArgument, NotDefined
from thalweg.landscape.protocols import require
from thalweg.result import Result
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.progress import Bar, Progress, silent
from thalweg.tracing import chain as links

Array = NDArray[np.float64]
Verdict = Literal["certified", "refused"]

_STAGES = 5
# Radii tried: halvings of 1.
_HALVINGS = 200
# Samples compared at once with the user's module.
_COMPARED = 256
# Numbers whose products, cut into slices, keep their digits in float64.
_SMALL = 1e-100
# How near a point must be to weights whose outputs sum to what the targets do, to be held there.
_HELD = 1e-3


@dataclass(frozen=True)
class Statement:
    """
    What is claimed about a network, with everything the claim depends on.

    Attributes
    ----------
    chain : Chain
        The network at w.
    samples, targets : ndarray
        Shapes (N, d) and (N, C), float64.
    outputs : tuple of int or None
        Outputs that are used; None for all.
    strict : bool
        Whether only verified products are trusted.
    """

    chain: Chain
    samples: Array
    targets: Array
    outputs: tuple[int, ...] | None = None
    strict: bool = False


@dataclass(frozen=True)
class Certificate(Result):
    """
    The answer of `certify_zero`.

    Attributes
    ----------
    verdict : {"certified", "refused"}
        Refused never means that there is no zero, unless a reason says so.
    equations : int
        M, the number of independent equations.
    weights : int
        W.
    residual : float
        Upper bound of the Euclidean norm of the equations' left sides at w.
    singular_value : float
        Lower bound of the smallest singular value of their Jacobian at w.
    lipschitz : float
        Of the Jacobian over the ball.
    radius : float
        Of the ball around w; on all of it singular values stay above ``slope``.
    slope : float
        mu, ``singular_value - lipschitz * radius``.
    distance : float
        Upper bound of the distance from w to an exact zero, ``residual / slope``.
    dimension : int or None
        W - M: of the manifold that the zeros in the ball form.
    nullity : int or None
        Of the Hessian of the squared loss at every zero in the ball; with ``outputs=``, of the
        squared loss of these outputs alone, and no number is known for that of all.
    reasons : tuple of str
        What failed, with the number that did.
    notes : tuple of str
        Which equations were used.
    assumptions : tuple of str
        All that the proof takes for granted.
    details : dict
        The parts of the bounds, by name.
    statement : Statement
        What was claimed.
    """

    verdict: Verdict
    equations: int
    weights: int
    residual: float
    singular_value: float
    lipschitz: float
    radius: float
    slope: float
    distance: float
    dimension: int | None
    nullity: int | None
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    assumptions: tuple[str, ...]
    details: dict[str, float]
    statement: Statement | None

    def to_dict(self) -> dict[str, Any]:
        """Give all but the statement as JSON values; what is not known is None."""
        names = [name for name in self.__dataclass_fields__ if name != "statement"]
        answer = {name: getattr(self, name) for name in names}
        for name, value in answer.items():
            if isinstance(value, float) and not math.isfinite(value):
                answer[name] = None
            elif isinstance(value, tuple):
                answer[name] = list(value)
        return answer


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
    >>> found = certify_zero(risk, w)
    >>> found.verdict, found.weights, found.equations, found.nullity
    ('certified', 33, 5, 28)
    """
    require(risk, links.Network, "certify_zero", "give an EmpiricalRisk(problem)")
    count = risk.residuals(w).shape[1]  # raises where there is no squared loss
    try:
        read = links.Chain(risk)
        statement = state(read, w, outputs=outputs, strict=strict)
        for there in read.elsewhere(w.detach().cpu().double()):
            _check_same(Chain.of(read, there), statement.samples, read, there, "elsewhere")
    except NotDefined as error:
        equations = risk.samples * (len(outputs) if outputs else count)
        return _refused(equations, risk.space.size, (str(error),))
    return prove(statement, progress=progress)


def state(
    read: links.Chain, w: Tensor, /, *, outputs: Sequence[int] | None, strict: bool
) -> Statement:
    """
    Collect what a claim about a network at ``w`` depends on.

    Parameters
    ----------
    read : tracing.chain.Chain
        The network, layer by layer.
    w, outputs, strict
        As for `certify_zero`.

    Raises
    ------
    NotDefined
        If the network's structure is not known.
    """
    at, count = w.detach().cpu().double(), len(read.samples)
    chain = Chain.of(read, at)
    flat = read.targets(0, count).double().flatten(1).numpy()
    chosen = None if outputs is None else tuple(int(index) for index in outputs)
    if chosen is not None and not (chosen and set(chosen) <= set(range(flat.shape[1]))):
        raise InvalidArgument(f"outputs={chosen}; name some of 0 to {flat.shape[1] - 1}.")
    samples = read.inputs(0, count).flatten(1).numpy()
    _check_numbers(chain.arrays() | {"inputs": samples, "targets": flat})
    _check_same(chain, samples, read, at)
    return Statement(chain, samples, flat, chosen, strict)


def _check_numbers(arrays: dict[str, Array]) -> None:
    """Refuse what is no number, and numbers so small that products of them lose their digits."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise NotDefined(
                f"{name} holds {count} of {array.size} numbers that are NaN or infinite: nothing is"
                " proved of them. Give finite weights and data."
            )
        sizes = np.abs(array[array != 0])
        if sizes.size and sizes.min() < _SMALL:
            raise NotDefined(
                f"{name} holds {sizes.min():.3g}, and products of such numbers underflow: rounding"
                f" is bounded for zero and for sizes from {_SMALL:g} up. Set what is smaller to 0."
            )


def _check_same(
    chain: Chain, samples: Array, read: links.Chain, w: Tensor, where: str = "at w"
) -> None:
    """
    Compare what is proved of with the user's own module, on all samples.

    Both are evaluated in float64, and `run_forward` bounds how far any such evaluation may be off.
    """
    kind = Double(read.largest_radius)
    for start in range(0, len(samples), _COMPARED):
        stop = min(start + _COMPARED, len(samples))
        expected = read.whole(w, read.inputs(start, stop)).flatten(1).numpy()
        _, outputs, error = run_forward(chain, samples[start:stop], kind)
        with np.errstate(invalid="ignore", over="ignore"):
            apart, rounding = norm(outputs - expected, axis=1), 2 * error * WIDER
        same = (apart <= rounding) | (where != "at w") & ~np.isfinite(rounding)
        differing = np.flatnonzero(~same)
        if len(differing):
            raise NotDefined(
                f"sample {start + differing[0]}: {where}, the network's outputs are"
                f" {apart[differing[0]]:.3g} away from those of the chain of its layers, and"
                f" rounding explains {rounding[differing[0]]:.3g}. It does more than"
                " apply its layers."
            )


def prove(
    statement: Statement, *, progress: Progress = silent, double_double: bool | None = None
) -> Certificate:
    """
    Try to prove a statement from nothing but its numbers.

    Parameters
    ----------
    statement : Statement
        Network, samples and targets.
    progress : Progress
        Counts stages.
    double_double : bool, optional
        Residuals in pairs of float64; by default only where there is no long double.
    """
    chain, targets = statement.chain, statement.targets
    last = chain.layers[-1]
    features = len(last.weight[0]) + 1 if last.geometry is None and all(last.trained) else None
    chosen = None if statement.outputs is None else list(statement.outputs)
    equations = independent_equations(statement.samples, targets, features, chosen)
    if equations.sum is not None and _distance_to_sum(chain, equations.sum) > _HELD:
        # Features that do not span their space leave zeros at which the outputs are independent.
        equations = independent_equations(statement.samples, targets, None, chosen)
    count = len(equations.kept) * len(equations.rows)
    count += features if equations.sum is not None and features else 0
    reasons = equations.reasons
    if chain.weights < count:
        reasons += (
            f"W = {chain.weights} is less than M = {count}: a Jacobian of W columns has no rank M",
        )
    if reasons:
        return replace(
            _refused(count, chain.weights, reasons), notes=equations.notes, statement=statement
        )
    with progress(_STAGES, "certificate") as bar:
        return _Proof(statement, equations, count, Extended(double_double), bar).run()


class _Proof:
    """One attempt, step by step."""

    def __init__(
        self, statement: Statement, equations: Equations, count: int, kind: Extended, bar: Bar
    ) -> None:
        self.statement, self.equations, self.count = statement, equations, count
        self.chain, self.kind, self.bar = statement.chain, kind, bar
        self.products = Verified() if statement.strict else Standard()
        self.details: dict[str, float] = {}

    def run(self) -> Certificate:
        """Give the certificate."""
        with np.errstate(over="ignore", invalid="ignore"):  # an infinite bound refuses itself
            passed, outputs, error = self._forward()
            residual = self._residual(outputs, error)
            self.bar.update(1)
            low = self._singular_value(passed)
            ball = self._ball(passed, low)
            features = self._features(passed, ball)
            self.bar.update(1)
        return self._conclude(residual, low, ball, features)

    def _forward(self) -> tuple[list[Passed], Any, Array]:
        return run_forward(self.chain, self.statement.samples[self.equations.kept], self.kind)

    def _residual(self, outputs: Any, error: Array) -> float:
        """Bound ``|F(w)|``: evaluated in extended precision, its error added."""
        targets = self.statement.targets[self.equations.kept]
        difference, _ = self.kind.parts(outputs - self.kind.of(targets))
        rows = self.equations.rows
        combined = float(norm(difference @ rows.T))
        rounding = len(rows.T) * 2.0**-52 * float(norm(rows)) * float(norm(difference))
        lost = self.equations.norm * float(norm(error)) + rounding
        self.details |= {"residual_computed": combined, "residual_error": lost}
        total = self.equations.sum
        held = 0.0 if total is None else _distance_to_sum(self.chain, total)
        # Squares of differences below 1e-154 underflow, and leave no more than this of the norm.
        return math.hypot(combined + lost, held) * WIDER + 1e-150

    def _singular_value(self, passed: list[Passed]) -> float:
        singular_value = smallest_singular_value(
            self.chain,
            passed,
            self.equations.rows,
            second_derivatives(self.chain, passed),
            self.products,
            self.bar,
        )
        self.details |= {
            "eigenvalue_estimate": singular_value.estimate,
            "eigenvalue_rounding": singular_value.rounding,
            "jacobian_error": singular_value.jacobian_error,
        }
        # The linear equations on the last layer have orthonormal gradients, which are orthogonal
        # to those of all differences of outputs.
        return (
            singular_value.bound if self.equations.sum is None else min(singular_value.bound, 1.0)
        )

    def _ball(self, passed: list[Passed], low: float) -> Ball:
        """Find the largest ball on which half of the singular value is left."""
        if not low > 0:
            return Ball(0.0, math.nan, 0, np.zeros(1))
        for halvings in range(_HALVINGS):
            ball = bound_ball(self.chain, passed, 0.5**halvings)
            ball = replace(ball, lipschitz=ball.lipschitz * self.equations.norm)
            if ball.lipschitz * ball.radius <= low / 2 and not ball.changes:
                break
        return ball

    def _features(self, passed: list[Passed], ball: Ball) -> float | None:
        """Bound the smallest singular value of the last layer's features over the ball."""
        if self.equations.sum is None:
            return None
        last = passed[-1]
        a = np.column_stack([last.inputs[:, 0], np.ones(len(last.inputs))])
        matrix = self.products(np.ascontiguousarray(a.T), np.ascontiguousarray(a.T))
        low, _, _ = smallest_eigenvalue(
            np.array((matrix + matrix.T) / 2), self.products, _Ignored()
        )
        low -= self.products.relative(len(a)) * float(norm(a)) ** 2 * 2
        lost = float(norm(last.input_error + ball.moved))
        singular_value = math.sqrt(max(low, 0.0)) / WIDER - lost
        self.details["features_singular_value"] = singular_value
        return singular_value

    def _conclude(
        self, residual: float, low: float, ball: Ball, features: float | None
    ) -> Certificate:
        slope = low - ball.lipschitz * ball.radius * WIDER
        reasons = _reasons(residual, low, ball, slope, features, self.details)
        certified = not reasons
        free = self.chain.weights - self.count if certified else None
        return Certificate(
            verdict="certified" if certified else "refused",
            equations=self.count,
            weights=self.chain.weights,
            residual=residual,
            singular_value=low,
            lipschitz=ball.lipschitz,
            radius=ball.radius,
            slope=slope,
            distance=residual / slope * WIDER if slope > 0 else math.nan,
            dimension=free,
            nullity=free,
            reasons=reasons,
            notes=self.equations.notes,
            assumptions=self._assumptions(),
            details=self.details,
            statement=self.statement,
        )

    def _assumptions(self) -> tuple[str, ...]:
        kinds = {layer.activation.kind for layer in self.chain.layers}
        given = [
            "float64 arithmetic is IEEE 754 to nearest, and nothing under- or overflows",
            f"extended precision ({self.kind.name}) has relative errors below"
            f" 2^{math.log2(self.kind.unit):.0f} a sum or product",
            f"matrix products: {self.products.name}",
        ]
        if isinstance(self.products, Verified):
            given.append(
                "standard products, each entry a sum in any order, in what bounds norms of layers,"
                " in sums over the places of a convolution and in combinations of residuals"
            )
        if isinstance(self.products, Standard):
            given.append(
                "the backward error bound of Cholesky factorization, gamma_(M+1) times the trace"
            )
        if kinds - {"identity", "relu", "leaky_relu", "polynomial"}:
            given.append(
                "exp, log1p, tanh and cosh in extended precision are right to 32 units in the last"
                " place of 1 + |x| (mpmath's functions to 45 digits, where they are used)"
            )
        given.append(
            "the network is the function of real numbers that its float64 weights, data and"
            " coefficients define, not what any floating-point evaluation of it gives"
        )
        return tuple(given)


def _distance_to_sum(chain: Chain, total: float) -> float:
    """Bound how far the last layer's rows are from summing to (0, ..., 0, total)."""
    last = chain.layers[-1]
    sums = [math.fsum(column) for column in last.weight.T]
    sums.append(math.fsum([*last.bias, -total]))
    return float(norm(np.array(sums))) / math.sqrt(len(last.weight))


class _Ignored:
    """A bar that nobody looks at."""

    def update(self, n: int = 1, /) -> None:
        """Do nothing."""

    def __enter__(self) -> _Ignored:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _reasons(
    residual: float,
    low: float,
    ball: Ball,
    slope: float,
    features: float | None,
    details: dict[str, float],
) -> tuple[str, ...]:
    if not low > 0:
        return (
            "no positive lower bound of the smallest singular value: the smallest eigenvalue of"
            f" J J^T is estimated at {details['eigenvalue_estimate']:.3g}, and rounding counts for"
            f" {details['eigenvalue_rounding']:.3g} in it and {details['jacobian_error']:.3g} in"
            " the singular value (0 and 0: the matrix is singular in float64)",
        )
    reasons = []
    if ball.changes:
        reasons.append(
            f"{ball.changes} units could change their side of zero, or pass the end of softplus,"
            f" within {ball.radius:.3g} of w"
        )
    if not slope > 0 or not math.isfinite(ball.lipschitz):
        reasons.append(
            f"no radius leaves a positive singular value (Lipschitz {ball.lipschitz:.3g})"
        )
    elif not residual < slope * ball.radius:
        reasons.append(
            f"the residual {residual:.3g} is not below {slope * ball.radius:.3g}, the singular"
            f" value {slope:.3g} that is left times the radius {ball.radius:.3g}: train longer"
            " with optimizer='gauss-newton'"
        )
    if features is not None and not features > 0:
        reasons.append(
            "the last layer's features are not shown to be independent (singular value"
            f" {features:.3g}), so the dimension is not known"
        )
    return tuple(reasons)


def _refused(equations: int, weights: int, reasons: tuple[str, ...]) -> Certificate:
    nan = math.nan
    return Certificate(
        *("refused", equations, weights, nan, nan, nan, nan, nan, nan, None, None),
        *(reasons, (), (), {}, None),
    )
