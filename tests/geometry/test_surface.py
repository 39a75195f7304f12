"""Surfaces against closed forms on and off the grid, and against the risk itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thalweg.errors import InvalidArgument, InvalidWeights
from thalweg.geometry.directions import random_directions
from thalweg.geometry.points_plane import through_points
from thalweg.geometry.spectrum import top_eigenvalues
from thalweg.geometry.surface import surface
from thalweg.landscape import ParameterSpace
from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import create_run

CURVATURES = torch.tensor([1.0, 4.0, 9.0, 0.5], dtype=torch.float64)
BOTTOM = torch.tensor([0.3, -0.2, 0.0, 1.0], dtype=torch.float64)


class Bowl:
    """The quadratic with known curvatures and bottom; only a value, no samples."""

    def __init__(self, **described: Any) -> None:
        self.space = ParameterSpace.euclidean(4)
        self.evaluations = 0
        self.described = {"landscape": "bowl", **described}

    def value(self, w: Tensor, /) -> float:
        self.evaluations += 1
        return float((CURVATURES * (w.double() - BOTTOM) ** 2).sum() / 2)

    def gradient(self, w: Tensor, batch: Tensor | None = None, /) -> Tensor:
        return CURVATURES * (w - BOTTOM)


def images(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 2, 6, 6, generator=generator)
    return inputs, torch.randint(3, (samples,), generator=generator)


def problem(*, batchnorm: bool = True, samples: int = 64) -> Problem:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(4) if batchnorm else nn.Identity()
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
        )
    return Problem(model, nn.CrossEntropyLoss(), images(samples, 1), images(40, 2))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_bowl_is_found_on_an_uneven_grid(dims: int) -> None:
    directions = torch.randn(
        4, dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    w = torch.tensor([1.0, 0.5, -0.5, 2.0], dtype=torch.float64)
    spans = [(-1.0, 2.0), (0.0, 0.5), (-3.0, -1.0)][:dims]
    found = surface(Bowl(), w, directions=directions, extent=spans, points=[4, 3, 2][:dims])
    assert found.loss.dims == ("x", "y", "z")[:dims]
    for cell in np.ndindex(found.loss.shape):
        place = [float(found[d][i]) for d, i in zip(found.loss.dims, cell, strict=True)]
        point = w + directions @ torch.tensor(place, dtype=torch.float64)
        assert float(found.loss[cell]) == pytest.approx(Bowl().value(point), rel=1e-12)
    assert [float(found[d][0]) for d in found.loss.dims] == [low for low, _ in spans]
    assert [float(found[d][-1]) for d in found.loss.dims] == [high for _, high in spans]


def test_rows_and_columns_are_those_of_the_coordinates() -> None:
    directions = torch.eye(4, dtype=torch.float64)[:, 1:3]
    found = surface(Bowl(), BOTTOM, directions=directions, extent=2.0, points=5)
    x, y = np.meshgrid([-2, -1, 0, 1, 2], [-2, -1, 0, 1, 2], indexing="ij")
    np.testing.assert_allclose(found.loss, 2.0 * x**2 + 4.5 * y**2, rtol=1e-12)
    assert float(found.loss.sel(x=1.0, y=-2.0)) == pytest.approx(20.0)
    lowest = found.loss.argmin(...)
    assert (int(lowest["x"]), int(lowest["y"])) == (2, 2)


def test_between_cells_the_bowl_is_the_interpolation() -> None:
    directions = torch.eye(4, dtype=torch.float64)[:, :1]
    found = surface(Bowl(), BOTTOM, directions=directions, points=21)
    fit = found.loss.polyfit("x", 2).polyfit_coefficients.values
    assert fit == pytest.approx([0.5, 0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize("batchnorm", ["recalibrate", "frozen", "batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_centre_is_the_risk_to_the_last_bit(batchnorm: str, dtype: torch.dtype) -> None:
    made = problem()
    risk = EmpiricalRisk(made, batchnorm=batchnorm, dtype=dtype)
    w = risk.space.pack(made.model)
    found = surface(risk, w, points=5, extent=0.7).sel(x=0.0, y=0.0)
    assert float(found.loss) == risk.value(w) and float(found.error) == risk.error(w)
    test = risk.on("test")
    assert float(found.test_loss) == test.value(w) and float(found.test_error) == test.error(w)


@pytest.mark.parametrize("batchnorm", ["recalibrate", "frozen"])
def test_every_cell_is_the_risk_there(batchnorm: str) -> None:
    made = problem()
    risk = EmpiricalRisk(made, batchnorm=batchnorm)
    w = risk.space.pack(made.model)
    directions = random_directions(risk.space, w, kinds=("weight", "bias", "norm"))
    found = surface(risk, w, directions=directions, points=[3, 4], extent=1.5)
    fresh = EmpiricalRisk(made, batchnorm=batchnorm, dtype=torch.float64)
    for x in found.x.values:
        for y in found.y.values:
            point = w.double() + directions.double() @ torch.tensor([x, y])
            assert float(found.loss.sel(x=x, y=y)) == pytest.approx(fresh.value(point), rel=1e-4)
    assert bool(found.finite.all()) and float(found.loss.std()) > 0.01


def test_the_users_model_stays_as_it_is() -> None:
    made = problem()
    made.model.train()
    before = copy.deepcopy(made.model.state_dict())
    risk = EmpiricalRisk(made)
    surface(risk, risk.space.pack(made.model), points=3)
    for name, tensor in made.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert made.model.training and all(p.grad is None for p in made.model.parameters())


def test_an_uneven_split_of_the_data_changes_nothing() -> None:
    made = problem(batchnorm=False)
    inputs, targets = made.train
    split = [(inputs[:60], targets[:60]), (inputs[60:], targets[60:])]
    wholes = [EmpiricalRisk(made), EmpiricalRisk(made, batch_size=60)]
    risks = [*wholes, EmpiricalRisk(Problem(made.model, made.loss, split, made.test))]
    w = risks[0].space.pack(made.model)
    whole, *others = (surface(risk, w, points=3, extent=2.0) for risk in risks)
    for other in others:
        np.testing.assert_allclose(other.loss, whole.loss, rtol=1e-6)
        np.testing.assert_array_equal(other.error, whole.error)


def test_exact_cells_say_so() -> None:
    made = problem(batchnorm=False)
    risk = EmpiricalRisk(made)
    found = surface(risk, risk.space.pack(made.model), points=3)
    assert set(found.data_vars) == {"samples", "test_samples", "finite"} | {
        f"{name}{end}"
        for name in ("loss", "error", "test_loss", "test_error")
        for end in ("", "_stderr")
    }
    assert (found.samples == 64).all() and not found.loss_stderr.any()
    assert found.attrs["mode"] == "exact" and "every sample" in found.attrs["stderr"]
    assert found.attrs["direction_norms"][0] > 0 and "norm" in found.x.attrs["units"]
    without = surface(risk, risk.space.pack(made.model), points=3, test=False)
    assert "test_loss" not in without and "loss" in without


class LineReader(nn.Module):
    """Numbers of a table by index, one a row, and what they sum to."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(6, 1), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).squeeze(-1).tanh())


