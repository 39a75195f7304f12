"""Ways to go downhill: each takes one step at a time from the weights it was given, in place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from thalweg.dynamics.optimizer_state import flatten_state, restore_state
from thalweg.dynamics.settings import Settings
from thalweg.errors import InvalidArgument
from thalweg.landscape.protocols import Landscape, Trainable


class Outcome(NamedTuple):
    """What a step saw on its way: 0-d tensors that nobody has waited for, None if unknown."""

    loss: Tensor | None
    wrong: Tensor | None


class Method(Protocol):
    """
    One way to go downhill.

    A new one is a class with these methods and a line in `METHODS`.
    """

    def step(self, step: int, batch: Tensor | None, rate: float, /) -> Outcome:
        """Change the weights in place; ``step`` steps are completed, ``batch`` is this one's."""

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """Give what a resume needs: tensors under ``thalweg/``, and a JSON value."""

    def restore(self, tensors: dict[str, Tensor], structure: Any, /) -> None:
        """Go back to such a state."""


class TorchMethod:
    """
    One of torch's optimizers over the flat weights: a step is one vector operation or a few.

    Parameters
    ----------
    landscape : Landscape
        What is descended.
    w : Tensor
        Shape (W,); changed in place.
    optimizer : torch.optim.Optimizer
        Over ``[w]``.
    clip : float or None
        The longest gradient, in the Euclidean norm.
    """

    def __init__(
        self,
        landscape: Landscape,
        w: Tensor,
        optimizer: torch.optim.Optimizer,
        clip: float | None,
    ) -> None:
        self.w, self.optimizer, self.clip = w, optimizer, clip
        self._gradient = gradient_of(landscape)

    def step(self, step: int, batch: Tensor | None, rate: float, /) -> Outcome:
        """Take one step of the optimizer at the learning rate ``rate``."""
        loss, wrong, gradient = self._gradient(self.w, batch)
        self.w.grad = gradient
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_([self.w], self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return Outcome(loss, wrong)

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """Give the optimizer's state."""
        return flatten_state(self.optimizer.state_dict())

    def restore(self, tensors: dict[str, Tensor], structure: Any, /) -> None:
        """Set the optimizer's state."""
        self.optimizer.load_state_dict(restore_state(tensors, structure))


Gradient = Callable[[Tensor, Tensor | None], tuple[Tensor | None, Tensor | None, Tensor]]


def gradient_of(landscape: Landscape) -> Gradient:
    """
    Give one function for the gradient of any landscape.

    Returns
    -------
    callable
        ``(w, batch) -> (loss, wrong, gradient)``; with ``batch=None`` of the whole landscape.
        ``loss`` and ``wrong`` are None where the landscape does not tell them in passing.
    """

    def plain(w: Tensor, batch: Tensor | None) -> tuple[None, None, Tensor]:
        return None, None, landscape.gradient(w) if batch is None else landscape.gradient(w, batch)

    if not isinstance(landscape, Trainable):
        return plain

    def telling(w: Tensor, batch: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        if batch is not None:
            return landscape.batch_gradient(w, batch)
        value, slope = landscape.value_and_gradient(w)
        return torch.tensor(value, dtype=torch.float64), None, slope

    return telling


def _sgd(landscape: Landscape, w: Tensor, settings: Settings) -> Method:
    optimizer = torch.optim.SGD(
        [w], lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    return TorchMethod(landscape, w, optimizer, settings.clip)


def _adam(landscape: Landscape, w: Tensor, settings: Settings) -> Method:
    optimizer = torch.optim.Adam([w], lr=settings.lr, weight_decay=settings.weight_decay)
    return TorchMethod(landscape, w, optimizer, settings.clip)


def _gauss_newton(landscape: Landscape, w: Tensor, settings: Settings) -> Method:
    # Imported here: it draws the Gram matrix in, and is a method itself.
    from thalweg.dynamics.gauss_newton import make_gauss_newton

    return make_gauss_newton(landscape, w, settings)


def _langevin(landscape: Landscape, w: Tensor, settings: Settings) -> Method:
    # Imported here: it is a method itself.
    from thalweg.dynamics.langevin import Langevin

    return Langevin(landscape, w, settings)


class Kind(NamedTuple):
    """How a method is made, and whether its steps are mini-batches."""

    make: Callable[[Landscape, Tensor, Settings], Method]
    batches: bool
    momentum: float = 0.0


METHODS: dict[str, Kind] = {
    "sgd": Kind(_sgd, batches=True, momentum=0.9),
    "gd": Kind(_sgd, batches=False),
    "adam": Kind(_adam, batches=True),
    "langevin": Kind(_langevin, batches=True),
    "gauss-newton": Kind(_gauss_newton, batches=False),
}


def method_kind(name: str) -> Kind:
    """
    Look a method up.

    Raises
    ------
    InvalidArgument
        If there is none of that name.
    """
    if name in METHODS:
        return METHODS[name]
    if isinstance(name, str) and name.lower() in _of_torch():
        return Kind(partial(_torch, name.lower()), batches=True)
    names = ", ".join(map(repr, [*METHODS, *_of_torch()]))
    raise InvalidArgument(f"optimizer={name!r}; write one of {names}.")


@cache
def _of_torch() -> dict[str, type[torch.optim.Optimizer]]:
    """List torch's other optimizers that take one flat vector and no closure."""
    kinds = {
        name.lower(): kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    return {name: kind for name, kind in kinds.items() if name not in (*METHODS, *_NOT_FLAT)}


# The base class; one that wants a closure; sparse gradients; those that read matrices.
_NOT_FLAT = ("optimizer", "lbfgs", "sparseadam", "adafactor", "muon")


def _torch(name: str, landscape: Landscape, w: Tensor, settings: Settings) -> Method:
    """Make one of torch's optimizers, with its own defaults but for what training has settings."""
    kind = _of_torch()[name]
    takes = inspect.signature(kind).parameters
    options: dict[str, Any] = {"lr": settings.lr}
    for option in ("momentum", "weight_decay"):
        value = getattr(settings, option)
        if option in takes:
            options[option] = value
        elif value:
            raise InvalidArgument(f"optimizer={name!r} takes no {option}; leave it out.")
    return TorchMethod(landscape, w, kind([w], **options), settings.clip)
