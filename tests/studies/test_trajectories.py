"""The study of trajectories: what it trains, what it gathers, and that no kill changes it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from run.killing import kill_at_random_moments
from studies.small import CONFIG, fingerprint
from thalweg.dynamics import moments, perturb
from thalweg.errors import InvalidArgument, RunConflict
from thalweg.problems import load_problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import InProcess, Run, open_run, read_checkpoint, torch_generator
from thalweg.studies import configure, reproduce


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the small reproduction once, uninterrupted."""
    run, _ = reproduce(CONFIG, tmp_path_factory.mktemp("runs") / "whole", engine=InProcess())
    return run


def test_every_seed_and_branch_is_there(whole: Run) -> None:
    branches = [f"seed0-{moment}-{copy}" for moment in ("early", "final") for copy in (0, 1)]
    assert set(whole.trajectories()) == {"seed0", "seed1", *branches}
    embedding = whole.result("trajectories/embedding")
    assert embedding.sizes["checkpoint"] == len(whole.checkpoints())
    assert embedding["layer"].values[0] == "network"
    assert embedding.sizes["dim"] == 3


def test_final_figures_are_those_of_the_final_weights(whole: Run) -> None:
    problem = load_problem("digits", seed=0, **CONFIG["problem"]["settings"])
    risk = EmpiricalRisk(problem)
    tensors, _ = read_checkpoint(whole.checkpoints("seed1")[-1])
    measured = risk.evaluate(risk.space.pack(tensors))
    curves = whole.result("trajectories/curves")
    last = curves.isel(record=np.flatnonzero(curves["trajectory"].values == "seed1")[-1])
    assert float(last["loss"]) == pytest.approx(measured["loss"], rel=1e-5)
    assert float(last["error"]) == measured["error"]


def test_a_branch_starts_at_the_perturbed_checkpoint_of_its_moment(whole: Run) -> None:
    problem = load_problem("digits", seed=0, **CONFIG["problem"]["settings"])
    space = EmpiricalRisk(problem).space
    steps = sorted(int(path.stem) for path in whole.checkpoints("seed0"))
    at = moments(steps, ["early"])["early"]
    trunk, _ = read_checkpoint(whole.path / "checkpoints" / "seed0" / f"{at:09d}.safetensors")
    first, about = read_checkpoint(whole.checkpoints("seed0-early-1")[0])
    noise = torch_generator(0, "branch", "seed0", at, 1)
    expected = perturb(space, space.pack(trunk), scale=0.25, generator=noise)
    assert torch.equal(space.pack(first), expected)
    assert about["step"] == 0


def test_distances_in_the_embedding_are_those_of_the_weights(whole: Run) -> None:
    problem = load_problem("digits", seed=0, **CONFIG["problem"]["settings"])
    space = EmpiricalRisk(problem).space
    paths = whole.checkpoints("seed1")
    points = [space.pack(read_checkpoint(path)[0]).double() for path in (paths[0], paths[-1])]
    embedding = whole.result("trajectories/embedding")
    mine = np.flatnonzero(embedding["trajectory"].values == "seed1")
    shown = float(embedding["distance"].sel(layer="network").values[mine[0], mine[-1]])
    assert shown == pytest.approx(float((points[0] - points[1]).norm()), rel=1e-9)


@pytest.mark.parametrize("kills", [7, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_change_nothing(whole: Run, tmp_path: Path, kills: int) -> None:
    """`kill -9` at random moments; the resumed run equals the whole one bit for bit."""
    place = tmp_path / "killed"
    chance = random.Random(0)
    for _ in kill_at_random_moments("from studies.small import work", kills, place, longest=1.5):
        if chance.random() < 0.3:
            _forget_one_task(place, chance)
    run, _ = reproduce(CONFIG, place, engine=InProcess())
    assert fingerprint(run) == fingerprint(whole)


def _forget_one_task(place: Path, chance: random.Random) -> None:
    """Undo a training, so that later kills find work to interrupt."""
    names = sorted(path.name for path in (place / "checkpoints").glob("seed0-*"))
    if not names:
        return
    victim = chance.choice(names)
    shutil.rmtree(place / "checkpoints" / victim)
    for path in (place / "tasks").glob("*.json"):
        if victim in path.read_text():
            path.unlink()


def test_a_folder_of_another_run_is_refused(whole: Run) -> None:
    other = CONFIG | {"training": CONFIG["training"] | {"lr": 0.1}}
    with pytest.raises(RunConflict, match="lr"):
        reproduce(other, whole.path, engine=InProcess())


def test_presets_write_out_every_number() -> None:
    config = configure("laptop", data="some/folder", settings={"train_size": 5000})
    assert config["problem"] == {
        "entry": "cifar10",
        "settings": {"train_size": 5000, "test_size": 2000, "data": "some/folder"},
    }
    assert configure("demo", data="mine.py:make")["problem"]["entry"] == "mine.py:make"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"preset": "tiny"}, "demo, laptop, paper"),
        ({"studies": ["trajectory"]}, "write one of trajectories"),
    ],
)
def test_unknown_names_list_the_known(arguments: dict, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        configure(**arguments)


def test_a_finished_run_opens_again(whole: Run) -> None:
    assert open_run(whole.path).config["preset"] == "test"
