"""
What instruments ask of a landscape: protocols, each of which a class has by having its members.

`Landscape` is what all need. The others are asked for one by one, with `isinstance` or `require`,
by instruments that need or use more. `thalweg.landscape.testing` holds the tests of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from thalweg.errors import InvalidArgument
from thalweg.landscape.provenance import Provenance
from thalweg.landscape.space import ParameterSpace

P = TypeVar("P")


@runtime_checkable
class LinearOperator(Protocol):
    """A matrix known by its products: ``op @ v`` for a tensor v of shape (W,) or (W, k)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, (W, W) where it is symmetric."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the vectors it takes and gives."""

    @property
    def device(self) -> torch.device:
        """Where these vectors lie."""

    def __matmul__(self, v: Tensor, /) -> Tensor:
        """Multiply a vector, or each column of a matrix."""


@runtime_checkable
class Function(Protocol):
    """A real function of w in R^W: all that pictures of its values need."""

    @property
    def space(self) -> ParameterSpace:
        """The space of its points."""

    def value(self, w: Tensor, /) -> float:
        """Evaluate the function at ``w``, shape (W,)."""


@runtime_checkable
class Landscape(Function, Protocol):
    """
    A real function of w in R^W with a gradient.

    An `EmpiricalRisk` is one, a synthetic basin model another; whatever measures a network can
    so be checked where the answer is known.
    """

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        """
        Evaluate the gradient at ``w``, shape (W,).

        ``batch`` (indices of samples) asks for a mini-batch gradient; landscapes without samples
        take none.
        """


@runtime_checkable
class Placed(Protocol):
    """A landscape that says in which dtype and on which device it computes."""

    @property
    def dtype(self) -> torch.dtype:
        """Of points and gradients."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""


@runtime_checkable
class Described(Protocol):
    """A landscape or operator that says what it is, in words that stand in results."""

    @property
    def described(self) -> Mapping[str, Any]:
        """Words and numbers by name."""


@runtime_checkable
class Documented(Described, Protocol):
    """A landscape whose words are made of facts that code may test."""

    @property
    def provenance(self) -> Provenance:
        """The facts."""


@runtime_checkable
class Batched(Landscape, Protocol):
    """A landscape whose gradient can be taken over some of its samples: ``gradient(w, batch)``."""

    @property
    def samples(self) -> int:
        """Number of samples N."""


@runtime_checkable
class Sampled(Batched, Protocol):
    """A landscape that is the mean of its samples' losses."""

    def sample_losses(self, w: Tensor, /) -> Tensor:
        """Evaluate every sample's loss at ``w``: shape (N,); their mean is the value."""


@runtime_checkable
class Curved(Landscape, Protocol):
    """A landscape with a Hessian."""

    def hessian(self, w: Tensor, /) -> LinearOperator:
        """Give the Hessian at ``w``, shape (W, W); it stays that of ``w`` for ever."""


@runtime_checkable
class Vectorized(Landscape, Protocol):
    """A landscape that evaluates many points as one batch."""

    def values_and_gradients(self, points: Tensor, /) -> tuple[Tensor, Tensor]:
        """Evaluate both at points of shape (k, W): shapes (k,) and (k, W)."""


@runtime_checkable
class Parallel(Batched, Vectorized, Protocol):
    """A landscape that takes mini-batch gradients at many points at once."""

    def batch_gradients(self, points: Tensor, batches: Tensor, /) -> Tensor:
        """Take gradients at points (k, W), each over samples of its own, (k, b): shape (k, W)."""


@runtime_checkable
class Blocked(Vectorized, Protocol):
    """A landscape that is quadratic in each tensor of weights while the others rest."""

    def block_curvature(self, points: Tensor, block: int, /) -> tuple[Tensor, Tensor]:
        """
        Give the Hessian of one tensor at points, shape (k, W), as a Kronecker product.

        ``left`` of shape (k, a, a) and ``right`` (k, b, b), symmetric and not negative, with a b
        the tensor's entries; b is 1 where there is no such structure.
        """


