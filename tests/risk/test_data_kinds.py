"""Every kind of data against the loss on everything at once, in float64."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

import thalweg as tw
from thalweg.errors import DependsOnBatches, InvalidArgument, InvalidProblem, NotDefined
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk


class Graphs:
    """Many graphs as one, as graph libraries collate them; `to` casts all, whole numbers too."""

    def __init__(self, x: Tensor, edges: Tensor, owner: Tensor, y: Tensor) -> None:
        self.x, self.edges, self.owner, self.y = x, edges, owner, y

    def __len__(self) -> int:
        return len(self.y)

    def to(self, where: Any) -> Graphs:
        return Graphs(*(tensor.to(where) for tensor in vars(self).values()))


def graphs(sizes: list[int], seed: int) -> Graphs:
    generator = torch.Generator().manual_seed(seed)
    xs, edges, owner, at = [], [], [], 0
    for i, n in enumerate(sizes):
        xs.append(torch.randn(n, 4, generator=generator))
        edges.append(torch.stack([torch.arange(n - 1), torch.arange(1, n)]) + at)
        owner += [i] * n
        at += n
    y = torch.arange(len(sizes)) % 2
    return Graphs(torch.cat(xs), torch.cat(edges, 1), torch.tensor(owner), y)


class GraphNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, batch: Graphs) -> Tensor:
        batch.x = self.nodes(batch.x, batch.edges)  # writes to what it is given
        total = batch.x.new_zeros(len(batch), 2).index_add(0, batch.owner, batch.x)
        return total / torch.bincount(batch.owner).unsqueeze(1)

    def nodes(self, x: Tensor, edges: Tensor) -> Tensor:
        x = x + torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
        return self.last(torch.tanh(self.first(x)))


GRAPHS = [graphs([3, 4, 5], 1), graphs([4, 3], 2), graphs([6], 3)]


def of_graphs(model, batch):
    return F.cross_entropy(model(batch), batch.y, reduction="none")


def mean_of_graphs(model, batch):
    return F.cross_entropy(model(batch), batch.y)


def double(batch: Graphs) -> Graphs:
    return Graphs(batch.x.double(), batch.edges, batch.owner, batch.y)


def at_once_of_graphs(model):
    return torch.cat([of_graphs(model, double(batch)) for batch in GRAPHS]).mean()


X = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
PAIRS = {"a": X, "b": X + 0.3 * torch.randn(24, 5, generator=torch.Generator().manual_seed(1))}


def contrastive(model, batch):
    a, b = (F.normalize(model(batch[name]), dim=1) for name in "ab")
    return F.cross_entropy(a @ b.T / 0.5, torch.arange(len(a)))


def cut(data: dict[str, Tensor], *bounds: int) -> list[dict[str, Tensor]]:
    ends = zip((0, *bounds), (*bounds, 24), strict=True)
    return [{k: v[i:j] for k, v in data.items()} for i, j in ends]


def at_once_of_pairs(*bounds: int):
    def loss(model):
        parts = cut({k: v.double() for k, v in PAIRS.items()}, *bounds)
        return sum(len(p["a"]) * contrastive(model, p) for p in parts) / 24

    return loss


TOKENS = [
    torch.randint(0, 7, (n, t), generator=torch.Generator().manual_seed(n))
    for n, t in ((3, 4), (5, 2), (2, 7))
]
LABELS = [
    torch.where(
        torch.rand(t.shape, generator=torch.Generator().manual_seed(9)) < 0.3, -100, (t * 3 + 1) % 4
    )
    for t in TOKENS
]


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(7, 5), nn.Linear(5, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(torch.tanh(self.embed(ids))).transpose(1, 2)


def at_once_of_tokens(model):
    elements = [
        F.cross_entropy(model(x), y, reduction="none").flatten()
        for x, y in zip(TOKENS, LABELS, strict=True)
    ]
    return torch.cat(elements).sum() / sum((y != -100).sum() for y in LABELS)


def at_once_of_series(model):
    return torch.cat([(model(x) - x).square().flatten() for x in SERIES]).mean()


SERIES = [
    torch.randn(n, t, 3, generator=torch.Generator().manual_seed(t)).double()
    for n, t in ((2, 5), (4, 3), (1, 8))
]


def nodes(model, graph):
    outputs = model.nodes(graph["x"], graph["edges"])[graph["train"]]
    return F.cross_entropy(outputs, graph["y"][graph["train"]])


GRAPH = {
    "x": torch.randn(20, 4, generator=torch.Generator().manual_seed(4)),
    "edges": torch.randint(0, 20, (2, 50), generator=torch.Generator().manual_seed(5)),
    "y": torch.randint(0, 2, (20,), generator=torch.Generator().manual_seed(6)),
    "train": torch.arange(20) % 3 > 0,
}


def at_once_of_nodes(model):
    return nodes(model, GRAPH | {"x": GRAPH["x"].double()})


def small():
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))


B3, B1, WHOLE = "batches as given (3 batches)", "batches as given (1 batches)", "one whole"
# Name: model, loss, data, options, loss on everything at once, how the data are taken.
KINDS: dict[str, tuple[Any, ...]] = {
    "graphs": (GraphNet, of_graphs, GRAPHS, {}, at_once_of_graphs, B3),
    "graphs, their mean": (GraphNet, mean_of_graphs, GRAPHS, {}, at_once_of_graphs, B3),
    "graphs, weighed": (
        GraphNet,
        mean_of_graphs,
        tw.Batches(GRAPHS),
        {"weight": lambda batch: len(batch.y)},
        at_once_of_graphs,
        B3,
    ),
    "graphs and targets": (
        GraphNet,
        nn.CrossEntropyLoss(),
        [(batch, batch.y) for batch in GRAPHS],
        {},
        at_once_of_graphs,
        B3,
    ),
    "one graph of nodes": (GraphNet, nodes, GRAPH, {}, at_once_of_nodes, WHOLE),
    "one graph, said so": (GraphNet, nodes, tw.Whole(GRAPH), {}, at_once_of_nodes, WHOLE),
    "pairs, three batches": (
        *(small, contrastive, cut(PAIRS, 5, 16), {}),
        *(at_once_of_pairs(5, 16), B3),
    ),
    "pairs, said so": (
        *(small, contrastive, tw.Batches(cut(PAIRS, 8, 16)), {}),
        *(at_once_of_pairs(8, 16), B3),
    ),
    "pairs, whole": (small, contrastive, tw.Whole(PAIRS), {}, at_once_of_pairs(), WHOLE),
    "padded batch by batch": (
        *(Tagger, nn.CrossEntropyLoss(), list(zip(TOKENS, LABELS, strict=True)), {}),
        *(at_once_of_tokens, B3),
    ),
    "series of unlike lengths": (
        *(lambda: nn.Linear(3, 3), nn.MSELoss(), [(x, x) for x in SERIES], {}),
        *(at_once_of_series, B3),
    ),
}


class GraphOfParts(GraphNet):
    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.nodes(x, edges)


def with_matrix(model, graph):
    return F.cross_entropy(torch.sparse.mm(graph["matrix"], model(graph["x"])), graph["y"])


MATRIX = torch.eye(24).roll(1, 0) + torch.eye(24)
SPARSE = {"matrix": MATRIX.to_sparse(), "x": X, "y": torch.arange(24) % 4}


class Centred(nn.Module):
    """Subtracts the batch's mean: under a criterion of torch's, too, samples are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(x - x.mean(0)))


