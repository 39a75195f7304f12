"""Curvature of an empirical risk as linear operators: Hessian, Gauss-Newton, Jacobian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from thalweg.curvature.batch_functions import BatchFunctions
from thalweg.curvature.double_backward import load_forward_mode
from thalweg.curvature.linearize import Tensors
from thalweg.curvature.statistics import Statistics
from thalweg.curvature.vector_products import (
    GAUSS_NEWTON,
    HESSIAN,
    JACOBIAN,
    TRANSPOSED,
    BatchMap,
    Method,
    Plan,
    Products,
    push_forward,
)
from thalweg.errors import InvalidArgument
from thalweg.problems.precision import full_precision


class RiskOperator(ABC):
    """
    A matrix known by its products with vectors.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns.
    dtype : torch.dtype
        Of the vectors; batches are computed in it and summed in float64.
    device : torch.device
        Where vectors are expected and given.
    described : dict
        Which matrix this is and of which function: stands in the attributes of results.
    """

    def __init__(self, plan: Plan, name: str, shape: tuple[int, int]) -> None:
        load_forward_mode()
        self.shape = shape
        self.described = plan.described | {"operator": name}
        self.dtype, self.device = plan.pinned.measured.dtype, plan.pinned.measured.device
        self._plan, self._pinned = plan, plan.pinned

    def __matmul__(self, v: Tensor) -> Tensor:
        """
        Multiply a vector, shape (columns,), or each column of a matrix, shape (columns, k).

        Raises
        ------
        InvalidArgument
            If the shape does not fit.
        """
        if v.dim() not in (1, 2) or v.shape[0] != self.shape[1]:
            raise InvalidArgument(
                f"got a tensor of shape {tuple(v.shape)}, expected ({self.shape[1]},) or"
                f" ({self.shape[1]}, k): {self.described['operator']} has shape {self.shape}."
            )
        v = v.detach().to(self.device, self.dtype)
        with full_precision():  # of passes backward, too
            if v.dim() == 1:
                return self._stated(v)
            # Measured on a CPU: a block of vectors takes as long as its vectors one by one.
            products = v.new_zeros(self.shape[0], v.shape[1])
            for place, column in enumerate(v.unbind(1)):
                products[:, place] = self._stated(column)
        return products

    @property
    def error(self) -> float:
        """Largest relative error of differences so far; 0 where none are taken."""
        return 0.0

    def _stated(self, v: Tensor) -> Tensor:
        product = self._multiply(v.contiguous())
        if self.error:
            self.described |= {"products": f"differences, relative error {self.error:.1e}"}
        return product

    @abstractmethod
    def _multiply(self, v: Tensor) -> Tensor: ...

    @property
    @abstractmethod
    def T(self) -> RiskOperator:
        """The transposed operator."""

    def to_scipy(self) -> Any:
        """Give a ``scipy.sparse.linalg.LinearOperator`` on NumPy arrays of the same dtype."""
        from scipy.sparse.linalg import LinearOperator

        def through(op: RiskOperator) -> Any:
            return lambda v: (op @ torch.as_tensor(v).reshape(len(v), -1)).cpu().numpy()

        def vector(op: RiskOperator) -> Any:
            return lambda v: (op @ torch.as_tensor(v).reshape(-1)).cpu().numpy()

        return LinearOperator(
            self.shape,
            matvec=vector(self),
            rmatvec=vector(self.T),
            matmat=through(self),
            rmatmat=through(self.T),
            dtype=torch.empty(0, dtype=self.dtype).numpy().dtype,
        )

    def to_dense(self) -> Tensor:
        """Multiply by the unit vectors: shape (rows, columns), for small operators."""
        return self @ torch.eye(self.shape[1], dtype=self.dtype, device=self.device)


class WeightOperator(RiskOperator):
    """
    A symmetric operator on weights: what Hessian and Gauss-Newton matrix share.

    Attributes
    ----------
    entries : Tensor
        Places of its rows in the flat vector w, int64: all of them, or those of some layers.
    """

    _map: BatchMap

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, self._map.name, (plan.pinned.size, plan.pinned.size))
        self.entries = plan.pinned.entries
        self._statistics, plan = _through_statistics(plan)
        self._functions = plan.pinned
        self._products = Products(plan, self._map)

    @property
    def T(self) -> WeightOperator:
        """Itself."""
        return self

    @property
    def method(self) -> Method | None:
        """How products are computed, see `curvature.vector_products.Products`; None before one."""
        if self._statistics is not None and self._statistics.error:
            return "differences"
        return self._products.method

    @property
    def error(self) -> float:
        """Largest relative error of a batch's differences so far; 0 where none are taken."""
        return max(self._products.error, self._statistics.error if self._statistics else 0.0)

    def _multiply(self, v: Tensor) -> Tensor:
        if self._statistics is None:
            return self._of_batches(self._pinned.unflatten(v))
        return self._through(self._statistics, v)

    def _of_batches(self, direction: Tensors) -> Tensor:
        laid_out = self._functions.laid_out(direction)
        return _sum_over_batches(self._functions, self._products, [laid_out])

    def _through(self, statistics: Statistics, v: Tensor) -> Tensor:
        """Chain the product in weights and statistics with the statistics' derivatives."""
        direction = self._pinned.unflatten(v)
        pushed, _ = statistics.push(direction)
        product = self._functions.unflatten(self._of_batches((*direction, *pushed)))
        weights = len(direction)
        pulled = statistics.pull(product[weights:])
        return self._pinned.flatten(product[:weights]) + pulled.to(v.dtype)


