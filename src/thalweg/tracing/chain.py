"""A network read as a chain of layers, each applied to the output of the one before it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from thalweg.errors import NotDefined
from thalweg.landscape.space import ParameterSpace
from thalweg.problems.loss import pair
from thalweg.problems.problem import Problem
from thalweg.problems.samples import Samples


class Network(Protocol):
    """What is traced: a problem's model with the buffers that it is measured with."""

    @property
    def problem(self) -> Problem:
        """Whose model is read."""

    @property
    def space(self) -> ParameterSpace:
        """The space of its trained weights."""

    @property
    def data(self) -> Samples:
        """What it is applied to."""

    def buffers(self) -> dict[str, Tensor]:
        """Copy its buffers by name."""


@dataclass(frozen=True)
class Link:
    """
    One layer of a chain.

    Attributes
    ----------
    name : str
        Its name in the model.
    module : nn.Module
        A float64 copy in evaluation mode.
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
        Its model must apply leaf modules one after the other, and nothing between them. Batch norm
        uses the model's buffers.

    Raises
    ------
    NotDefined
        If the model does anything else.

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
        model = copy.deepcopy(network.problem.model).cpu().double().eval()
        buffers = dict(model.named_buffers())
        for name, value in network.buffers().items():
            buffers[name].data.copy_(value)
        self.links = _read(model, network.space, self.inputs(0, 1))

    def inputs(self, start: int, stop: int) -> Tensor:
        """Give the inputs of samples ``start`` to ``stop``, float64, shape (n, ...)."""
        inputs: Tensor = pair(self.samples.slice(start, stop))[0]
        # A copy: its count of changes in place begins at zero, and none of them reaches the data.
        return inputs.to("cpu", torch.float64, copy=True)

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
        Evaluate the network.

        Parameters
        ----------
        w : Tensor
            Shape (W,), float64.
        x : Tensor
            Inputs, float64, shape (n, ...).

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
        outputs: Tensor = functional_call(link.module, self.tensors(link, w), (x,))
        return outputs


def _read(model: nn.Module, space: ParameterSpace, x: Tensor) -> tuple[Link, ...]:
    called: list[tuple[str, nn.Module, Tensor, int, Tensor, int]] = []

    def note(name: str) -> object:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            one = inputs[0] if len(inputs) == 1 else None
            if not (isinstance(one, Tensor) and isinstance(output, Tensor)):
                raise _not_a_chain(f"{name} ({type(module).__name__}) has several inputs")
            called.append((name, module, one, one._version, output, output._version))

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        with torch.no_grad():
            outputs = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    _check_linked(called, x, outputs)
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    return tuple(
        Link(name, module, dict(_trained(module, names, space))) for name, module, *_ in called
    )


def _check_linked(
    called: list[tuple[str, nn.Module, Tensor, int, Tensor, int]], x: Tensor, outputs: object
) -> None:
    last, version, before = x, 0, "the input"
    for name, module, taken, taken_version, given, given_version in called:
        in_place = getattr(module, "inplace", False)
        if taken is not last or (taken_version != version and not in_place):
            raise _not_a_chain(f"what {name} reads is not what {before} gives")
        last, version, before = given, given_version, name
    if outputs is not last or last._version != version:
        raise _not_a_chain(f"what the model returns is not what {before} gives")


def _not_a_chain(what: str) -> NotDefined:
    return NotDefined(
        f"the network is not a chain of layers: {what}. Certificates read modules applied one"
        " after the other; write functions such as F.relu as modules (nn.ReLU), in the order in"
        " which they are applied. Branches and residual connections are not supported."
    )


def _trained(
    module: nn.Module, names: Mapping[int, str], space: ParameterSpace
) -> Iterator[tuple[str, str]]:
    for local, tensor in module.named_parameters(recurse=False):
        name = names[id(tensor)]
        if name in space.names:
            yield local, name