CLASSES = torch.arange(24) % 4
KINDS |= {
    "inputs of unlike lengths": (
        GraphOfParts,
        nn.CrossEntropyLoss(),
        [((GRAPH["x"], GRAPH["edges"]), GRAPH["y"])],
        {},
        lambda model: F.cross_entropy(model(GRAPH["x"].double(), GRAPH["edges"]), GRAPH["y"]),
        B1,
    ),
    "a sparse matrix": (
        small,
        with_matrix,
        SPARSE,
        {},
        lambda model: F.cross_entropy(MATRIX.double() @ model(X.double()), SPARSE["y"]),
        WHOLE,
    ),
    "a model that compares samples": (
        Centred,
        nn.CrossEntropyLoss(),
        [(X[:10], CLASSES[:10]), (X[10:], CLASSES[10:])],
        {},
        lambda model: torch.cat(
            [
                F.cross_entropy(model(X[part].double()), CLASSES[part], reduction="none")
                for part in (slice(0, 10), slice(10, 24))
            ]
        ).mean(),
        "batches as given (2 batches)",
    ),
}


def measured(kind: str, **options: Any):
    make, loss, data, more, at_once, described = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().double()
    risk = EmpiricalRisk(Problem(model, loss, data, **more), dtype=torch.float64, **options)
    assert risk.described["data"] == described

    def expected(w: Tensor) -> Tensor:
        holder = nn.Module()
        holder.model = model
        holder.forward = lambda: at_once(model)
        tensors = {f"model.{name}": t for name, t in risk.space.unpack(w).items()}
        return functional_call(holder, tensors, ())

    return risk, risk.space.pack(model), expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [None, 1, 5])
