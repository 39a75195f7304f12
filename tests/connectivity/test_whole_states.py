"""Lines between whole states: the ends are the models as saved, whatever differs between them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import thalweg as tw
from thalweg.errors import InvalidArgument
from thalweg.problems import Problem


def data():
    x = 2 * torch.randn(30, 5, generator=torch.Generator().manual_seed(5)) + 1
    return x, (x.sum(1) > 5).long()


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.randn(5))

    def forward(self, x):
        return x - self.mean


class Picked(nn.Module):
    """Reads its inputs in an order that is a buffer of integers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.randperm(5))

    def forward(self, x):
        return x[:, self.order]


class Turned(nn.Module):
    """Multiplies by a complex buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("factor", torch.randn(5, dtype=torch.complex64))

    def forward(self, x):
        return (x * self.factor).abs()


def head(inputs=5):
    return [nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, 2)]


def frozen():
    first = nn.Linear(5, 5)
    first.requires_grad_(False)
    return nn.Sequential(first, *head())


KINDS = {
    "frozen": frozen,
    "mean": lambda: nn.Sequential(Centred(), *head()),
    "order": lambda: nn.Sequential(Picked(), *head()),
    "complex": lambda: nn.Sequential(Turned(), *head()),
    "instance": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)),
        nn.InstanceNorm1d(1, track_running_stats=True),
        nn.Flatten(),
        *head(),
    ),
    "spectral": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 5)), *head()),
}


def made(kind, seed):
    torch.manual_seed(seed)
    model = KINDS[kind]()
    model.train()
    for _ in range(3):
        model(torch.randn(20, 5) * seed)
    return model.eval()


def loss(model):
    x, y = data()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(x), y))


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_are_the_models(kind):
    models = [made(kind, seed) for seed in (1, 2)]
    problem = Problem(made(kind, 3), nn.CrossEntropyLoss(), data())
    risk = tw.EmpiricalRisk(problem)
    before = risk.fixed()
    points = [tw.open_point(problem, model.state_dict()) for model in models]
    found = tw.barrier(risk, *points, points=5)
    assert found.loss.values[[0, -1]] == pytest.approx([loss(m) for m in models], rel=1e-5)
    after = risk.fixed()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert "differs" in found.attrs["between"]


@pytest.mark.parametrize("kind", ["frozen", "mean", "complex"])
def test_what_is_a_number_is_interpolated(kind):
    """Half way lies the model whose every number is the mean of both."""
    models = [made(kind, seed) for seed in (1, 2)]
    first, second = (model.state_dict() for model in models)
    middle = made(kind, 4)
    middle.load_state_dict({name: (first[name] + second[name]) / 2 for name in first})
    problem = Problem(made(kind, 3), nn.CrossEntropyLoss(), data())
    points = [tw.open_point(problem, state) for state in (first, second)]
    found = tw.barrier(tw.EmpiricalRisk(problem), *points, points=3)
    assert float(found.loss[1]) == pytest.approx(loss(middle), rel=1e-5)


def test_integers_are_those_of_the_nearer_end():
    models = [made("order", seed) for seed in (1, 2)]
    problem = Problem(made("order", 3), nn.CrossEntropyLoss(), data())
    risk = tw.EmpiricalRisk(problem)
    points = [tw.open_point(problem, model.state_dict()) for model in models]
    found = tw.barrier(risk, *points, points=5)
    assert "1 integer buffer, of the nearest point (0.order)" in found.attrs["between"]
    w0, w1 = (point.weights(risk.space) for point in points)
    for place, end in ((1, 0), (3, 1)):
        risk.set_fixed(points[end].fixed(risk.space))
        here = risk.value(torch.lerp(w0, w1, place / 4))
        assert float(found.loss[place]) == pytest.approx(here, rel=1e-5)


def test_a_flat_vector_has_the_state_of_the_risk():
    models = [made("mean", seed) for seed in (1, 2)]
    problem = Problem(models[0], nn.CrossEntropyLoss(), data())
    risk = tw.EmpiricalRisk(problem)
    end = tw.open_point(problem, models[1].state_dict())
    found = tw.barrier(risk, risk.space.pack(models[0]), end, points=3)
    assert found.loss.values[[0, -1]] == pytest.approx([loss(m) for m in models], rel=1e-5)


def test_nothing_is_said_where_nothing_differs():
    model = made("mean", 1)
    problem = Problem(model, nn.CrossEntropyLoss(), data())
    state = model.state_dict()
    other = {name: t + 1 if name.endswith("bias") else t for name, t in state.items()}
    points = [tw.open_point(problem, one) for one in (state, other)]
    found = tw.barrier(tw.EmpiricalRisk(problem), *points, points=3)
    assert found.attrs["between"] == ""


def test_neighbours_are_the_lines_one_by_one():
    models = [made("mean", seed) for seed in (1, 2, 3)]
    problem = Problem(made("mean", 4), nn.CrossEntropyLoss(), data())
    risk = tw.EmpiricalRisk(problem)
    points = [tw.open_point(problem, model.state_dict()) for model in models]
    found = tw.neighbour_barriers(risk, points, points=5)
    for i in range(2):
        line = tw.barrier(risk, points[i], points[i + 1], points=5)
        assert found.loss.values[i] == pytest.approx(line.loss.values)
        assert found.barrier.values[i] == pytest.approx(line.barrier.values)
        assert float(found.length[i]) == pytest.approx(line.attrs["length"])
        assert str(found.between[i].values) == line.attrs["between"]
    assert found.loss.values[0, -1] == pytest.approx(found.loss.values[1, 0])
    with pytest.raises(InvalidArgument, match="neighbours need two"):
        tw.neighbour_barriers(risk, points[:1])