@runtime_checkable
class Responsive(Batched, Protocol):
    """A landscape with outputs, of which it gives the Jacobian."""

    def jacobian(self, w: Tensor, /) -> Any:
        """Give it at ``w``, shape (N C, W); row ``i C + c`` is of output c of sample i."""


@runtime_checkable
class Stateful(Landscape, Protocol):
    """A landscape with state beside w: frozen weights and buffers, by name."""

    def fixed(self) -> Mapping[str, Tensor]:
        """Copy all of it."""

    def set_fixed(self, tensors: Mapping[str, Tensor], /) -> None:
        """Overwrite what is named; the rest stays."""

    def buffers(self) -> Mapping[str, Tensor]:
        """Copy the part that training steps change."""

    def set_buffers(self, buffers: Mapping[str, Tensor], /) -> None:
        """Overwrite what is named of that part; the rest stays."""


@runtime_checkable
class Trainable(Landscape, Protocol):
    """A landscape whose steps tell the loss in passing."""

    def batch_gradient(self, w: Tensor, batch: Tensor, /) -> tuple[Tensor, Tensor | None, Tensor]:
        """
        Take one step's gradient over ``batch`` (indices of samples), without waiting for it.

        Gives the mean loss, 0-d; the number of misclassified samples, 0-d, or None; and the
        gradient, shape (W,), which the next call may overwrite.
        """

    def value_and_gradient(self, w: Tensor, /) -> tuple[float, Tensor]:
        """Evaluate both in one pass."""


@runtime_checkable
class Stepped(Trainable, Protocol):
    """A landscape that sets up once what each of many steps would set up by itself."""

    def stepping(self) -> AbstractContextManager[None]:
        """Give a block in which steps are taken: what they give is what they give outside."""


@runtime_checkable
class Scored(Function, Protocol):
    """A landscape that counts misclassified samples in the pass that gives the loss."""

    def evaluate(self, w: Tensor, /) -> Mapping[str, float]:
        """Evaluate ``loss`` and, where it is defined, ``error``, the share of samples."""

    def evaluate_samples(self, w: Tensor, /) -> Mapping[str, Tensor]:
        """Evaluate each sample's ``loss`` and, where it is defined, ``error`` (0 or 1): (N,)."""


@runtime_checkable
class HeldOut(Function, Protocol):
    """A landscape with a second one beside it: the same model on held-out data."""

    def held_out(self) -> Function | None:
        """Give it, or None where there are no such data."""


class Drawn(Protocol):
    """Some samples, evaluated one by one at any point."""

    @property
    def size(self) -> int:
        """Number of samples n."""

    def features(self, w: Tensor, /) -> Tensor:
        """Evaluate what interpolates well along the weights: shape (n, features)."""

    def measures(self, features: Tensor, /) -> dict[str, Tensor]:
        """Give ``loss`` and, where defined, ``error`` of features (points, n, features)."""


@runtime_checkable
class Drawable(Sampled, Protocol):
    """A landscape of which some samples can be evaluated without the others."""

    @property
    def memory(self) -> int:
        """Budget in bytes for what is held at once."""

    def draw(self, indices: Tensor, /) -> Drawn:
        """Give these samples, shape (n,), int64."""


@runtime_checkable
class LeastSquares(Placed, Landscape, Protocol):
    """A mean of squared residuals."""

    @property
    def target_scale(self) -> float:
        """Root mean square of the targets: the unit in which residuals are small."""

    def residuals(self, w: Tensor, /) -> Tensor:
        """Evaluate outputs minus targets: shape (N, C)."""

    def gram(self, w: Tensor, /) -> Tensor:
        """Assemble J J', J the residuals' Jacobian: shape (N C, N C), float64."""

    def pull_back(self, w: Tensor, y: Tensor, /) -> Tensor:
        """Multiply J' by y, shape (N C,): shape (W,), float64."""


