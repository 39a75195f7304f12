"""Products with the linear maps of batches: which way is the cheapest, and what to keep."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.func import grad, jvp, vjp
from torch.utils._pytree import TreeSpec, tree_map

from thalweg.curvature.batch_functions import BatchFunctions
from thalweg.curvature.linearize import Tensors, TracedMap, stored_bytes, trace_linear
from thalweg.errors import InvalidArgument

Method = Literal["trace", "graph", "recompute"]
Apply = Callable[[Tensors], Tensors]
Traces = dict[Any, TracedMap | None]
# Tracing takes 0.3 to 1.5 s, so it does not pay where a product over all batches is faster.
_WORTH_TRACING = 0.1
_AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-9}
log = logging.getLogger("thalweg")


@dataclass(frozen=True)
class BatchMap:
    """
    A linear map of one batch, as a pure function.

    Attributes
    ----------
    name : str
        Tells maps of one risk apart.
    function : callable
        ``function(pinned, direction, constants, spec)`` gives the product.
    graph : callable or None
        ``graph(pinned, constants, spec)`` gives a function of the direction that keeps a graph.
    """

    name: str
    function: Callable[[BatchFunctions, Tensors, Tensors, TreeSpec], Tensors]
    graph: Callable[[BatchFunctions, Tensors, TreeSpec], Apply] | None = None


def push_forward(function: Callable[[Any], Any], primals: Any, direction: Any) -> tuple[Any, Any]:
    """Give a function's value and derivative along a direction, also where forward mode lacks."""
    try:
        answer: Any = jvp(function, (primals,), (direction,))
        return answer[0], answer[1]
    except NotImplementedError:  # the pull-back is linear, and its own pull-back is what is wanted
        pulled: Any = vjp(function, primals)
        zero = tree_map(torch.zeros_like, pulled[0])
        return pulled[0], vjp(lambda u: pulled[1](u)[0], zero)[1](direction)[0]


def _hessian(pinned: BatchFunctions, v: Tensors, constants: Tensors, spec: TreeSpec) -> Tensors:
    gradient = grad(lambda primals: pinned.loss(primals, constants, spec))
    product: Tensors = push_forward(gradient, constants[: len(v)], v)[1]
    return product


def _hessian_graph(pinned: BatchFunctions, constants: Tensors, spec: TreeSpec) -> Apply:
    primals = tuple(tensor.detach().requires_grad_() for tensor in pinned.primals)
    with torch.enable_grad():
        loss = pinned.loss(primals, constants, spec)
        gradient = torch.autograd.grad(loss, primals, create_graph=True, materialize_grads=True)
    live = [i for i, part in enumerate(gradient) if part.requires_grad]

    def apply(v: Tensors) -> Tensors:
        if not live:
            return tuple(torch.zeros_like(primal) for primal in primals)
        return torch.autograd.grad(
            [gradient[i] for i in live],
            primals,
            [v[i] for i in live],
            retain_graph=True,
            materialize_grads=True,
        )

    return apply


def _gauss_newton(
    pinned: BatchFunctions, v: Tensors, constants: Tensors, spec: TreeSpec
) -> Tensors:
    def network(primals: Tensors) -> Tensor:
        return pinned.outputs(primals, constants, spec)

    primals = constants[: len(v)]
    outputs, u = push_forward(network, primals, v)
    slope = grad(lambda z: pinned.loss_of_outputs(z, constants, spec))
    product: Tensors = vjp(network, primals)[1](push_forward(slope, outputs, u)[1])[0]
    return product


def _jacobian(pinned: BatchFunctions, v: Tensors, constants: Tensors, spec: TreeSpec) -> Tensors:
    primals = constants[: len(v)]
    return (push_forward(lambda p: pinned.outputs(p, constants, spec), primals, v)[1],)


def _transposed(pinned: BatchFunctions, u: Tensors, constants: Tensors, spec: TreeSpec) -> Tensors:
    primals = constants[: len(pinned.primals)]
    pull = vjp(lambda p: pinned.outputs(p, constants, spec), primals)[1]
    product: Tensors = pull(u[0])[0]
    return product


HESSIAN = BatchMap("Hessian", _hessian, _hessian_graph)
GAUSS_NEWTON = BatchMap("Gauss-Newton", _gauss_newton)
JACOBIAN = BatchMap("Jacobian", _jacobian)
TRANSPOSED = BatchMap("transposed Jacobian", _transposed)


@dataclass(frozen=True)
class Plan:
    """
    What an operator is of, and how its products are to be taken.

    Attributes
    ----------
    pinned : BatchFunctions
        Batches and weights.
    described : dict
        Which function this is.
    method : {"trace", "graph", "recompute"} or None
        None measures.
    memory : int
        Budget in bytes for what is kept between products.
    traces : dict
        Traces shared between points, filled here.
    """

    pinned: BatchFunctions
    described: dict[str, Any]
    method: Method | None
    memory: int
    traces: Traces


