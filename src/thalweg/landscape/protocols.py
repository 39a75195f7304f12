"""What every instrument takes: a function of one flat vector with a gradient."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from thalweg.landscape.space import ParameterSpace


@runtime_checkable
class Landscape(Protocol):
    """
    A real function of w in R^W with a gradient.

    An `EmpiricalRisk` is one, a synthetic basin model another; whatever measures a network can
    so be checked where the answer is known.
    """

    @property
    def space(self) -> ParameterSpace:
        """The space of its points."""

    def value(self, w: Tensor, /) -> float:
        """Evaluate the function at ``w``, shape (W,)."""

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """
        Evaluate the gradient at ``w``, shape (W,).

        ``batch`` (indices of samples) asks for a mini-batch gradient; landscapes without samples
        take none.
        """
