"""The package as it is installed and imported."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys

import pytest

import thalweg

# Each costs a tenth of a second or more, or belongs to an extra; whoever needs one imports it then.
HEAVY = [
    "dask",
    "datasets",
    "distributed",
    "jinja2",
    "matplotlib",
    "pandas",
    "plotly",
    "pyarrow",
    "scipy",
    "sklearn",
    "torch",
    "typer",
    "xarray",
    "zarr",
]


def modules_after(statement: str) -> set[str]:
    """Top-level names of the modules a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["thalweg", "thalweg.cli.main", "thalweg.run"])
def test_import_is_light(module):
    """Neither the package nor the program waits for torch before it is asked for something."""
    loaded = modules_after(f"import {module}") & {*HEAVY}
    assert loaded <= ({"typer"} if "cli" in module else set())


def test_names_of_every_room_load_when_asked_for():
    loaded = modules_after("import thalweg as tw; tw.EmpiricalRisk, tw.plots.plot_line") & {*HEAVY}
    assert loaded == {"torch"}
    with pytest.raises(AttributeError, match="'thalweg' has no attribute 'emprical_risk'"):
        _ = thalweg.emprical_risk
    assert thalweg.problems is sys.modules["thalweg.problems"]


def test_import_prints_nothing():
    command = [sys.executable, "-W", "error", "-c", "import thalweg"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_types_are_shipped():
    assert importlib.resources.files("thalweg").joinpath("py.typed").is_file()


def test_version_is_that_of_the_distribution():
    assert thalweg.__version__ == importlib.metadata.version("thalweg")


def test_public_names_are_listed():
    assert len(thalweg.__all__) == len(set(thalweg.__all__))
    assert set(thalweg.__all__) <= set(dir(thalweg)), "dir() shows names that are loaded late, too"


@pytest.mark.parametrize("name", sorted(getattr(thalweg, "__all__", [])))
def test_public_name_is_documented(name):
    public = getattr(thalweg, name)
    assert name == "__version__" or inspect.getdoc(public), f"thalweg.{name} has no docstring"


def test_old_names_of_how_a_risk_is_made_warn() -> None:
    problem = thalweg.load_problem("digits", width=2)
    risk = thalweg.EmpiricalRisk(problem)
    with pytest.warns(DeprecationWarning, match="called spec now"):
        assert problem.recipe == problem.spec
    with pytest.warns(DeprecationWarning, match="called spec now"):
        assert risk.recipe() == risk.spec()
