"""The proof of an exact zero, step by step, from nothing but a statement's numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from thalweg.certificates.ball import Ball, bound_ball, second_derivatives
from thalweg.certificates.certificate import Certificate, refused
from thalweg.certificates.chain import Chain
from thalweg.certificates.eigenvalue import smallest_eigenvalue, smallest_singular_value
from thalweg.certificates.equations import Equations, independent_equations
from thalweg.certificates.extended import Extended
from thalweg.certificates.forward import Passed, run_forward
from thalweg.certificates.products import WIDER, Standard, Verified, norm
from thalweg.certificates.statement import Array, Statement
from thalweg.run.progress import Bar, Progress, silent

_STAGES = 5
# Radii tried: halvings of 1.
_HALVINGS = 200
# How near a point must be to weights whose outputs sum to what the targets do, to be held there.
_HELD = 1e-3


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
            refused(count, chain.weights, reasons), notes=equations.notes, statement=statement
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
        sum_error = 0.0 if total is None else _distance_to_sum(self.chain, total)
        # Squares of differences below 1e-154 underflow, and leave no more than this of the norm.
        return math.hypot(combined + lost, sum_error) * WIDER + 1e-150

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
            np.array((matrix + matrix.T) / 2), self.products, silent(1, "")
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
        assumptions = [
            "float64 arithmetic is IEEE 754 to nearest, and nothing under- or overflows",
            f"extended precision ({self.kind.name}) has relative errors below"
            f" 2^{math.log2(self.kind.unit):.0f} a sum or product",
            f"matrix products: {self.products.name}",
        ]
        if isinstance(self.products, Verified):
            assumptions.append(
                "standard products, each entry a sum in any order, in what bounds norms of layers,"
                " in sums over the places of a convolution and in combinations of residuals"
            )
        if isinstance(self.products, Standard):
            assumptions.append(
                "the backward error bound of Cholesky factorization, gamma_(M+1) times the trace"
            )
        if kinds - {"identity", "relu", "leaky_relu", "polynomial"}:
            assumptions.append(
                "exp, log1p, tanh and cosh in extended precision are right to 32 units in the last"
                " place of 1 + |x| (mpmath's functions to 45 digits, where they are used)"
            )
        assumptions.append(
            "the network is the function of real numbers that its float64 weights, data and"
            " coefficients define, not what any floating-point evaluation of it gives"
        )
        return tuple(assumptions)


def _distance_to_sum(chain: Chain, total: float) -> float:
    """Bound how far the last layer's rows are from summing to (0, ..., 0, total)."""
    last = chain.layers[-1]
    sums = [math.fsum(column) for column in last.weight.T]
    sums.append(math.fsum([*last.bias, -total]))
    return float(norm(np.array(sums))) / math.sqrt(len(last.weight))


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
