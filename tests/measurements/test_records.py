"""What is made of each record: a command, a run that resumes, its section, its rerun command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

import thalweg as tw
from thalweg.cli.main import app
from thalweg.errors import InvalidArgument
from thalweg.measurements.options import about_options
from thalweg.measurements.registry import MEASUREMENTS
from thalweg.measurements.spectrum_points import each_checkpoint
from thalweg.measurements.told import Told
from thalweg.report.commands import measurement_command
from thalweg.run import open_run
from thalweg.run.files import read_json

SETTINGS = {"network": "mlp", "width": 4, "train_size": 3, "test_size": 20}
SMALL = {
    "surface": ["--points", "3"],
    "spectrum": ["-k", "1"],
    "flatness": ["--pairs", "2", "--copies", "6"],
    "barrier": ["--points", "3"],
    "degeneracy": [],
    "inspect": ["--minutes", "0.02"],
    "embed": ["--dims", "2"],
    "certify": ["--set", "target=onehot"],
    "margin": ["--seconds", "5", "--no-attack"],
    "learning-coefficient": ["--budget", "1000", "--chains", "4"],
    "volume": ["--localization", "100", "--chains", "8"],
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Checkpoints of one training that has its three labels right."""
    problem = tw.load_problem("digits", **SETTINGS)
    risk = tw.EmpiricalRisk(problem)
    folder, w = tmp_path_factory.mktemp("ends"), risk.space.pack(problem.model)
    for name, epochs in (("a", 60), ("b", 20), ("c", 5)):
        w = tw.train(risk, w, lr=0.1, momentum=0.9, epochs=epochs, batch_size=3).w
        state = {key: tensor.clone() for key, tensor in risk.space.unpack(w).items()}
        save_file(state, folder / f"{name}.safetensors")
    return folder


def words(name, ends, *more):
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    files = "abc" if name == "embed" else "ab" if MEASUREMENTS[name].checkpoints[0] > 1 else "a"
    points = [
        word for file in files for word in ("--checkpoint", str(ends / f"{file}.safetensors"))
    ]
    return [name, "digits", *settings, *points, *SMALL[name], *more]


REFUSED = {"certify": 1}  # these checkpoints are no zeros of the squared error


def invoke(arguments, code=0):
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


SAMPLED = ("learning-coefficient", "volume")  # thousands of gradients, whatever they are given


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SAMPLED)) for name in MEASUREMENTS],
)
def test_a_record_makes_a_run_that_resumes_and_has_a_section(name, ends, tmp_path):
    out = tmp_path / "run"
    command = words(name, ends, "--out", str(out), "--json")
    answer = json.loads(invoke(command, REFUSED.get(name, 0)))
    assert answer["run"] == str(out) and answer["report"] == str(out / "report.html")
    page = (out / "report.html").read_text()
    assert f'id="{name}"' in page
    run = open_run(out)
    assert all(run.has_result(r) for r in MEASUREMENTS[name].results[:1])
    results = {r: run.result(r) for r in MEASUREMENTS[name].results if run.has_result(r)}
    before = read_json(out / "summary.json")
    (out / "summary.json").unlink()
    tasks = {path: path.stat().st_mtime_ns for path in (out / "tasks").glob("*.json")}
    invoke(["resume", str(out), "--workers", "1", "--json"])
    assert read_json(out / "summary.json") == before
    assert {path: path.stat().st_mtime_ns for path in (out / "tasks").glob("*.json")} == tasks
    assert all(run.result(r).identical(data) for r, data in results.items())


def idle(name, monkeypatch):
    """Let a command make its run, and measure nothing."""
    no_work = {name: {"notes": [], "checkpoints": []}}
    monkeypatch.setattr("thalweg.measurements.driver.measure", lambda run, **_: (run, no_work))
    monkeypatch.setattr("thalweg.cli.measure._say", lambda *_: None)
    monkeypatch.setattr("thalweg.report.write_report", lambda run: run.path / "report.html")


def run_again(config, again):
    """Do what a report advises, and give the configuration that comes of it."""
    command = shlex.split(measurement_command(config, str(again)))
    assert command[0] == "thalweg"
    invoke(command[1:])
    return open_run(again).config


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_the_rerun_command_makes_the_same_configuration(name, ends, tmp_path, monkeypatch):
    idle(name, monkeypatch)
    invoke(words(name, ends, "--out", str(tmp_path / "run")))
    config = open_run(tmp_path / "run").config
    assert run_again(config, tmp_path / "again") == config


