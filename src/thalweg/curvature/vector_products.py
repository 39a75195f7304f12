"""Products with the linear maps of batches: which way is the cheapest, and what to keep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp
from torch.utils._pytree import TreeSpec, tree_map

from thalweg.curvature.batch_functions import BatchFunctions
from thalweg.curvature.differences import along, in_double
from thalweg.curvature.linearize import Tensors, TracedMap, stored_bytes, trace_linear
from thalweg.curvature.operations import CountOperations
from thalweg.errors import InvalidArgument, NotDefined, ThalwegError, first_line
from thalweg.evaluation.saved_tensors import with_saved

Method = Literal["trace", "graph", "recompute", "differences"]
Apply = Callable[[Tensors], Tensors]
Traces = dict[Any, TracedMap | None]
# Tracing does not pay where a product over all batches is faster than this many seconds, nor where
# it takes as long as so many products: it saves a third of each at best. It takes about 20 ms for
# each node of the loss's graph.
_WORTH_TRACING, _PRODUCTS_TO_PAY, _SECONDS_A_NODE = 0.1, 10, 0.02
_AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-9}
# Samples on which two ways are compared; rounding, also of a part in float32, makes a smaller
# difference than a derivative that is left out.
_FEW = 4
_SLIGHT = 1e-3
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
    graph : callable
        ``graph(pinned, constants, spec)`` gives a function of the direction that keeps a graph.
    differences : callable or None
        As ``function``, by differences, with an estimate of the relative error; None where
        the map needs but one derivative backward, which torch has of everything.
    """

    name: str
    function: Callable[[BatchFunctions, Tensors, Tensors, TreeSpec], Tensors]
    graph: Callable[[BatchFunctions, Tensors, TreeSpec], Apply]
    differences: (
        Callable[[BatchFunctions, Tensors, Tensors, TreeSpec], tuple[Tensors, float]] | None
    ) = None


def push_forward(function: Callable[[Any], Any], primals: Any, direction: Any) -> tuple[Any, Any]:
    """Give a function's value and derivative along a direction, also where forward mode lacks."""
    try:
        answer: Any = jvp(function, (primals,), (direction,))
        return answer[0], answer[1]
    except NotImplementedError:  # the pull-back is linear, and its own pull-back is what is wanted
        pulled: Any = vjp(function, primals)
        zero = tree_map(torch.zeros_like, pulled[0])
        return pulled[0], vjp(lambda u: pulled[1](u)[0], zero)[1](direction)[0]


def _hessian(functions: BatchFunctions, v: Tensors, constants: Tensors, spec: TreeSpec) -> Tensors:
    gradient = grad(lambda primals: functions.loss(primals, constants, spec))
    product: Tensors = push_forward(gradient, constants[: len(v)], v)[1]
    return product


def _hessian_graph(functions: BatchFunctions, constants: Tensors, spec: TreeSpec) -> Apply:
    primals = _leaves(functions)
    with torch.enable_grad():
        loss = functions.loss(primals, constants, spec)
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
    functions: BatchFunctions, v: Tensors, constants: Tensors, spec: TreeSpec
) -> Tensors:
    def network(primals: Tensors) -> Tensor:
        return functions.outputs(primals, constants, spec)

    primals = constants[: len(v)]
    outputs, u = push_forward(network, primals, v)
    slope = grad(lambda z: functions.loss_of_outputs(z, constants, spec))
    product: Tensors = vjp(network, primals)[1](push_forward(slope, outputs, u)[1])[0]
    return product


def _jacobian(functions: BatchFunctions, v: Tensors, constants: Tensors, spec: TreeSpec) -> Tensors:
    primals = constants[: len(v)]
    return (push_forward(lambda p: functions.outputs(p, constants, spec), primals, v)[1],)


def _transposed(
    functions: BatchFunctions, u: Tensors, constants: Tensors, spec: TreeSpec
) -> Tensors:
    primals = constants[: len(functions.primals)]
    pull = vjp(lambda p: functions.outputs(p, constants, spec), primals)[1]
    product: Tensors = pull(u[0])[0]
    return product


