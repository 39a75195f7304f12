from __future__ import annotations

import re
import shlex
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from made_trajectories import HOSTILE, made_curves, made_embedding
from thalweg.dynamics import record
from thalweg.report import write_report
from thalweg.report.about import command
from thalweg.report.sections import trajectories
from thalweg.run import create_run, open_run
from thalweg.run.files import write_json

CONFIG = {
    "preset": "demo",
    "studies": ["trajectories"],
    "problem": {"entry": "digits", "settings": {"train_size": 1200, "activation": "tanh"}},
    "training": {"lr": 0.05, "momentum": 0.9},
}
FINALS = {
    "seed0": {"status": "zero error", "steps": 30, "loss": 1e-3, "error": 0.0, "test_error": 0.04},
    HOSTILE: {"status": "epochs", "steps": 30, "loss": 0.1, "error": 0.01, "test_error": 0.06},
    "seed0-early-0": {"status": "zero error", "steps": 30, "loss": 1e-3, "error": 0.0},
}


@pytest.fixture
def unfinished(tmp_path):
    """A run that was stopped before it held anything."""
    run = create_run(tmp_path / "my run", CONFIG)
    write_json(run.path / "measured.json", {"samples": 1200, "weights": 56554})
    return run


@pytest.fixture
def run(unfinished):
    unfinished.save_result("trajectories/embedding", made_embedding())
    unfinished.save_result("trajectories/curves", made_curves())
    found = {"trajectories": FINALS, "checkpoints": 12, "zero_error_seeds": 1}
    write_json(unfinished.path / "summary.json", {"trajectories": found})
    return unfinished


