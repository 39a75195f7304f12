"""What aligning a network to another came to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.problems.checkpoints import Point
from thalweg.problems.state_names import unwrapped
from thalweg.result import Result
from thalweg.risk.risk import EmpiricalRisk

Indices = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Alignment(Result):
    """
    A network in the order of hidden units of another.

    Attributes
    ----------
    w : Tensor
        Its trained weights, shape (W,), in the dtype and on the device of the point that was given.
    permutations : dict of str to ndarray
        Of each set of units, by the layer that makes them, int64: unit ``permutations[name][i]``
        of the given network is unit i of this one. Heads of attention are units as a whole.
    maps : dict of str to list
        Of each attention whose heads were mapped: for each head, in its new place, the invertible
        matrices that queries and values were multiplied by.
    statistics : dict of str to Tensor
        Batch-norm statistics in their new order, by name.
    cost : float
        Squared distance of the trained weights to the first network's.
    bound : float
        What no permutation can bring it below (see `distance_bound`).
    unaligned : float
        Squared distance without any alignment: the control.
    losses : dict of str to float
        Mean loss at the mean of both, on up to 2000 samples: ``unaligned``; by ``weights`` (one
        weight matching from the given order); by ``activations``; and ``aligned``.
    difference : float
        Largest difference of outputs on data between this network and the given one, relative to
        the largest output, in float64.
    left : tuple of str
        Sets of units that the structure suggests and the data refuse.
    """

    w: Tensor = field(repr=False)
    permutations: dict[str, Indices] = field(repr=False)
    maps: dict[str, list[tuple[Array, ...]]] = field(repr=False)
    statistics: dict[str, Tensor] = field(repr=False)
    cost: float
    bound: float
    unaligned: float
    losses: dict[str, float]
    difference: float
    left: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """Share of the squared distance by which the bound lies below it."""
        return (self.cost - self.bound) / self.cost if self.cost > 0 else 0.0

    def state_of(self, risk: EmpiricalRisk, point: Point) -> Point:
        """
        Give the aligned network as a whole state.

        Parameters
        ----------
        risk : EmpiricalRisk
            Whose networks these are.
        point : Point
            The one that was aligned: its frozen weights and other buffers stay.
        """
        moved = risk.space.unpack(self.w.cpu()) | self.statistics
        state = {
            name: moved.get(unwrapped(name), tensor).to(tensor.dtype)
            for name, tensor in point.state.items()
        }
        return replace(point, state=state, name=f"{point.name}, aligned")