def test_value_and_gradient_are_those_of_everything_at_once(kind: str, size: int | None) -> None:
    risk, w, expected = measured(kind, batch_size=size)
    at = w.clone().requires_grad_()
    want = expected(at)
    (slope,) = torch.autograd.grad(want, at)
    value, gradient = risk.value_and_gradient(w)
    assert value == pytest.approx(float(want.detach()), rel=1e-10)
    assert risk.value(w) == pytest.approx(float(want.detach()), rel=1e-10)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)
    losses = risk.sample_losses(w)
    assert losses.shape == (risk.samples,)
    assert float(losses.mean()) == pytest.approx(value, rel=1e-10)
    drawn = risk.draw(torch.arange(risk.samples))
    torch.testing.assert_close(drawn.measures(drawn.features(w)[None])["loss"][0], losses)


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_differences_of_gradients(kind: str) -> None:
    risk, w, _ = measured(kind)
    v = torch.randn(w.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    h = 1e-5
    difference = (risk.gradient(w + h * v) - risk.gradient(w - h * v)) / (2 * h)
    for method in ("graph", "recompute", "trace", None):
        product = risk.hessian(w, method=method) @ v
        torch.testing.assert_close(product, difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "kind", ["padded batch by batch", "series of unlike lengths", "graphs and targets"]
)
def test_gauss_newton_of_given_batches_is_that_of_its_factors(kind: str) -> None:
    risk, w, _ = measured(kind)
    v = torch.randn(w.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    operator = risk.gauss_newton(w)
    factors = operator.jacobian.T @ (operator.loss_hessian @ (operator.jacobian @ v))
    torch.testing.assert_close(operator @ v, factors, rtol=1e-9, atol=1e-12)
    with pytest.raises(NotDefined, match="batches as given"):
        risk.gram(w)


def test_one_given_batch_is_one_step() -> None:
    risk, w, _ = measured("pairs, three batches")
    parts = cut({k: v.double() for k, v in PAIRS.items()}, 5, 16)
    for i, part in enumerate(parts):
        loss, _ = risk.value_and_gradient(w, torch.tensor([i]))
        assert loss == pytest.approx(float(contrastive(risk.problem.model, part).detach()))
    both = risk.value_and_gradient(w, torch.tensor([0, 2]))[0]
    alone = [risk.value_and_gradient(w, torch.tensor([i]))[0] for i in (0, 2)]
    assert both == pytest.approx((5 * alone[0] + 8 * alone[1]) / 13)
    found = tw.train(risk, w, batch_size=1, epochs=2, lr=0.1, seed=0)
    assert found.step == 6 and found.history[-1]["loss"] < risk.value(w)
    with pytest.raises(InvalidProblem, match="together=False"):
        risk.copies(2)


def test_the_error_of_given_batches_counts_samples() -> None:
    risk, w, _ = measured("graphs and targets", batch_size=1)
    model = risk.problem.model
    wrong = [(model(double(b)).argmax(1) != b.y).double() for b in GRAPHS]
    assert risk.error(w) == pytest.approx(float(torch.cat(wrong).mean()))
    each = risk.evaluate_samples(w)["error"]
    assert float(each.mean()) == pytest.approx(risk.error(w))
    steps = [float(risk.batch_gradient(w, torch.tensor([i]))[1]) for i in range(3)]
    assert sum(steps) / 3 == pytest.approx(risk.error(w))


def test_the_users_graphs_and_model_stay_as_they_were() -> None:
    before = [[t.clone() for t in vars(batch).values()] for batch in GRAPHS]
    risk, w, _ = measured("graphs")
    risk.value_and_gradient(w)
    risk.hessian(w) @ w
    for batch, tensors in zip(GRAPHS, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(vars(batch).values(), tensors, strict=True))


def test_a_loss_that_compares_samples_is_refused_on_joined_ones(caplog) -> None:
    with pytest.raises(
        DependsOnBatches, match=r"tw\.Batches\(loader\).*tw\.Whole\(data\).*batch_s"
    ):
        EmpiricalRisk(Problem(small(), contrastive, PAIRS), batch_size=23)
    model = small()
    risk = EmpiricalRisk(Problem(model, contrastive, PAIRS), batch_size=24)
    assert risk.described["data"] == WHOLE and risk.samples == 1
    assert risk.value(risk.space.pack(model)) == pytest.approx(
        float(contrastive(model, PAIRS).detach()), rel=1e-5
    )
    with caplog.at_level(logging.WARNING, "thalweg"):
        EmpiricalRisk(Problem(small(), contrastive, cut(PAIRS, 8, 16)))
    assert "taken as they are given" in caplog.text


def test_a_model_that_compares_samples_is_refused_on_joined_ones() -> None:
    problem = Problem(Centred(), nn.CrossEntropyLoss(), (X, CLASSES))
    with pytest.raises(DependsOnBatches, match="the loss or the model is meant to compare"):
        EmpiricalRisk(problem, batch_size=7)
    assert EmpiricalRisk(problem, batch_size=24).described["data"] == WHOLE


def test_a_loader_whose_loss_compares_samples_keeps_its_batches() -> None:
    loader = DataLoader(TensorDataset(PAIRS["a"], PAIRS["b"]), batch_size=10)

    def loss(model, batch):
        return contrastive(model, {"a": batch[0], "b": batch[1]})

    model = small()
    risk = EmpiricalRisk(Problem(model, loss, loader))
    parts = cut(PAIRS, 10, 20)
    expected = sum(len(p["a"]) * float(contrastive(model, p).detach()) for p in parts) / 24
    assert risk.described["data"] == B3
    assert risk.value(risk.space.pack(model)) == pytest.approx(expected, rel=1e-5)


def test_weights_of_torchs_criteria_that_lie_in_a_batch_need_one_batch() -> None:
    weight = torch.linspace(0.1, 2, 24).unsqueeze(1)
    targets = (PAIRS["b"][:, :4] > 0).float()
    model, criterion = small(), nn.BCEWithLogitsLoss(weight=weight)
    with pytest.raises(DependsOnBatches, match="place in a batch"):
        EmpiricalRisk(Problem(model, criterion, (X, targets)))
    expected = float(criterion(model(X), targets).detach())
    for data, size in (((X, targets), 24), (tw.Whole((X, targets)), None)):
        risk = EmpiricalRisk(Problem(model, criterion, data), batch_size=size)
        assert risk.value(risk.space.pack(model)) == pytest.approx(expected, rel=1e-5)


def test_batches_that_do_not_say_how_much_they_count_are_refused() -> None:
    unsized = [
        {"x": GRAPH["x"], "edges": GRAPH["edges"][:, :k], "y": GRAPH["y"], "train": GRAPH["train"]}
        for k in (10, 20)
    ]
    with pytest.raises(InvalidProblem, match=r"batch 0 \(dict\) has one loss.*weight=lambda batch"):
        EmpiricalRisk(Problem(GraphNet(), nodes, unsized)).value(torch.zeros(44))
    model = GraphNet()
    problem = Problem(model, nodes, unsized, weight=lambda batch: batch["train"].sum())
    risk = EmpiricalRisk(problem)
    expected = sum(float(nodes(model, batch).detach()) for batch in unsized) / 2
    assert risk.value(risk.space.pack(model)) == pytest.approx(expected, rel=1e-5)


def test_batch_norm_of_given_batches() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))
    batches = cut(PAIRS, 8, 16)
    with pytest.raises(InvalidArgument, match="3 batches as given"):
        EmpiricalRisk(Problem(model, contrastive, batches), batchnorm="batch")
    for policy in ("frozen", "recalibrate"):
        risk = EmpiricalRisk(
            Problem(model, contrastive, batches), batchnorm=policy, dtype=torch.float64
        )
        w = risk.space.pack(model).double()
        v, h = torch.randn(w.shape, generator=torch.Generator().manual_seed(2)).double(), 1e-5
        difference = (risk.value(w + h * v) - risk.value(w - h * v)) / (2 * h)
        assert float(risk.gradient(w) @ v) == pytest.approx(difference, rel=1e-6)
    whole = EmpiricalRisk(
        Problem(model, contrastive, tw.Whole(PAIRS)), batchnorm="batch", dtype=torch.float64
    )
    model.double().train()
    expected = float(contrastive(model, {k: v.double() for k, v in PAIRS.items()}).detach())
    # Both sides of the pairs pass the norm apart, each with statistics of its own.
    assert whole.value(whole.space.pack(model)) == pytest.approx(expected, rel=1e-9)


