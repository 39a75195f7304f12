"""Perturb and return: what is trained, distances as they are, verdicts where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studies.small import CONFIG
from thalweg.dynamics import perturb, train
from thalweg.landscape.quadratic import Quadratic
from thalweg.problems import load_problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import InProcess, Run, read_checkpoint, torch_generator
from thalweg.studies import configure, perturb_and_return, reproduce, trajectories
from thalweg.studies.claim import Verdict
from thalweg.studies.displacement import Copy, filter_directions

SHARED = ("parents", "epochs", "checkpoints", "scale", "branch_epochs", "branch_checkpoints")
STUDY = {
    **{key: CONFIG["trajectories"][key] for key in SHARED},
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
WHOLE = CONFIG | {"seed": 0, "studies": ["perturb_and_return"], "perturb_and_return": STUDY}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return reproduce(WHOLE, tmp_path_factory.mktemp("runs") / "returns", engine=InProcess())[0]


def weights(run: Run, trajectory: str, which: int) -> torch.Tensor:
    tensors, about = read_checkpoint(run.checkpoints(trajectory)[which])
    return torch.cat([tensors[name].flatten() for name in about["parameters"]]).double()


def test_copies_at_the_scale_of_the_trajectories_are_its_branches() -> None:
    shared = {task.key for task in trajectories.tasks(WHOLE)}
    mine = perturb_and_return.tasks(WHOLE)
    names = [task.arguments["trajectory"] for task in mine if task.key in shared]
    assert names == ["seed0", "seed0-early-0", "seed0-early-1"]
    assert len({task.arguments["trajectory"] for task in mine}) == len(mine)
    # Every copy of a moment has noise of its own: trials are independent.
    final = [task.arguments["copy"] for task in mine if task.arguments.get("moment") == "final"]
    assert final[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize("preset", ["demo", "laptop", "paper"])
def test_every_preset_shares_the_trunk(preset: str) -> None:
    config = configure(preset)
    trunk = perturb_and_return.tasks(config)[0]
    assert trunk.key in {task.key for task in trajectories.tasks(config)}


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


def test_controls_are_refuted(run: Run) -> None:
    flat, full_batch, apart = perturb_and_return.claims(run, WHOLE)
    assert [flat.control_verdict(c) for c in flat.controls] == [Verdict.REFUTED] * 2
    for claim in (full_batch, apart):
        assert [claim.control_verdict(c) for c in claim.controls] == [Verdict.REFUTED]
    names = [flat.name, full_batch.name, apart.name]
    assert [claim["name"] for claim in run.claims] == names


def test_each_claim_counts_the_copies_of_its_optimizer(run: Run) -> None:
    copies = run.result("perturb_and_return/copies").to_dataframe()
    final = copies[(copies["network"] == "main") & (copies["moment"] == "final")]
    # With its parent's error as the goal every copy that the noise made worse counts.
    zero = final["parent_error"].max()
    config = WHOLE | {"perturb_and_return": STUDY | {"zero_error": zero}}
    left = final[(final["scale"] <= STUDY["largest"]) & (final["start_error"] > zero)]
    claims = perturb_and_return.claims(run, config)
    counted = [0 if claim.statistic is None else claim.statistic.n for claim in claims[:2]]
    assert counted == [(left["optimizer"] == name).sum() for name in ("sgd", "gd")]
    assert sum(counted) > 0


def test_a_parent_short_of_zero_error_is_not_judged(run: Run) -> None:
    strict = WHOLE | {"perturb_and_return": STUDY | {"zero_error": -1.0}}
    for flat in perturb_and_return.claims(run, strict)[:2]:
        assert flat.verdict is Verdict.NOT_APPLICABLE and "did not reach" in flat.why


def copy_of(curvature: torch.Tensor) -> Copy:
    """Perturb a bowl's lowest point and descend."""
    bowl = Quadratic(curvature)
    start = perturb(bowl.space, bowl.centre, scale=0.2, generator=torch_generator(0, "test"))
    end = train(bowl, start, optimizer="gd", lr=0.5, schedule="constant", steps=60).w
    about = {"trajectory": "a", "network": "b", "moment": "c", "optimizer": "gd", "scale": 0.2}
    points = torch.stack([start, end])
    return Copy(about, bowl.space, bowl.centre, bowl.centre, points, [0, 60], [0.0, 60.0], True)


def test_a_valley_is_told_from_a_bowl() -> None:
    """With flat directions the part of the noise along them stays: sqrt(1/2) for half of them."""
    valley = copy_of(torch.cat([torch.zeros(500), torch.ones(500)]).double()).row()
    bowl = copy_of(torch.ones(1000, dtype=torch.float64)).row()
    assert valley["displacement"] == pytest.approx(np.sqrt(0.5), rel=0.05) and valley["elsewhere"]
    assert bowl["displacement"] < 1e-6 and not bowl["elsewhere"]


def test_the_length_of_a_filter_is_no_displacement() -> None:
    space = EmpiricalRisk(load_problem("digits", widths=[4, 4])).space
    w = torch.randn(space.size, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(filter_directions(space, w), filter_directions(space, 3 * w))
