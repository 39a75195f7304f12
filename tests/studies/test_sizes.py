"""Other sizes of studies than a preset's, from Python and from the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from thalweg.cli.main import app
from thalweg.errors import InvalidArgument
from thalweg.report.about import command
from thalweg.studies import STUDIES, configure
from thalweg.studies.registry import STUDIES as KNOWN
from thalweg.studies.sizes import changed_sizes


def test_a_size_is_changed_where_it_is_and_nowhere_else() -> None:
    before = configure("demo")
    sizes = {"perturb_and_return.copies": 5, "perturb_and_return.narrow.epochs": 7}
    after = configure("demo", sizes=sizes)
    assert after["perturb_and_return"]["copies"] == 5
    assert after["perturb_and_return"]["narrow"]["epochs"] == 7
    assert changed_sizes(after) == sizes
    assert changed_sizes(before) == {}
    assert configure("demo") == before  # the presets are what they were
    assert {name: after[name] for name in STUDIES if name != "perturb_and_return"} == {
        name: before[name] for name in STUDIES if name != "perturb_and_return"
    }


def test_what_studies_share_changes_in_all_of_them() -> None:
    after = configure("demo", sizes={"interpolation.epochs": 3})
    shared = {"trajectories", "interpolation", "perturb_and_return"}
    assert {name for name in after["studies"] if after[name].get("epochs") == 3} == shared
    # Epochs of other studies are their own: 8 in the demo's polynomial networks.
    assert after["polynomial_activations"]["epochs"] == 8
    alone = configure("demo", studies=["interpolation"], sizes={"interpolation.epochs": 3})
    assert alone["interpolation"]["epochs"] == 3


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"interpolation.point": 9}, "did you mean 'points'"),
        ({"interpolatio.points": 9}, "the run has the studies trajectories, "),
        ({"points": 9}, "STUDY.NAME=VALUE"),
        ({"interpolation.points.more": 9}, "it is one value"),
        ({"interpolation.points": "many"}, "expected a value like the preset's, 7"),
        ({"interpolation.points": 2.5}, "expected a value like the preset's, 7"),
        ({"interpolation.points": True}, "expected a value like the preset's, 7"),
        ({"interpolation.moments": 2}, "expected a value like the preset's, {"),
        ({"interpolation.epochs": 3, "trajectories.epochs": 4}, "trained once"),
    ],
)
def test_what_is_no_size_is_refused_in_words(sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        configure("demo", sizes=sizes)
    assert words in str(refusal.value)


def test_the_command_of_a_page_makes_the_same_sizes(tmp_path: Path) -> None:
    sizes = {"interpolation.moments": {"final": 3}, "interpolation.scale": 1}
    config = configure("demo", studies=["interpolation"], sizes=sizes)
    words = shlex.split(command(config, "again"))
    given = [words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--size"]
    again = {name: json.loads(value) for name, value in given}
    assert configure("demo", studies=["interpolation"], sizes=again) == config


def test_sizes_of_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["reproduce", "--study", "interpolation", "--size", "interpolation.points=8"]
    refused = CliRunner().invoke(app, [*words, "--out", str(out)])
    # The size has arrived: a middle is none of 8 points.
    assert "interpolation.points = 8" in str(refused.exception)
    refused = CliRunner().invoke(app, ["reproduce", "--size", "points", "--out", str(out)])
    assert refused.exit_code == 2 and "expected NAME=VALUE" in refused.output
    assert not out.exists()


def test_every_size_of_every_preset_can_be_given_again() -> None:
    for preset in ("demo", "laptop", "paper"):
        flat = {
            f"{name}.{key}": value
            for name, study in KNOWN.items()
            for key, value in study.SIZES[preset].items()
        }
        assert configure(preset, sizes=flat) == configure(preset)
