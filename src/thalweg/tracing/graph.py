"""A network as a graph of operations: what reads what, and which weights it uses."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from thalweg.errors import NotDefined
from thalweg.tracing.functions import as_module, with_tensors
from thalweg.tracing.layers import found_around
from thalweg.tracing.tracer import LayerTracer

log = logging.getLogger("thalweg")

# What torch.export says through these is said by us in a line.
_TALKATIVE = ("torch.fx.experimental.symbolic_shapes", "torch.export", "torch._dynamo")
_OPERATORS = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "truediv": "div"}


@dataclass(frozen=True, eq=False)
class Node:
    """
    One operation of a network, or what it starts from.

    Attributes
    ----------
    name : str
        Of the module or tensor in the model; of a function, its name, numbered if it comes again.
    op : str
        ``"input"``; ``"tensor"``, a tensor of the model; torch's name of the function
        (``"linear"``, ``"add"``); the class of a module (``"Linear"``).
    reads : tuple of Node
        The tensors it is applied to, in the order in which they are given.
    weights : mapping of str to str
        Of a layer: its parameters (``"weight"``) to their names in the model, tied ones to one.
        Of a tensor: ``""`` to its name.
    module : nn.Module or None
        What is applied; of a function, a module that does the same, where there is one.
    shape : tuple of int or None
        Of what it gives for the example; None where that is several tensors.
    in_place : bool
        Whether it writes into what it reads.
    step : fx.Node
        All of its arguments, among them those that are no tensors.
    """

    name: str
    op: str
    reads: tuple[Node, ...]
    weights: Mapping[str, str]
    module: nn.Module | None
    shape: tuple[int, ...] | None
    in_place: bool
    step: fx.Node = field(repr=False)


class Graph:
    """
    A network's operations, each behind what it reads.

    Attributes
    ----------
    nodes : tuple of Node
        All that give tensors, whether or not the outputs depend on them.
    outputs : tuple of Node
        What the network returns.
    how : {"torch.fx", "torch.export"}
        Who read it.
    """

    def __init__(
        self,
        program: fx.GraphModule,
        arguments: Sequence[Any],
        nodes: Sequence[Node],
        outputs: Sequence[Node],
        how: Literal["torch.fx", "torch.export"],
        numbers: Mapping[fx.Node, Any],
    ) -> None:
        self.nodes, self.outputs, self.how = tuple(nodes), tuple(outputs), how
        self._program, self._arguments, self._numbers = program, tuple(arguments), numbers

    def readers(self, node: Node) -> tuple[Node, ...]:
        """List what reads a node."""
        return tuple(reader for reader in self.nodes if node in reader.reads)

    def chain(self) -> tuple[Node, ...]:
        """
        Give the operations of a network that applies one after the other.

        Raises
        ------
        NotDefined
            If it branches: the message says where.
        """
        needed = self._needed()
        for node in self.nodes:
            if node.in_place and node not in needed:
                raise not_a_chain(f"{node.name} writes into what is read elsewhere")
        inputs = [node for node in self.nodes if node.op == "input"]
        if len(inputs) != 1:
            raise not_a_chain(f"it has {len(inputs)} inputs")
        here, links = inputs[0], []
        while here not in self.outputs:
            node = self._only_reader(here, needed)
            links.append(node)
            here = node
        if len(self.outputs) != 1 or any(here in node.reads for node in needed):
            raise not_a_chain(f"what it returns is not what {here.name} gives alone")
        return tuple(links)

    def _only_reader(self, node: Node, needed: set[Node]) -> Node:
        readers = [reader for reader in self.readers(node) if reader in needed]
        if len(readers) != 1:
            names = " and ".join(reader.name for reader in readers) or "nothing"
            raise not_a_chain(f"what {node.name} gives is read by {names}")
        others = [read for read in readers[0].reads if read.op != "tensor"]
        if others != [node]:
            names = " and ".join(read.name for read in others)
            raise not_a_chain(f"{readers[0].name} reads what {names} give")
        return readers[0]

    def _needed(self) -> set[Node]:
        """All that the outputs depend on."""
        needed = set(self.outputs)
        for node in reversed(self.nodes):
            needed.update(node.reads if node in needed else ())
        return needed

    def apply(self, node: Node, values: Mapping[Node, Any]) -> Any:
        """
        Evaluate one operation on other values of what it reads.

        Parameters
        ----------
        node : Node
            A function or module.
        values : mapping of Node to object
            Of all that it reads. What is no tensor is as it was for the example.
        """
        # A view of the network's own values may be none of numbers that are laid out otherwise.
        nodes = {
            read.step: tree_map_only(Tensor, Tensor.contiguous, values[read]) for read in node.reads
        }

        def load(source: fx.Node) -> Any:
            return nodes[source] if source in nodes else self._numbers[source]

        args = fx.map_arg(node.step.args, load)
        kwargs = fx.map_arg(node.step.kwargs, load)
        target: Any = node.step.target
        if node.step.op == "call_module":
            return self._program.get_submodule(target)(*args, **kwargs)
        if node.step.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        return target(*args, **kwargs)

    def run(self, inputs: Sequence[Tensor], see: Callable[[Node, Any], Any]) -> None:
        """
        Evaluate the network step by step.

        Parameters
        ----------
        inputs : sequence of Tensor
            In the place of the example's tensors, in their order.
        see : callable
            Given each node with its value; what it returns, unless None, takes the value's place.
        """
        nodes, given = {node.step: node for node in self.nodes}, iter(inputs)
        arguments = [next(given) if isinstance(a, Tensor) else a for a in self._arguments]

        def look(step: fx.Node, value: Any) -> Any:
            node = nodes.get(step)
            replaced = None if node is None else see(node, value)
            return value if replaced is None else replaced

        _run(self._program, arguments, look)


def not_a_chain(what: str) -> NotDefined:
    """Say why a network is not a chain."""
    return NotDefined(
        f"the network is not a chain of layers: {what}. Certificates read layers applied one after"
        " the other (modules, or functions such as F.relu); branches and residual connections are"
        " not supported."
    )


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
    around = [f"{name} {words}" for name, words in found_around(model).items()]
    reason = around[0] if around else ""
    if not around:
        try:
            return _read(model, *_by_fx(model, args, kwargs), "torch.fx")
        except Exception as error:  # any code may come, and stumble over symbols
            reason = f"torch.fx says: {_first_line(error)}"
            log.info("%s not read by %s", type(model).__name__, reason)
    try:
        return _read(model, *_by_export(model, args, kwargs), "torch.export")
    except Exception as error:  # any code may come
        raise NotDefined(
            f"the structure of {type(model).__name__} cannot be read ({reason}; torch.export says:"
            f" {_first_line(error)}). A branch on values (if, bool() or .item() of a tensor) makes"
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


def _read(
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

    _run(program, inputs, look)
    made: dict[fx.Node, Node] = {}
    for step in program.graph.nodes:
        if step in shapes and step.op != "output":
            made[step] = _node(program, step, made, names, shapes)
    returned = [*program.graph.nodes][-1].all_input_nodes
    outputs = [made[step] for step in returned if step in made]
    return Graph(program, inputs, list(made.values()), outputs, how, numbers)


def _node(
    program: fx.GraphModule,
    step: fx.Node,
    made: Mapping[fx.Node, Node],
    names: Mapping[int, str],
    shapes: Mapping[fx.Node, tuple[int, ...] | None],
) -> Node:
    reads = tuple(made[source] for source in _sources(step.args, step.kwargs) if source in made)
    shape = shapes[step]
    if step.op == "placeholder":
        number = sum(node.op == "input" for node in made.values())
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
    held = () if same is None else same.named_parameters()
    weights = {k: names[id(p)] for k, p in held if id(p) in names}
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


@torch.no_grad()
def _run(program: fx.GraphModule, inputs: Sequence[Any], look: Callable[..., Any]) -> None:
    class Watched(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            return look(n, super().run_node(n))

    Watched(program).run(*inputs, enable_io_processing=False)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
