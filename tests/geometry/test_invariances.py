"""Symmetries of networks with branches: each direction by the dense Jacobian, counts by theory."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from thalweg import EmpiricalRisk, Problem
from thalweg.geometry.degeneracy import degeneracy
from thalweg.geometry.invariances import Invariances
from thalweg.geometry.scalings import MIXED
from thalweg.polynomial import PolynomialActivation
from thalweg.run.progress import silent


def data(count, *shape, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)).double()


def words(count, kinds=6, length=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, kinds, (count, length), generator=generator)


class Residual(nn.Module):
    """A stream of 3 channels, which two blocks of 4 units read and add to; 5 outputs."""

    def __init__(self, *, bias=True, norm=None, act=F.relu) -> None:
        super().__init__()
        self.read, self.head = nn.Linear(6, 3, bias=bias), nn.Linear(3, 5, bias=bias)
        self.up = nn.ModuleList(nn.Linear(3, 4, bias=bias) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(4, 3, bias=bias) for _ in range(2))
        self.norms = nn.ModuleList(norm(3) if norm else nn.Identity() for _ in range(3))
        self.act = act

    def forward(self, x):
        x = self.read(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=False):
            x = x + down(self.act(up(norm(x))))
        return self.head(self.norms[2](x))


class SmallResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3, 2)
        self.one, self.two = nn.Conv2d(3, 3, 3, 1, 1, bias=False), nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x):
        x = F.relu(self.norms[0](self.stem(x)))
        y = self.norms[2](self.two(F.relu(self.norms[1](self.one(x)))))
        return self.head(F.relu(x + y).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True, **options)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(x + self.attend(x, x, x)[0]).mean(1))


class Causal(nn.Module):
    """The same by hand, behind a layer norm; its projection is cut in three."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.project, self.out = nn.LayerNorm(4), nn.Linear(4, 12), nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        n, length, _ = x.shape
        parts = self.project(self.norm(x)).split(4, 2)
        q, k, v = (part.view(n, length, 2, 2).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(torch.tanh(x + self.out(y.transpose(1, 2).reshape(n, length, 4))).mean(1))


class Towers(nn.Module):
    """Branches that are concatenated, one of them with a gain for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(3, 4), nn.Linear(3, 3), nn.Linear(7, 2)
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.head(torch.cat([F.relu(self.one(x)), F.relu(self.two(x)) * self.gain], 1))


class Twice(nn.Module):
    """A layer that reads its own outputs: its channels are one set."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.again, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu(self.read(x))
        return self.head(F.relu(self.again(F.relu(self.again(x)))))


class Cubes(nn.Module):
    """What is cubed scales by the cube."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)
        self.cube = PolynomialActivation.from_coefficients([0, 0, 0, 1])

    def forward(self, x):
        return self.head(self.cube(self.one(x)))


GL3, SHIFTS, UNITS = 9, 9, 8
# The network, its inputs, policy, and directions by cause; nothing is left over.
EXPLAINED = {
    # All of GL(3) acts on the stream; its shifts by any of three layers are made up for by the
    # biases of what reads it afterwards; a factor on each ReLU.
    "residual": (Residual, data(400, 6), "frozen", {"rescaling": GL3 + SHIFTS + UNITS}),
    "no biases": (
        lambda: Residual(bias=False),
        data(400, 6),
        "frozen",
        {"rescaling": GL3 + UNITS},
    ),
    "tanh": (
        lambda: Residual(act=torch.tanh),
        data(400, 6),
        "frozen",
        {"rescaling": GL3 + SHIFTS},
    ),
    # A factor on each of two inner channels' kernels (six), and on the stream's three before they
    # are added: these reach the head. Filters before three norms: factor and shift, but one layer
    # has no bias.
    "batch norm": (
        SmallResNet,
        data(300, 1, 6, 6),
        "batch",
        {"rescaling": 3 + 3, "batch norm": 3 * 3 + 2 * 3},
    ),
    # GL(2) on queries against keys and on values against what reads them, in each of two heads;
    # the bias of keys; that of values.
    "attention": (Attention, data(300, 5, 4), "frozen", {"attention": 2 * 8 + 4 + 4}),
    "keys and values beside": (
        lambda: Attention(add_bias_kv=True),
        data(300, 5, 4),
        "frozen",
        {"attention": 2 * 8 + 4 + 4},
    ),
    # The norm's scale and shift against what reads it; its numbers sum to zero.
    "attention by hand": (
        Causal,
        data(300, 5, 4),
        "frozen",
        {"rescaling": 4 + 4, "layer norm": 12, "attention": 2 * 8 + 4 + 4},
    ),
    "towers": (Towers, data(300, 3), "frozen", {"rescaling": 4 + 3 * 2}),
    "twice": (Twice, data(300, 3), "frozen", {"rescaling": 4}),
    "cubes": (Cubes, data(300, 3), "frozen", {"rescaling": 3}),
}


def risk_of(make, x, policy):
    torch.manual_seed(0)
    model = make().double().eval()
    for name, tensor in model.named_parameters():
        if tensor.dim() > 1:
            tensor.data.mul_(1.7)
        elif name.endswith("weight") or name == "gain":
            nn.init.uniform_(tensor, 0.5, 1.5)
        else:
            nn.init.normal_(tensor, std=0.3)
    with torch.no_grad():
        y = torch.zeros_like(model(x))
    return EmpiricalRisk(Problem(model, nn.MSELoss(), (x, y)), batchnorm=policy)


def jacobian(risk):
    """J by plain torch, dense."""
    model, x = copy.deepcopy(risk.problem.model), risk.problem.train[0]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and risk.policy == "batch":
            module.running_mean = module.running_var = None
    named = {name: p.detach() for name, p in model.named_parameters()}
    with sdpa_kernel(SDPBackend.MATH):
        blocks = jacrev(lambda p: functional_call(model, p, (x,)).flatten())(named)
    return torch.cat([block.flatten(1) for block in blocks.values()], 1)


@cache
def explained(name):
    """The risk and its dense Jacobian, which take long."""
    risk = risk_of(*EXPLAINED[name][:3])
    return risk, jacobian(risk)


@pytest.mark.parametrize("name", EXPLAINED)
def test_what_explains_the_kernel(name):
    risk, dense = explained(name)
    found = degeneracy(risk, risk.space.pack(risk.problem.model))
    assert found.rank == int(torch.linalg.matrix_rank(dense, rtol=1e-10))
    causes = {cause: count for cause, count in found.split.items() if count}
    assert causes == EXPLAINED[name][3] and not found.broken
    assert "symmetry" not in found.described


@pytest.mark.parametrize("name", EXPLAINED)
def test_no_direction_changes_any_output(name):
    risk, dense = explained(name)
    w = risk.space.pack(risk.problem.model)
    known = Invariances(risk, w, batch_statistics=risk.policy == "batch")
    for directions in known.directions(silent(1, "symmetries")).values():
        for direction in directions:
            vector = torch.zeros(len(w), dtype=torch.float64)
            vector[direction.entries] = torch.from_numpy(direction.values)
            size = float(vector.norm())
            assert float((dense @ vector).norm()) <= 1e-9 * size * float(dense.norm())


class Block(nn.Module):
    """A transformer's block of torch on words and their places."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(6, 4), nn.Embedding(5, 4)
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, norm_first=first)
        last = nn.LayerNorm(4) if first else None
        self.encoder = nn.TransformerEncoder(layer, 1, norm=last, enable_nested_tensor=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        h = self.words(x) + self.places(torch.arange(x.shape[1]))
        return self.head(self.encoder(h)[:, 0])


@pytest.mark.parametrize("first", [True, False])
def test_a_transformer_of_torch(first):
    risk = risk_of(lambda: Block(first), words(150), "frozen")
    found = degeneracy(risk, risk.space.pack(risk.problem.model))
    singular = torch.linalg.svdvals(jacobian(risk))
    assert found.rank == int((singular.square() > found.threshold).sum())
    assert found.split["attention"] == 24 and not found.broken
    # Norms first: they alone read the words, the places, and what both layers of a block add, so
    # that each may add the same to all four channels: 6 + 5 + (4 + 1) + (6 + 1) directions, one of
    # them by words or by places. Behind the norms, twelve, six and three rows read numbers that
    # sum to zero.
    assert found.split["layer norm"] >= (22 if first else 6)


def test_frozen_batch_norm_between_layers():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2))
    nn.init.normal_(model[1].running_mean)
    risk = risk_of(lambda: model, data(60, 4), "frozen")
    found = degeneracy(risk, risk.space.pack(model))
    # Scale and shift of the norm against the layer before it.
    assert {k: v for k, v in found.split.items() if v} == {"rescaling": 6} and not found.broken


