"""Gram matrix and Jacobian of models as people write them, against autograd row by row."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import thalweg as tw
from thalweg.curvature.gram import dense
from thalweg.curvature.jacobian_parts import Reading
from thalweg.curvature.output_rows import OutputRows

SAMPLES, WORDS, LENGTH = 7, 9, 5


def numbers(*shape):
    return torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(1)).double()


def tokens(words=WORDS):
    return torch.randint(0, words, (SAMPLES, LENGTH), generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    """Residual blocks written with functions; one of them is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.up = nn.ModuleList(nn.Linear(6, 8) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(8, 6, bias=i > 0) for i in range(2))
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        x = self.read(x)
        for i in (0, 1, 0):
            x = x + self.down[i](F.relu(self.up[i](self.norm(x))))
        return self.head(x)


class SmallResNet(nn.Module):
    def __init__(self, norm=nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.first, self.second = nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.skip = nn.Conv2d(4, 6, 1, 2)
        self.norms = nn.ModuleList(norm(c) for c in (4, 6, 6))
        self.head = nn.Linear(6, 3)
        for module in self.norms:
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)

    def forward(self, x):
        x = F.relu(self.norms[0](self.stem(x)), inplace=True)
        y = self.norms[2](self.second(F.relu(self.norms[1](self.first(x)))))
        return self.head(F.adaptive_avg_pool2d(F.relu(y + self.skip(x)), 1).flatten(1))


class Transformer(nn.Module):
    """Words, learned positions, a class token, torch's encoder, a mask of padding."""

    def __init__(self, *, padded=False, pre=False, sequence=True) -> None:
        super().__init__()
        self.words, self.place = nn.Embedding(WORDS, 8), nn.Parameter(torch.randn(1, LENGTH, 8))
        self.first, self.padded = nn.Parameter(torch.randn(1, 1, 8)), padded
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=pre)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head, self.sequence = nn.Linear(8, 2), sequence

    def forward(self, x):
        h = torch.cat([self.first.expand(len(x), -1, -1), self.words(x) + self.place], 1)
        mask = F.pad(x == 0, (1, 0)) if self.padded else None
        return self.head(self.encoder(h, src_key_padding_mask=mask)[:, 0])


class GPT(nn.Module):
    """As small implementations have it: one projection, an embedding of places, a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, 8), nn.Embedding(LENGTH, 8)
        self.ln1, self.ln2 = nn.LayerNorm(8), nn.LayerNorm(8, bias=False)
        self.attend, self.project = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, WORDS, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, x):
        n, length = x.shape
        h = self.wte(x) + self.wpe(torch.arange(length))
        parts = self.attend(self.ln1(h)).split(8, dim=2)
        q, k, v = (part.view(n, length, 2, 4).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.project(y.transpose(1, 2).reshape(n, length, 8))
        h = h + self.down(F.gelu(self.up(self.ln2(h))))
        return self.head(h[:, -1])


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, *, packed=False, words=True, **options) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 4, padding_idx=0) if words else nn.Linear(3, 4)
        self.core = kind(4, 5, batch_first=True, **options)
        self.head = nn.Linear(5 * (2 if options.get("bidirectional") else 1), 2)
        self.packed = packed

    def forward(self, x):
        h = self.words(x)
        if not self.packed:
            return self.head(self.core(h)[0].mean(1))
        lengths = (x != 0).sum(1).clamp_min(1)
        h = pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.core(h)[0], batch_first=True)[0].sum(1))


class Cross(nn.Module):
    """Attention from queries of their own to the sequence: the projection is cut in three."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 3, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, kdim=4, vdim=4)
        self.own = nn.MultiheadAttention(8, 4, add_bias_kv=True)
        self.head = nn.Linear(24, 2)

    def forward(self, x):
        h = self.attention(self.queries.expand(len(x), -1, -1), x, x)[0].transpose(0, 1)
        h = h + self.own(h, h + 1, h + 1, need_weights=False)[0]
        return self.head(h.transpose(0, 1).flatten(1))


