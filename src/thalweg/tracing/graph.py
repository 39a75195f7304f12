"""A network as a graph of operations: what reads what, and which weights it uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only

from thalweg.errors import NotDefined


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
        end, links = inputs[0], []
        while end not in self.outputs:
            end = self._only_reader(end, needed)
            links.append(end)
        if len(self.outputs) != 1 or any(end in node.reads for node in needed):
            raise not_a_chain(f"what it returns is not what {end.name} gives alone")
        return tuple(links)

    def _only_reader(self, node: Node, needed: set[Node]) -> Node:
        readers = [reader for reader in self.readers(node) if reader in needed]
        if len(readers) != 1:
            names = " and ".join(reader.name for reader in readers) or "nothing"
            raise not_a_chain(f"what {node.name} gives is read by {names}")
        data = [read for read in readers[0].reads if read.op != "tensor"]
        if data != [node]:
            names = " and ".join(read.name for read in data)
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
        nodes, tensors = {node.step: node for node in self.nodes}, iter(inputs)
        arguments = [next(tensors) if isinstance(a, Tensor) else a for a in self._arguments]

        def look(step: fx.Node, value: Any) -> Any:
            node = nodes.get(step)
            replaced = None if node is None else see(node, value)
            return value if replaced is None else replaced

        run_steps(self._program, arguments, look)


def not_a_chain(what: str) -> NotDefined:
    """Say why a network is not a chain."""
    return NotDefined(
        f"the network is not a chain of layers: {what}. Certificates read layers applied one after"
        " the other (modules, or functions such as F.relu); branches and residual connections are"
        " not supported."
    )


@torch.no_grad()
def run_steps(program: fx.GraphModule, inputs: Sequence[Any], look: Callable[..., Any]) -> None:
    """Evaluate a program; each step's value is what `look(step, value)` returns."""
    _Watched(program, look).run(*inputs, enable_io_processing=False)


class _Watched(fx.Interpreter):
    """
    A run whose steps are looked at.

    At the level of the module: a class that each run made would hold itself, and with it all that
    `look` holds, until the collector of cycles comes by.
    """

    def __init__(self, program: fx.GraphModule, look: Callable[..., Any]) -> None:
        super().__init__(program)
        self._look = look

    def run_node(self, n: fx.Node) -> Any:
        """Do one step."""
        return self._look(n, super().run_node(n))