def _through_statistics(plan: Plan) -> tuple[Statistics | None, Plan]:
    """Have statistics that depend on the weights vary with them, where a plan wants that."""
    if not plan.through_statistics:
        return None, plan
    half = plan.memory // 2
    statistics = Statistics(plan.pinned, half)
    return statistics, replace(plan, pinned=statistics.joint, memory=half)


def _sum_over_batches(
    functions: BatchFunctions, products: Products, directions: Sequence[tuple[Tensor, ...]]
) -> Tensor:
    """Sum the batches' products in float64; one direction serves all batches, or each has one."""
    batches = range(len(functions.bounds))
    if len(batches) == 1:
        return functions.flatten(products(0, directions[0]))
    totals = tuple(torch.zeros_like(primal, dtype=torch.float64) for primal in functions.primals)
    for index in batches:
        direction = directions[index if len(directions) > 1 else 0]
        for total, part in zip(totals, products(index, direction), strict=True):
            total += part
    answer = torch.empty(functions.size, dtype=functions.measured.dtype, device=totals[0].device)
    for place, total in zip(functions.unflatten(answer), totals, strict=True):
        place.copy_(total)
    return answer


class Hessian(WeightOperator):
    """The Hessian of the risk, shape (W, W)."""

    _map = HESSIAN

    def _through(self, statistics: Statistics, v: Tensor) -> Tensor:
        """Add what the second derivative of the statistics gives."""
        if not statistics.weighed:
            statistics.weigh(self._slopes())
        direction = self._pinned.unflatten(v)
        pushed, second = statistics.push(direction)
        product = self._functions.unflatten(self._of_batches((*direction, *pushed)))
        weights = len(direction)
        pulled = statistics.pull(product[weights:], pushed=pushed)
        return self._pinned.flatten(product[:weights]) + (second + pulled).to(v.dtype)

    def _slopes(self) -> Tensors:
        """Differentiate the risk by the statistics."""
        functions, weights = self._functions, len(self._pinned.primals)
        total: Tensors = ()
        for index in range(len(functions.bounds)):
            constants, spec = functions.batch(index)
            slopes = functions.gradient(functions.primals, constants, spec)[weights:]
            total = tuple(map(torch.add, total, slopes)) if total else slopes
        return total


class GaussNewton(WeightOperator):
    """
    The Gauss-Newton matrix J'BJ, with J the outputs' Jacobian and B the loss's Hessian in them.

    Positive semidefinite where the loss is convex in the outputs; the Hessian up to terms that
    vanish with the loss's slope (Schraudolph, Neural Computation 14, 2002, section 3).
    """

    _map = GAUSS_NEWTON

    @cached_property
    def jacobian(self) -> Jacobian:
        """J, shape (N C, W)."""
        return Jacobian(self._plan)

    @cached_property
    def loss_hessian(self) -> LossHessian:
        """B, shape (N C, N C), block diagonal, with the mean's factor 1 / N in it."""
        return LossHessian(self._plan)


