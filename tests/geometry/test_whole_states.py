"""Planes through whole states: a cell has the frozen weights and buffers of its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.errors import InvalidArgument
from thalweg.geometry import surface, through_points
from thalweg.problems import Problem, load_problem
from thalweg.run import LocalProcesses, create_run

ENTRY = """
import torch
from torch import nn
from thalweg import Problem


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.randn(4))

    def forward(self, x):
        return x - self.mean


def make(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(Centred(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    model[1].requires_grad_(False)
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(5))
    y = (x.sum(1) > 0).long()
    return Problem(model, nn.CrossEntropyLoss(), (x, y), (x[:20], y[:20]))


def normalized(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))
    model.train()(torch.randn(50, 4) * (1 + seed))
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(5))
    return Problem(model, nn.CrossEntropyLoss(), (x, (x.sum(1) > 0).long()))
"""


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("entry") / "mine.py"
    path.write_text(ENTRY)
    return str(path)


def opened(entry, name="make", seeds=(1, 2, 3)):
    problem = load_problem(f"{entry}:{name}")
    models = [load_problem(f"{entry}:{name}", seed=seed).model for seed in seeds]
    return problem, models, [tw.open_point(problem, model.state_dict()) for model in models]


def loss(problem: Problem, model: nn.Module) -> float:
    x, y = problem.train
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model.eval()(x), y))


def test_the_ends_of_a_line_are_the_models(entry):
    problem, models, points = opened(entry, seeds=(1, 2))
    risk = tw.EmpiricalRisk(problem)
    before = risk.fixed()
    plane = through_points(*points, risk=risk)
    found = surface(risk, plane.origin, directions=plane, extent=(0.0, 1.0), points=3)
    expected = [loss(problem, model) for model in models]
    assert found.loss.values[[0, -1]] == pytest.approx(expected, rel=1e-5)
    assert "2 frozen weights, interpolated (1.bias, 1.weight)" in found.attrs["between"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in risk.fixed().items())


def test_every_cell_of_a_plane_mixes_all_three(entry):
    problem, models, points = opened(entry)
    risk = tw.EmpiricalRisk(problem)
    plane = through_points(*points, risk=risk)
    found = surface(risk, plane.origin, directions=plane, extent=[(-1, 1), (0, 2)], points=3)
    states = [model.state_dict() for model in models]
    third = plane.coordinates[2]
    for x in (-1.0, 0.0, 1.0):
        for y in (0.0, 1.0, 2.0):
            c = y / float(third[1])
            b = x - c * float(third[0])
            shares = (1 - b - c, b, c)
            mixed = {
                n: sum(s * t[n] for s, t in zip(shares, states, strict=True)) for n in states[0]
            }
            model = load_problem(f"{entry}:make").model
            model.load_state_dict(mixed)
            here = float(found.loss.sel(x=x, y=y))
            assert here == pytest.approx(loss(problem, model), rel=1e-4)


def test_workers_and_a_tolerance_see_the_same_cells(entry, tmp_path: Path):
    problem, _, points = opened(entry)
    risk = tw.EmpiricalRisk(problem)
    plane = through_points(*points, risk=risk)
    options = {"directions": plane, "extent": 1.0, "points": 5}
    here = surface(risk, plane.origin, **options)
    run = create_run(tmp_path / "run", {})
    there = surface(risk, plane.origin, **options, run=run, engine=LocalProcesses(1))
    assert there.loss.values == pytest.approx(here.loss.values, rel=1e-6)
    assert there.test_error.values == pytest.approx(here.test_error.values)
    about = surface(risk, plane.origin, **options, tolerance=0.2)
    far = abs(about.loss.values - here.loss.values) > 4 * about.loss_stderr.values + 1e-5
    assert not far.any()


def test_a_kept_block_is_of_these_states(entry, tmp_path: Path):
    problem, _, points = opened(entry, seeds=(1, 2))
    risk = tw.EmpiricalRisk(problem)
    run = create_run(tmp_path / "run", {})
    line = {"extent": (0.0, 1.0), "points": 3, "run": run}
    plane = through_points(*points, risk=risk)
    first = surface(risk, plane.origin, directions=plane, **line)
    assert surface(risk, plane.origin, directions=plane, **line).loss.equals(first.loss)
    moved = points[1].state | {"0.mean": points[1].state["0.mean"] + 1}
    other = through_points(points[0], tw.open_point(problem, moved), risk=risk)
    again = surface(risk, other.origin, directions=other, **line)
    assert float(again.loss[-1]) != float(first.loss[-1])


@pytest.mark.parametrize("batchnorm", ["frozen", "recalibrate"])
def test_batch_norm_follows_its_policy(entry, batchnorm):
    problem, models, points = opened(entry, "normalized", seeds=(1, 2))
    risk = tw.EmpiricalRisk(problem, batchnorm=batchnorm)
    plane = through_points(*points, risk=risk)
    found = surface(risk, plane.origin, directions=plane, extent=(0.0, 1.0), points=3)
    if batchnorm == "frozen":
        expected = [loss(problem, model) for model in models]
        assert "2 buffers, interpolated" in found.attrs["between"]
    else:
        expected = [risk.value(point.weights(risk.space)) for point in points]
        assert "batch-norm statistics, by the policy" in found.attrs["between"]
    assert found.loss.values[[0, -1]] == pytest.approx(expected, rel=1e-5)


def test_one_centre_needs_no_mixing(entry):
    problem, models, points = opened(entry, seeds=(1,))
    risk = tw.EmpiricalRisk(problem)
    w = points[0].load_into(risk)
    found = surface(risk, w, directions=1, points=3, extent=0.1)
    assert float(found.loss[1]) == pytest.approx(loss(problem, models[0]), rel=1e-5)
    assert "between" not in found.attrs


def test_a_space_through_four_points(entry):
    problem, models, points = opened(entry, seeds=(1, 2, 3, 4))
    risk = tw.EmpiricalRisk(problem)
    plane = through_points(*points, risk=risk)
    assert plane.directions.shape == (risk.space.size, 3)
    rebuilt = plane.origin.double() + plane.coordinates @ plane.directions.double().T
    weights = torch.stack([point.weights(risk.space) for point in points])
    torch.testing.assert_close(rebuilt.float(), weights, rtol=1e-4, atol=1e-5)
    assert plane.anchors is not None
    last = plane.anchors.at(plane.coordinates[3].tolist())
    torch.testing.assert_close(last["0.mean"], models[3][0].mean)


def test_whole_states_need_their_risk_and_their_origin(entry):
    problem, _, points = opened(entry, seeds=(1, 2))
    with pytest.raises(InvalidArgument, match="risk=risk"):
        through_points(*points)
    risk = tw.EmpiricalRisk(problem)
    plane = through_points(*points, risk=risk)
    with pytest.raises(InvalidArgument, match=r"plane\.origin"):
        surface(risk, plane.origin + 1, directions=plane, points=3)