class Formulas(nn.Module):
    """Weights of no module: einsum, a stack of matrices, a table read by numbers, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.heads = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(2, 6, 3))
        self.table = nn.Parameter(torch.randn(LENGTH, 6))
        self.gate, self.vector = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(3))

    def forward(self, x):
        h = torch.einsum("nti,ij->ntj", x, self.mix) + self.table[torch.arange(x.shape[1])]
        h = torch.tanh(h) * torch.sigmoid(self.gate) * self.gate
        return (torch.einsum("nti,hij->nhtj", h, self.heads) @ self.vector).sum(2)


class Towers(nn.Module):
    """Shared weights: one tower for two halves, and a tensor that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.score = nn.Bilinear(4, 4, 2)

    def forward(self, x):
        left, right = self.one(self.tower(x[:, :3])), self.two(self.tower(x[:, 3:]))
        return self.score(left, right)


class Patches(nn.Module):
    """Time-distributed convolutions of every kind, and norms."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv1d(2, 4, 3, padding="same", dilation=2)
        self.grouped, self.back = nn.Conv1d(4, 4, 3, groups=2), nn.ConvTranspose1d(4, 3, 2, 2)
        self.deep = nn.Conv3d(1, 2, (1, 2, 3))
        self.norms = nn.Sequential(nn.GroupNorm(2, 4), nn.PReLU(4), nn.RMSNorm(6))
        self.instance = nn.InstanceNorm1d(3, affine=True)
        self.head = nn.Linear(2 * 3 * 2 * 6, 2)

    def forward(self, x):  # (n, 3 steps, 2 channels, 6)
        n, steps = x.shape[:2]
        h = self.norms(self.wide(x.flatten(0, 1)))
        h = self.instance(self.back(self.grouped(h)))
        h = self.deep(h.view(n, steps, 3, 8).unsqueeze(1))
        return self.head(h.flatten(1))


class Bag(nn.Module):
    """Uses that are not known: a bag of embeddings, weight norm, a spectral norm."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(WORDS, 4)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
        self.head = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 2))

    def forward(self, x):
        return self.head(torch.tanh(self.normed(self.bag(x))))


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.waves = nn.Parameter(torch.randn(3, dtype=torch.complex128))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        spectrum = torch.fft.rfft(x)
        return self.head(torch.fft.irfft(spectrum * self.waves, n=4))