def _jacobian_graph(functions: BatchFunctions, constants: Tensors, spec: TreeSpec) -> Apply:
    """Keep the pull-back of a zero as a function of it: its own pull-back is the push-forward."""
    primals = _leaves(functions)
    with torch.enable_grad():
        outputs = functions.outputs(primals, constants, spec)
        dual = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(
            outputs, primals, dual, create_graph=True, materialize_grads=True
        )
    live = [i for i, part in enumerate(pulled) if part.requires_grad]

    def apply(v: Tensors) -> Tensors:
        if not live:
            return (torch.zeros_like(outputs),)
        return torch.autograd.grad(
            [pulled[i] for i in live],
            dual,
            [v[i] for i in live],
            retain_graph=True,
            materialize_grads=True,
        )

    return apply


def _transposed_graph(functions: BatchFunctions, constants: Tensors, spec: TreeSpec) -> Apply:
    primals = _leaves(functions)
    with torch.enable_grad():
        outputs = functions.outputs(primals, constants, spec)

    def apply(u: Tensors) -> Tensors:
        return torch.autograd.grad(
            outputs, primals, u[0], retain_graph=True, materialize_grads=True
        )

    return apply


def _gauss_newton_graph(functions: BatchFunctions, constants: Tensors, spec: TreeSpec) -> Apply:
    forward = _jacobian_graph(functions, constants, spec)
    backward = _transposed_graph(functions, constants, spec)
    outputs = functions.outputs(functions.primals, constants, spec).detach()
    curved = _loss_curvature(functions, outputs, constants, spec)
    return lambda v: backward((curved(forward(v)[0]),))


def _loss_curvature(
    functions: BatchFunctions, outputs: Tensor, constants: Tensors, spec: TreeSpec
) -> Callable[[Tensor], Tensor]:
    """Give the product with the Hessian of this batch's share of the risk in the outputs."""
    leaf = outputs.requires_grad_()
    with torch.enable_grad():
        loss = functions.loss_of_outputs(leaf, constants, spec)
        (slope,) = torch.autograd.grad(loss, leaf, create_graph=True, materialize_grads=True)

    def apply(u: Tensor) -> Tensor:
        if not slope.requires_grad:
            return torch.zeros_like(u)
        (product,) = torch.autograd.grad(slope, leaf, u, retain_graph=True, materialize_grads=True)
        return product

    return apply


def _leaves(functions: BatchFunctions) -> Tensors:
    return tuple(tensor.detach().requires_grad_() for tensor in functions.primals)


def _hessian_differences(
    functions: BatchFunctions, v: Tensors, constants: Tensors, spec: TreeSpec
) -> tuple[Tensors, float]:
    def gradient(primals: Tensors, fixed: Tensors) -> Tensors:
        return functions.gradient(primals, fixed, spec)

    return _along(functions, gradient, v, constants)


def _jacobian_differences(
    functions: BatchFunctions, v: Tensors, constants: Tensors, spec: TreeSpec
) -> tuple[Tensors, float]:
    def outputs(primals: Tensors, fixed: Tensors) -> Tensors:
        return (functions.outputs(primals, fixed, spec).detach(),)

    return _along(functions, outputs, v, constants)


def _along(
    functions: BatchFunctions,
    function: Callable[[Tensors, Tensors], Tensors],
    v: Tensors,
    constants: Tensors,
) -> tuple[Tensors, float]:
    """Take differences in double precision, as they lose half of the digits, if the model can."""

    def differences(fixed: Tensors) -> tuple[Tensors, float]:
        return along(lambda primals: function(primals, fixed), fixed[: len(v)], v)

    if functions.measured.functional:
        try:
            return differences(in_double(constants))
        except RuntimeError as error:  # it computes in float32 somewhere
            log.info("differences in double precision: %s", first_line(error))
    return differences(constants)


