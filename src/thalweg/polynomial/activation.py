"""A polynomial as an activation: a module with exact derivatives of every order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from thalweg.errors import InvalidArgument
from thalweg.polynomial.evaluate import Basis, evaluate, scheme
from thalweg.polynomial.excursion import ExcursionRecord
from thalweg.polynomial.fit import PolynomialFit


class PolynomialActivation(nn.Module):
    """Apply a polynomial to every element.

    Forward and backward evaluate in place on pieces that fit the cache and keep only the input;
    derivatives of every order and all transforms of ``torch.func`` are exact.

    The buffers are the coefficients, float64 of shape (degree + 1,), named after their basis
    (``chebyshev_coefficients`` or ``power_coefficients``), and the `radius`, so a state dict of
    one basis is refused by the other. They are not trained.

    Parameters
    ----------
    fit
        Fit to use, from `fit_polynomial`. In training mode the module records how far
        pre-activations leave its interval; see `excursions`.

    Examples
    --------
    >>> import torch
    >>> from thalweg.polynomial import fit_polynomial
    >>> layer = PolynomialActivation(fit_polynomial(torch.abs, 2, radius=2.0))
    >>> layer(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)).numpy().round(6).tolist()
    [0.25, 0.75, 2.25]
    """

    radius: Tensor
    record: ExcursionRecord | None
    basis: Basis

    def __init__(self, fit: PolynomialFit) -> None:
        super().__init__()
        self._adopt("chebyshev", fit.chebyshev, fit.radius, ExcursionRecord())

    @classmethod
    def from_coefficients(
        cls, coefficients: Sequence[float] | NDArray[np.floating]
    ) -> PolynomialActivation:
        """Use given coefficients as they are: ``[0, 0, 0, 1]`` is ``x**3``.

        Parameters
        ----------
        coefficients
            Of x**k, from the constant up, finite. There is no interval, so excursions are not
            recorded, and `radius` is 1.

        Raises
        ------
        InvalidArgument
            For no coefficients, or coefficients that are not finite numbers.

        Examples
        --------
        >>> PolynomialActivation.from_coefficients([0, 0, 0, 1])(torch.tensor([2.0, -3.0]))
        tensor([  8., -27.])
        """
        try:
            values = np.asarray(coefficients, dtype=float)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise InvalidArgument(
                "coefficients must be a sequence of finite numbers, from the constant up "
                f"([0, 0, 1] is x**2), got {coefficients!r}"
            )
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        module._adopt("power", values, 1.0, None)
        return module

    def _adopt(
        self, basis: Basis, values: NDArray[Any], radius: float, record: ExcursionRecord | None
    ) -> None:
        self.basis, self.record = basis, record
        numbers = torch.tensor(values, dtype=torch.float64)
        self.register_buffer(f"{basis}_coefficients", numbers)
        self.register_buffer("radius", torch.tensor(radius, dtype=torch.float64))

    @property
    def coefficients(self) -> Tensor:
        """Coefficients in the module's basis, shape (degree + 1,)."""
        return self.get_buffer(f"{self.basis}_coefficients")

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return len(self.coefficients) - 1

    def forward(self, x: Tensor) -> Tensor:
        """Value of the polynomial at every element of `x`, of its shape and dtype."""
        if not x.is_floating_point():
            raise InvalidArgument(
                f"a polynomial activation needs a real floating tensor, got {x.dtype}; "
                "write x.float() or x.double()"
            )
        record = self.record if self.training else None
        return _derivative(x, self.coefficients, self.radius, self.basis, 0, record)

    def extra_repr(self) -> str:
        """Degree, basis and radius, for ``print(model)``."""
        interval = f", radius={float(self.radius):.4g}" if self.record else ""
        return f"degree={self.degree}, basis={self.basis!r}{interval}"


class _Derivative(torch.autograd.Function):
    """Derivative of a given order, element by element; its own derivative is the next order."""

    @staticmethod
    def forward(
        x: Tensor,
        coefficients: Tensor,
        radius: Tensor,
        basis: Basis,
        order: int,
        record: ExcursionRecord | None,
    ) -> Tensor:
        # A trace (torch.func.linearize) evaluates constants again and again: it is not counted.
        if record is not None and get_proxy_mode() is None:
            record.observe(x, float(radius))
        value: Tensor = _evaluate(x, coefficients, radius, basis, order)
        return value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, coefficients, radius, ctx.basis, ctx.order, _ = inputs
        ctx.save_for_backward(x, coefficients, radius)
        ctx.save_for_forward(x, coefficients, radius)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        return cotangents[0] * _slope(ctx, ctx.saved_tensors[0]), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        # PyTorch turns forward mode off here, also for the transforms around this one, and a
        # nested jvp would be zero without a word; on again, x must lose its own tangent.
        with forward_ad._set_fwd_grad_enabled(True):
            x = forward_ad.unpack_dual(ctx.saved_tensors[0]).primal
            tangent: Tensor = tangents[0] * _slope(ctx, x)
            return tangent

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        if in_dims[1] is None and in_dims[2] is None:
            return _derivative(*inputs), in_dims[0]
        # An ensemble of different polynomials.
        members = [
            _derivative(
                *(
                    value if dim is None else value.select(dim, i)
                    for value, dim in zip(inputs, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(members), 0


def _slope(ctx: Any, x: Tensor) -> Tensor:
    """Next derivative, recomputed from the input, so that only the input is kept in memory."""
    return _derivative(x, *ctx.saved_tensors[1:], ctx.basis, ctx.order + 1, None)


def _derivative(*inputs: Any) -> Tensor:
    value: Tensor = _Derivative.apply(*inputs)  # type: ignore[no-untyped-call]
    return value


# An operator of its own, so that tracing sees one node instead of loops over pieces in place.
@torch.library.custom_op("thalweg::polynomial", mutates_args=())
def _evaluate(x: Tensor, coefficients: Tensor, radius: Tensor, basis: str, order: int) -> Tensor:
    return evaluate(x, scheme(tuple(coefficients.tolist()), float(radius), basis, order))


@_evaluate.register_fake
def _(x: Tensor, coefficients: Tensor, radius: Tensor, basis: str, order: int) -> Tensor:
    return torch.empty_like(x)