class Jacobian(RiskOperator):
    """
    The Jacobian of the network's outputs in the weights, shape (N C, W).

    Row ``i * C + c`` belongs to output c of sample i. Under the squared loss it is the residuals'.

    Attributes
    ----------
    entries : Tensor
        Places of its columns in the flat vector w, int64.
    """

    def __init__(self, plan: Plan) -> None:
        self._shapes = _output_shapes(plan.pinned)
        rows = sum(shape.numel() for shape in self._shapes)
        super().__init__(plan, JACOBIAN.name, (rows, plan.pinned.size))
        self.entries = plan.pinned.entries
        self._statistics, plan = _through_statistics(plan)
        self._functions = plan.pinned
        half = replace(plan, memory=plan.memory // 2)  # for each of the two directions
        # Backward one derivative is enough, and no differences are needed.
        backward = replace(half, method=None) if plan.method == "differences" else half
        self._forward, self._backward = Products(half, JACOBIAN), Products(backward, TRANSPOSED)

    @property
    def T(self) -> TransposedJacobian:
        """The transposed Jacobian, shape (W, N C)."""
        return TransposedJacobian(self)

    @property
    def error(self) -> float:
        """Largest relative error of a batch's differences so far; 0 where none are taken."""
        return max(self._forward.error, self._statistics.error if self._statistics else 0.0)

    def _multiply(self, v: Tensor) -> Tensor:
        direction = self._pinned.unflatten(v)
        if self._statistics is not None:
            direction = (*direction, *self._statistics.push(direction)[0])
        direction = self._functions.laid_out(direction)
        batches = range(len(self._pinned.bounds))
        return torch.cat([self._forward(i, direction)[0].reshape(-1) for i in batches])

    def _multiply_transposed(self, u: Tensor) -> Tensor:
        parts = u.split([shape.numel() for shape in self._shapes])
        directions = [(p.view(s),) for p, s in zip(parts, self._shapes, strict=True)]
        product = _sum_over_batches(self._functions, self._backward, directions)
        if self._statistics is None:
            return product
        weights = len(self._pinned.primals)
        parts = self._functions.unflatten(product)
        pulled = self._statistics.pull(parts[weights:])
        return self._pinned.flatten(parts[:weights]) + pulled.to(product.dtype)


class TransposedJacobian(RiskOperator):
    """The transpose of a `Jacobian`, shape (W, N C)."""

    def __init__(self, jacobian: Jacobian) -> None:
        super().__init__(jacobian._plan, TRANSPOSED.name, jacobian.shape[::-1])
        self._jacobian = jacobian

    @property
    def T(self) -> Jacobian:
        """The Jacobian, shape (N C, W)."""
        return self._jacobian

    @property
    def error(self) -> float:
        """Largest relative error of statistics so far; 0 without differences."""
        statistics = self._jacobian._statistics
        return statistics.error if statistics else 0.0

    def _multiply(self, u: Tensor) -> Tensor:
        return self._jacobian._multiply_transposed(u)


class LossHessian(RiskOperator):
    """The Hessian of the risk in the network's outputs: block diagonal, shape (N C, N C)."""

    def __init__(self, plan: Plan) -> None:
        self._outputs = list(_outputs(plan.pinned))
        rows = sum(outputs.numel() for outputs in self._outputs)
        super().__init__(plan, "loss Hessian", (rows, rows))

    @property
    def T(self) -> LossHessian:
        """Itself."""
        return self

    def _multiply(self, u: Tensor) -> Tensor:
        parts = u.split([outputs.numel() for outputs in self._outputs])
        return torch.cat([self._block(i, part) for i, part in enumerate(parts)])

    def _block(self, index: int, u: Tensor) -> Tensor:
        constants, spec = self._pinned.batch(index)
        outputs = self._outputs[index]
        slope = grad(lambda z: self._pinned.loss_of_outputs(z, constants, spec))
        product: Tensor = push_forward(slope, outputs, u.view(outputs.shape))[1]
        return product.reshape(-1)


def _outputs(functions: BatchFunctions) -> Iterable[Tensor]:
    for index in range(len(functions.bounds)):
        constants, spec = functions.batch(index)
        yield functions.outputs(functions.primals, constants, spec).detach()


def _output_shapes(functions: BatchFunctions) -> list[torch.Size]:
    if not functions.samples.joined:
        return [outputs.shape for outputs in _outputs(functions)]
    constants, spec = functions.batch(0)
    shape = functions.outputs(functions.primals, constants, spec).shape[1:]
    return [torch.Size((stop - start, *shape)) for start, stop in functions.bounds]
