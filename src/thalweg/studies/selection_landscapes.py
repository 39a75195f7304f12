"""Landscapes of which it is known what noise selects: minima all alike, and a widening valley."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.landscape.protocols import Landscape
from thalweg.landscape.provenance import Word
from thalweg.landscape.space import ParameterSpace
from thalweg.problems import load_problem
from thalweg.run.seeds import torch_generator
from thalweg.studies.alike import risk_alike

ALIKE, WIDENING = "alike", "widening"
KNOWN = {
    ALIKE: "a linear model of digits under the squared loss, more weights than equations: its "
    "minima are a flat of dimension W - M on which the Hessian is the same everywhere",
    WIDENING: "a valley whose walls fall off along its floor, on which the loss is zero: noise of "
    "a temperature drifts to where it is wide",
}
_ACROSS = 40
_SAMPLES = 30


def known_landscape(name: str, seed: int) -> tuple[Landscape, Tensor]:
    """
    Give a landscape and where training begins on it.

    Parameters
    ----------
    name : {"alike", "widening"}
        Of `KNOWN`.
    seed : int
        Of samples and of the beginning.
    """
    if name == WIDENING:
        valley = WideningValley(_ACROSS)
        return valley, valley.beginning(seed)
    settings: dict[str, Any] = {"network": "mlp", "widths": [], "target": "onehot"}
    problem = load_problem("digits", train_size=_SAMPLES, data_seed=seed, seed=seed, **settings)
    risk = risk_alike(problem)
    return risk, risk.space.pack(problem.model)


class WideningValley:
    """
    A valley along one axis, ``exp(-2 x) |y|^2 / 2``, with x the tanh of the way along it.

    Its floor y = 0 is at zero everywhere; its walls are 54 times as steep at one end as at the
    other. Coordinates are offsets from one, so that relative noise is about the same for all.

    Parameters
    ----------
    across : int
        Number of coordinates y.
    """

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, across: int) -> None:
        self.space = ParameterSpace.euclidean(1 + across)

    @property
    def described(self) -> dict[str, Word]:
        """Say what it is, in the attributes of results."""
        return {"landscape": "a widening valley", "dtype": "float64"}

    def beginning(self, seed: int) -> Tensor:
        """Give a point on the wall at the narrow end, shape (W,)."""
        generator = torch_generator(seed, "widening valley")
        w = 1 + 0.1 * torch.randn(self.space.size, generator=generator, dtype=torch.float64)
        w[0] = 0.0
        return w

    def value(self, w: Tensor, /) -> float:
        """Evaluate it at w, shape (W,)."""
        return float(self._parts(w)[0])

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """Evaluate its gradient, shape (W,)."""
        value, steepness, bend = self._parts(w)
        slope = steepness * (w.double() - 1)
        slope[0] = -2 * bend * value
        return slope

    def _parts(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        offsets = self.space.check(w).double() - 1
        along = offsets[0].tanh()
        steepness = (-2 * along).exp()
        value = steepness * offsets[1:].square().sum() / 2
        return value, steepness, 1 - along.square()