def test_words_that_no_sample_has_and_units_that_are_off():
    model = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(15, 4), nn.ReLU())
    model.append(nn.Linear(4, 2))
    model[2].bias.data[1] = -100.0
    tokens = words(300, kinds=6)
    risk = EmpiricalRisk(
        Problem(model.double(), nn.MSELoss(), (tokens, torch.zeros(300, 2).double()))
    )
    found = degeneracy(risk, risk.space.pack(model))
    assert found.rank == int(torch.linalg.matrix_rank(jacobian(risk), rtol=1e-10))
    assert found.split["dead inputs"] == 3 * 3 and found.split["dead units"] == 16 + 2
    assert not found.broken


def test_a_unit_that_is_off_in_one_place_and_on_in_another_is_not_dead():
    risk = risk_of(Twice, data(100, 3), "frozen")
    w = risk.space.pack(risk.problem.model)
    bias = risk.space.parameters[risk.space.names.index("again.bias")]
    w[bias.start] = -1.5
    found = degeneracy(risk, w)
    assert not found.broken and not found.split["dead units"]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.core, self.head = nn.Linear(3, 4), nn.LSTM(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.core(self.read(x).transpose(0, 1))[0].sum(0))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(6, 4), nn.Linear(4, 5), nn.Linear(5, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(self.down(F.relu(self.up(self.words(x).mean(1)))))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.one(x) * self.two(x))


