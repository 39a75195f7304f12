"""Alignment of digits networks beside weight matching and activation matching written out.

Ten pairs of trained networks: barriers of the training loss on the line, and their ratios to one
weight matching from the given order (Git Re-Basin, algorithm 1), and to the best of 40 from random
orders, of matching by correlations of activations and of the rivals. Exits with 1 if a median is
above its limit, or ours is above the best of any pair.

With `--rivals` the tools rebasin and sinkhorn-rebasin are installed, each into an environment of
its own, and align the same pairs; without it those do that are installed, and it says which are
not. Both bring the second network into another order, and are judged by the same line.

    python benchmarks/alignment.py [PAIRS] [--rivals]     # by default all ten pairs
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from rivals import environments
from rivals.aligners import ALIGNERS, Layers
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import thalweg as tw
from thalweg.problems import MLP

torch.set_num_threads(1)
_WIDTHS = ((32, 32), (128, 128), (64, 64, 64))
_PAIRS = [(_WIDTHS[i % 3], 10 + 2 * (i // 3)) for i in range(9)] + [((64, 64, 64), 16)]
# Limits of the medians: to one weight matching, and to the best of all others.
_TO_ONE, _TO_BEST = 0.33, 0.7


def layers_of(risk: tw.EmpiricalRisk, w: Tensor) -> Layers:
    tensors = list(risk.space.unpack(w.double()).values())
    return [(a.clone(), b.clone()) for a, b in zip(tensors[::2], tensors[1::2], strict=True)]


def ordered(layers: Layers, orders: list[np.ndarray]) -> Layers:
    """Put the hidden units of each layer in an order."""
    moved = []
    for number, (weight, bias) in enumerate(layers):
        if number:
            weight = weight[:, orders[number - 1]]
        if number < len(orders):
            weight, bias = weight[orders[number]], bias[orders[number]]
        moved.append((weight, bias))
    return moved


def by_weights(one: Layers, other: Layers, rng: np.random.Generator, start: bool) -> list:
    """Git Re-Basin's algorithm 1, for dense layers."""
    sizes = [len(weight) for weight, _ in one[:-1]]
    orders = [rng.permutation(n) if start else np.arange(n) for n in sizes]
    gained = True
    while gained:
        gained = False
        for number in rng.permutation(len(sizes)):
            before = orders[number].copy()
            orders[number] = np.arange(sizes[number])
            here = ordered(other, orders)
            products = one[number][0] @ here[number][0].T
            products += torch.outer(one[number][1], here[number][1])
            products += one[number + 1][0].T @ here[number + 1][0]
            costs = products.numpy()
            found = linear_sum_assignment(costs, maximize=True)[1]
            rows = np.arange(sizes[number])
            better = costs[rows, found].sum() > costs[rows, before].sum() + 1e-9
            orders[number] = found if better else before
            gained |= bool(better)
    return orders


def by_activations(one: Layers, other: Layers, x: Tensor) -> list[np.ndarray]:
    """Correlations of what the units give."""
    orders, here, there = [], x.double(), x.double()
    for number in range(len(one) - 1):
        here = torch.relu(here @ one[number][0].T + one[number][1])
        there = torch.relu(there @ other[number][0].T + other[number][1])
        correlations = np.nan_to_num(np.corrcoef(here.T.numpy(), there.T.numpy()))
        n = here.shape[1]
        orders.append(linear_sum_assignment(correlations[:n, n:], maximize=True)[1])
    return orders


def height(risk: tw.EmpiricalRisk, w0: Tensor, w1: Tensor) -> float:
    return max(0.0, float(tw.barrier(risk, w0, w1, test=False).barrier[0]))


def by_rival(name: str, one: Layers, other: Layers, x: Tensor, y: Tensor) -> Layers:
    """Let a rival align the second network in its environment."""
    with tempfile.TemporaryDirectory() as folder:
        pair, out = (Path(folder) / file for file in ("pair.pt", "out.pt"))
        single = [[(w.float(), b.float()) for w, b in layers] for layers in (one, other)]
        torch.save({"first": single[0], "second": single[1], "x": x.float(), "y": y}, pair)
        process = environments.run(
            name, "rivals.aligners", name, str(pair), str(out), stderr=subprocess.PIPE
        )
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(f"{name} ended with {process.returncode}: {said[-2000:]}")
        return torch.load(out)


def prepared(install: bool) -> list[str]:
    """List the rivals whose environment is there; make it, if that is wanted."""
    ready = []
    for name in ALIGNERS:
        wrong = environments.make(name) if install else "not installed; write --rivals"
        if environments.made(name):
            ready.append(name)
        else:
            print(f"{name}: left out: {wrong}.")
    return ready


def compare(widths: tuple[int, ...], seed: int, rivals: list[str]) -> tuple[float, float]:
    problem = tw.load_problem("digits", network="mlp", widths=widths)
    risk = tw.EmpiricalRisk(problem)
    w0, w1 = (
        tw.train(risk, risk.space.pack(MLP(64, widths, 10, seed=s)), epochs=60, lr=0.05, seed=s).w
        for s in (seed, seed + 1)
    )
    start = time.process_time()
    ours = height(risk, w0, tw.align(risk, w0, w1).w)
    seconds = time.process_time() - start
    one, other = layers_of(risk, w0), layers_of(risk, w1)

    loss = risk.value(w1)

    def line_to(layers: Layers) -> float:
        moved = torch.cat([tensor.reshape(-1) for layer in layers for tensor in layer]).to(w0)
        if abs(risk.value(moved) - loss) > 1e-5 * (1 + loss):
            raise SystemExit(f"a network came back with loss {risk.value(moved)}, not {loss}")
        return height(risk, w0, moved)

    single = line_to(ordered(other, by_weights(one, other, np.random.default_rng(0), start=False)))
    many = [
        line_to(ordered(other, by_weights(one, other, np.random.default_rng(s), start=True)))
        for s in range(40)
    ]
    samples = problem.samples("train").slice(0, risk.samples)
    x, y = samples[0].flatten(1), samples[1]
    activations = line_to(ordered(other, by_activations(one, other, x)))
    theirs = [line_to(by_rival(name, one, other, x, y)) for name in rivals]
    best = min(*many, activations, *theirs)
    print(
        f"{'-'.join(map(str, widths)):>9} {seed:>4} {height(risk, w0, w1):>10.4f} {single:>8.4f}"
        f" {min(many):>10.4f} {activations:>12.4f}"
        + "".join(
            f" {barrier:>{len(name)}.4f}" for name, barrier in zip(rivals, theirs, strict=True)
        )
        + f" {ours:>8.4f} {ours / single:>8.2f} {ours / best:>8.2f} {seconds:>8.1f}",
        flush=True,
    )
    return ours / single, ours / best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=int, nargs="?", default=len(_PAIRS))
    parser.add_argument("--rivals", action="store_true", help="install the rivals")
    options = parser.parse_args()
    rivals = prepared(options.rivals)
    print(
        "   widths seed  unaligned  weights best of 40 activations"
        + "".join(f" {name}" for name in rivals)
        + "     ours  to one to best  CPU s"
    )
    ratios = np.array([compare(*pair, rivals) for pair in _PAIRS[: options.pairs]])
    to_one, to_best = np.median(ratios, axis=0)
    print(f"medians: {to_one:.3f} of one matching, {to_best:.3f} of the best; worst", ratios.max(0))
    return int(to_one > _TO_ONE or to_best > _TO_BEST or ratios[:, 1].max() > 1)


if __name__ == "__main__":
    sys.exit(main())
