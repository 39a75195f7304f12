"""A network read into a graph of operations, by torch.fx or torch.export."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from thalweg.errors import NotDefined, first_line
from thalweg.problems.module_attributes import left_alone
from thalweg.tracing.functions import as_module, with_tensors
from thalweg.tracing.graph import Graph, Node, run_steps
from thalweg.tracing.layers import found_around
from thalweg.tracing.tracer import LayerTracer

log = logging.getLogger("thalweg")
# What torch.export says through these is said by us in a line.
_TALKATIVE = ("torch.fx.experimental.symbolic_shapes", "torch.export", "torch._dynamo")
_OPERATORS = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "truediv": "div"}


def trace(model: nn.Module, *args: Any, **kwargs: Any) -> Graph:
    """
    Read a network's structure.

    By torch.fx, which runs the model's own code on symbols: a branch on values cannot pass unseen.
    Where the code asks for more than symbols can answer (the number of dimensions, ...), or where
    hooks act on modules, by torch.export, which runs it on tensors with shapes and without values.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode. It is neither changed nor copied.
    *args, **kwargs
        An example of what it is applied to, of two samples or more.

    Returns
    -------
    Graph
        Operations of the function that the model is, at any weights, of inputs of this kind.

    Raises
    ------
    NotDefined
        If the model decides by values what to do, or cannot be read for another reason.

    Examples
    --------
    >>> class Residual(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.inner = nn.Linear(3, 3)
    ...
    ...     def forward(self, x):
    ...         return x + torch.relu(self.inner(x))
    >>> graph = trace(Residual(), torch.zeros(2, 3))
    >>> [(node.name, node.op, [read.name for read in node.reads]) for node in graph.nodes]
    [('input', 'input', []), ('inner', 'Linear', ['input']), ('relu', 'relu', ['inner']),
     ('add', 'add', ['input', 'relu'])]
    """
    with left_alone(model):
        return _traced(model, args, kwargs)


def _traced(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
    around = [f"{name} {words}" for name, words in found_around(model).items()]
    reason = around[0] if around else ""
    if not around:
        try:
            return _graph_of(model, *_by_fx(model, args, kwargs), "torch.fx")
        except Exception as error:  # any code may come, and stumble over symbols
            reason = f"torch.fx says: {first_line(error)}"
            log.info("%s not read by %s", type(model).__name__, reason)
    try:
        return _graph_of(model, *_by_export(model, args, kwargs), "torch.export")
    except Exception as error:  # any code may come
        raise NotDefined(
            f"the structure of {type(model).__name__} cannot be read ({reason}; torch.export says:"
            f" {first_line(error)}). A branch on values (if, bool() or .item() of a tensor) makes"
            " it another network for other samples or weights; branches on shapes do no harm."
        ) from None


Program = tuple[fx.GraphModule, list[Any]]


def _by_fx(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    graph = LayerTracer(args, kwargs).trace(model)
    symbols = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    return fx.GraphModule(model, graph), symbols


def _by_export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    leaves = tree_leaves((args, kwargs))
    shapes: Any = torch.export.ShapesCollection()
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.dim():
            shapes[leaf] = {0: torch.export.Dim.AUTO}
    with _quietly():
        exported = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
        program = exported.module()
    assert isinstance(program, fx.GraphModule)
    return program, leaves


@contextmanager
def _quietly() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.disabled for logger in loggers]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for logger in loggers:
        logger.disabled = True
    try:
        printed = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _graph_of(
    model: nn.Module,
    program: fx.GraphModule,
    inputs: list[Any],
    how: Literal["torch.fx", "torch.export"],
) -> Graph:
    tensors = (*model.named_parameters(), *model.named_buffers())
    names = {id(tensor): name for name, tensor in reversed(tensors)}
    shapes: dict[fx.Node, tuple[int, ...] | None] = {}
    numbers: dict[fx.Node, Any] = {}

    def look(step: fx.Node, value: Any) -> Any:
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
            shapes[step] = tuple(value.shape) if isinstance(value, Tensor) else None
        else:
            numbers[step] = value
        return value

    run_steps(program, inputs, look)
    nodes: dict[fx.Node, Node] = {}
    for step in program.graph.nodes:
        if step in shapes and step.op != "output":
            nodes[step] = _node(program, step, nodes, names, shapes)
    returned = [*program.graph.nodes][-1].all_input_nodes
    outputs = [nodes[step] for step in returned if step in nodes]
    return Graph(program, inputs, list(nodes.values()), outputs, how, numbers)


def _node(
    program: fx.GraphModule,
    step: fx.Node,
    nodes: Mapping[fx.Node, Node],
    names: Mapping[int, str],
    shapes: Mapping[fx.Node, tuple[int, ...] | None],
) -> Node:
    reads = tuple(nodes[source] for source in _sources(step.args, step.kwargs) if source in nodes)
    shape = shapes[step]
    if step.op == "placeholder":
        number = sum(node.op == "input" for node in nodes.values())
        name = f"input{number + 1}" if number else "input"
        return Node(name, "input", (), {}, None, shape, False, step)
    if step.op == "get_attr":
        name = names.get(id(_attribute(program, str(step.target))), str(step.target))
        return Node(name, "tensor", (), {"": name}, None, shape, False, step)
    if step.op == "call_module":
        module = program.get_submodule(str(step.target))
        weights = {k: names[id(p)] for k, p in module.named_parameters() if id(p) in names}
        in_place = bool(getattr(module, "inplace", False))
        op = type(module).__name__
        return Node(str(step.target), op, reads, weights, module, shape, in_place, step)
    op, in_place = _function(step)
    same = _module(program, op, step, reads, shape)
    parameters = () if same is None else same.named_parameters()
    weights = {k: names[id(p)] for k, p in parameters if id(p) in names}
    return Node(step.name, op, reads, weights, same, shape, in_place, step)


def _module(
    program: fx.GraphModule,
    op: str,
    step: fx.Node,
    reads: Sequence[Node],
    shape: tuple[int, ...] | None,
) -> nn.Module | None:
    """Give a module that does what a function of one tensor, and of tensors of the model, does."""
    data = [read for read in reads if read.op != "tensor"]
    if shape is None or len(data) != 1 or data[0].shape is None:
        return None
    if len(reads) == 1:
        return as_module(op, step, data[0].shape, shape)
    steps = [read.step for read in reads if read.op == "tensor"]
    tensors = {source: _attribute(program, str(source.target)) for source in steps}
    return with_tensors(op, step, tensors, len(data[0].shape))


def _function(step: fx.Node) -> tuple[str, bool]:
    """Give torch's name of what is called, and whether it writes into what it reads."""
    target: Any = step.target
    packet = getattr(target, "overloadpacket", target)  # of torch.export's operators
    name = target if isinstance(target, str) else str(packet.__name__)
    bare = name if name.startswith("__") else name.rstrip("_")
    in_place = bare != name or name in ("setitem", "iadd", "isub", "imul", "itruediv")
    return _OPERATORS.get(bare, bare.lstrip("_")), in_place or step.kwargs.get("inplace") is True


def _sources(*arguments: Any) -> list[fx.Node]:
    """List the steps in arguments in their order, as often as they occur."""
    steps: list[fx.Node] = []
    fx.map_arg(arguments, lambda source: steps.append(source))
    return steps


def _attribute(program: fx.GraphModule, target: str) -> Any:
    owner, _, name = target.rpartition(".")
    return getattr(program.get_submodule(owner), name)