def _gauss_newton_differences(
    functions: BatchFunctions, v: Tensors, constants: Tensors, spec: TreeSpec
) -> tuple[Tensors, float]:
    pushed, error = _jacobian_differences(functions, v, constants, spec)
    outputs = functions.outputs(functions.primals, constants, spec).detach()
    curved = _loss_curvature(functions, outputs, constants, spec)(pushed[0].to(outputs.dtype))
    return _transposed_graph(functions, constants, spec)((curved,)), error


HESSIAN = BatchMap("Hessian", _hessian, _hessian_graph, _hessian_differences)
GAUSS_NEWTON = BatchMap(
    "Gauss-Newton", _gauss_newton, _gauss_newton_graph, _gauss_newton_differences
)
JACOBIAN = BatchMap("Jacobian", _jacobian, _jacobian_graph, _jacobian_differences)
TRANSPOSED = BatchMap("transposed Jacobian", _transposed, _transposed_graph)


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
        None estimates.
    memory : int
        Budget in bytes for what is kept between products.
    traces : dict
        Traces shared between points, filled here.
    through_statistics : bool
        Whether batch-norm statistics are functions of the weights that calibration batches give.
    """

    pinned: BatchFunctions
    described: dict[str, Any]
    method: Method | None
    memory: int
    traces: Traces
    through_statistics: bool = False


class Products:
    """
    Take products batch by batch, in the cheapest way, keeping what a memory budget allows.

    Four ways: ``"trace"``, intermediate results of a traced and split function; ``"graph"``, a kept
    autograd graph; ``"recompute"``, everything anew by torch's function transforms; and
    ``"differences"`` of what torch can differentiate once, where it cannot twice. Batches beyond
    the budget are prepared again for each product. The ways agree up to rounding, and up to the
    error that differences state; which one is the fastest is estimated by the operations that the
    first batch takes, unless it is given: a clock would choose otherwise from run to run, and the
    last digits with it.

    Parameters
    ----------
    plan : Plan
        Of what, and how.
    map : BatchMap
        The linear map.

    Attributes
    ----------
    error : float
        Largest relative error that differences have had so far; 0 of the other ways.

    Raises
    ------
    InvalidArgument
        If the plan's method is none of this map's.
    NotDefined
        If it differentiates what torch cannot.
    """

    def __init__(self, plan: Plan, map: BatchMap) -> None:
        methods = [m for m in get_args(Method) if m != "differences" or map.differences is not None]
        if plan.method is not None and plan.method not in methods:
            raise InvalidArgument(
                f"method={plan.method!r} of the {map.name}; write one of {methods}."
            )
        self.pinned, self.map = plan.pinned, map
        if plan.method not in (None, "differences") and not self._differentiable:
            raise NotDefined(
                f"method={plan.method!r} of the {map.name} of {plan.pinned.measured.problem.name}:"
                " torch's second derivatives are not those of this function. Leave method= out, or"
                " write method='differences'."
            )
        self._traces, self._left, self._method = plan.traces, plan.memory, plan.method
        self._asked = plan.method is not None
        self._name = plan.pinned.measured.problem.name
        self._kept: dict[int, Apply] = {}
        self.error = 0.0

    @property
    def _differentiable(self) -> bool:
        """Whether torch's derivatives, of as many orders as the map has, are the function's."""
        return self.pinned.measured.twice_differentiable or self.map is TRANSPOSED

    @property
    def method(self) -> Method | None:
        """The way taken; None before the first product."""
        return self._method

    def __call__(self, index: int, direction: Tensors) -> Tensors:
        """
        Multiply the map of batch ``index`` by a direction.

        Raises
        ------
        NotDefined
            If torch can differentiate the network in no way, or not in the way that was asked for.
        """
        if self._method is None:
            self._method = self._choose(index, direction)
        if not self._asked:
            return self._product(self._method, index, direction)
        try:
            return self._product(self._method, index, direction)
        except ThalwegError:
            raise
        except (RuntimeError, TypeError) as error:  # NotImplementedError is a RuntimeError
            raise NotDefined(
                f"torch gives no products with the {self.map.name} of {self._name} by"
                f" method={self._method!r} ({first_line(error)}). Leave method= out, and a"
                " way is chosen that it can take."
            ) from error

    def _product(self, method: Method, index: int, direction: Tensors) -> Tensors:
        apply = self._kept.get(index)
        if apply is None:
            apply, size = self._prepare(method, index, direction)
            if size <= self._left:
                self._kept[index] = apply
                self._left -= size
        return apply(direction)

    def _prepare(self, method: Method, index: int, direction: Tensors) -> tuple[Apply, int]:
        """Give a function of the direction and the bytes that it holds."""
        constants, spec = self.pinned.batch(index)
        if method == "trace":
            traced = self._trace(index, direction, constants, spec)
            if traced is not None:
                held = traced.prepare(*constants)
                return lambda v: traced.apply(*v, *held), self._bytes(held)
        if method == "graph":
            return self._kept_graph(constants, spec)
        if method == "differences":
            return lambda v: self._by_differences(v, constants, spec), self._bytes(constants)
        self._check_transforms(direction)
        function = self.map.function
        return lambda v: function(self.pinned, v, constants, spec), self._bytes(constants)

    def _by_differences(self, v: Tensors, constants: Tensors, spec: TreeSpec) -> Tensors:
        assert self.map.differences is not None
        product, error = self.map.differences(self.pinned, v, constants, spec)
        self.error = max(self.error, error)
        return tuple(part.to(self.pinned.measured.dtype) for part in product)

    def _kept_graph(self, constants: Tensors, spec: TreeSpec) -> tuple[Apply, int]:
        apply, saved = with_saved(lambda: self.map.graph(self.pinned, constants, spec))
        return apply, self._bytes(saved)

    def _bytes(self, tensors: Sequence[Tensor]) -> int:
        """Count what keeping these tensors takes beyond the weights, which are kept anyway."""
        functions = self.pinned
        shared = (*functions.primals, *functions.fixed)
        return stored_bytes(tensors, {tensor.untyped_storage().data_ptr() for tensor in shared})

    def _trace(
        self, index: int, direction: Tensors, constants: Tensors, spec: TreeSpec
    ) -> TracedMap | None:
        built_in = (
            self.map.name,
            tuple(self.pinned.varying),
            len(self.pinned.primals),
            self.pinned.whole,
            self.pinned.weight,
        )
        key = (*built_in, _shapes((*direction, *constants)), str(spec))
        if key not in self._traces:
            batches = [constants, *self._another(index, constants)]
            self._traces[key] = self._try_trace(direction, batches, spec)
        return self._traces[key]

    def _another(self, index: int, constants: Tensors) -> Iterator[Tensors]:
        """Give another batch of the same shapes, if there is one."""
        bounds = self.pinned.bounds
        size = bounds[index][1] - bounds[index][0]
        for other in reversed(range(len(bounds))):
            if other != index and bounds[other][1] - bounds[other][0] == size:
                found = self.pinned.batch(other)[0]
                if _shapes(found) == _shapes(constants):
                    yield found
                    return

    def _try_trace(
        self, direction: Tensors, batches: Sequence[Tensors], spec: TreeSpec
    ) -> TracedMap | None:
        """Trace the first of some batches; the trace must be right of all of them."""

        def function(v: Tensors, c: Tensors) -> Tensors:
            return self.map.function(self.pinned, v, c, spec)

        try:
            self._check_transforms(direction)
            traced = trace_linear(function, direction, batches[0])
            for constants in batches:
                held = traced.prepare(*constants)
                # Twice: a product that overwrites what it was given would differ the second time.
                product = [traced.apply(*direction, *held) for _ in range(2)][1]
                del held
                if not _agree(product, function(direction, constants)):
                    raise NotDefined("the trace depends on the batch's values")
        except Exception as error:  # any model may come; what cannot be traced is recomputed
            log.info("%s not traced: %s", self.map.name, first_line(error))
            return None
        return traced

    def _check_transforms(self, direction: Tensors) -> None:
        """
        Compare a product by torch's function transforms with one by its graphs, on a few samples.

        Raises
        ------
        NotDefined
            If they differ: some functions lose their derivatives forward without a word.
        """
        agree = self.pinned.measured.transforms
        if self.map is TRANSPOSED:  # backward only
            return
        if self.map.name not in agree:
            agree[self.map.name] = self._agrees_by_transforms(direction)
        if not agree[self.map.name]:
            raise NotDefined(
                f"torch's function transforms leave derivatives of {self._name} out: the"
                f" {self.map.name} by them is not that of its graph. Leave method= out, and a right"
                " way is chosen."
            )

    def _agrees_by_transforms(self, direction: Tensors) -> bool:
        constants, spec = self.pinned.first(_FEW)
        product = self.map.function(self.pinned, direction, constants, spec)
        try:
            expected = self.map.graph(self.pinned, constants, spec)(direction)
        except (RuntimeError, TypeError) as error:  # then there is nothing to compare it with
            log.info("%s, graph: %s", self.map.name, first_line(error))
            return True
        return _agree(product, expected, _SLIGHT)

    def _choose(self, index: int, direction: Tensors) -> Method:
        plain, seconds = self._plain(index, direction)
        if plain == "differences" or seconds < _WORTH_TRACING:
            return plain
        if not self.pinned.samples.joined:
            return plain  # batches as given have shapes of their own, each to be traced anew
        constants, spec = self.pinned.batch(index)
        with torch.enable_grad():
            nodes = _nodes(self.pinned.loss(_leaves(self.pinned), constants, spec))
        if nodes * _SECONDS_A_NODE > _PRODUCTS_TO_PAY * seconds:
            return plain
        if self._trace(index, direction, constants, spec) is None:
            return plain
        return "trace" if self._seconds("trace", index, direction) < seconds else plain

    def _plain(self, index: int, direction: Tensors) -> tuple[Method, float]:
        """Find a way that torch can take without tracing, and estimate what a product takes."""
        # Only the Hessian's graph is cheaper than function transforms, which some models refuse.
        ways: list[Method] = (
            ["graph", "recompute"] if self.map is HESSIAN else ["recompute", "graph"]
        )
        if self.map.differences is not None:
            ways.append("differences")
        refusals: list[Exception] = []
        if not self._differentiable:
            ways = ["differences"]
        for way in ways:
            try:
                return way, self._seconds(way, index, direction)
            except (RuntimeError, TypeError) as error:  # NotImplementedError is a RuntimeError
                refusals.append(error)
                log.info("%s, %s: %s", self.map.name, way, first_line(error))
        raise NotDefined(
            f"torch gives no products with the {self.map.name} of {self._name}"
            f" ({first_line(refusals[0])})."
        ) from refusals[0]

    def _seconds(self, method: Method, index: int, direction: Tensors) -> float:
        """Estimate what a product takes, those batches prepared anew that cannot be kept."""
        preparing, applying = CountOperations(), CountOperations()
        with preparing:
            apply, size = self._prepare(method, index, direction)
        with applying:
            apply(direction)
        batches, device = len(self.pinned.bounds), direction[0].device
        anew = max(0, batches - self._left // max(1, size))
        return batches * applying.seconds(device) + anew * preparing.seconds(device)


def _nodes(loss: Tensor) -> int:
    """Count the nodes of a value's autograd graph."""
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return len(seen)


def _shapes(tensors: Tensors) -> tuple[tuple[tuple[int, ...], torch.dtype], ...]:
    return tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)


def _agree(product: Tensors, expected: Tensors, least: float = 0.0) -> bool:
    difference = torch.cat([(f - e).reshape(-1) for f, e in zip(product, expected, strict=True)])
    size = torch.cat([e.reshape(-1) for e in expected]).norm()
    return bool(difference.norm() <= max(least, _AGREEMENT.get(size.dtype, 1e-2)) * size)
