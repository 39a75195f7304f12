"""Two minima of equal depth, one degenerate and one not, of which the Gibbs density is known."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.landscape.provenance import Provenance, Word
from thalweg.landscape.space import ParameterSpace

_STIFF, _FLAT = 10.0, 1.0  # of the weights that are quartic at the degenerate minimum
_RANGE = 20.0  # condition number of the rest


class TwoMinima:
    """
    Minima at -1 and 1 of the first weight, at height 0, with a barrier between them.

    ``L = barrier (x^2 - 1)^2 + sum_i [(1 - s) 10 y_i^2 / 2 + s y_i^4] + sum_j c_j z_j^2 / 2`` where
    s rises from 0 to 1 between the minima, smoothly. The Hessian at the first is positive, that at
    the second has ``degenerate`` zeros, so that its learning coefficient is less by a quarter of
    their number, and its share of the Gibbs density grows as the temperature falls.

    Parameters
    ----------
    dims : int
        W.
    degenerate : int
        Number of weights y.
    barrier : float
        Height.

    Attributes
    ----------
    plain, singular : Tensor
        The two minima, shape (W,), float64.

    Raises
    ------
    InvalidArgument
        If a number cannot be used.

    Examples
    --------
    >>> minima = TwoMinima(2)
    >>> minima.value(minima.plain), minima.value(minima.singular)
    (0.0, 0.0)
    >>> round(minima.occupancy(1.0), 3), round(minima.occupancy(1e4), 3)
    (0.674, 0.958)
    """

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, dims: int, *, degenerate: int = 1, barrier: float = 2.0) -> None:
        if not 1 <= degenerate < dims or not barrier > 0:
            raise InvalidArgument(
                f"dims={dims}, degenerate={degenerate}, barrier={barrier}; give a positive barrier,"
                " and fewer degenerate weights than dims."
            )
        self.barrier, self.degenerate = barrier, degenerate
        self.space = ParameterSpace.euclidean(dims)
        self.rest = torch.logspace(0, 1, dims - 1 - degenerate, base=_RANGE, dtype=self.dtype)
        self.plain, self.singular = torch.zeros(2, dims, dtype=self.dtype)
        self.plain[0], self.singular[0] = -1.0, 1.0

    @property
    def provenance(self) -> Provenance:
        """State the dtype; the words say also what it is."""
        words: dict[str, Word] = {"landscape": "two minima", "degenerate": self.degenerate}
        return Provenance(dtype=self.dtype, further=words)

    @property
    def described(self) -> dict[str, Word]:
        """Say what it is, in the attributes of results."""
        return self.provenance.words

    def occupancy(self, beta: float) -> float:
        """
        Give the share of ``exp(-beta L)`` on the degenerate minimum's side.

        By quadrature: over each y at every x, and then over x; z is alike on both sides.
        """
        x = torch.linspace(-3, 3, 6001, dtype=self.dtype)
        y = torch.linspace(-6, 6, 801, dtype=self.dtype) * beta**-0.25
        s = _switch(x)[0][:, None]
        across = torch.exp(-beta * ((1 - s) * _STIFF * y**2 / 2 + s * y**4)).sum(1)
        well = torch.exp(-beta * self.barrier * (x**2 - 1) ** 2)
        density = well * across**self.degenerate
        return float(density[x > 0].sum() / density.sum())

    def value(self, w: Tensor, /) -> float:
        """Evaluate the function at ``w``, shape (W,)."""
        return float(self.values_and_gradients(self.space.check(w).detach()[None])[0][0])

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """
        Evaluate the gradient at ``w``, shape (W,).

        Raises
        ------
        InvalidArgument
            If a batch is asked for.
        """
        if batch is not None:
            raise InvalidArgument("this landscape has no samples to take; leave the batch out.")
        return self.values_and_gradients(self.space.check(w).detach()[None])[1][0]

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """Evaluate both at many points, shape (k, W): shapes (k,) and (k, W)."""
        points = points.to(self.dtype)
        x, y, z = points.split([1, self.degenerate, len(self.rest)], dim=1)
        s, slope = _switch(x)
        plain, singular = _STIFF * y**2 / 2, y**4
        values = self.barrier * (x**2 - 1) ** 2 + (
            ((1 - s) * plain + s * singular).sum(1, keepdim=True)
            + (self.rest * z**2).sum(1, keepdim=True) / 2
        )
        along_x = 4 * self.barrier * x * (x**2 - 1) + slope * (singular - plain).sum(
            1, keepdim=True
        )
        along_y = (1 - s) * _STIFF * y + 4 * s * y**3
        return values[:, 0], torch.cat([along_x, along_y, self.rest * z], dim=1)


def _switch(x: Tensor) -> tuple[Tensor, Tensor]:
    """Give a smooth step from 0 at -1 to 1 at 1, and its slope."""
    u = ((x + 1) / 2).clamp(0, 1)
    return u**2 * (3 - 2 * u), 3 * u * (1 - u)
