"""Branches at once: one vmapped step of K models against K steps one after another, on a CPU.

Both take the gradients of K copies of a network on the same mini-batch of 100, in float32 on one
thread, and turn about, so that a busy machine slows them alike; CPU time; median of the ratios
with the first and last tenth. Below 1 a batch of models pays. Exits with 1 if the two disagree on
a gradient.

    python benchmarks/branches.py [--rounds 15] [--copies 8]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from thalweg.problems.networks import MLP, AllConv

BATCH = 100
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MLP 10-8-8-10": lambda: MLP(10, (8, 8), 10),
    "MLP 64-32-10": lambda: MLP(64, (32,), 10),
    "MLP 64-64-64-10": lambda: MLP(64, (64, 64), 10),
    "AllConv of the demo": lambda: AllConv((1, 8, 8), widths=(32, 64, 64)),
    "AllConv of the paper": lambda: AllConv(),
}


def batch_of(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Make inputs that fit; costs do not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    first = next(model.parameters())
    if first.dim() == 4:
        side = 32 if first.shape[1] == 3 else 8
        inputs = torch.randn(BATCH, first.shape[1], side, side, generator=generator)
    else:
        inputs = torch.randn(BATCH, first.shape[1], generator=generator)
    return inputs, torch.randint(10, (BATCH,), generator=generator)


def ways(model: nn.Module, copies: int) -> tuple[Callable[[], list[Tensor]], ...]:
    """Give both ways to compute the gradients of all copies."""
    # Batch's own statistics, as training has them; buffers are not moved.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    inputs, targets = batch_of(model)
    names = [name for name, _ in model.named_parameters()]
    noise = torch.Generator().manual_seed(1)
    many = {
        name: torch.stack(
            [w + 0.1 * torch.randn(w.shape, generator=noise) for _ in range(copies)]
        ).detach()
        for name, w in model.named_parameters()
    }

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, weights, (inputs,)), targets)

    batched = vmap(grad(loss))

    def at_once() -> list[Tensor]:
        found = batched(many)
        return [found[name] for name in names]

    def in_turn() -> list[Tensor]:
        rows = []
        for k in range(copies):
            weights = {name: many[name][k].requires_grad_() for name in names}
            rows.append(torch.autograd.grad(loss(weights), list(weights.values())))
        return [torch.stack(column) for column in zip(*rows, strict=True)]

    return at_once, in_turn


def seconds(work: Callable[[], object]) -> float:
    """CPU time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> int:
    """Measure, print, and say whether both ways agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--copies", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    agree = True
    for name, make in NETWORKS.items():
        model = make()
        at_once, in_turn = ways(model, options.copies)
        pairs = zip(at_once(), in_turn(), strict=True)
        agree &= all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)
        ratios = sorted(seconds(at_once) / seconds(in_turn) for _ in range(options.rounds))
        low, high = (ratios[round(q * (len(ratios) - 1))] for q in (0.1, 0.9))
        weights = sum(w.numel() for w in model.parameters())
        print(
            f"{name:<22} {weights:>8,} weights: {options.copies} models at once cost"
            f" {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f}) of one after another",
            flush=True,
        )
    if not agree:
        print("the two ways disagree on a gradient")
    return int(not agree)


if __name__ == "__main__":
    sys.exit(main())
