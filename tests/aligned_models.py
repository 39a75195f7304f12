"""Twelve networks whose units may change places: which, and how many, is known of each."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thalweg.polynomial import PolynomialActivation
from thalweg.problems import MLP, AllConv

_GENERATOR = torch.Generator().manual_seed(0)
VECTORS = torch.randn(40, 6, generator=_GENERATOR)
IMAGES = torch.randn(40, 1, 8, 8, generator=_GENERATOR)
TOKENS = torch.randint(0, 11, (40, 6), generator=_GENERATOR)
LABELS = torch.randint(0, 3, (40,), generator=_GENERATOR)


class ResNet(nn.Module):
    """A residual block with batch norm, functions for activations, no bias beneath norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 3)
        self.one = nn.Conv2d(6, 5, 3, padding=1, bias=False)
        self.two = nn.Conv2d(5, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (6, 5, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.stem(x)))
        y = self.norms[2](self.two(F.relu(self.norms[1](self.one(x)))))
        return self.head(F.relu(x + y).mean((2, 3)))


class ResidualMLP(nn.Module):
    """A stream that blocks read through layer norms and add to."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.head = nn.Linear(6, 7), nn.Linear(7, 3)
        self.up = nn.ModuleList(nn.Linear(7, 9) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(9, 7) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(7) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(F.gelu(up(norm(x))))
        return self.head(x)


class Gated(nn.Module):
    """Group norm, a depthwise convolution, and gates on channels (squeeze and excitation)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.each = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = nn.Linear(8 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.each(F.silu(self.norm(self.conv(x)))))
        gates = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return self.head(F.max_pool2d(x * gates[:, :, None, None], 2).flatten(1))


class Words(nn.Module):
    """Embedded words, a convolution along them, their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv = nn.Embedding(11, 7), nn.Conv1d(7, 9, 3, padding=1)
        self.slope, self.head = nn.PReLU(9), nn.Linear(9, 3)

    def forward(self, t: Tensor) -> Tensor:
        return self.head(self.slope(self.conv(self.table(t).transpose(1, 2))).mean(2))


class Encoder(nn.Module):
    """Torch's own transformer layers, with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(11, 8), nn.Parameter(torch.randn(6, 8) * 0.3)
        layer = nn.TransformerEncoderLayer(8, 2, 10, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, t: Tensor) -> Tensor:
        return self.head(self.layers(self.table(t) + self.places).mean(1))


class Block(nn.Module):
    """A layer of `GPT`."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.by_hand = by_hand
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 10), nn.Linear(10, 8)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (
            part.view(n, t, 2, 4).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(8, 2)
        )
        if self.by_hand:
            later = torch.ones(t, t, dtype=torch.bool).triu(1)
            scores = (q @ k.transpose(-2, -1)) * 0.5
            y = F.softmax(scores.masked_fill(later, float("-inf")), dim=-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(n, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """As people write it: packed projections, tied embeddings; attention by hand or by torch."""

    def __init__(self, *, by_hand: bool = False, tied: bool = True) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.blocks = nn.ModuleList(Block(by_hand) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, t: Tensor) -> Tensor:
        x = self.table(t) + self.places(torch.arange(t.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).mean(1)


def stirred(model: nn.Module, seed: int) -> nn.Module:
    """Give biases, scales and statistics values of no special kind."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor += 0.2 * torch.randn(tensor.shape, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(
                    0.3 * torch.randn(module.num_features, generator=generator)
                )
                module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
    return model.eval()


def _cube() -> PolynomialActivation:
    return PolynomialActivation.from_coefficients([0.1, 1.0, 0.3])


# Of each: how it is made, its inputs, and how many units each set has.
OURS: dict[str, tuple[Callable[[], nn.Module], Tensor, list[int]]] = {
    "mlp": (lambda: MLP(6, (12, 9), 3), VECTORS, [12, 9]),
    "deep tanh": (lambda: MLP(6, (7, 8, 9, 7), 3, "tanh"), VECTORS, [7, 8, 9, 7]),
    "no bias": (lambda: MLP(6, (9, 9), 3, "leaky_relu", bias=False), VECTORS, [9, 9]),
    "polynomial": (lambda: MLP(6, (8, 5), 3, _cube()), VECTORS, [8, 5]),
    "all-conv": (lambda: AllConv((1, 8, 8), 3, (5, 6), batchnorm=False), IMAGES, [5, 6]),
    "all-conv with batch norm": (lambda: AllConv((1, 8, 8), 3, (5, 6, 7)), IMAGES, [5, 6, 7]),
}
THEIRS: dict[str, tuple[Callable[[], nn.Module], Tensor, list[int]]] = {
    "resnet": (ResNet, IMAGES, [6, 5]),
    "residual mlp": (ResidualMLP, VECTORS, [7, 9, 9]),
    "gated": (Gated, IMAGES, [4, 4, 4]),
    "words": (Words, TOKENS, [7, 9]),
    "encoder": (Encoder, TOKENS, [8, 10, 10, 2, 2]),
    "gpt": (GPT, TOKENS, [8, 10, 10, 2, 2]),
}
