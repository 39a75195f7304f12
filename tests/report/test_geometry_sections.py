"""Surfaces and spectra in the report: from the run's results alone."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from made_surfaces import made_density, made_eigenvalues, made_points, made_surface
from made_trajectories import HOSTILE
from thalweg.measurements import spectrum_section as spectrum
from thalweg.measurements import surface_section as surface
from thalweg.report import write_report
from thalweg.run import create_run
from thalweg.run.files import write_json

CONFIG = {
    "measurement": "surface",
    "problem": {"entry": "digits", "settings": {"width": 8}},
    "at": {"checkpoints": ["w.pt"], "digest": "0"},
    "risk": {"split": "train", "batchnorm": "recalibrate", "dtype": "float32"},
    "surface": {"directions": "random", "dims": 2, "points": 5},
}


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", CONFIG)


def captions(section):
    return " ".join(part.caption for part in section.parts if hasattr(part, "caption"))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_surface_states_all_that_it_depends_on(run, dims):
    run.save_result("surface/surface", made_surface(dims, stderr=0.02))
    run.save_result("surface/points", made_points(dims))
    found = surface.section(run)
    said = captions(found)
    assert "random, Gaussian, scaled to the weights by filter, seed 7" in said
    assert "x from -1 to 1 (5 points)" in said and "No batch norm." in said
    assert "standard error of the loss at most 0.02" in said
    assert "12.5 % of their variance" in said and "up to 0.7 weight units" in said
    assert "2 cells have losses that are infinite or not a number" in said
    assert "1 given point outside is not drawn" in said
    page = write_report(run).read_text()
    assert HOSTILE not in page and "<script>alert" not in page
    assert ("plot-surface" in page) == (dims > 1)


def test_an_exact_surface_says_so_and_draws_no_map_of_errors(run):
    run.save_result("surface/surface", made_surface(holes=False))
    found = surface.section(run)
    assert "All 60 samples in every cell: no sampling error" in captions(found)
    assert "infinite" not in captions(found)
    assert found.missing == ["surface/points"]
    still = next(part.still for part in found.parts if part.name == "surface")
    assert len(still.axes) == 2 * 4  # four quantities, each with its bar
    run.save_result("surface/surface", made_surface(stderr=0.1))
    still = next(p.still for p in surface.section(run).parts if p.name == "surface")
    assert len(still.axes) == 2 * 5


def test_nothing_finite_makes_a_table_only(run):
    none = made_surface() * np.nan
    data = none.assign(finite=made_surface()["finite"] & False, samples=made_surface()["samples"])
    run.save_result("surface/surface", data.assign_attrs(made_surface().attrs))
    assert [part.title for part in surface.section(run).parts] == ["Range of the surface"]
    write_report(run)


def test_a_spectrum_states_probes_width_and_uncertainty(run):
    run.save_result("spectrum/density", made_density())
    run.save_result("spectrum/eigenvalues", made_eigenvalues())
    found = spectrum.section(run)
    said = captions(found)
    assert "2 probes of 3 steps" in said and "one standard error" in said
    values = {fact.label: (fact.value, fact.note) for fact in found.facts}
    assert values["largest eigenvalue found"] == ("5", "± 1e-06")
    assert values["eigenvalues within 0.05 of zero"] == (
        "99.8 %",
        "95% interval 99.5 % to 100 %",
    )
    table = found.parts[-1]
    assert table.rows == [("1", "5", "0.001", "1e-06"), ("2", "2", "0.1", "0.01")]
    assert "converged, 12 products" in table.title


def test_sections_are_none_without_results(run):
    assert surface.section(run) is None and spectrum.section(run) is None


def test_the_page_of_a_measurement_says_how_to_make_it_again(run):
    run.save_result("surface/surface", made_surface())
    write_json(run.path / "summary.json", {"surface": {}})
    write_json(run.path / "measured.json", {"samples": 60, "weights": 1234})
    page = write_report(run).read_text()
    words = "thalweg surface digits --set width=8 --checkpoint w.pt --split train"
    assert shlex.join(words.split()) in page
    assert "This run is not finished" not in page and "1,234" in page
