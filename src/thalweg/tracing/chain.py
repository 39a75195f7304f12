"""A network read as a chain of layers, each applied to the output of the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from thalweg.errors import NotDefined
from thalweg.landscape.space import ParameterSpace
from thalweg.polynomial import PolynomialActivation
from thalweg.problems.functional import call_with
from thalweg.problems.loss import pair
from thalweg.problems.module_attributes import left_alone
from thalweg.problems.problem import Problem
from thalweg.problems.samples import Samples
from thalweg.tracing.graph import Node, not_a_chain
from thalweg.tracing.layers import found_around
from thalweg.tracing.trace import trace

# Shares of the weights' size by which they are moved where a module is looked at elsewhere.
_AWAY = (1e-6, 1e-2)


@runtime_checkable
class Network(Protocol):
    """A landscape of a problem's model, which is read with the state that it is measured with."""

    @property
    def problem(self) -> Problem:
        """Whose model is read."""

    @property
    def space(self) -> ParameterSpace:
        """The space of its trained weights."""

    @property
    def data(self) -> Samples:
        """What it is applied to."""

    def model_in_double(self) -> nn.Module:
        """Copy its model as the user wrote it, in float64 on the CPU, with the state measured."""


@dataclass(frozen=True)
class Link:
    """
    One layer of a chain.

    Attributes
    ----------
    name : str
        Its name in the model; of a function, the function's.
    module : nn.Module
        A float64 copy in evaluation mode; of a function, a module that does the same.
    trained : Mapping of str to str
        Names of its tensors (``"weight"``) to their names in the parameter space.
    """

    name: str
    module: nn.Module
    trained: Mapping[str, str]


class Chain:
    """
    The layers of a risk's network in the order in which they are applied, in float64.

    Parameters
    ----------
    network : Network
        An empirical risk.
        Its model must apply layers one after the other, and nothing between them. Batch norm
        uses the model's buffers.

    Raises
    ------
    NotDefined
        If the model does anything else, or decides by values what to do, or if something acts on
        its modules from outside (hooks, a forward set on an instance, parametrizations).

    Examples
    --------
    >>> from thalweg.problems import load_problem
    >>> from thalweg import EmpiricalRisk
    >>> chain = Chain(EmpiricalRisk(load_problem("digits", network="mlp", width=8)))
    >>> [link.name for link in chain.links]
    ['flatten', 'linear1', 'activation1', 'linear2', 'activation2', 'linear3']
    """

    def __init__(self, network: Network) -> None:
        self.space: ParameterSpace = network.space
        self.samples: Samples = network.data
        self.model = network.model_in_double()
        _require_untouched(network.problem.model)
        graph = trace(self.model, self._example())
        self.links = tuple(map(self._link, graph.chain()))

    def _link(self, node: Node) -> Link:
        if node.module is None or node.shape is None:
            raise not_a_chain(f"{node.name} ({node.op}) is no layer that is known")
        trained = {k: name for k, name in node.weights.items() if name in self.space.names}
        return Link(node.name, node.module, trained)

    @property
    def largest_radius(self) -> float:
        """Of its polynomial activations in the Chebyshev basis; 0 where there are none."""
        modules = (link.module for link in self.links)
        return max(
            (float(m.radius) for m in modules if isinstance(m, PolynomialActivation)), default=0.0
        )

    def _example(self) -> Tensor:
        """Give two samples, so that what belongs to a sample shows; an only one twice."""
        inputs = self.inputs(0, min(2, len(self.samples)))
        return inputs if len(inputs) > 1 else torch.cat([inputs, inputs])

    def inputs(self, start: int, stop: int) -> Tensor:
        """Give the inputs of samples ``start`` to ``stop``: shape (n, ...), numbers as float64."""
        inputs: Any = pair(self.samples.slice(start, stop))[0]
        if not isinstance(inputs, Tensor):
            raise NotDefined(
                f"a chain of layers has one tensor of inputs, and the data give"
                f" {type(inputs).__name__}."
            )
        kind = torch.float64 if inputs.is_floating_point() else inputs.dtype
        # A copy: its count of changes in place begins at zero, and none of them reaches the data.
        return inputs.to("cpu", kind, copy=True)

    def targets(self, start: int, stop: int) -> Tensor:
        """Give the targets of samples ``start`` to ``stop`` as they are."""
        targets: Tensor = pair(self.samples.slice(start, stop))[1]
        return targets.cpu()

    def tensors(self, link: Link, w: Tensor) -> dict[str, Tensor]:
        """Take a layer's trainable tensors out of the flat vector ``w``, by their local names."""
        named = self.space.unpack(w)
        return {local: named[name] for local, name in link.trained.items()}

    def forward(self, w: Tensor, x: Tensor) -> Tensor:
        """
        Evaluate the network layer by layer.

        Parameters
        ----------
        w : Tensor
            Shape (W,), float64.
        x : Tensor
            Inputs, shape (n, ...), as `inputs` gives them.

        Returns
        -------
        Tensor
            Outputs, shape (n, ...).
        """
        for link in self.links:
            x = self.apply(link, w, x)
        return x

    def apply(self, link: Link, w: Tensor, x: Tensor) -> Tensor:
        """Evaluate one layer on its inputs ``x``, with its weights out of ``w``."""
        outputs: Tensor = call_with(link.module, self.tensors(link, w), (x,))
        return outputs

    def elsewhere(self, w: Tensor) -> list[Tensor]:
        """Give other weights at which the module is compared with its layers: near w, and farther.

        What a module does besides its layers may show away from w only.
        """
        generator = torch.Generator().manual_seed(0)
        size = float(w.square().mean().sqrt()) or 1.0
        way = torch.randn(len(w), generator=generator, dtype=w.dtype)
        return [w + share * size * way for share in _AWAY]

    @torch.no_grad()
    def whole(self, w: Tensor, x: Tensor) -> Tensor:
        """Evaluate the user's module itself, by its own code, on what it is given: (n, ...)."""
        with left_alone(self.model):
            outputs: Tensor = call_with(self.model, self.space.unpack(w), (x,))
        return outputs


def _require_untouched(model: nn.Module) -> None:
    for name, words in found_around(model).items():
        raise NotDefined(
            f"{name} {words}: what it does then is not known from its class, so nothing can be"
            " proved of it. Take it away for the proof."
        )