class Page(HTMLParser):
    """The text of a page, and what its tags would fetch."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.fetched, self.ids, self.links, self.words = [], set(), [], []
        self._inside = []
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.fetched += [given[name] for name in ("src", "data", "poster") if given.get(name)]
        if tag == "link":
            self.fetched.append(given["href"])
        if tag == "a":
            self.links.append(given["href"])
        self.ids.add(given.get("id"))
        self._inside.append(tag)

    def handle_data(self, data):
        if not {"script", "style"} & set(self._inside):
            self.words.append(data)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_page_stands_alone_and_its_contents_lead_somewhere(run):
    page = Page(write_report(run))
    assert page.fetched and all(source.startswith("data:") for source in page.fetched)
    style = re.search(r"<style>(.*?)</style>", page.source, re.S).group(1)
    assert "url(" not in style and "@import" not in style
    assert page.links and {link.removeprefix("#") for link in page.links} <= page.ids


def test_facts_are_those_of_the_data(run):
    text = Page(write_report(run)).text
    assert "seeds that reached zero training error 1 of 2" in text
    assert "perturbed copies that reached it 1 of 1" in text
    assert "final test error 4 % to 6 %" in text
    assert "mean of 2 seeds: 5 %" in text
    assert "training samples 1,200" in text
    drawn = "12 checkpoints of a network of 56,554 weights, from 2 trainings and 1 perturbed copy"
    assert drawn in text
    assert "branched off at early moments" in text
    assert "1 value of zero drawn at the floor" in text
    fidelity = made_embedding()["fidelity"].values[0]
    assert f"fidelity of {fidelity.min():.3g}" in text
    assert "is not finished" not in text


def test_figures_are_written_beside_the_page(run):
    write_report(run)
    found = sorted(path.name for path in (run.path / "figures").iterdir())
    assert found == [
        "curves.png",
        "embedding.png",
        "embedding_layers.png",
        "height.png",
        "stress.png",
    ]
    for name in found:
        with Image.open(run.path / "figures" / name) as image:
            assert min(image.size) > 300
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn


def test_hostile_names_stay_text(run):
    page = Page(write_report(run))
    assert "<script>alert" not in page.source
    assert HOSTILE in page.text


def test_writing_again_gives_the_same_page(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_the_users_matplotlib_is_left_alone(run):
    before = dict(matplotlib.rcParams)
    write_report(run)
    assert dict(matplotlib.rcParams) == before


def test_an_unfinished_run_says_so(unfinished):
    unfinished.log(trajectory="seed0")({"loss": 0.25, "epoch": 2.0}, 40)
    page = Page(write_report(unfinished))
    assert "This run is not finished" in page.text
    assert "thalweg resume 'my run'" in page.text  # by its name: no folder of the machine is told
    assert "Nothing to show of the study trajectories" in page.text
    assert "trajectories/embedding or trajectories/curves" in page.text
    assert "seed0 40 2 0.25" in page.text
    assert "plotly" not in page.source


@pytest.mark.parametrize(("held", "missing"), [("embedding", "curves"), ("curves", "embedding")])
def test_half_of_the_results_are_shown_with_a_note(unfinished, held, missing):
    made = {"embedding": made_embedding, "curves": made_curves}[held]()
    unfinished.save_result(f"trajectories/{held}", made)
    page = Page(write_report(unfinished))
    assert f"does not hold the result trajectories/{missing}" in page.text
    assert held in page.ids and missing not in page.ids


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"names": ("seed0",)}, id="one trajectory"),
        pytest.param({"names": ("seed0", "seed1"), "points": 1}, id="one checkpoint each"),
        pytest.param({"loss": np.full(12, np.nan)}, id="no loss"),
        pytest.param({"loss": np.zeros(12)}, id="all losses zero"),
        pytest.param({"loss": np.r_[np.inf, np.nan, np.ones(10)]}, id="diverged"),
    ],
)
def test_dark_corners_make_a_page(unfinished, change):
    unfinished.save_result("trajectories/embedding", made_embedding(**change))
    curves = made_curves(**change).drop_vars(["test_loss", "test_error"])
    unfinished.save_result("trajectories/curves", curves)
    page = Page(write_report(unfinished))
    assert {"embedding", "curves", "stress"} <= page.ids
    assert "No test samples were measured" in page.text
    assert ("height" in page.ids) == bool(np.isfinite(made_embedding(**change)["loss"]).any())


def test_the_section_is_none_without_results(unfinished):
    assert trajectories.section(unfinished) is None


def test_the_command_makes_the_same_configuration(tmp_path):
    from thalweg.cli.runs import parse_settings
    from thalweg.studies import configure

    settings = {"train_size": 50, "note": "1", "activation": "tanh", "norm": False}
    (tmp_path / "a folder").mkdir()
    config = configure("demo", data=str(tmp_path / "a folder"), settings=settings, seed=7)
    words = shlex.split(command(config, "runs/again"))
    given = {name: [after for word, after in pairwise(words) if word == name] for name in words}
    again = configure(
        *given["--preset"],
        data=given["--data"][0],
        studies=given["--study"],
        settings=parse_settings(given["--set"]),
        seed=int(given["--seed"][0]),
    )
    assert again == config


@pytest.mark.slow
def test_a_browser_draws_the_page_and_asks_for_nothing(run, chromium):
    from playwright.sync_api import sync_playwright

    page_path = write_report(run)
    asked, complaints = [], []
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.goto(page_path.as_uri())
        page.wait_for_selector("#plot-embedding canvas")
        page.wait_for_selector("#plot-height canvas")
        page.wait_for_selector("#plot-curves path.js-line", state="attached")
        drawn = page.evaluate("document.getElementById('plot-embedding').data.map(t => [...t.x])")
        choice = "Plotly.update('plot-embedding', ...b.args)"
        b = "const b = document.getElementById('plot-embedding').layout.updatemenus[0].buttons[1]"
        chosen = page.evaluate(
            f"async () => {{ {b}; await {choice};"
            "return document.getElementById('plot-embedding').data[0].x }"
        )
        browser.close()
    assert [url for url in asked if not url.startswith("data:")] == [page_path.as_uri()]
    assert complaints == []
    places = made_embedding()["position"].values
    assert drawn[0] == places[0, :4, 0][::-1].tolist()
    assert chosen == places[1, :4, 0][::-1].tolist()


def test_a_recording_says_how_it_goes_on_and_counts_all_that_was_trained(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[1].register_parameter("phase", nn.Parameter(torch.ones(5, dtype=torch.complex128)))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model, optimizer, run=tmp_path / "mine", every=1):
        for _ in range(3):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            model[0].requires_grad_(True)
    page = Page(write_report(open_run(tmp_path / "mine")))
    assert "not finished" not in page.text and "thalweg resume" not in page.text
    assert "recorder.restore()" in page.text
    assert f"trainable weights W {sum(p.numel() for p in model.parameters())}" in page.text