class Shared(nn.Module):
    """Something computed once for all samples: no use of these weights tells samples apart."""

    def __init__(self) -> None:
        super().__init__()
        self.codes, self.read = nn.Parameter(torch.randn(4, 3)), nn.Linear(3, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(torch.tanh(x @ self.read(self.codes)))


class Deciding(nn.Module):
    """A branch on values: no transform of torch.func can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        rows = [row * 2 if float(row.detach().sum()) > 0 else row for row in x]
        return self.head(torch.tanh(self.one(torch.stack(rows))))


MODELS = {
    "residual": (Residual, numbers(4), ()),
    "frozen batch norm": (SmallResNet, numbers(2, 6, 6), ()),
    "group norm": (lambda: SmallResNet(lambda c: nn.GroupNorm(2, c)), numbers(2, 6, 6), ()),
    "transformer": (Transformer, tokens(), ()),
    "padded, norms first": (lambda: Transformer(padded=True, pre=True), tokens(), ()),
    "tied words": (GPT, tokens(), ()),
    "LSTM": (Recurrent, tokens(), ()),
    "LSTM of two layers, both ways": (
        lambda: Recurrent(num_layers=2, bidirectional=True),
        tokens(),
        (),
    ),
    "GRU of numbers": (lambda: Recurrent(nn.GRU, words=False), numbers(LENGTH, 3), ()),
    "RNN": (lambda: Recurrent(nn.RNN), tokens(), ()),
    "packed LSTM": (lambda: Recurrent(packed=True), tokens(3), ()),
    "cross attention": (Cross, numbers(LENGTH, 4), ()),
    "formulas": (Formulas, numbers(LENGTH, 4), ("gate",)),
    "towers": (Towers, numbers(6), ("score.weight",)),
    "convolutions": (Patches, numbers(3, 2, 6), ()),
    "bag": (
        Bag,
        tokens(),
        (
            "bag.weight",
            "head.parametrizations.weight.original",
            "normed.parametrizations.weight.original0",
            "normed.parametrizations.weight.original1",
        ),
    ),
    "complex": (Complex, numbers(4), ("waves",)),
    "once for all": (Shared, numbers(4), ("codes", "read.weight", "read.bias")),
    "by value": (
        Deciding,
        numbers(4),
        ("one.parametrizations.weight.original0", "one.parametrizations.weight.original1"),
    ),
}


def risk_of(name, **options):
    make, x, _ = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        y = torch.zeros_like(model.double()(x))
    problem = tw.Problem(model, nn.MSELoss(), (x, y))
    settings = {"dtype": torch.float64, "batchnorm": "frozen"} | options
    return tw.EmpiricalRisk(problem, **settings)


def oracle(risk):
    """J, a row at a time, by plain autograd on what the risk evaluates."""
    w = risk.space.pack(risk.problem.model)
    rows = OutputRows(risk.jacobian(w), None)
    return torch.cat(
        [rows._one_by_one(rows.names, i, lambda done: None) for i in range(len(rows.spans))]
    )


@pytest.mark.parametrize("name", MODELS)
def test_gram_and_jacobian(name):
    risk = risk_of(name)
    w, jacobian = risk.space.pack(risk.problem.model), oracle(risk)
    torch.testing.assert_close(dense(risk.jacobian(w)), jacobian, rtol=1e-9, atol=1e-10)
    gram = risk.gram(w)
    expected = jacobian @ jacobian.T
    torch.testing.assert_close(gram, expected, rtol=1e-9, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("name", MODELS)
def test_uses_that_are_not_known_are_those_expected(name):
    risk = risk_of(name)
    reading = Reading(OutputRows(risk.jacobian(risk.space.pack(risk.problem.model)), None))
    assert sorted(reading.unknown) == sorted(MODELS[name][2])


@pytest.mark.parametrize("name", ["tied words", "packed LSTM", "convolutions", "once for all"])
def test_whatever_the_batches_and_the_memory(name, monkeypatch):
    risk = risk_of(name, batch_size=4)  # batches of two, and one of a single sample
    w, jacobian = risk.space.pack(risk.problem.model), oracle(risk)
    expected = jacobian @ jacobian.T
    close = {"rtol": 1e-9, "atol": 1e-10 * float(expected.abs().max())}
    torch.testing.assert_close(risk.gram(w), expected, **close)
    monkeypatch.setattr("thalweg.curvature.jacobian_plan._HELD", 300)
    monkeypatch.setattr("thalweg.curvature.jacobian_factors._HELD", 40)
    torch.testing.assert_close(risk.gram(w), expected, **close)
    torch.testing.assert_close(dense(risk.jacobian(w)), jacobian, rtol=1e-9, atol=1e-10)


def test_the_oracle_agrees_with_differences():
    risk = risk_of("padded, norms first")
    w, jacobian = risk.space.pack(risk.problem.model), oracle(risk)
    v = torch.randn(len(w), generator=torch.Generator().manual_seed(0)).double()
    ahead, behind = (risk.residuals(w + s * 1e-5 * v) for s in (1, -1))
    slope = (ahead - behind).reshape(-1) / 2e-5
    torch.testing.assert_close(jacobian @ v, slope, rtol=1e-6, atol=1e-7)


class Bars:
    """Count what is told of progress."""

    def __init__(self) -> None:
        self.labels, self.total, self.done = [], 0, 0

    def __call__(self, total, label):
        self.labels.append(label)
        self.total, self.done = total, 0
        return self

    def update(self, n=1):
        self.done += n

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_progress_counts_to_its_end(monkeypatch):
    monkeypatch.setattr("thalweg.curvature.jacobian_plan.UNIT", 100)
    monkeypatch.setattr("thalweg.curvature.gram.UNIT", 100)
    risk, bars = risk_of("transformer"), Bars()
    w = risk.space.pack(risk.problem.model)
    risk.gram(w, progress=bars)
    assert bars.labels == ["Gram matrix"] and 0.9 <= bars.done / bars.total <= 1
    dense(risk.jacobian(w), progress=bars)
    assert bars.labels[-1] == "Jacobian" and 0.9 <= bars.done / bars.total <= 1
    assert math.isfinite(bars.total)
