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
    "sklearn",
    "typer",
    "xarray",
    "zarr",
]


def modules_after(statement: str) -> set[str]:
    """Top-level names of the modules a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_import_is_light():
    """`import thalweg` costs little beyond torch: a count of modules, not a time."""
    added = modules_after("import thalweg") - modules_after("import torch")
    assert added.isdisjoint(HEAVY), sorted(added.intersection(HEAVY))


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