def one_input(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: one_input(16), (20, 1)),
        (lambda: one_input(50), (20, 1)),
        (lambda: one_input(2), (20, 1)),
        (lambda: nn.Sequential(nn.Conv1d(1, 4, 1), nn.Flatten(), nn.Linear(12, 1)), (20, 1, 3)),
        (LineReader, (20, 5)),
    ],
)
def test_filters_of_one_entry_have_a_plane(
    make: Callable[[], nn.Module], shape: tuple[int, ...], dims: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        x = torch.randint(6, shape) if isinstance(model, LineReader) else torch.rand(shape)
    target = x.double().flatten(1).mean(1, keepdim=True).float()
    risk = EmpiricalRisk(Problem(model, nn.MSELoss(), (x, target)))
    w = risk.space.pack(model)
    found = surface(risk, w, directions=dims, points=3, test=False)
    assert float(found.loss.sel(dict.fromkeys(found.loss.dims, 0.0))) == risk.value(w)
    filters = sum(float(norms.square().sum()) for norms in risk.space.filter_norms(w).values())
    assert found.attrs["direction_norms"] == pytest.approx([filters**0.5] * dims, rel=1e-5)
    if dims == 2:
        (cosine,) = found.attrs["direction_cosines"]
        right = found.attrs["directions"].endswith("seed 0")
        assert right == (abs(cosine) < 1e-6) and (right or len(w) < 20)


def test_an_angle_that_is_not_right_is_stated() -> None:
    model = one_input(2)
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([[3.0], [4.0]])
        model[2].weight[:] = 1.0
    risk = EmpiricalRisk(Problem(model, nn.MSELoss(), (torch.ones(4, 1), torch.ones(4, 1))))
    found = surface(risk, risk.space.pack(model), points=3)
    (cosine,) = found.attrs["direction_cosines"]
    assert abs(cosine) == pytest.approx((16 - 9 - 2) / (16 + 9 + 2), rel=1e-5)
    assert f"have a cosine of {cosine:.2g}" in found.attrs["directions"]


def test_a_regression_has_no_error() -> None:
    made = Problem(nn.Linear(3, 1), nn.MSELoss(), (torch.ones(5, 3), torch.zeros(5, 1)))
    risk = EmpiricalRisk(made)
    found = surface(risk, torch.ones(4), points=3)
    assert "error" not in found and float(found.loss.sel(x=0, y=0)) == 16.0


def test_losses_that_are_not_finite_are_kept_and_masked() -> None:
    def log_of_mean(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.log(outputs.flatten()) - targets.flatten()

    made = Problem(nn.Linear(1, 1, bias=False), log_of_mean, (torch.ones(4, 1), torch.zeros(4, 1)))
    risk = EmpiricalRisk(made)
    found = surface(risk, torch.ones(1), directions=torch.ones(1), extent=2.0, points=5)
    expected = [math.nan, -math.inf, 0.0, math.log(2), math.log(3)]
    np.testing.assert_allclose(found.loss, expected, rtol=1e-6)
    assert found.finite.values.tolist() == [False, False, True, True, True]
    assert found.loss_stderr.isnull().values.tolist() == [True, True, False, False, False]


def interrupted(after: int) -> Callable[[int, str], Any]:
    class Bar:
        done = 0

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update(self, n: int = 1, /) -> None:
            self.done += n
            if self.done >= after:
                raise KeyboardInterrupt

    return lambda total, label: Bar()


def test_a_killed_surface_goes_on_where_it_was(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", {})
    options: dict[str, Any] = {
        "directions": torch.eye(4, dtype=torch.float64)[:, :2],
        "points": 30,
        "extent": [(-1.0, 1.0), (0.0, 2.0)],
    }
    whole = surface(Bowl(), BOTTOM, **options)
    first = Bowl()
    with pytest.raises(KeyboardInterrupt):
        surface(first, BOTTOM, run=run, progress=interrupted(402), **options)
    second = Bowl()
    found = surface(second, BOTTOM, run=run, **options)
    assert found.identical(whole)
    assert first.evaluations == 402
    assert second.evaluations == 900 - 400, "blocks of 5: the half-done one is done again"
    third = Bowl()
    assert surface(third, BOTTOM, run=run, **options).identical(whole)
    assert third.evaluations == 0


@pytest.mark.parametrize(
    "change",
    [{"extent": 0.5}, {"points": 5}, {"directions": 2 * torch.eye(4)[:, :2]}],
)
def test_another_surface_in_the_same_run_is_computed(tmp_path: Path, change: Any) -> None:
    run = create_run(tmp_path / "run", {})
    options = {"directions": torch.eye(4)[:, :2], "points": 3, "extent": 1.0}
    surface(Bowl(), BOTTOM, run=run, **options)
    other = Bowl()
    found = surface(other, BOTTOM, run=run, **options | change)
    assert other.evaluations == found.loss.size
    assert found.identical(surface(Bowl(), BOTTOM, **options | change))
    renamed = Bowl(name="other")
    surface(renamed, BOTTOM + 1, run=run, **options)
    assert renamed.evaluations == 9


def test_a_risk_is_resumed_by_what_it_depends_on(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", {})

    def cells(made: Problem, **options: Any) -> int:
        before = len(list((run.path / "blocks").rglob("*.safetensors")))
        risk = EmpiricalRisk(made, **options)
        surface(risk, torch.ones(risk.space.size), points=2, run=run)
        return len(list((run.path / "blocks").rglob("*.safetensors"))) - before

    made = problem()
    assert cells(made, batchnorm="frozen") == 4
    assert cells(problem(), batchnorm="frozen") == 0, "made again, it is the same problem"
    assert cells(made) == 4
    made.model[1].running_mean += 1.0
    assert cells(made, batchnorm="frozen") == 4
    assert cells(Problem(made.model, made.loss, images(64, 9), made.test)) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"directions": torch.ones(3, 2)}, r"expected \(4, k\)"),
        ({"directions": torch.ones(4, 4)}, "from 1 to 3"),
        ({"directions": torch.full((4, 1), math.nan)}, "not finite"),
        ({"directions": torch.ones(4, 2), "points": [3]}, "do not fit 2 directions"),
        ({"directions": torch.ones(4, 2), "points": 1}, "at least 2 points"),
        ({"directions": torch.ones(4, 2), "extent": (1.0, 0.0)}, "low end below"),
        ({"directions": torch.ones(4, 2), "extent": (1.0, 0.0, 2.0)}, "write a number"),
        ({"directions": torch.ones(4, 1), "extent": 1e308 * 10}, "low end below"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        surface(Bowl(), BOTTOM, **options)


def test_a_point_that_is_not_finite_is_refused() -> None:
    with pytest.raises((InvalidArgument, InvalidWeights), match="finite"):
        surface(Bowl(), BOTTOM * math.inf, directions=torch.ones(4))


@pytest.mark.parametrize("points", [3, 11, 51, 101, 999])
def test_odd_numbers_of_points_contain_zero(points: int) -> None:
    for extent in (1.0, 0.1, 0.3, 1 / 3, 7e-3):
        found = surface(Bowl(), BOTTOM, directions=torch.ones(4), extent=extent, points=points)
        assert float(found.x[points // 2]) == 0.0 and float(found.loss[points // 2]) == 0.0


def test_given_points_lie_on_the_surface_at_their_coordinates() -> None:
    corners = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plane = through_points(*corners)
    for corner, (x, y) in zip(corners, plane.coordinates.tolist(), strict=True):
        found = surface(
            Bowl(),
            plane.origin,
            directions=plane.directions,
            extent=[(x, x + 1), (y, y + 1)],
            points=2,
        )
        assert float(found.loss[0, 0]) == pytest.approx(Bowl().value(corner))


def test_along_an_eigenvector_the_surface_curves_by_its_eigenvalue() -> None:
    made = problem(batchnorm=False)
    risk = EmpiricalRisk(made, dtype=torch.float64)
    w = risk.space.pack(made.model).double()
    found = top_eigenvalues(risk.hessian(w), 2, rtol=1e-6)
    step = 1e-3
    cut = surface(risk, w, directions=found.vectors, extent=step, points=3, test=False).loss.values
    for k, line in enumerate((cut[:, 1], cut[1])):
        curvature = (line[0] - 2 * line[1] + line[2]) / step**2
        assert curvature == pytest.approx(float(found.values[k]), rel=1e-3)
