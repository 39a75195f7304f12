"""A run of which a study cannot succeed is refused before anything, with the setting to change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from thalweg.errors import InvalidArgument
from thalweg.studies import configure, reproduce
from thalweg.studies.preflight import Sizes, refuse_undecidable
from thalweg.studies.registry import CHECKS

DIGITS = Sizes(weights=56_554, samples=1437)


def changed(study: str, **sizes: Any) -> dict[str, Any]:
    config = configure("demo", studies=[study])
    return config | {study: config[study] | sizes}


def with_settings(study: str, **settings: Any) -> dict[str, Any]:
    return configure("demo", studies=[study], settings=settings)


SWEEP = configure("demo")["zero_error"]["sweep"]
ZEROS = configure("demo")["degeneracy"]["zeros"]
NETWORKS = {"true-labels": {"labels": "true", "epochs": 2}}
# What is wrong, what the message says of it, and what is right when that is done.
CASES: dict[str, tuple[dict[str, Any], Sizes, str, dict[str, Any]]] = {
    "parents of copies": (
        changed("perturb_and_return", parents=1),
        DIGITS,
        "perturb_and_return.parents = 1: .* write perturb_and_return.parents = 3",
        changed("perturb_and_return", parents=3),
    ),
    "siblings": (
        changed("perturb_and_return", copies=1),
        DIGITS,
        "perturb_and_return.copies = 1: siblings are two copies",
        changed("perturb_and_return", copies=2),
    ),
    "draws": (
        changed("zero_error", draws=5),
        DIGITS,
        "zero_error.draws = 5: .* holds 0.5; write zero_error.draws = 6 or more",
        changed("zero_error", draws=6),
    ),
    "draws of the sweep": (
        changed("zero_error", sweep=SWEEP | {"draws": 3}),
        DIGITS,
        "write zero_error.sweep.draws = 6",
        changed("zero_error", sweep=SWEEP | {"draws": 6}),
    ),
    "samples of the sweep": (
        changed("zero_error", sweep=SWEEP | {"samples": 600}),
        DIGITS,
        "160 to 4,810 weights .* write a number from 161 to 534",
        changed("zero_error", sweep=SWEEP | {"samples": 534}),
    ),
    "labels": (
        with_settings("zero_error", random_labels=0.5),
        DIGITS,
        "--set random_labels=0.5 collides: the study draws random labels itself; leave it out",
        with_settings("zero_error"),
    ),
    "epochs": (
        changed("zero_error", networks=NETWORKS),
        DIGITS,
        "true-labels.epochs = 2: 30 steps .* write .*true-labels.epochs = 4 or more",
        changed("zero_error", networks={"true-labels": {"labels": "true", "epochs": 4}}),
    ),
    "narrow control": (
        with_settings("zero_error", train_size=100),
        Sizes(56_554, 100),
        "has 132 weights, no fewer than the 100 samples: write --train-size 133",
        with_settings("zero_error", train_size=133),
    ),
    "parents of polynomials": (
        changed("polynomial_activations", parents=1),
        DIGITS,
        "polynomial_activations.parents = 3 or more",
        changed("polynomial_activations", parents=3),
    ),
    "steps of polynomials": (
        with_settings("polynomial_activations", train_size=100),
        Sizes(56_554, 100),
        "epochs = 8: 8 steps .* write polynomial_activations.epochs = 50 or more, or take more",
        with_settings("polynomial_activations", train_size=601),
    ),
    "steps of ends": (
        with_settings("interpolation", train_size=300),
        Sizes(56_554, 300),
        "interpolation.epochs = 12: 36 steps .* write interpolation.epochs = 17 or more",
        with_settings("interpolation", train_size=401),
    ),
    "degrees": (
        changed("polynomial_activations", degrees=[4, 10]),
        DIGITS,
        r"degrees = \[4, 10\]: .* write \[2, 4, 10\]",
        changed("polynomial_activations", degrees=[2, 4, 10]),
    ),
    "activation": (
        with_settings("polynomial_activations", activation="tanh"),
        DIGITS,
        "--set activation=tanh collides: the study puts polynomials for the ReLU",
        with_settings("polynomial_activations", activation="relu"),
    ),
    "parents of lines": (
        changed("interpolation", parents=1, rivals=1),
        DIGITS,
        "interpolation.parents = 3 or more.*\n.*interpolation.rivals = 3 or more",
        changed("interpolation", parents=3, rivals=3),
    ),
    "two rivals": (
        changed("interpolation", rivals=2),
        DIGITS,
        "rivals = 2: the 95 % interval of a mean of two is 12.7 standard errors",
        changed("interpolation", rivals=3),
    ),
    "rivals": (
        changed("interpolation", rivals=9),
        DIGITS,
        "rivals = 9 of interpolation.parents = 8",
        changed("interpolation", rivals=8),
    ),
    "copies": (
        changed("interpolation", moments={"early": 4, "final": 1}),
        DIGITS,
        "a line joins two; write {'final': 2}",
        changed("interpolation", moments={"final": 2}),
    ),
    "points": (
        changed("interpolation", points=6),
        DIGITS,
        "the middle of a line is none of them; write 7",
        changed("interpolation", points=7),
    ),
    "networks": (
        changed("degeneracy", networks=4),
        DIGITS,
        "write degeneracy.networks = 6",
        changed("degeneracy", networks=6),
    ),
    "few networks": (
        changed("degeneracy", few=9),
        DIGITS,
        "degeneracy.few = 9: .* from 1 to 8",
        changed("degeneracy", few=8),
    ),
    "weights": (
        changed("degeneracy", zeros=ZEROS | {"width": 5}),
        DIGITS,
        "width = 5: fewer weights than the 450 equations; write 6 or more",
        changed("degeneracy", zeros=ZEROS | {"width": 6}),
    ),
}


@pytest.mark.parametrize(("config", "sizes", "words", "good"), CASES.values(), ids=CASES.keys())
def test_each_fault_names_the_setting_to_change(
    config: dict[str, Any], sizes: Sizes, words: str, good: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        refuse_undecidable(config, sizes, CHECKS)
    assert re.search(words, str(refused.value)), str(refused.value)
    samples = good["problem"]["settings"].get("train_size", sizes.samples)
    refuse_undecidable(good, Sizes(sizes.weights, samples), CHECKS)


def test_a_network_with_fewer_weights_than_samples_is_told_both_ways_out() -> None:
    with pytest.raises(InvalidArgument, match="W = 900 for N = 1,437: write --train-size 899"):
        refuse_undecidable(with_settings("zero_error"), Sizes(900, 1437), CHECKS)


@pytest.mark.parametrize("preset", ["demo", "laptop", "paper"])
def test_no_preset_is_refused(preset: str) -> None:
    samples = {"demo": 1437, "laptop": 5000, "paper": 50_000}[preset]
    weights = 56_554 if preset == "demo" else 188_570
    refuse_undecidable(configure(preset), Sizes(weights, samples), CHECKS)


def test_all_faults_are_said_at_once_before_anything_is_made(tmp_path: Path) -> None:
    config = configure(
        "demo",
        studies=["zero_error", "polynomial_activations"],
        settings={"random_labels": 0.1, "activation": "tanh", "train_size": 50},
    )
    with pytest.raises(InvalidArgument) as refused:
        reproduce(config, tmp_path / "run")
    message = str(refused.value)
    assert message.startswith("Nothing has been started")
    for words in ("random_labels=0.1", "activation=tanh", "--train-size 133"):
        assert words in message
    assert not (tmp_path / "run").exists()
