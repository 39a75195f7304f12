"""The answer of a proof that an exact zero lies next to a point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from thalweg.certificates.statement import Statement
from thalweg.result import Result

Verdict = Literal["certified", "refused"]


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
        entries = {name: getattr(self, name) for name in names}
        for name, value in entries.items():
            if isinstance(value, float) and not math.isfinite(value):
                entries[name] = None
            elif isinstance(value, tuple):
                entries[name] = list(value)
        return entries


def refused(equations: int, weights: int, reasons: tuple[str, ...]) -> Certificate:
    """Give a certificate that proves nothing, and the reasons."""
    nan = math.nan
    return Certificate(
        *("refused", equations, weights, nan, nan, nan, nan, nan, nan, None, None),
        *(reasons, (), (), {}, None),
    )