@runtime_checkable
class Replicable(Batched, Stateful, Protocol):
    """A landscape of which several points can take their steps as one batch of models."""

    def copies(self, count: int, /) -> Any:
        """Give so many, as `thalweg.risk.batched_models.BatchedModels`."""


@runtime_checkable
class Remakeable(Stateful, Described, Protocol):
    """A landscape that another process can make again."""

    def spec(self) -> dict[str, Any]:
        """Write down how, in JSON values; its state comes from `Stateful.fixed`."""

    def fingerprint(self) -> str:
        """Digest all that its values depend on beside w."""


def require(landscape: Any, protocol: type[P], user: str, write: str) -> P:
    """
    Give a landscape back if it has what a protocol asks.

    Parameters
    ----------
    landscape : object
        What was given.
    protocol : type
        A protocol of this module.
    user : str
        Who asks for it, as the beginning of a sentence.
    write : str
        What to write instead, as its end.

    Raises
    ------
    InvalidArgument
        If it lacks a member; all that it lacks are named.

    Examples
    --------
    >>> from thalweg.landscape import Quadratic
    >>> require(Quadratic(torch.ones(2)), Sampled, "crossfit", "give an EmpiricalRisk")
    Traceback (most recent call last):
        ...
    thalweg.errors.InvalidArgument: crossfit takes a Sampled landscape, and Quadratic has no \
samples, sample_losses; give an EmpiricalRisk.
    """
    if isinstance(landscape, protocol):
        return landscape
    missing = [name for name in members(protocol) if not hasattr(landscape, name)]
    raise InvalidArgument(
        f"{user} takes a {protocol.__name__} landscape, and {type(landscape).__name__} has no"
        f" {', '.join(missing)}; {write}."
    )


def members(protocol: type) -> list[str]:
    """
    List what a class must have to satisfy a protocol.

    Examples
    --------
    >>> members(Sampled)
    ['space', 'value', 'gradient', 'samples', 'sample_losses']
    """
    names = [
        name
        for base in reversed(protocol.__mro__)
        if base not in (object, Protocol)
        for name in vars(base)
        if not name.startswith("_")
    ]
    return list(dict.fromkeys(names))


def words_of(subject: Any) -> dict[str, Any]:
    """Give what a landscape or operator says of itself; nothing where it says nothing."""
    return dict(subject.described) if isinstance(subject, Described) else {}


def provenance_of(landscape: Any) -> Provenance:
    """Give the facts of a landscape, all None where it states none."""
    return landscape.provenance if isinstance(landscape, Documented) else Provenance()


def evaluator(landscape: Function) -> Callable[[Tensor], Mapping[str, float]]:
    """Give what evaluates ``loss`` and, where the landscape counts it, ``error``."""
    if isinstance(landscape, Scored):
        return landscape.evaluate
    return lambda w: {"loss": float(landscape.value(w))}


def sample_evaluator(landscape: Function) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """Give what evaluates each sample's ``loss`` and ``error``: (N,), or (1,) without samples."""
    if isinstance(landscape, Scored):
        return landscape.evaluate_samples
    if isinstance(landscape, Sampled):
        return lambda w: {"loss": landscape.sample_losses(w)}
    return lambda w: {"loss": torch.tensor([landscape.value(w)], dtype=torch.float64)}


def placed(landscape: Any, w: Tensor) -> Tensor:
    """Copy a point to where a landscape computes, in its dtype; to its own, where none is said."""
    if not isinstance(landscape, Placed):
        return w.detach().clone()
    return w.detach().to(landscape.device, landscape.dtype, copy=True)


def at_least_its_precision(landscape: Any, w: Tensor) -> torch.dtype:
    """Give the wider of the dtypes of a point and of a landscape."""
    own = landscape.dtype if isinstance(landscape, Placed) else w.dtype
    return torch.promote_types(w.dtype, own)
