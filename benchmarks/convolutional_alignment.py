"""Alignment of CIFAR-10 convolutional networks with batch norm beside rivals written out.

Pairs of networks trained on 2,000 images to zero error: barriers of the training loss on the line,
batch-norm statistics re-estimated at each point, and their ratios to the best of 40 weight
matchings from random orders (Git Re-Basin, algorithm 1) and of matching by correlations of
activations. Exits with 1 if the median ratio is above its limit.

    python benchmarks/convolutional_alignment.py DATA [PAIRS]     # DATA: a folder of CIFAR-10
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import thalweg as tw
from thalweg.problems import AllConv

torch.set_num_threads(1)
_WIDTHS, _IMAGES, _RESTARTS, _LIMIT = (32, 64, 64), 2000, 40, 0.8


@dataclass(frozen=True)
class Network:
    """Kernels of each layer, the norms' scales and shifts, and the linear layer, by channel."""

    kernels: list[Tensor]  # (out, in, 3, 3)
    norms: list[Tensor]  # (out, 2)
    linear: Tensor  # (classes, channels, places)
    bias: Tensor

    @classmethod
    def of(cls, risk: tw.EmpiricalRisk, w: Tensor) -> Network:
        named = risk.space.unpack(w)
        numbers = range(1, len(_WIDTHS) + 1)
        norms = [
            torch.stack([named[f"norm{i}.weight"], named[f"norm{i}.bias"]], 1) for i in numbers
        ]
        linear = named["linear.weight"].unflatten(1, (_WIDTHS[-1], -1))
        kernels = [named[f"conv{i}.weight"] for i in numbers]
        return cls(kernels, norms, linear, named["linear.bias"])

    def flat(self) -> Tensor:
        parts = []
        for kernel, norm in zip(self.kernels, self.norms, strict=True):
            parts += [kernel, norm[:, 0], norm[:, 1]]
        return torch.cat([part.reshape(-1) for part in (*parts, self.linear, self.bias)])

    def ordered(self, orders: list[np.ndarray]) -> Network:
        """Put the channels of each layer in an order."""
        kernels = [kernel[order] for kernel, order in zip(self.kernels, orders, strict=True)]
        for i in range(1, len(kernels)):
            kernels[i] = kernels[i][:, orders[i - 1]]
        norms = [norm[order] for norm, order in zip(self.norms, orders, strict=True)]
        return Network(kernels, norms, self.linear[:, orders[-1]], self.bias)

    def of_channels(self, layer: int) -> Tensor:
        """Give all that goes with each channel of a layer, shape (channels, count)."""
        after = self.linear if layer + 1 == len(self.kernels) else self.kernels[layer + 1]
        own = self.kernels[layer].flatten(1), self.norms[layer]
        return torch.cat([*own, after.transpose(0, 1).flatten(1)], 1).double()

    def activations(self, x: Tensor) -> list[np.ndarray]:
        """Give what each channel gives over all images and places, shape (channels, count)."""
        given = []
        for kernel, norm in zip(self.kernels, self.norms, strict=True):
            x = F.conv2d(x, kernel, stride=2, padding=1)
            x = F.relu(F.batch_norm(x, None, None, norm[:, 0], norm[:, 1], training=True))
            given.append(x.transpose(0, 1).flatten(1).double().numpy())
        return given


def by_weights(one: Network, other: Network, rng: np.random.Generator) -> Network:
    """Git Re-Basin's algorithm 1, from a random order."""
    orders = [rng.permutation(n) for n in _WIDTHS]
    gained = True
    while gained:
        gained = False
        for layer in rng.permutation(len(orders)):
            here = other.ordered(orders)
            products = (one.of_channels(layer) @ here.of_channels(layer).T).numpy()
            found = linear_sum_assignment(products, maximize=True)[1]
            if products[np.arange(len(found)), found].sum() > np.trace(products) + 1e-9:
                orders[layer], gained = orders[layer][found], True
    return other.ordered(orders)


def by_activations(one: Network, other: Network, x: Tensor) -> Network:
    """Match correlations of what channels give."""
    orders = []
    for mine, theirs in zip(one.activations(x), other.activations(x), strict=True):
        correlations = np.nan_to_num(np.corrcoef(mine, theirs))[: len(mine), len(mine) :]
        orders.append(linear_sum_assignment(correlations, maximize=True)[1])
    return other.ordered(orders)


def compare(problem: tw.Problem, seed: int) -> float:
    risk = tw.EmpiricalRisk(problem)
    recipe = {"epochs": 30, "lr": 0.05, "batch_size": 100}
    starts = [AllConv(widths=_WIDTHS, seed=seed + i) for i in range(2)]
    w0, w1 = (
        tw.train(risk, risk.space.pack(model), seed=seed + i, **recipe).w
        for i, model in enumerate(starts)
    )

    def height(w: Tensor) -> float:
        return max(0.0, float(tw.barrier(risk, w0, w, test=False).barrier[0]))

    one, other = Network.of(risk, w0), Network.of(risk, w1)
    loss = risk.value(w1)

    def line_to(network: Network) -> float:
        moved = network.flat()
        if abs(risk.value(moved) - loss) > 1e-4 * (1 + loss):
            raise SystemExit(f"a network came back with loss {risk.value(moved)}, not {loss}")
        return height(moved)

    start = time.process_time()
    ours = height(tw.align(risk, w0, w1).w)
    seconds = time.process_time() - start
    x = problem.samples("train").slice(0, risk.samples)[0]
    activations = line_to(by_activations(one, other, x))
    weights = min(
        line_to(by_weights(one, other, np.random.default_rng(s))) for s in range(_RESTARTS)
    )
    ratio = ours / min(activations, weights)
    print(
        f"{seed:>4} {height(w1):>10.3f} {weights:>16.3f} {activations:>12.3f} {ours:>7.3f}"
        f" {ratio:>8.3f} {seconds:>8.1f}",
        flush=True,
    )
    return ratio


def main() -> int:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    problem = tw.load_problem(
        "cifar10", data=sys.argv[1], network="allconv", widths=_WIDTHS, train_size=_IMAGES
    )
    print("seed  unaligned  weights, of 40  activations    ours  to best    CPU s")
    ratios = [compare(problem, 2 * pair) for pair in range(pairs)]
    print(f"median: {np.median(ratios):.3f} of the best other, worst {max(ratios):.3f}")
    return int(np.median(ratios) > _LIMIT)


if __name__ == "__main__":
    sys.exit(main())
