"""The local posterior of a landscape: its Gibbs density, held near a point by a Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import Landscape, Trainable, Vectorized, placed


class Posterior:
    """
    The density ``exp(-U)`` with ``U = beta (L(w) - L(w0)) + localization |w - w0|^2 / 2``.

    Parameters
    ----------
    landscape : Landscape
        L. Where it is `Vectorized`, all chains are evaluated as one batch.
    centre : Tensor
        Shape (W,): w0.
    beta : float or Tensor
        The inverse temperature, in units of 1 / loss; of each chain: shape (k, 1).
    localization : float
        Of the Gaussian, per squared weight; 0 leaves it out.

    Raises
    ------
    InvalidArgument
        If a number is negative.
    """

    def __init__(
        self, landscape: Landscape, centre: Tensor, *, beta: float | Tensor, localization: float
    ) -> None:
        if float(torch.as_tensor(beta).min()) < 0 or localization < 0:
            raise InvalidArgument(
                f"beta={beta}, localization={localization}; give numbers that are not negative."
            )
        self.landscape, self.beta, self.localization = landscape, beta, localization
        self.centre = landscape.space.check(centre).detach().double()
        self.height = float(landscape.value(placed(landscape, centre)))

    def at(self, beta: float | Tensor) -> Posterior:
        """Give the same at another inverse temperature."""
        other = object.__new__(Posterior)
        other.__dict__ = {**self.__dict__, "beta": beta}
        return other

    def evaluate(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Evaluate U, its gradient, and the rise ``L(w) - L(w0)`` at points of shape (k, W).

        Returns
        -------
        tuple of Tensor
            Shapes (k,), (k, W), (k,), float64.
        """
        values, slopes = evaluate_many(self.landscape, points)
        rises, offsets = values - self.height, points - self.centre
        beta = self.beta.to(points) if isinstance(self.beta, Tensor) else self.beta
        betas = beta[:, 0] if isinstance(beta, Tensor) else beta
        potential = betas * rises + self.localization / 2 * offsets.square().sum(1)
        return potential, beta * slopes + self.localization * offsets, rises


def evaluate_many(landscape: Landscape, points: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate values and gradients at points of shape (k, W), as one batch where it can."""
    if isinstance(landscape, Vectorized):
        values, gradients = landscape.values_and_gradients(placed(landscape, points))
        return values.double().to(points.device), gradients.double().to(points.device)
    pairs = [_evaluate(landscape, placed(landscape, point)) for point in points]
    values = torch.tensor([value for value, _ in pairs], dtype=torch.float64)
    gradients = torch.stack([gradient.double() for _, gradient in pairs])
    return values.to(points.device), gradients.to(points.device)


def _evaluate(landscape: Landscape, point: Tensor) -> tuple[float, Tensor]:
    if isinstance(landscape, Trainable):
        return landscape.value_and_gradient(point)
    return landscape.value(point), landscape.gradient(point)
