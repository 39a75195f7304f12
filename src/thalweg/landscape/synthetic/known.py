"""What landscapes of known basins share: values of many points, one gradient, labels, barriers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.landscape.provenance import Provenance, Word
from thalweg.landscape.space import ParameterSpace


class KnownLandscape(ABC):
    """
    A landscape whose basins are known: lowest value 0, float64, on the CPU.

    Parameters
    ----------
    dims : int
        W.

    Attributes
    ----------
    space : ParameterSpace
        One tensor of W weights.
    dtype : torch.dtype
        float64.
    device : torch.device
        The CPU.
    dimension : int
        Of the bottom of each basin: 0 for a point.
    """

    dtype, device = torch.float64, torch.device("cpu")
    dimension: int = 0

    def __init__(self, dims: int) -> None:
        self.space = ParameterSpace.euclidean(dims)

    @abstractmethod
    def _values(self, points: Tensor) -> Tensor:
        """Evaluate at points of float64, shape (k, W): shape (k,), with a graph."""

    @abstractmethod
    def label(self, w: Tensor, /) -> int:
        """Say in which basin a point, shape (W,), lies; -1 for none."""

    @abstractmethod
    def barrier(self, i: int, j: int, /) -> float:
        """Give the height of the lowest pass between the bottoms of two basins, by labels."""

    @property
    def provenance(self) -> Provenance:
        """State the dtype; the words say also what it is."""
        kind = type(self).__name__
        return Provenance(dtype=self.dtype, further={"landscape": kind})

    @property
    def described(self) -> dict[str, Word]:
        """Say what it is, in the attributes of results."""
        return self.provenance.words

    def value(self, w: Tensor, /) -> float:
        """Evaluate the function at ``w``, shape (W,)."""
        return float(self._values(self._point(w)[None])[0])

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """
        Evaluate the gradient at ``w``, shape (W,).

        Raises
        ------
        InvalidArgument
            If a batch is asked for.
        """
        if batch is not None:
            raise InvalidArgument("this landscape has no samples to take a batch of; leave it out.")
        return self.values_and_gradients(self._point(w)[None])[1][0]

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """Evaluate both at many points, shape (k, W): shapes (k,) and (k, W)."""
        leaves = points.detach().to(self.device, self.dtype, copy=True).requires_grad_()
        values = self._values(leaves)
        return values.detach(), torch.autograd.grad(values.sum(), leaves)[0]

    def _point(self, w: Tensor) -> Tensor:
        return self.space.check(w).detach().to(self.device, self.dtype, copy=True)


def orthonormal(dims: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw orthonormal columns, uniform over all: shape (dims, count)."""
    q, r = torch.linalg.qr(torch.randn(dims, count, generator=generator, dtype=torch.float64))
    frame: Tensor = q * r.diagonal().sign()
    return frame


def check(holds: bool, got: str, write: str) -> None:
    """Refuse arguments, saying what was got and what to write."""
    if not holds:
        raise InvalidArgument(f"{got}; write {write}.")
