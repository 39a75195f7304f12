"""What a certificate claims: a network, its samples and its targets, as exact numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.certificates.chain import Chain
from thalweg.certificates.extended import Double
from thalweg.certificates.forward import run_forward
from thalweg.certificates.products import WIDER, norm
from thalweg.errors import InvalidArgument, NotDefined
from thalweg.tracing import chain as links

Array = NDArray[np.float64]
# Samples compared at once with the user's module.
_COMPARED = 256
# Numbers whose products, cut into slices, keep their digits in float64.
_SMALL = 1e-100


@dataclass(frozen=True)
class Statement:
    """
    What is claimed about a network, with everything the claim depends on.

    Attributes
    ----------
    chain : Chain
        The network at w.
    samples, targets : ndarray
        Shapes (N, d) and (N, C), float64.
    outputs : tuple of int or None
        Outputs that are used; None for all.
    strict : bool
        Whether only verified products are trusted.
    """

    chain: Chain
    samples: Array
    targets: Array
    outputs: tuple[int, ...] | None = None
    strict: bool = False


def state(
    read: links.Chain, w: Tensor, /, *, outputs: Sequence[int] | None, strict: bool
) -> Statement:
    """
    Collect what a claim about a network at ``w`` depends on.

    Parameters
    ----------
    read : tracing.chain.Chain
        The network, layer by layer.
    w, outputs, strict
        As for `certify_zero`.

    Raises
    ------
    NotDefined
        If the network's structure is not known.
    """
    at, count = w.detach().cpu().double(), len(read.samples)
    chain = Chain.of(read, at)
    flat = read.targets(0, count).double().flatten(1).numpy()
    chosen = None if outputs is None else tuple(int(index) for index in outputs)
    if chosen is not None and not (chosen and set(chosen) <= set(range(flat.shape[1]))):
        raise InvalidArgument(f"outputs={chosen}; name some of 0 to {flat.shape[1] - 1}.")
    samples = read.inputs(0, count).flatten(1).numpy()
    _check_numbers(chain.arrays() | {"inputs": samples, "targets": flat})
    check_same(chain, samples, read, at)
    return Statement(chain, samples, flat, chosen, strict)


def _check_numbers(arrays: dict[str, Array]) -> None:
    """Refuse what is no number, and numbers so small that products of them lose their digits."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise NotDefined(
                f"{name} holds {count} of {array.size} numbers that are NaN or infinite: nothing is"
                " proved of them. Give finite weights and data."
            )
        sizes = np.abs(array[array != 0])
        if sizes.size and sizes.min() < _SMALL:
            raise NotDefined(
                f"{name} holds {sizes.min():.3g}, and products of such numbers underflow: rounding"
                f" is bounded for zero and for sizes from {_SMALL:g} up. Set what is smaller to 0."
            )


def check_same(
    chain: Chain, samples: Array, read: links.Chain, w: Tensor, where: str = "at w"
) -> None:
    """
    Compare what is proved of with the user's own module, on all samples.

    Both are evaluated in float64, and `run_forward` bounds how far any such evaluation may be off.
    """
    kind = Double(read.largest_radius)
    for start in range(0, len(samples), _COMPARED):
        stop = min(start + _COMPARED, len(samples))
        expected = read.whole(w, read.inputs(start, stop)).flatten(1).numpy()
        _, outputs, error = run_forward(chain, samples[start:stop], kind)
        with np.errstate(invalid="ignore", over="ignore"):
            apart, rounding = norm(outputs - expected, axis=1), 2 * error * WIDER
        same = (apart <= rounding) | (where != "at w") & ~np.isfinite(rounding)
        differing = np.flatnonzero(~same)
        if len(differing):
            raise NotDefined(
                f"sample {start + differing[0]}: {where}, the network's outputs are"
                f" {apart[differing[0]]:.3g} away from those of the chain of its layers, and"
                f" rounding explains {rounding[differing[0]]:.3g}. It does more than"
                " apply its layers."
            )
