"""The batch size of full passes: chosen by a quick measurement, within a memory budget."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from thalweg.evaluation.model_copy import ModelCopy
from thalweg.problems.samples import Samples

CANDIDATES = (64, 128, 256, 512)
# Batches whose activations outgrow this are slower on every CPU we measured: 2,000 images at once
# take three times as long as 64 at a time, because large allocations are mapped anew each time.
_CACHED = 24 << 20
_ROUNDS = 5


def keep_large_blocks() -> None:
    """
    Have the allocator serve a pass's activations from memory that it keeps.

    glibc maps large blocks anew each time, 39,000 page faults and a third of the time of a pass
    over 2,000 images, until one has been freed; up to that size it then keeps them.
    """
    torch.empty(_CACHED, dtype=torch.uint8)


def choose_batch_size(measured: ModelCopy, samples: Samples, memory: int) -> int:
    """
    Measure a forward pass at a few batch sizes and take the fastest that fits.

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
        One of 64, 128, 256 and 512 where that many samples exist and fit; fewer where not.
    """
    each = max(1, _bytes_per_sample(measured, samples))
    fits = min(len(samples), memory // each)
    cached = min(fits, _CACHED // each)
    sizes = [size for size in CANDIDATES if size <= cached]
    if not sizes:
        return max(1, min(fits, CANDIDATES[0]))
    # Sizes take turns, and each counts by its best turn: other programs disturb some.
    turns = [
        [_seconds_per_sample(measured, samples, size) for size in sizes] for _ in range(_ROUNDS)
    ]
    best = [min(column) for column in zip(*turns, strict=True)]
    return sizes[best.index(min(best))]


def product_batch_size(measured: ModelCopy, samples: Samples, memory: int) -> int:
    """
    Take the largest batch of 64, 128 and 256 whose activations stay cached and fit.

    Products of the Hessian have a cost a batch, of traversing a graph of several hundred nodes, and
    hold about eight times a forward pass: 128 images at once take a fifth to a third less time an
    image than 32 (measured).
    """
    each = max(1, _bytes_per_sample(measured, samples))
    fits = min(len(samples), _CACHED // each, memory // (8 * each))
    sizes = [size for size in CANDIDATES[:3] if size <= fits]
    return max(sizes, default=max(1, fits))


def _seconds_per_sample(measured: ModelCopy, samples: Samples, size: int) -> float:
    # CPU time, where the CPU computes.
    clock = time.process_time if measured.device.type == "cpu" else time.perf_counter
    batch = samples.slice(0, size)
    with measured.values():
        start = clock()
        evaluation, _ = measured.forward(batch)
        float(evaluation.losses.sum())  # waits for a GPU
    return (clock() - start) / size


def _bytes_per_sample(measured: ModelCopy, samples: Samples) -> int:
    total = 0

    def count(_: nn.Module, __: object, output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel() * output.element_size()

    size = min(2, len(samples))
    with measured.values():
        hooks = [leaf.register_forward_hook(count) for leaf in _leaves(measured.model)]
        try:
            measured.forward(samples.slice(0, size))
        finally:
            for hook in hooks:
                hook.remove()
    return total // size


def _leaves(model: nn.Module) -> list[nn.Module]:
    """Find the modules without children that take hooks; TorchScript's do not."""
    scripted = torch.jit.ScriptModule
    return [m for m in model.modules() if not list(m.children()) and not isinstance(m, scripted)]