class ByValue(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x if float(x.sum()) > 0 else -x)


@pytest.mark.parametrize(
    ("make", "x", "says"),
    [
        (Recurrent, data(60, 4, 3), "not looked for: LSTM"),
        (Tied, words(60), "not looked for: words.weight, which is used in two ways"),
        (Gated, data(60, 3), "not looked for: mul"),
        (ByValue, data(60, 3), "not determined: the structure of ByValue cannot be read"),
    ],
)
def test_where_symmetry_is_not_looked_for_is_said(make, x, says):
    risk = risk_of(make, x, "frozen")
    found = degeneracy(risk, risk.space.pack(risk.problem.model))
    assert found.described["symmetry"].startswith(says) and not found.broken
    assert found.rank == int(torch.linalg.matrix_rank(jacobian(risk), rtol=1e-10))


def test_mixings_that_are_too_many_are_left_out_and_said():
    width = int(MIXED**0.5) + 1
    model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
    risk = risk_of(lambda: model, data(20, 3), "frozen")
    known = Invariances(risk, risk.space.pack(model), batch_statistics=False)
    # A factor on each channel, and a shift of each.
    assert len(known.directions(silent(1, "symmetries"))["rescaling"]) == 2 * width
    assert (
        known.described["symmetry"] == f"not looked for: sums of {width} channels of linear layers"
    )


