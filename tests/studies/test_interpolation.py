"""The study of lines: which pairs, what is measured on them, and how claims are judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from studies.small import CONFIG
from thalweg import barrier
from thalweg.problems import load_problem
from thalweg.report import write_report
from thalweg.risk import EmpiricalRisk
from thalweg.run import InProcess, Run, read_checkpoint
from thalweg.studies import configure, interpolation, reproduce, trajectories
from thalweg.studies.claim import Verdict

SHARED = ("epochs", "checkpoints", "scale", "branch_epochs", "branch_checkpoints")
STUDY = {
    **{key: CONFIG["trajectories"][key] for key in SHARED},
    "seeds": [0, 1],
    "moments": {"final": 2},
    "points": 5,
}
WHOLE = CONFIG | {"seed": 0, "studies": ["interpolation"], "interpolation": STUDY}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return reproduce(WHOLE, tmp_path_factory.mktemp("runs") / "lines", engine=InProcess())[0]


def end(run: Run, trajectory: str, risk: EmpiricalRisk) -> torch.Tensor:
    return risk.space.pack(read_checkpoint(run.checkpoints(trajectory)[-1])[0])


@pytest.mark.parametrize("preset", ["demo", "laptop", "paper"])
def test_ends_are_trained_by_the_study_of_trajectories(preset: str) -> None:
    config = configure(preset)
    trained = {task.key for task in trajectories.tasks(config)}
    assert {need.key for task in interpolation.tasks(config) for need in task.needs} <= trained


def test_a_pair_is_its_line(run: Run) -> None:
    risk = EmpiricalRisk(load_problem("digits", **CONFIG["problem"]["settings"]))
    ends = [end(run, name, risk) for name in ("seed0-final-0", "seed0-final-1")]
    line = barrier(risk, *ends, points=5)
    pairs, lines = run.result("interpolation/pairs"), run.result("interpolation/lines")
    assert list(pairs["pair"].values) == ["seed0-final-0 and seed0-final-1", "seed0 and seed1"]
    assert lines["loss"].values[0] == pytest.approx(line["loss"].values, rel=1e-5)
    assert pairs["barrier"].values[0] == pytest.approx(line["barrier"].values, rel=1e-3, abs=1e-6)
    # The mean of two models, sample by sample, is the same figure.
    middles = run.result("interpolation/middles")
    expected = float(line["mean_excess"].sel(quantity="test_error"))
    assert middles["over_mean_error"].values[0].mean() == pytest.approx(expected, abs=1e-6)


def test_claims_are_judged_from_what_was_saved(run: Run) -> None:
    names = [claim.name for claim in interpolation.claims(run, WHOLE)]
    assert names == [claim["name"] for claim in run.claims]


def made_pairs(barriers: list[float]) -> xr.Dataset:
    shape = (len(barriers), 1)
    return xr.Dataset(
        {
            "barrier": (("pair", "quantity"), np.reshape(barriers, shape)),
            "barrier_stderr": (("pair", "quantity"), np.full(shape, 0.01)),
        },
        coords={"quantity": ["loss"], "group": ("pair", ["final", "final", "seeds"])},
        attrs={"untrained_loss": 2.0},
    )


@pytest.mark.parametrize(
    ("barriers", "verdict"),
    [
        ([0.01, 0.02, 1.5], Verdict.SUPPORTED),
        ([0.01, 0.20, 1.5], Verdict.UNDECIDED),
        ([0.01, 0.90, 1.5], Verdict.REFUTED),
        # Seeds without a barrier between them: the test tells nothing apart.
        ([0.01, 0.02, 0.02], Verdict.UNDECIDED),
    ],
)
def test_the_highest_barrier_decides(barriers: list[float], verdict: Verdict) -> None:
    assert interpolation._low(made_pairs(barriers)).verdict is verdict


def test_the_report_shows_lines_and_verdicts(run: Run) -> None:
    page = write_report(run).read_text()
    assert (run.path / "figures" / "lines.png").stat().st_size > 10_000
    assert 'id="interpolation"' in page and "Verdict on" in page
