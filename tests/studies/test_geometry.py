"""Surface and spectrum as studies: at the end of the training that `trajectories` shows."""

from __future__ import annotations

import pytest
import torch
from numpy.testing import assert_array_equal

from studies.small import CONFIG
from thalweg.geometry import near_zero, spectral_density
from thalweg.problems import load_problem
from thalweg.report import write_report
from thalweg.risk import EmpiricalRisk
from thalweg.run import InProcess, read_checkpoint
from thalweg.studies import PRESETS, configure, reproduce
from thalweg.studies.spectrum import tasks as spectrum_tasks
from thalweg.studies.surface import DEFAULTS, SIZES, UNITS_A_CELL, take_picture
from thalweg.studies.surface import tasks as surface_tasks
from thalweg.studies.trajectories import tasks as trajectories_tasks

SMALL = CONFIG | {
    "studies": ["surface", "spectrum"],
    "surface": {"directions": "principal", "dims": 2, "points": 5, "test": False},
    "spectrum": {"k": 2, "density": True, "probes": 2, "steps": 6, "trace": True},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return reproduce(SMALL, tmp_path_factory.mktemp("runs") / "small", engine=InProcess())[0]


@pytest.fixture(scope="module")
def end(run):
    """The risk and the last checkpoint of the first training."""
    problem = load_problem("digits", seed=0, **CONFIG["problem"]["settings"])
    risk = EmpiricalRisk(problem)
    return risk, risk.space.pack(read_checkpoint(run.checkpoints("seed0")[-1])[0])


def test_the_training_is_that_of_trajectories():
    config = configure("demo", studies=["surface", "spectrum"]) | {"evaluation_batch": 64}
    shared = trajectories_tasks(configure("demo") | {"evaluation_batch": 64})[0]
    for task in (*surface_tasks(config), *spectrum_tasks(config)):
        assert task.needs == (shared,) and task.needs[0].key == shared.key


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_tasks(preset):
    config = configure(preset, studies=["surface", "spectrum"]) | {"evaluation_batch": 64}
    assert surface_tasks(config) and spectrum_tasks(config)


def test_the_surface_is_the_risk_around_the_end(run, end):
    risk, w = end
    surface, points = run.result("surface/surface"), run.result("surface/points")
    assert float(surface["loss"].sel(x=0, y=0)) == pytest.approx(risk.value(w), rel=1e-5)
    assert points.sizes["point"] == len(run.checkpoints("seed0"))
    first = risk.space.pack(read_checkpoint(run.checkpoints("seed0")[0])[0])
    assert float(points["loss"][0]) == pytest.approx(risk.value(first), rel=1e-5)
    away = (points["position"] ** 2).sum("axis") + points["distance"] ** 2
    assert float(away[0]) == pytest.approx(float((first - w).double().norm() ** 2), rel=1e-5)


class Stopped(Exception):
    """A kill, as far as a task can tell."""


def test_a_picture_that_was_stopped_goes_on_where_it_was(run, monkeypatch):
    config = configure("demo", studies=["surface"]) | SMALL | {"evaluation_batch": 64}
    arguments = surface_tasks(config)[0].arguments | {"surface": DEFAULTS | SIZES["demo"]}

    def stop(done: int) -> None:
        if done >= 59 * UNITS_A_CELL:
            raise Stopped  # before the 59th cell is kept

    with pytest.raises(Stopped):
        take_picture(run, arguments, stop)
    evaluate, seen = EmpiricalRisk.evaluate, []
    monkeypatch.setattr(EmpiricalRisk, "evaluate", lambda r, w: seen.append(w) or evaluate(r, w))
    resumed = take_picture(run, arguments, lambda done: None)
    assert len(seen) == 121 - 58
    seen.clear()
    again = take_picture(run, arguments, lambda done: None)
    assert not seen
    for name, value in resumed.items():
        assert_array_equal(again[name], value, err_msg=name)


def test_the_spectrum_is_that_of_the_hessian_there(run, end):
    risk, w = end
    hessian = risk.held(w).hessian(w)
    whole = spectral_density(hessian, probes=2, steps=6)
    density = run.result("spectrum/density")
    assert density["node"].values == pytest.approx(whole["node"].values, rel=1e-3, abs=1e-4)
    assert density.attrs["size"] == len(w)
    threshold = density.attrs["near_zero_threshold"]
    assert density.attrs["near_zero_count"] == pytest.approx(
        near_zero(density, threshold).count, rel=1e-12
    )
    values = torch.as_tensor(run.result("spectrum/eigenvalues")["value"].values)
    assert float(values[0]) == pytest.approx(float(whole["node"].max()), rel=0.05)
    assert float(run.result("spectrum/trace")["stderr"]) > 0


def test_the_report_shows_both_and_nothing_is_claimed(run):
    page = write_report(run).read_text()
    assert 'id="surface"' in page and 'id="spectrum"' in page
    assert "Nothing to show" not in page and run.claims == []
