"""The Gram matrix of a network's outputs beside torch's per-sample Jacobian: time and memory.

CPU time of this process on one thread. `torch.func` forms J by `vmap(jacrev)`, in chunks, and
multiplies it by its transpose. Exits with 1 if the two disagree, or if ours takes longer.

    python benchmarks/degeneracy.py [CASE ...]     # by default all of them
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

import thalweg as tw

torch.set_num_threads(1)
# Samples that torch.func differentiates at once: the fastest of 4, 16, 64 for each case.
_CHUNK = 16


class ResidualMLP(nn.Module):
    """Residual blocks with functions for activations."""

    def __init__(self, width: int = 64, blocks: int = 4) -> None:
        super().__init__()
        self.read, self.head = nn.Linear(16, width), nn.Linear(width, 10)
        self.up = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(F.relu(up(norm(x))))
        return self.head(x)


class Block(nn.Module):
    """Two convolutions with batch norm, and what goes past them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.one(x)))
        return F.relu(self.norms[1](self.two(y)) + self.skip(x))


class ResNet(nn.Module):
    """Three blocks on images of 16x16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2), Block(16, 32, 2))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Transformer(nn.Module):
    """Two layers of torch's encoder on 16 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(100, 32), nn.Embedding(16, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x) + self.places(torch.arange(x.shape[1]))
        return self.head(self.encoder(h).mean(1))


class Recurrent(nn.Module):
    """Words through an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.core = nn.Embedding(100, 16), nn.LSTM(16, 32, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(self.words(x))[0][:, -1])


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "residual MLP": (ResidualMLP, lambda: torch.randn(200, 16)),
    "ResNet": (ResNet, lambda: torch.randn(100, 3, 16, 16)),
    "transformer": (Transformer, lambda: torch.randint(0, 100, (200, 16))),
    "LSTM": (Recurrent, lambda: torch.randint(0, 100, (100, 12))),
}


def by_torch(model: nn.Module, x: Tensor) -> Tensor:
    """Form J sample by sample, and multiply it by its transpose."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def outputs(named: dict[str, Tensor], sample: Tensor) -> Tensor:
        answer: Tensor = functional_call(model, (named, buffers), (sample[None],))
        return answer[0]

    with sdpa_kernel(SDPBackend.MATH):
        try:
            rows = vmap(jacrev(outputs), (None, 0), chunk_size=_CHUNK)(weights, x)
        except RuntimeError:  # a model that torch cannot batch, such as an LSTM
            each = [jacrev(outputs)(weights, sample) for sample in x]
            rows = {name: torch.stack([one[name] for one in each]) for name in weights}
    jacobian = torch.cat([part.flatten(2).flatten(0, 1) for part in rows.values()], 1)
    return jacobian @ jacobian.T


def timed(compute: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Give CPU seconds and what was computed; the better of two turns."""
    times = []
    for _ in range(2):
        start = time.process_time()
        answer = compute()
        times.append(time.process_time() - start)
    return min(times), answer


def measure(name: str) -> bool:
    """Measure one case, print a row, and say whether it holds."""
    make, data = CASES[name]
    torch.manual_seed(0)
    model, x = make().double().eval(), data()
    x = x.double() if x.is_floating_point() else x
    with torch.no_grad():
        y = torch.zeros_like(model(x))
    risk = tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), (x, y)), batchnorm="frozen")
    w = risk.space.pack(model)
    ours, gram = timed(lambda: risk.gram(w))
    theirs, expected = timed(lambda: by_torch(model, x))
    whole, rank = timed(lambda: torch.tensor(tw.degeneracy(risk, w).rank))
    eigenvalues, _ = timed(lambda: torch.linalg.eigvalsh(expected))
    apart = float((gram - expected).norm() / expected.norm())
    print(
        f"{name:14s} W {len(w):7,d}  M {len(gram):6,d}  Gram {ours:6.2f} s  vmap(jacrev)"
        f" {theirs:6.2f} s  ratio {ours / theirs:5.2f}  | degeneracy {whole:6.2f} s, with"
        f" eigenvalues {theirs + eigenvalues:6.2f} s  ratio {whole / (theirs + eigenvalues):5.2f}"
        f"  apart {apart:.0e}  rank {int(rank)}",
        flush=True,
    )
    return apart < 1e-9 and ours <= theirs


def main() -> int:
    """Measure the cases named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    held = [measure(name) for name in parser.parse_args().cases or CASES]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