N = st.integers(2, 14)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), samples=N, size=st.integers(1, 14), seed=st.integers(0, 5))
def test_no_layout_of_the_data_moves_a_result(data, samples: int, size: int, seed: int) -> None:
    """One set as pair, list, loader, dataset, given batches or whole: one function of w."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(-1, 4, (samples,), generator=generator)
    y[0] = 2
    criterion = nn.CrossEntropyLoss(
        weight=data.draw(st.sampled_from([None, torch.tensor([1.0, 2, 3, 4])])), ignore_index=-1
    )
    bounds = sorted(data.draw(st.sets(st.integers(1, samples - 1), max_size=3)))
    ends = list(zip([0, *bounds], [*bounds, samples], strict=True))
    pieces = [(x[i:j], y[i:j]) for i, j in ends]
    layouts = {
        "pair": (x, y),
        "list": pieces,
        "loader": DataLoader(TensorDataset(x, y), batch_size=3),
        "dataset": TensorDataset(x, y),
        "batches": tw.Batches(pieces),
        "whole": tw.Whole((x, y)),
    }
    layout = data.draw(st.sampled_from(sorted(layouts)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = small().double()
    risk = EmpiricalRisk(Problem(model, criterion, layouts[layout]), batch_size=size, check=False)
    w = risk.space.pack(model).requires_grad_()
    outputs = functional_call(model, risk.space.unpack(w), (x,))
    weight = criterion.weight.double() if criterion.weight is not None else None
    expected = F.cross_entropy(outputs, y, weight, ignore_index=-1)
    (slope,) = torch.autograd.grad(expected, w)
    w, expected = w.detach(), float(expected.detach())
    value, gradient = risk.value_and_gradient(w)
    assert value == pytest.approx(expected, rel=1e-11)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)
    wrong = (model(x).argmax(1) != y)[y >= 0]
    assert risk.error(w) == pytest.approx(float(wrong.double().mean()), rel=1e-12)
    v = torch.ones_like(w)
    plain = torch.autograd.functional.hvp(
        lambda at: F.cross_entropy(
            functional_call(model, risk.space.unpack(at), (x,)), y, weight, ignore_index=-1
        ),
        w,
        v,
    )[1]
    torch.testing.assert_close(risk.hessian(w) @ v, plain, rtol=1e-8, atol=1e-11)
