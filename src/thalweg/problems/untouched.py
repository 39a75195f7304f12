"""The user's own model, looked at without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from thalweg.problems.functional import call_with
from thalweg.problems.module_attributes import left_alone, to_evaluation_mode
from thalweg.run.seeds import torch_generator

T = TypeVar("T")


class Untouched:
    """
    Evaluations of a model that change nothing of it: weights, buffers, gradients, modes, caches.

    It runs in evaluation mode, on clones of its tensors and of the batch.

    Parameters
    ----------
    model : nn.Module
        The user's.

    Attributes
    ----------
    drew : bool
        Whether the last evaluation drew from torch's own generators.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.drew = model, False

    def __call__(
        self, function: Callable[[nn.Module, Any], T], batch: Any, move: float = 0, seed: int = 0
    ) -> T:
        """
        Call ``function(model, batch)``.

        Parameters
        ----------
        function : callable
            Of the model and a batch.
        batch : object
            Cloned before it is handed out.
        move : float
            How far the weights are moved at random, always the same way, in units of their size.
        seed : int
            Of torch's own generators while it is evaluated.
        """
        own = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        generator = torch_generator(0, "moved weights")
        tensors = {
            f"model.{name}": _moved(
                tensor, move if isinstance(tensor, nn.Parameter) else 0, generator
            )
            for name, tensor in own.items()
        }
        batch = tree_map_only(Tensor, torch.clone, batch)
        with left_alone(self.model), _forked_generators(self.model):
            _seed(self.model, seed)
            before = _states(self.model)
            value: T = call_with(_Call(function, self.model), tensors, (batch,))
            self.drew = _states(self.model) != before
        return value


class _Call(nn.Module):
    """A function of a model as a module that holds it: its tensors are then replaced by name."""

    def __init__(self, function: Callable[[nn.Module, Any], Any], model: nn.Module) -> None:
        super().__init__()
        self.function, self.model = function, model

    def forward(self, batch: Any) -> Any:
        # Inside of the call: some models write to their weights as they change their mode.
        return self.function(to_evaluation_mode(self.model), batch)


@contextmanager
def _forked_generators(model: nn.Module) -> Iterator[None]:
    with torch.random.fork_rng(devices=_accelerators(model)):
        yield


def _seed(model: nn.Module, seed: int) -> None:
    """Seed the generators that are forked; ``torch.manual_seed`` seeds all that there are."""
    torch.default_generator.manual_seed(seed)
    for device in _accelerators(model):
        torch.cuda.default_generators[device].manual_seed(seed)


def _states(model: nn.Module) -> list[bytes]:
    """Give the states of torch's generators, where the model may draw from them."""
    states = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, _accelerators(model))]
    return [state.numpy().tobytes() for state in states]


def _accelerators(model: nn.Module) -> list[int]:
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})


def _moved(tensor: Tensor, move: float, generator: torch.Generator) -> Tensor:
    clone = tensor.detach().clone()
    if move and isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
        size = float(tensor.detach().double().square().mean().sqrt()) or 1.0
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        clone += (move * size * noise).to(tensor)
    return clone.requires_grad_(tensor.requires_grad)
