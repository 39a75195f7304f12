"""Overdamped Langevin dynamics: gradient steps with Gaussian noise of a given temperature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.dynamics.methods import Outcome, gradient_of
from thalweg.dynamics.settings import Settings
from thalweg.errors import InvalidArgument
from thalweg.landscape import Landscape
from thalweg.run.seeds import torch_generator
from thalweg.sampling import langevin_step


class Langevin:
    """
    Step by ``-lr gradient + sqrt(2 lr T) noise``: Euler's scheme for the Langevin equation.

    With full gradients and small steps it visits w with density ``exp(-L(w) / T)``, so that a
    basin is occupied in proportion to its volume at that temperature. On a quadratic of curvature
    c its stationary variance is ``T / (c (1 - lr c / 2))``, exactly. Mini-batches add noise of
    their own, which a small ``lr`` makes negligible beside the Gaussian's.

    Parameters
    ----------
    landscape : Landscape
        What is descended.
    w : Tensor
        Shape (W,); changed in place.
    settings : Settings
        Among them the temperature T, in units of the loss, and the seed. The noise of a step is a
        function of both and of the step's number, so that a resume needs no state.

    References
    ----------
    Welling and Teh, Bayesian Learning via Stochastic Gradient Langevin Dynamics (2011), eq. 4.
    """

    def __init__(self, landscape: Landscape, w: Tensor, settings: Settings) -> None:
        if settings.temperature is None:
            raise InvalidArgument(
                "optimizer='langevin' without a temperature; write temperature=1e-4, in units of"
                " the loss (0 is plain gradient descent)."
            )
        self.w, self.settings, self.temperature = w, settings, settings.temperature
        self._gradient = gradient_of(landscape)

    def step(self, step: int, batch: Tensor | None, rate: float, /) -> Outcome:
        """Take one step of size ``rate``."""
        loss, wrong, gradient = self._gradient(self.w, batch)
        if self.settings.clip is not None:
            gradient = gradient * min(1.0, self.settings.clip / max(float(gradient.norm()), 1e-30))
        generator = torch_generator(self.settings.seed, "langevin", step)
        noise = torch.randn(self.w.shape, generator=generator, dtype=self.w.dtype)
        drift = gradient.to(self.w) + self.settings.weight_decay * self.w
        noise = noise.to(self.w.device)
        langevin_step(self.w, drift, noise, rate=rate, temperature=self.temperature)
        return Outcome(loss, wrong)

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """Give nothing: the step's number is all there is."""
        return {}, None

    def restore(self, tensors: dict[str, Tensor], structure: Any, /) -> None:
        """Go back to such a state."""
