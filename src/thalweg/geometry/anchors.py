"""Points that a plane goes through, each with its own frozen weights and buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.problems.between import FixedParts

_MIXED, _STEPPED, _PLACES = "mixed/", "stepped/", "anchors"


@dataclass(frozen=True, eq=False)
class Anchors:
    """
    What gives every place of a line, plane or space its frozen weights and buffers.

    Attributes
    ----------
    places : Tensor
        Shape (k + 1, k), float64: coordinates of the points, which span the k dimensions.
    parts : FixedParts
        Where the points differ besides the trained weights.

    Examples
    --------
    >>> parts = FixedParts({"mean": torch.tensor([0.0, 4.0])})
    >>> anchors = Anchors(torch.tensor([[0.0], [1.0]], dtype=torch.float64), parts)
    >>> anchors.at([0.5]), anchors.at([1.0]), anchors.at([-0.5])
    ({'mean': tensor(2.)}, {'mean': tensor(4.)}, {'mean': tensor(-2.)})
    """

    places: Tensor
    parts: FixedParts

    def at(self, place: Sequence[float]) -> dict[str, Tensor]:
        """Mix the points by the barycentric coordinates of a place, shape (k,)."""
        rows = torch.cat([self.places, torch.ones_like(self.places[:, :1])], 1).T
        right_side = torch.tensor([*place, 1.0], dtype=torch.float64)
        return self.parts.at(torch.linalg.solve(rows, right_side).tolist())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a file."""
        mixed = {_MIXED + name: stack for name, stack in self.parts.mixed.items()}
        stepped = {_STEPPED + name: stack for name, stack in self.parts.stepped.items()}
        return {_PLACES: self.places, **mixed, **stepped}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Anchors | None:
        """Read what `tensors` gave; None where there are none."""
        if _PLACES not in tensors:
            return None
        mixed, stepped = (
            {n.removeprefix(kind): t for n, t in tensors.items() if n.startswith(kind)}
            for kind in (_MIXED, _STEPPED)
        )
        return cls(tensors[_PLACES], FixedParts(mixed, stepped))