PLACES = {
    "folder": ["--run", "{}"],
    "pattern": ["--run", "{}/w[12].safetensors"],
    "trajectory beside a checkpoint": ["--checkpoint", "{}/w0.safetensors", "--trajectory", "{}"],
    "list in order": ["--checkpoint", "{}/w2.safetensors", "--checkpoint", "{}/w1.safetensors"],
    "how files are opened": ["--checkpoint", "{}/w0.safetensors", "--partial", "--allow", "m.C"],
}


@pytest.mark.parametrize("place", PLACES)
def test_the_rerun_command_names_the_same_points(place, ends, tmp_path, monkeypatch):
    idle("surface", monkeypatch)
    steps = tmp_path / "ckpt"
    steps.mkdir()
    for number, name in enumerate("abc"):
        weights = (ends / f"{name}.safetensors").read_bytes()
        (steps / f"w{number}.safetensors").write_bytes(weights)
    points = [word.format(steps) for word in PLACES[place]]
    more = ["--directions", "principal"] if "order" in place else []
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    invoke(["surface", "digits", *settings, *points, *more, "--out", str(tmp_path / "run")])
    config = open_run(tmp_path / "run").config
    assert run_again(config, tmp_path / "again") == config


def test_every_option_has_help_and_a_default():
    for record in MEASUREMENTS.values():
        for name, about in about_options(record.options).items():
            assert about.help.endswith("."), (record.name, name)


def test_without_out_nothing_is_left_behind(ends, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = json.loads(invoke(words("degeneracy", ends, "--json")))
    assert "run" not in found and found["nullity"] == found["weights"] - found["rank"]
    assert list(Path().iterdir()) == []


def test_several_checkpoints_of_a_degeneracy(ends):
    more = ["--checkpoint", str(ends / "b.safetensors"), "--json"]
    found = json.loads(invoke(words("degeneracy", ends, *more)))["checkpoints"]
    assert [Path(one["checkpoint"]["file"]).stem for one in found] == ["a", "b"]


SPECTRUM = ("-k", "2", "--density", "--probes", "2", "--steps", "4", "--trace")


def spectrum_of(ends, out, *files):
    points = [w for file in files for w in ("--checkpoint", str(ends / f"{file}.safetensors"))]
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    command = ["spectrum", "digits", *settings, *points, *SPECTRUM, "--out", str(out), "--json"]
    return json.loads(invoke(command))["spectrum"], open_run(out)


def test_several_checkpoints_of_a_spectrum_are_those_of_each_alone(ends, tmp_path):
    several, run = spectrum_of(ends, tmp_path / "both", "a", "b")
    single, alone = spectrum_of(ends, tmp_path / "b", "b")
    files = [answer.pop("checkpoint")["file"] for answer in several["checkpoints"]]
    assert [Path(file).stem for file in files] == ["a", "b"]
    assert several["checkpoints"][1] == {k: v for k, v in single.items() if k != "notes"}
    for name in MEASUREMENTS["spectrum"].results:
        (_, spectrum) = each_checkpoint(run.result(name))[1]
        assert spectrum.identical(alone.result(name)), name
    first, last = (answer["eigenvalues"][0]["value"] for answer in several["checkpoints"])
    assert first != last  # so that neither stands for the other
    section = MEASUREMENTS["spectrum"].section(run)
    assert [fact.value for fact in section.facts] == [f"{first:.5g}", f"{last:.5g}"]
    densities, ranks, table, rest = section.parts
    panels = densities.still.axes
    assert [ax.get_title() for ax in panels] == ["a", "b"]
    assert panels[0].get_xlim() == panels[1].get_xlim()
    assert panels[0].get_ylim() == panels[1].get_ylim()
    assert all(ax.get_xlabel() for ax in (*panels, *ranks.still.axes))
    assert table.head == ("", "a", "b") and table.rows[0][1].startswith(f"{first:.7g} ±")
    assert [row[0] for row in rest.rows] == ["a", "b"]
    with pytest.raises(InvalidArgument, match="no picture is known"):
        tw.plot(run.result("spectrum/density"))


def test_bars_of_parts_count_in_the_units_of_the_task():
    reported = []
    told = Told(reported.append, 2.0)
    told.update(3)
    with told.part(10)(40, "search") as bar:
        bar.update(20)
        bar.update(20)
    told.update(1)
    assert reported == [6, 11, 16, 18]
