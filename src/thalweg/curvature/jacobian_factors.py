"""Layers' shares of a Jacobian as outer products: what a Gram matrix is assembled from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]

# Rows of the matrix assembled at once, and numbers of a layer's gradients held at once (512 MB).
_ROWS = 512
_HELD = 1 << 26


class Term(NamedTuple):
    """
    One share of a Gram matrix over M = N k rows: ``left left^T * (right right^T + constant)``.

    Attributes
    ----------
    left : ndarray
        Shape (M, d), row ``i * k + p`` for output p of sample i.
    right : ndarray or None
        Shape (N, e): the same for all outputs of a sample. None stands for no such factor.
    constant : float
        Added to the products of ``right``: 1 where a bias rides along. Alone where there are none.
    """

    left: Array
    right: Array | None = None
    constant: float = 1.0


class Factor(Protocol):
    """A layer's share of the Jacobian."""

    def terms(self) -> Iterator[Term]:
        """Give terms that sum to its share of the Gram matrix."""


@dataclass(frozen=True)
class Dense:
    """
    A layer that acts once on each sample: the gradient of its weights is ``delta a^T``.

    Attributes
    ----------
    inputs : ndarray
        a, shape (N, in).
    cotangents : ndarray
        delta, gradients of the outputs in what the layer gives, shape (N k, out).
    weight, bias : bool
        Whether they are trainable.
    """

    inputs: Array
    cotangents: Array
    weight: bool = True
    bias: bool = True

    def terms(self) -> Iterator[Term]:
        """Give its one term."""
        yield Term(self.cotangents, self.inputs if self.weight else None, float(self.bias))


@dataclass(frozen=True)
class Patches:
    """
    A layer that acts at T places of each sample: a convolution, or one used several times.

    The gradient of its weights is the sum of ``delta_t a_t^T``; it is formed for a block of the
    layer's units at a time.

    Attributes
    ----------
    inputs : ndarray
        Patches a_t, shape (N, T, in).
    cotangents : ndarray
        delta_t, shape (N, k, T, out).
    weight, bias : bool
        Whether they are trainable.
    """

    inputs: Array
    cotangents: Array
    weight: bool = True
    bias: bool = True

    def terms(self) -> Iterator[Term]:
        """Give a term for each block of units, and one for the bias."""
        samples, outputs, _, units = self.cotangents.shape
        rows, size = samples * outputs, self.inputs.shape[2]
        block = max(1, _HELD // (rows * size))
        for start in range(0, units if self.weight else 0, block):
            part = self.cotangents[..., start : start + block].transpose(0, 1, 3, 2)
            yield Term((part @ self.inputs[:, None]).reshape(rows, -1))
        if self.bias:
            yield Term(self.cotangents.sum(2).reshape(rows, units))


def assemble(factors: list[Factor], rows: int) -> Array:
    """
    Sum the factors' shares of the Gram matrix.

    Parameters
    ----------
    factors : list of Factor
        Layers' shares.
    rows : int
        M.

    Returns
    -------
    ndarray
        Shape (M, M), float64, symmetric to the last bit.

    Examples
    --------
    >>> dense = Dense(np.array([[1.0, 2.0]]), np.array([[3.0]]))
    >>> float(assemble([dense], 1)[0, 0])  # 3^2 (1^2 + 2^2 + 1)
    54.0
    """
    total = np.zeros((rows, rows))
    for term in itertools.chain.from_iterable(factor.terms() for factor in factors):
        add_term(total, term)
    mirror(total)
    return total


def multiply(left: Array, right: Array) -> Array:
    """Multiply (R, n) by the transpose of (m, n)."""
    return left @ right.T


def add_term(total: Array, term: Term, product: Callable[[Array, Array], Array] = multiply) -> None:
    """Add a term to the lower triangle, in place, in blocks of rows."""
    rows = len(total)
    samples = rows if term.right is None else len(term.right)
    outputs = rows // samples
    step = max(1, _ROWS // outputs)
    for first in range(0, samples, step):
        last = min(first + step, samples)
        here = slice(first * outputs, last * outputs)
        block = product(term.left[here], term.left[: last * outputs])
        if term.right is None:
            block *= term.constant
        else:
            scale = product(term.right[first:last], term.right[:last])
            scale += term.constant
            pairs = block.reshape(last - first, outputs, last, outputs)
            pairs *= scale[:, None, :, None]
        total[here, : last * outputs] += block


def mirror(total: Array) -> None:
    """Copy the lower triangle to the upper one, in place, in blocks."""
    for start in range(0, len(total), _ROWS):
        stop = min(start + _ROWS, len(total))
        here = total[start:stop, start:stop]
        here[:] = np.tril(here) + np.tril(here, -1).T
        total[start:stop, stop:] = total[stop:, start:stop].T


class Call(NamedTuple):
    """One use of an affine layer in a forward pass: what went in and what came out."""

    module: nn.Module
    inputs: Tensor
    outputs: Tensor


class Recorder:
    """
    Watch the linear and convolutional layers of a model, as far as their weights are plain.

    Parameters
    ----------
    model : nn.Module
        Its ``forward`` is run while the recorder is entered.
    """

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[Call] = []
        self._modules = [module for module in model.modules() if is_plain(module)]
        self._handles: list[Any] = []

    def __enter__(self) -> Recorder:
        self._handles = [m.register_forward_hook(self._record) for m in self._modules]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _record(self, module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        self.calls.append(Call(module, inputs[0].detach(), outputs))
        # An activation that works in place must not overwrite what gradients are taken in.
        return outputs.clone()


def is_plain(module: nn.Module) -> bool:
    """Say whether a layer's gradient is known to be a sum of outer products."""
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return False
    if isinstance(module, nn.Linear):
        return True
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def patches(module: nn.Module, inputs: Tensor) -> Tensor:
    """Give what a plain layer multiplies its weights by, shape (n, T, in)."""
    if isinstance(module, nn.Conv2d):
        size, stride = module.kernel_size, module.stride
        padding = cast("tuple[int, int]", module.padding)
        return F.unfold(
            inputs, size, dilation=module.dilation, padding=padding, stride=stride
        ).transpose(1, 2)
    return inputs.reshape(len(inputs), -1, inputs.shape[-1])


def places(module: nn.Module, outputs: Tensor) -> Tensor:
    """Bring a plain layer's outputs, or cotangents of them, to the shape (n, T, out)."""
    if isinstance(module, nn.Conv2d):
        return outputs.flatten(2).transpose(1, 2)
    return outputs.reshape(len(outputs), -1, outputs.shape[-1])


def join(inputs: list[Tensor], cotangents: list[Tensor], weight: bool, bias: bool) -> Factor:
    """
    Make the factor of one tensor of weights from all its uses.

    Parameters
    ----------
    inputs : list of Tensor
        Of each use, shape (N, T, in).
    cotangents : list of Tensor
        Of each use, shape (N, k, T, out).
    weight, bias : bool
        Which of the layer's tensors are meant.
    """
    a, delta = torch.cat(inputs, 1).numpy(), torch.cat(cotangents, 2).numpy()
    samples, outputs, count, units = delta.shape
    if count == 1:
        return Dense(a[:, 0], delta.reshape(samples * outputs, units), weight, bias)
    return Patches(a, delta, weight, bias)
