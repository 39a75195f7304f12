"""What is known of the nodes of a traced graph: their tensors, and what is written into."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

Node = Any  # an fx.Node: what its arguments may be is too wide a union to write down


def is_item(node: Any) -> bool:
    """Tell whether a node picks one of several answers."""
    return isinstance(node, fx.Node) and node.target is operator.getitem


def is_written(node: Node) -> bool:
    """Tell whether something writes into a node's tensor, by itself or by a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None or user.args[0] is not node:
            continue
        shares = any(answer.alias_info is not None for answer in schema.returns)
        if schema.is_mutable or (shares and is_written(user)):
            return True
    return False


def written_later(graph: fx.Graph) -> set[Node]:
    """Give all nodes whose memory a later step writes into, by whatever view of it."""
    roots: dict[Node, Node] = {}
    places: dict[Node, int] = {}
    last_written: dict[Node, int] = {}
    constants: dict[Any, Node] = {}  # by name
    for place, node in enumerate(graph.nodes):
        schema = getattr(node.target, "_schema", None)
        shares = schema is not None and any(answer.alias_info for answer in schema.returns)
        sources = [argument for argument in node.args[:1] if isinstance(argument, fx.Node)]
        shared = (shares or is_item(node)) and bool(sources)
        root = constants.setdefault(node.target, node) if node.op == "get_attr" else node
        roots[node], places[node] = roots[sources[0]] if shared else root, place
        if schema is not None and schema.is_mutable and sources:
            last_written[roots[sources[0]]] = place
    return {node for node, root in roots.items() if places[node] < last_written.get(root, -1)}


def tensor_of(node: Any) -> torch.Tensor | None:
    """Give an example of a node's tensor, of the same shape, strides, dtype and device."""
    example = node.meta.get("val") if isinstance(node, fx.Node) else None
    return example if isinstance(example, torch.Tensor) else None


def alike(node: Node, other: Any, *features: str) -> bool:
    """Tell whether two nodes give tensors of one shape, dtype, layout in memory and device."""
    one, two = tensor_of(node), tensor_of(other)
    if one is None or two is None or one.layout != torch.strided or two.layout != torch.strided:
        return False
    return all(
        _feature(one, name) == _feature(two, name)
        for name in features or ("shape", "dtype", "stride", "device")
    )


def _feature(tensor: torch.Tensor, name: str) -> Any:
    return tensor.stride() if name == "stride" else getattr(tensor, name)