def test_repeated_samples_are_counted_whatever_the_network():
    x = data(9, 4, 3)
    risk = risk_of(Recurrent, torch.cat([x, x[:4]]), "frozen")
    found = degeneracy(risk, risk.space.pack(risk.problem.model))
    assert found.rank == 18 and found.split["repeated samples"] == 8


class Bottleneck(nn.Module):
    """What the block adds is read by two outputs only; what is read has the rank of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.up, self.down = nn.Linear(3, 5), nn.Linear(5, 6), nn.Linear(6, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = self.read(x)
        return self.head(x + self.down(torch.tanh(self.up(x))))


def test_what_nothing_reads_and_what_is_never_made():
    risk = risk_of(Bottleneck, data(200, 3), "frozen")
    found = degeneracy(risk, risk.space.pack(risk.problem.model))
    assert found.rank == int(torch.linalg.matrix_rank(jacobian(risk), rtol=1e-10))
    # The head maps three of five channels to zero, which seven numbers of `down` make; the layer
    # `up` reads five channels that four numbers make, in six rows. The stream's mixings and shifts
    # are those of a residual network.
    model = risk.problem.model
    unread = torch.linalg.matrix_rank(model.head.weight).item()
    assert found.split["unread outputs"] + found.split["rescaling"] >= (5 - unread) * 7
    assert found.split["dependent inputs"] > 0
    assert found.split["rest"] == 0 and not found.broken


class Gating(nn.Module):
    """Each unit has a gate of its own, so that units cannot be mixed with one another."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = (
            nn.Linear(a, b, bias=False) for a, b in ((4, 5), (4, 5), (5, 3))
        )

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Cells(nn.Module):
    """A cell of torch called in a loop: its first state is made for a number of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = c = x.new_zeros(len(x), 3)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
        return self.head(h)


class Patches(nn.Module):
    """A vision transformer: patches by a convolution, a token before them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(1, 4, 3, 3), nn.LayerNorm(4)
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        y = self.norm(x)
        return self.head((x + self.attend(y, y, y, need_weights=False)[0])[:, 0])


class Skips(nn.Module):
    """A small U-net: what was halved is doubled, and joined to what it was made from."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
        self.up, self.join = nn.ConvTranspose2d(3, 2, 2, 2), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        a = F.relu(self.down(x))
        b = self.up(F.relu(self.deep(F.max_pool2d(a, 2))))
        return F.adaptive_avg_pool2d(self.join(torch.cat([a, b], 1)), 2).flatten(1)


USERS = {
    "gates": (Gating, data(150, 4), "frozen", 5),
    "cells": (Cells, data(150, 4, 2), "frozen", 0),
    "patches": (Patches, data(150, 1, 6, 6), "frozen", 24),
    "skips": (Skips, data(80, 1, 4, 4), "frozen", 2),
    "recurrent": (lambda: Recurrent(), data(150, 4, 3), "frozen", 0),
    "towers": (Towers, data(300, 3), "frozen", 10),
    "residual images": (SmallResNet, data(150, 1, 6, 6), "frozen", 3),
}


@pytest.mark.parametrize("name", USERS)
def test_networks_that_users_write(name):
    make, x, policy, least = USERS[name]
    risk = risk_of(make, x, policy)
    dense, w = jacobian(risk), risk.space.pack(risk.problem.model)
    found = degeneracy(risk, w)
    singular = torch.linalg.svdvals(dense).square()
    assert found.rank == int((singular > found.threshold).sum())
    explained = {kind: n for kind, n in found.split.items() if kind != "rest"}
    assert least <= sum(explained.values()) <= found.nullity and not found.broken
    known = Invariances(risk, w, batch_statistics=False)
    directions = [
        d for listed in known.directions(silent(1, "symmetries")).values() for d in listed
    ]
    for direction in directions:
        vector = torch.zeros(len(w), dtype=torch.float64)
        vector[direction.entries] = torch.from_numpy(direction.values)
        assert float((dense @ vector).norm()) <= 1e-9 * float(vector.norm() * dense.norm())
