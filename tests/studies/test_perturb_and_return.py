"""Perturb and return: what is trained, distances as they are, verdicts where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studies.small import CONFIG
from thalweg.dynamics import perturb, train
from thalweg.errors import InvalidArgument
from thalweg.landscape.quadratic import Quadratic
from thalweg.problems import load_problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import InProcess, Run, read_checkpoint, torch_generator
from thalweg.studies import configure, interpolation, perturb_and_return, reproduce, trajectories
from thalweg.studies.claim import Verdict
from thalweg.studies.displacement import Copy, filter_directions
from thalweg.studies.known_landscapes import KNOWN
from thalweg.studies.perturb_and_return_claims import judge
from thalweg.studies.squared_returns import perturb_zero

SHARED = ("parents", "epochs", "checkpoints", "scale", "branch_epochs", "branch_checkpoints")
# Long enough to come to zero error: nine epochs of six steps.
TRAJECTORIES = CONFIG["trajectories"] | {"epochs": 9}
STUDY = {
    **{key: TRAJECTORIES[key] for key in SHARED},
    "copies": 2,
    "sgd": {"early": {"scales": [0.25], "copies": 2}, "final": {"scales": [0.1], "copies": 2}},
    "gd": {"final": {"scales": [0.1], "copies": 2}},
    "gd_lr": 0.5,
    "gd_momentum": 0.0,
    "gd_steps": 6,
    "gd_checkpoints": 3,
    "zero_error": 0.3,
    "narrow": {
        "widths": [1, 1],
        "parents": 2,
        "epochs": 1,
        "branch_epochs": 1,
        "copies": 2,
        "cost": 1,
    },
    "curvature": {"samples": 50, "products": 4},
    "max_gradients": 20_000,
    "squared": {
        "parents": 2,
        "copies": 2,
        "epochs": 20,
        "epochs_worth": 1,
        "settings": {
            "network": "mlp",
            "widths": [16],
            "activation": "tanh",
            "target": "onehot",
            "train_size": 8,
        },
    },
}
WHOLE = (
    CONFIG
    | {"trajectories": TRAJECTORIES}
    | {"seed": 0, "studies": ["perturb_and_return"], "perturb_and_return": STUDY}
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return reproduce(WHOLE, tmp_path_factory.mktemp("runs") / "returns", engine=InProcess())[0]


def weights(run: Run, trajectory: str, which: int) -> torch.Tensor:
    tensors, about = read_checkpoint(run.checkpoints(trajectory)[which])
    return torch.cat([tensors[name].flatten() for name in about["parameters"]]).double()


def test_parents_and_copies_are_those_of_the_other_studies() -> None:
    shared = {task.key for task in trajectories.tasks(WHOLE)}
    mine = perturb_and_return.tasks(WHOLE)
    trained = [task for task in mine if "trajectory" in task.arguments]
    names = [task.arguments["trajectory"] for task in mine if task.key in shared]
    both = ["seed0-early-0", "seed0-early-1", "seed0-final-0", "seed0-final-1"]
    assert names == ["seed0", *both]
    assert len({task.arguments["trajectory"] for task in trained}) == len(trained)
    lines = WHOLE | {"interpolation": STUDY | {"rivals": 0, "moments": {"final": 2}, "points": 3}}
    ends = {end.key for line in interpolation.tasks(lines) for end in line.needs}
    assert ends <= {task.key for task in mine}


def test_every_copy_of_a_moment_has_noise_of_its_own() -> None:
    final = [
        (task.arguments["parent"], task.arguments["copy"], task.arguments["scale"])
        for task in perturb_and_return.tasks(WHOLE)
        if task.arguments.get("moment") == "final" and task.arguments["scale"] == 0.1
    ]
    assert final == [("seed0", copy, 0.1) for copy in range(4)]


@pytest.mark.parametrize("preset", ["demo", "laptop", "paper"])
def test_every_preset_shares_the_trunk(preset: str) -> None:
    config = configure(preset)
    mine = perturb_and_return.tasks(config)
    assert mine[0].key in {task.key for task in trajectories.tasks(config)}
    ends = {end.key for line in interpolation.tasks(config) for end in line.needs}
    parents = config["perturb_and_return"]["parents"]
    assert parents == (8 if preset == "demo" else 3)
    assert len({task.key for task in mine} & ends) >= 3 * parents


def test_distances_are_those_of_the_weights(run: Run) -> None:
    copies = run.result("perturb_and_return/copies")
    names = list(copies["trajectory"].values)
    row = copies.isel(member=names.index("seed0-final-2-gd-0.1"))
    home = weights(run, "seed0", -1)
    start, end = (weights(run, "seed0-final-2-gd-0.1", which) for which in (0, -1))
    assert float(row["perturbation"]) == pytest.approx(float((start - home).norm()))
    assert float(row["distance"]) == pytest.approx(float((end - home).norm()))
    assert float(row["displacement"]) == pytest.approx(
        float((end - home).norm() / (start - home).norm())
    )
    distances = run.result("perturb_and_return/distances")
    first = distances["siblings"].values[distances["trajectory"].values == "seed0-final-2-gd-0.1"]
    sibling = weights(run, "seed0-final-3-gd-0.1", 0)
    assert first[0] == pytest.approx(float((start - sibling).norm()))
    ends = run.result("perturb_and_return/ends")
    shown = float(ends["distance"].sel(end="parent, final", other="seed0-final-2-gd-0.1"))
    assert shown == pytest.approx(float(row["distance"]))


def test_descent_by_full_gradients_goes_down(run: Run) -> None:
    curves = run.result("perturb_and_return/curves")
    mine = curves.isel(record=curves["trajectory"].values == "seed0-final-3-gd-0.1")
    assert float(mine["loss"][-1]) < float(mine["loss"][0])
    assert np.array_equal(mine["epoch"], mine["step"])


def test_controls_are_refuted_and_zeros_are_flat(run: Run) -> None:
    claims = {
        claim.name.partition("/")[2]: claim for claim in perturb_and_return.claims(run, WHOLE)
    }
    assert list(claims) == ["flat", "apart", "flat-squared", "apart-squared"]
    for claim in claims.values():
        judged = {str(claim.control_verdict(control)) for control in claim.controls}
        assert judged == {"refuted"} and len(claim.controls) == 4 + ("squared" not in claim.name)
    assert claims["flat-squared"].verdict is Verdict.SUPPORTED
    # A training of three epochs cannot tell, and says what it excludes.
    assert claims["flat"].verdict is Verdict.UNDECIDED
    assert "condition number" in claims["flat"].why
    assert [claim["name"] for claim in run.claims] == [claim.name for claim in claims.values()]


def test_bounds_are_those_of_losses_and_distances(run: Run) -> None:
    limits = run.result("perturb_and_return/limits").to_dataframe()
    copies = run.result("perturb_and_return/copies").to_dataframe().set_index("trajectory")
    mine = limits[(limits["landscape"] == "main") & (limits["between"] == "parent")]
    assert mine["cluster"].tolist() == ["seed0"] * 2 + ["draw1-seed1"] * 2
    row, copy = mine.iloc[3], copies.loc["draw1-seed1-final-1"]
    assert row["left"] == pytest.approx(copy["displacement"])
    assert row["top"] > 0
    roots = sum(
        np.sqrt(2 * copy[name] / (1e-8 * row["top"])) for name in ("end_loss", "parent_loss")
    )
    assert row["hidden"] == pytest.approx(roots / copy["perturbation"])
    siblings = limits[(limits["landscape"] == "main") & (limits["between"] == "siblings")]
    ends, starts = (
        [weights(run, f"seed0-final-{copy}", which) for copy in (0, 1)] for which in (-1, 0)
    )
    apart = (ends[0] - ends[1]).norm() / (starts[0] - starts[1]).norm()
    assert siblings.iloc[0]["left"] == pytest.approx(float(apart))


def test_shares_are_bounds_and_those_of_zeros_hold_what_counting_certifies(run: Run) -> None:
    limits = run.result("perturb_and_return/limits").to_dataframe()
    split = limits[np.isfinite(limits["noise_top_low"])]
    assert set(split["landscape"]) == {"main", "squared", *KNOWN}
    for band in ("top", "slow", "flat"):
        for of in ("noise", "left"):
            low, high = (split[f"{of}_{band}_{end}"] for end in ("low", "high"))
            assert ((low >= -1e-9) & (low <= high + 1e-9) & (high <= 1 + 1e-9)).all()
    zeros = split[split["landscape"] == "squared"]
    assert (zeros["equations"] == 80).all() and (zeros["rank"] <= 80).all()
    certified = 1 - zeros["equations"] / zeros["weights"]
    # The noise is the same in all directions but for layers' scales.
    assert (abs(zeros["noise_flat_low"] - certified) < 0.05).all()


def test_siblings_are_copies_of_one_parent(run: Run) -> None:
    distances = run.result("perturb_and_return/distances")
    name = "draw1-seed1-final-0"
    mine = distances["siblings"].values[distances["trajectory"].values == name]
    apart = weights(run, name, 0) - weights(run, "draw1-seed1-final-1", 0)
    assert mine[0] == pytest.approx(float(apart.norm()))


def test_one_parent_is_not_judged(run: Run) -> None:
    limits = run.result("perturb_and_return/limits")
    first = limits.isel(pair=limits["cluster"].values == "seed0")
    flat, apart, *squared = judge(first, WHOLE)
    for claim in (flat, apart, *squared):
        assert claim.verdict is Verdict.NOT_APPLICABLE and claim.why


def test_parents_short_of_zero_error_are_not_judged(run: Run) -> None:
    limits = run.result("perturb_and_return/limits")
    strict = WHOLE | {"perturb_and_return": STUDY | {"zero_error": -1.0}}
    flat, apart, *squared = judge(limits, strict)
    for claim in (flat, apart):
        assert claim.verdict is Verdict.NOT_APPLICABLE and "reached zero" in claim.why
    assert [claim.statistic is None for claim in squared] == [False, False]


def copy_of(curvature: torch.Tensor) -> Copy:
    """Perturb a bowl's lowest point and descend."""
    bowl = Quadratic(curvature)
    start = perturb(bowl.space, bowl.centre, scale=0.2, generator=torch_generator(0, "test"))
    end = train(bowl, start, optimizer="gd", lr=0.5, schedule="constant", steps=60).w
    about = {"trajectory": "a", "network": "b", "moment": "c", "optimizer": "gd", "scale": 0.2}
    points = torch.stack([start, end])
    return Copy(about, bowl.space, bowl.centre, bowl.centre, points, [0, 60], [0.0, 60.0], True)


def test_displacement_is_what_is_left() -> None:
    """With flat directions the part of the noise along them stays: sqrt(1/2) for half of them."""
    valley = copy_of(torch.cat([torch.zeros(500), torch.ones(500)]).double()).row()
    bowl = copy_of(torch.ones(1000, dtype=torch.float64)).row()
    assert valley["displacement"] == pytest.approx(np.sqrt(0.5), rel=0.05) and valley["elsewhere"]
    assert bowl["displacement"] < 1e-6 and not bowl["elsewhere"]


def test_the_length_of_a_filter_is_no_displacement() -> None:
    space = EmpiricalRisk(load_problem("digits", widths=[4, 4])).space
    w = torch.randn(space.size, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(filter_directions(space, w), filter_directions(space, 3 * w))


def test_as_many_equations_as_weights_are_refused(run: Run) -> None:
    task = next(task for task in perturb_and_return.tasks(WHOLE) if "zeros" in task.label)
    problem = task.arguments["problem"]
    many = problem | {"settings": problem["settings"] | {"train_size": 121}}
    with pytest.raises(InvalidArgument, match=r"1,210 weights for 1,210 equations.*train_size"):
        perturb_zero(run, task.arguments | {"problem": many}, lambda done: None)
