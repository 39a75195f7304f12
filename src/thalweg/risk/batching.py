"""The batch size of full passes: chosen by a quick measurement, within a memory budget."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from thalweg.problems.samples import Samples
from thalweg.risk.measured import MeasuredModel

CANDIDATES = (32, 64, 128, 256, 512, 1024)
# A larger batch must be clearly faster: timings of a few milliseconds scatter by a few percent.
_WORTH = 0.97


@torch.no_grad()
def choose_batch_size(measured: MeasuredModel, samples: Samples, memory: int) -> int:
    """
    Measure a forward pass at a few batch sizes and take the fastest that fits.

    Parameters
    ----------
    measured : MeasuredModel
        The model to run.
    samples : Samples
        Where the batches come from.
    memory : int
        Budget in bytes for the activations of one batch, kept for a backward pass.

    Returns
    -------
    int
        One of 32, 64, ..., 1024, at most the number of samples.
    """
    fits = max(1, memory // max(1, _bytes_per_sample(measured, samples)))
    sizes = [size for size in CANDIDATES if size <= min(fits, len(samples))]
    if not sizes:
        return min(int(fits), len(samples))
    best, fastest = sizes[0], float("inf")
    for size in sizes:
        seconds = _seconds_per_sample(measured, samples, size)
        if seconds < _WORTH * fastest:
            best, fastest = size, seconds
    return best


def _seconds_per_sample(measured: MeasuredModel, samples: Samples, size: int) -> float:
    batch = samples.slice(0, size)
    # CPU time, where the CPU computes: other programs do not disturb it.
    clock = time.process_time if measured.device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(3):
        start = clock()
        losses, _, _ = measured.forward(batch)
        float(losses.sum())  # waits for a GPU
        times.append(clock() - start)
    return min(times) / size


def _bytes_per_sample(measured: MeasuredModel, samples: Samples) -> int:
    total = 0

    def count(_: nn.Module, __: object, output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel() * output.element_size()

    leaves = [m for m in measured.model.modules() if not list(m.children())]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    size = min(2, len(samples))
    try:
        measured.forward(samples.slice(0, size))
    finally:
        for hook in hooks:
            hook.remove()
    return total // size