class Products:
    """
    Take products batch by batch, in the cheapest way, keeping what a memory budget allows.

    Three ways: ``"trace"``, intermediate results of a traced and split function; ``"graph"``,
    the gradient's autograd graph; ``"recompute"``, everything anew. Batches beyond the budget are
    prepared again for each product. The ways agree up to rounding; which one is the fastest is
    measured on the first batch, unless it is given.

    Parameters
    ----------
    plan : Plan
        Of what, and how.
    map : BatchMap
        The linear map.

    Raises
    ------
    InvalidArgument
        If the plan's method is none of this map's.
    """

    def __init__(self, plan: Plan, map: BatchMap) -> None:
        known = [m for m in get_args(Method) if m != "graph" or map.graph is not None]
        if plan.method is not None and plan.method not in known:
            raise InvalidArgument(
                f"method={plan.method!r} of the {map.name}; write one of {known}."
            )
        self.pinned, self.map = plan.pinned, map
        self._traces, self._left, self._method = plan.traces, plan.memory, plan.method
        self._kept: dict[int, Apply] = {}

    @property
    def method(self) -> Method | None:
        """The way taken; None before the first product."""
        return self._method

    def __call__(self, index: int, direction: Tensors) -> Tensors:
        """Multiply the map of batch ``index`` by a direction."""
        if self._method is None:
            self._method = self._choose(index, direction)
        apply = self._kept.get(index)
        if apply is None:
            apply, size = self._prepare(self._method, index, direction)
            if size <= self._left:
                self._kept[index] = apply
                self._left -= size
        return apply(direction)

    def _prepare(self, method: Method, index: int, direction: Tensors) -> tuple[Apply, int]:
        """Give a function of the direction and the bytes that it holds."""
        constants, spec = self.pinned.batch(index)
        if method == "trace":
            traced = self._trace(direction, constants, spec)
            if traced is not None:
                held = traced.prepare(*constants)
                return lambda v: traced.apply(*v, *held), self._bytes(held)
        if method == "graph" and self.map.graph is not None:
            return self._kept_graph(constants, spec)
        function = self.map.function
        return lambda v: function(self.pinned, v, constants, spec), self._bytes(constants)

    def _kept_graph(self, constants: Tensors, spec: TreeSpec) -> tuple[Apply, int]:
        assert self.map.graph is not None
        saved: list[Tensor] = []

        def pack(tensor: Tensor) -> Tensor:
            saved.append(tensor.detach())
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            apply = self.map.graph(self.pinned, constants, spec)
        return apply, self._bytes(saved)

    def _bytes(self, tensors: Sequence[Tensor]) -> int:
        """Count what keeping these tensors takes beyond the weights, which are kept anyway."""
        pinned = self.pinned
        shared = (*pinned.primals, *pinned.fixed)
        return stored_bytes(tensors, {tensor.untyped_storage().data_ptr() for tensor in shared})

    def _trace(self, direction: Tensors, constants: Tensors, spec: TreeSpec) -> TracedMap | None:
        shapes = tuple((tuple(t.shape), t.dtype) for t in (*direction, *constants))
        built_in = (self.map.name, self.pinned.names, self.pinned.whole, len(self.pinned.samples))
        key = (*built_in, shapes, str(spec))
        if key not in self._traces:
            self._traces[key] = self._try_trace(direction, constants, spec)
        return self._traces[key]

    def _try_trace(
        self, direction: Tensors, constants: Tensors, spec: TreeSpec
    ) -> TracedMap | None:
        def function(v: Tensors, c: Tensors) -> Tensors:
            return self.map.function(self.pinned, v, c, spec)

        try:
            traced = trace_linear(function, direction, constants)
            held = traced.prepare(*constants)
            # Twice: a product that overwrites what it was given would differ the second time.
            found = [traced.apply(*direction, *held) for _ in range(2)][1]
        except Exception as error:  # any model may come; what cannot be traced is recomputed
            log.info("%s not traced: %s", self.map.name, str(error).partition("\n")[0])
            return None
        if _agree(found, function(direction, constants)):
            return traced
        log.info("%s not traced: the trace depends on the batch's values", self.map.name)
        return None

    def _choose(self, index: int, direction: Tensors) -> Method:
        plain: Method = "recompute" if self.map.graph is None else "graph"
        batches = len(self.pinned.bounds)
        seconds = self._seconds(plain, index, direction)
        if seconds * batches < _WORTH_TRACING:
            return plain
        constants, spec = self.pinned.batch(index)
        if self._trace(direction, constants, spec) is None:
            return plain
        return "trace" if self._seconds("trace", index, direction) < seconds else plain

    def _seconds(self, method: Method, index: int, direction: Tensors) -> float:
        apply = self._prepare(method, index, direction)[0]
        times = []
        for _ in range(2):
            start = time.perf_counter()
            float(apply(direction)[0].sum())  # waits for a GPU
            times.append(time.perf_counter() - start)
        return min(times)


def _agree(found: Tensors, expected: Tensors) -> bool:
    difference = torch.cat([(f - e).reshape(-1) for f, e in zip(found, expected, strict=True)])
    size = torch.cat([e.reshape(-1) for e in expected]).norm()
    return bool(difference.norm() <= _AGREEMENT.get(size.dtype, 1e-2) * size)
