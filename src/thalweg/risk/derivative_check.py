"""The derivatives of a measured function compared with differences of what they derive."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg.curvature.batch_functions import BatchFunctions
from thalweg.curvature.differences import Function, along, in_double
from thalweg.curvature.linearize import Tensors
from thalweg.curvature.vector_products import HESSIAN
from thalweg.errors import SelfCheckFailed
from thalweg.evaluation.model_copy import ModelCopy
from thalweg.landscape.space import ParameterSpace
from thalweg.problems.samples import Samples
from thalweg.risk.embedding_options import EmbeddingOptions
from thalweg.risk.value_check import ROUNDING

# Differences whose own error is larger decide nothing: a kink, or a function too rough.
_UNDECIDED = 0.02
# A fault leaves out or adds a term; what rounding and truncation leave is far below. A small term
# shows in float64, as the same difference at two lengths.
_WRONG = 0.02
_SMALL = 1e-3


class Compared(NamedTuple):
    """
    What a comparison of derivatives gave.

    Attributes
    ----------
    gradient, hessian : float or None
        Relative differences; None where differences are too rough to tell.
    differences : bool
        Whether torch's products with the Hessian are not those of the gradient.
    """

    gradient: float | None
    hessian: float | None = None
    differences: bool = False


class DerivativeCheck:
    """
    The gradient compared with differences of losses, a Hessian product with those of gradients.

    Parameters
    ----------
    measured : ModelCopy
        The model; it is marked where its gradient is not that of the operators.
    samples : Samples
        Those it is evaluated on.
    w : Tensor
        Where, shape (W,).
    generator : torch.Generator
        Of the direction's noise.
    """

    def __init__(
        self, measured: ModelCopy, samples: Samples, w: Tensor, generator: torch.Generator
    ) -> None:
        self.measured, self.problem = measured, measured.problem
        self.samples, self.w, self.generator = samples, w, generator
        self.precise = True  # whether derivatives are compared in float64

    def compare(self) -> Compared:
        """
        Compare a slope with losses, and a product with the Hessian with gradients.

        Returns
        -------
        Compared
            Of the functions that derivatives are then taken of.

        Raises
        ------
        SelfCheckFailed
            If the gradient is not that of the loss, or there is none.
        """
        weight = self._weight()
        functions = BatchFunctions(
            self.measured, self.samples, len(self.samples), self.w, weight=weight
        )
        constants, spec = functions.batch(0)
        fixed = self._precise(functions, constants, spec)
        primals = fixed[: len(functions.primals)]
        slopes = functions.gradient(primals, fixed, spec)
        with self.measured.norms.mode("batch" if functions.whole else "stored"):
            self._compare_gradients(slopes)
        if not self.measured.functional:
            fixed, self.precise = constants, self.measured.dtype == torch.float64
            slopes = functions.gradient(fixed[: len(functions.primals)], fixed, spec)
        direction = self._direction(functions, slopes)
        slope = sum(float((g * v).sum()) for g, v in zip(slopes, direction, strict=True))
        gradient = self._compare_slope(functions, fixed, spec, direction, slope)
        if not self.measured.twice_differentiable:
            return Compared(gradient)
        try:
            product = _joined(HESSIAN.graph(functions.at(fixed), fixed, spec)(direction))
        except RuntimeError:  # it has no second derivative, and products will be differences
            return Compared(gradient)
        found = self._compare_products(functions, fixed, spec, direction, product)
        return Compared(gradient, *found)

    def _weight(self) -> float:
        """Give what the samples weigh together; refuse options that replace gradients."""
        self.measured.load(self.w)
        trained = {id(p) for p in self.measured._trained}
        frozen = [p for p in self.measured.model.parameters() if id(p) not in trained]
        options = EmbeddingOptions(frozen)
        with self.measured.values(), options:
            evaluation, _ = self.measured.forward(self._batch)
        if options.noticed:
            raise SelfCheckFailed(
                f"{self.problem.name}: the gradient is not that of the loss:"
                f" {'; '.join(options.noticed)}. Write check=False where this is meant: all"
                " derivatives are then those of autograd."
            )
        return evaluation.weight or 1.0

    @property
    def _batch(self) -> Any:
        return self.samples.slice(0, len(self.samples))

    def _precise(self, functions: BatchFunctions, constants: Tensors, spec: Any) -> Tensors:
        """Give the batch in double precision, where the model can be evaluated in it."""
        double = in_double(constants)
        try:
            functions.loss(double[: len(functions.primals)], double, spec)
        except RuntimeError:
            self.precise = self.measured.dtype == torch.float64
            return constants
        return double

    def _direction(self, functions: BatchFunctions, slopes: Tensors) -> Tensors:
        """
        Mix the gradient, along which something happens, with noise, which meets every weight.

        Half of the slope is the noise's where that can be told from rounding: along the gradient
        alone, a term that is left out hides behind it.
        """
        noise = scaled_noise(self.measured.space, self.w, 1.0, self.generator)
        noise = noise.to(slopes[0].dtype)
        flat = torch.cat([slope.reshape(-1) for slope in slopes])
        share = len(flat) ** -0.5 if self.precise else 1.0
        mixed = noise / noise.norm() + share * flat / flat.norm().clamp_min(1e-300)
        return functions.unflatten(mixed)

    def _compare_gradients(self, slopes: Tensors) -> None:
        """Compare the gradient of training with that of the operators."""
        measured = self.measured
        measured.load(self.w)
        measured.gradient.zero_()
        with measured.at_work():
            loss = measured.forward(self._batch)[0].mean()
            if not loss.requires_grad:
                raise SelfCheckFailed(
                    f"{self.problem.name}: the loss moves with the weights and has no gradient:"
                    " does the forward or the loss run under torch.no_grad or"
                    " torch.inference_mode, or leave torch (.numpy(), .item())?"
                )
            loss.backward()
        by_operators = torch.cat([slope.reshape(-1) for slope in slopes]).double()
        by_training = measured.gradient.double()
        size = max(float(by_operators.norm()), float(by_training.norm()), 1e-12)
        if not float((by_operators - by_training).norm()) <= 20 * ROUNDING[measured.dtype] * size:
            measured.functional = measured.twice_differentiable = False

    def _compare_slope(
        self, functions: BatchFunctions, fixed: Tensors, spec: Any, direction: Tensors, slope: float
    ) -> float | None:
        def value(primals: Tensors) -> Tensors:
            return (functions.value(primals, fixed, spec),)

        rises: list[float] = []

        def compared() -> Iterator[tuple[float, float]]:
            for (rise,), error in _differences(value, fixed, direction):
                rises.append(float(rise))
                scale = max(abs(slope), abs(rises[-1]))
                yield abs(slope - rises[-1]) / scale if scale else 0.0, error

        difference, wrong = self._judge(compared())
        if not wrong:
            return difference
        raise SelfCheckFailed(
            f"{self.problem.name}: the gradient is not that of the loss: along a direction the loss"
            f" rises by {rises[-1]:.6g} a unit, the gradient says {slope:.6g}. Something in the"
            " model or its loss stops gradients or replaces them (detach, .data, no_grad, rounding,"
            " padding_idx or max_norm of F.embedding, a function with a backward of its own). Write"
            " check=False where this is meant: all derivatives are then those of autograd."
        )

    def _compare_products(
        self,
        functions: BatchFunctions,
        fixed: Tensors,
        spec: Any,
        direction: Tensors,
        product: Tensor,
    ) -> tuple[float | None, bool]:
        def gradient(primals: Tensors) -> Tensors:
            return functions.gradient(primals, fixed, spec)

        def compared() -> Iterator[tuple[float, float]]:
            for differences, error in _differences(gradient, fixed, direction):
                expected = _joined(differences)
                size = max(float(product.norm()), float(expected.norm()))
                yield float((product - expected).norm()) / size if size else 0.0, error

        return self._judge(compared(), _WRONG)

    def _judge(
        self, compared: Iterator[tuple[float, float]], most: float = math.inf
    ) -> tuple[float | None, bool]:
        """
        Judge by differences of several lengths, each with its relative error.

        Parameters
        ----------
        compared : iterator
            Pairs of a difference and its error, by shorter and shorter steps.
        most : float
            The largest difference that a large error can explain.

        Returns
        -------
        difference : float or None
            Of the length that decides; None if all are too rough.
        wrong : bool
            Whether it is no rounding.
        """
        tried: list[tuple[float, float]] = []
        for difference, error in compared:
            tried.append((error, difference))
            if difference <= min(self._tolerance(error), _SMALL):
                return difference, False
        for before, after in itertools.pairwise(tried):
            if self._is_small_term(*before) and 0.9 < after[1] / before[1] < 1.1:
                return after[1], True
        explained = [d for e, d in tried if d <= min(self._tolerance(e), most)]
        if explained or not tried:
            return min(explained, default=None), False
        # The best differences decide, if they do: across kinks they may be as far off as a fault.
        error, difference = min(tried)
        wrong = most == math.inf or difference > self._tolerance(error)
        return (difference if wrong else None), wrong

    def _is_small_term(self, error: float, difference: float) -> bool:
        """Say whether a difference is larger than errors explain, if not large."""
        return self.precise and self._tolerance(error) < difference < _WRONG

    def _tolerance(self, error: float = 0.0) -> float:
        return 20 * error + (1e-4 if self.precise else 2e-2)


def scaled_noise(
    space: ParameterSpace, w: Tensor, share: float, generator: torch.Generator
) -> Tensor:
    """Give noise of a share of each tensor's scale, of the network's where it is zero."""
    noise = torch.randn(len(w), generator=generator, dtype=torch.float64).to(w)
    overall = float(w.double().square().mean().sqrt()) or 1.0
    for parameter in space.parameters:
        weights = w[parameter.slice].double()
        scale = float(weights.square().mean().sqrt()) if len(weights) else 0.0
        noise[parameter.slice] *= share * (scale or overall)
    return noise


def _differences(
    function: Function, fixed: Tensors, direction: Tensors
) -> Iterator[tuple[Tensors, float]]:
    """
    Give those that decide something, by shorter and shorter steps: a long one crosses kinks.

    A ResNet-18 of 10**6 units a sample has so many that only the fifth is free of them.
    """
    for share in (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5):
        slope, error = along(function, fixed[: len(direction)], direction, share=share)
        if error <= _UNDECIDED:
            yield slope, error


def _joined(tensors: Tensors) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
