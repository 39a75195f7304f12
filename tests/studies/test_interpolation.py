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
from thalweg.run import InProcess, Run, create_run, read_checkpoint
from thalweg.studies import complete, configure, interpolation, trajectories
from thalweg.studies.claim import Verdict

SHARED = ("epochs", "checkpoints", "scale", "branch_epochs", "branch_checkpoints")
STUDY = {
    **{key: CONFIG["trajectories"][key] for key in SHARED},
    "parents": 2,
    "rivals": 1,
    "moments": {"final": 2},
    "points": 5,
}
WHOLE = CONFIG | {"seed": 0, "studies": ["interpolation"], "interpolation": STUDY}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    # One rival is too few to judge by, and enough to look at.
    made = create_run(tmp_path_factory.mktemp("runs") / "lines", WHOLE)
    return complete(made, engine=InProcess())[0]


def end(run: Run, trajectory: str, risk: EmpiricalRisk) -> torch.Tensor:
    return risk.space.pack(read_checkpoint(run.checkpoints(trajectory)[-1])[0])


@pytest.mark.parametrize("preset", ["demo", "laptop", "paper"])
def test_ends_are_trained_by_the_study_of_trajectories(preset: str) -> None:
    config = configure(preset)
    trained = {task.key for task in trajectories.tasks(config)}
    ends = [
        need.key
        for task in interpolation.tasks(config)
        if task.arguments["draw"] == 0 and task.arguments["group"] != interpolation.SEEDS
        for need in task.needs
    ]
    assert ends and set(ends) <= trained


def test_parents_have_draws_of_their_own_and_rivals_share_them() -> None:
    config = configure("demo", studies=["interpolation"], seed=100)
    settings = {}
    for task in interpolation.tasks(config):
        problems = {str(need.arguments["problem"]) for need in task.needs}
        assert problems == {str(task.arguments["problem"])}
        seed = task.arguments["problem"]["settings"]["data_seed"]
        settings.setdefault(task.arguments["draw"], set()).add(seed)
    assert settings == {draw: {100 + draw} for draw in range(8)}
    # All of CIFAR-10 is one draw.
    whole = configure("paper", studies=["interpolation"])
    assert len({str(t.arguments["problem"]) for t in interpolation.tasks(whole)}) == 1


def test_a_pair_is_its_line(run: Run) -> None:
    risk = EmpiricalRisk(load_problem("digits", **CONFIG["problem"]["settings"]))
    ends = [end(run, name, risk) for name in ("seed0-final-0", "seed0-final-1")]
    line = barrier(risk, *ends, points=5)
    pairs, lines = run.result("interpolation/pairs"), run.result("interpolation/lines")
    assert list(pairs["pair"].values) == [
        "seed0-final-0 and seed0-final-1",
        "draw1-seed1-final-0 and draw1-seed1-final-1",
        "seed0 and seed2",
    ]
    assert lines["loss"].values[0] == pytest.approx(line["loss"].values, rel=1e-5)
    assert pairs["barrier"].values[0] == pytest.approx(line["barrier"].values, rel=1e-3, abs=1e-6)
    # The mean of two models, sample by sample, is the same figure.
    middles = run.result("interpolation/middles")
    expected = float(line["mean_excess"].sel(quantity="test_error"))
    assert middles["over_mean_error"].values[0].mean() == pytest.approx(expected, abs=1e-6)


def test_claims_are_judged_from_what_was_saved(run: Run) -> None:
    names = [claim.name for claim in interpolation.claims(run, WHOLE)]
    assert names == [claim["name"] for claim in run.claims]


def made_pairs(late: list[float], seeds: list[float]) -> xr.Dataset:
    """Two pairs of each parent, one at a barrier of nothing, and one of each parent's rival."""
    barriers = [*late, *np.zeros(len(late)), *seeds]
    draws = [*range(len(late)), *range(len(late)), *range(len(seeds))]
    groups = ["final"] * 2 * len(late) + ["seeds"] * len(seeds)
    return xr.Dataset(
        {
            "barrier": (("pair", "quantity"), np.reshape(barriers, (-1, 1))),
            "untrained_loss": ("pair", np.full(len(barriers), 2.0)),
        },
        coords={"quantity": ["loss"], "group": ("pair", groups), "draw": ("pair", draws)},
    )


@pytest.mark.parametrize(
    ("late", "seeds", "verdict"),
    [
        ([0.01, 0.02, 0.015], [1.5, 1.4], Verdict.SUPPORTED),
        ([0.01, 0.40, 0.02], [1.5, 1.4], Verdict.UNDECIDED),
        ([0.90, 0.91, 0.89], [1.5, 1.4], Verdict.REFUTED),
        # Seeds without a barrier between them: the test tells nothing apart.
        ([0.01, 0.02, 0.015], [0.02, 0.03], Verdict.UNDECIDED),
    ],
)
def test_the_highest_barriers_of_parents_decide(
    late: list[float], seeds: list[float], verdict: Verdict
) -> None:
    assert interpolation._low(made_pairs(late, seeds), WHOLE).verdict is verdict


def test_an_interval_is_that_of_parents_not_of_pairs() -> None:
    statistic = interpolation._low(made_pairs([0.2, 0.4, 0.6], [1.5]), WHOLE).statistic
    assert statistic is not None and statistic.n == 3
    # 0.1, 0.2, 0.3 losses before training: 4.3027 * 0.1 / sqrt(3).
    assert statistic.high - statistic.value == pytest.approx(0.24841, rel=1e-4)


def test_a_test_set_that_all_parents_share_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = np.array([0.1, 0.2, 0.3])[:, None] + rng.normal(0, 3, 400)
    middles = xr.Dataset(
        {"over_mean_error": (("pair", "sample"), values)},
        coords={"group": ("pair", ["final"] * 3), "draw": ("pair", range(3))},
    )
    widths = []
    for settings in ({"train_size": 5000}, {}):
        config = WHOLE | {"problem": {"entry": "cifar10", "settings": settings}}
        found = interpolation._over(middles, "over_mean_error", ("final",), config)
        assert found is not None
        widths.append(found.high - found.value)
    apart, together = widths
    assert apart == pytest.approx(0.24841, rel=1e-4)
    assert together > 1.96 * 3 / 20 > 1.1 * apart


def test_the_report_shows_lines_and_verdicts(run: Run) -> None:
    page = write_report(run).read_text()
    assert (run.path / "figures" / "lines.png").stat().st_size > 10_000
    assert 'id="interpolation"' in page and "Highest barrier of a parent: " in page
