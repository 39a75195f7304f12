"""A symmetric operator of any kind under measurement: its products counted and checked."""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument, NotFinite, NotSymmetric
from thalweg.landscape.protocols import LinearOperator

# Rounding leaves products of a symmetric operator asymmetric by far less, a wrong one by far more.
_ASYMMETRY = {torch.float32: 1e-3, torch.float64: 1e-7}


@runtime_checkable
class _Matrix(Protocol):
    """What NumPy, SciPy and torch have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __matmul__(self, v: Any, /) -> Any: ...


class SymmetricOperator:
    """
    Count the products of an operator and refuse what no spectrum can be taken of.

    Parameters
    ----------
    op : LinearOperator, Tensor, or anything of SciPy or NumPy with ``shape`` and ``@``
        Shape (W, W), real, symmetric. What is not of torch computes in float64 on the CPU.

    Attributes
    ----------
    products : int
        Products with single vectors so far.

    Raises
    ------
    InvalidArgument
        If ``op`` is not square or not real.
    """

    def __init__(self, op: Any) -> None:
        shape = tuple(op.shape) if isinstance(op, _Matrix) else ()
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
            raise InvalidArgument(
                f"got {type(op).__name__} of shape {shape}, expected a square operator: something"
                " with op.shape == (W, W) and op @ v, such as risk.hessian(w)."
            )
        self.size = int(shape[0])
        self.products = 0
        self._op = op
        # NumPy's arrays have all members of the protocol, and a dtype of their own.
        self._foreign = not (isinstance(op, LinearOperator) and isinstance(op.dtype, torch.dtype))
        self.dtype = torch.float64 if self._foreign else op.dtype
        self.device = torch.device("cpu") if self._foreign else torch.device(op.device)
        if self.dtype not in _ASYMMETRY:
            raise InvalidArgument(
                f"got an operator of dtype {self.dtype}, expected torch.float32 or torch.float64."
            )

    def __matmul__(self, v: Tensor) -> Tensor:
        """
        Multiply ``v`` of shape (W,) or (W, k).

        Raises
        ------
        NotFinite
            If the product holds NaN or infinite numbers.
        """
        self.products += 1 if v.dim() == 1 else v.shape[1]
        with torch.no_grad():
            product = self._multiply(v).detach()
        if not bool(torch.isfinite(product).all()):
            bad = int((~torch.isfinite(product)).sum())
            raise NotFinite(
                f"{bad} of {product.numel()} entries of an operator's product are NaN or infinite:"
                " its spectrum is not defined. For a Hessian, check that the loss is finite and"
                " twice differentiable at w."
            )
        return product

    def _multiply(self, v: Tensor) -> Tensor:
        if self._foreign:
            return torch.as_tensor(self._op @ v.numpy(), dtype=self.dtype)
        if isinstance(self._op, Tensor) and v.dim() == 2:
            return (v.T @ self._op.T).T  # of a few columns, half the time of the plain product
        return cast(Tensor, self._op @ v)

    def check_symmetric(self, one: Tensor, other: Tensor, scale: float) -> None:
        """
        Compare u'Av with v'Au, or vectors of such pairs, against the operator's ``scale``.

        Raises
        ------
        NotSymmetric
            If they differ by more than rounding explains.
        """
        difference = float((one - other).abs().max()) if one.numel() else 0.0
        if difference > _ASYMMETRY[self.dtype] * scale:
            raise NotSymmetric(
                f"u'Av and v'Au differ by {difference:.3g} where the operator's products have size"
                f" {scale:.3g}: it is not symmetric. Give a symmetric operator, such as"
                " risk.hessian(w), or (op + op.T) / 2."
            )
