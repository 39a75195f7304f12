"""Batch sizes of full passes and of products: as large as blocks of memory and a budget allow."""

from __future__ import annotations

from typing import NamedTuple

import torch

from thalweg.evaluation.model_copy import ModelCopy
from thalweg.evaluation.saved_tensors import with_saved
from thalweg.problems.samples import Samples

# Blocks up to this size are kept by the allocator once one has been freed.
_KEPT = 24 << 20
# Of the largest activation of a batch, on a CPU. The larger a batch, the less its fixed costs
# weigh, until blocks of memory outgrow caches and allocator: of benchmarks/surface.py, 256 images
# at once take a tenth more time than 128, and 500 a quarter more. Fewer than a hundred images pay
# for many weights too often, and may fill twice as much.
_LARGEST, _FEW = 4 << 20, 100
_LARGEST_OF_FEW = 8 << 20
# Products pay more for a batch, see `product_batch_size`.
_LARGEST_OF_PRODUCTS = 16 << 20
# What a product needs at its peak, in activations kept for one backward pass.
_PEAK_OF_PRODUCTS = 4


class Activations(NamedTuple):
    """
    What one sample's evaluation keeps for a backward pass.

    Attributes
    ----------
    total, largest : int
        Bytes of all tensors, and of the largest one; at least 1.
    """

    total: int
    largest: int


def keep_large_blocks() -> None:
    """
    Have the allocator serve a pass's activations from memory that it keeps.

    glibc maps large blocks anew each time, 39,000 page faults and a third of the time of a pass
    over 2,000 images, until one has been freed; up to that size it then keeps them.
    """
    torch.empty(_KEPT, dtype=torch.uint8)


def choose_batch_size(measured: ModelCopy, samples: Samples, memory: int) -> int:
    """
    Choose how many samples a pass evaluates at once: the same number at every call.

    Parameters
    ----------
    measured : ModelCopy
        The model to run.
    samples : Samples
        Where the batches come from.
    memory : int
        Budget in bytes for the activations of one batch, kept for a backward pass.

    Returns
    -------
    int
        At most all samples, at least one.
    """
    activations = measure_activations(measured, samples)
    few = min(_FEW, _LARGEST_OF_FEW // activations.largest)
    most = max(few, _LARGEST // activations.largest)
    return _size(measured, samples, memory // activations.total, most)


def product_batch_size(measured: ModelCopy, samples: Samples, memory: int) -> int:
    """
    Choose how many samples a product of the Hessian takes at once.

    Each batch pays for all weights, whatever its size: gradients of W numbers, and a graph of
    several hundred nodes. On a ResNet-18 that is as much as three images cost, so batches are as
    large as the budget allows.
    """
    activations = measure_activations(measured, samples)
    fits = memory // _PEAK_OF_PRODUCTS // activations.total
    return _size(measured, samples, fits, _LARGEST_OF_PRODUCTS // activations.largest)


def _size(measured: ModelCopy, samples: Samples, fits: int, most: int) -> int:
    """Give as many samples as fit into memory, on a CPU at most those that caches serve fast."""
    if measured.device.type == "cpu":
        fits = min(fits, most)
    return max(1, min(fits, len(samples)))


def measure_activations(measured: ModelCopy, samples: Samples) -> Activations:
    """Run the model on two samples, and see what it keeps of each."""
    size = min(2, len(samples))
    sizes: dict[int, int] = {}
    with measured.derivatives():
        state = (*measured.model.parameters(), *measured.model.buffers())
        storages = {tensor.untyped_storage().data_ptr() for tensor in state}
        _, saved = with_saved(lambda: measured.forward(samples.slice(0, size)))
    for tensor in saved:
        place = tensor.untyped_storage().data_ptr()
        if place not in storages:
            sizes[place] = max(sizes.get(place, 0), tensor.nbytes)
    total, largest = sum(sizes.values()), max(sizes.values(), default=0)
    return Activations(max(1, total // size), max(1, largest // size))
