from __future__ import annotations

import pickle
import sys
import textwrap

import pytest

from thalweg.errors import EntryNotFound, InvalidArgument, InvalidProblem
from thalweg.problems import load_problem

SOURCE = """
    import torch
    from torch import nn
    from thalweg.problems import Problem
    from thalweg_test_sibling import SIZE

    class Net(nn.Linear):
        pass

    def make(width, depth=1):
        x = torch.zeros(SIZE, width)
        return Problem(Net(width, 1), nn.MSELoss(), (x, x[:, :1]), name=f"own {depth}")

    def nothing():
        return {"model": None}

    def anything(**settings):
        return make(**settings)

    constant = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "thalweg_test_entry.py").write_text(textwrap.dedent(SOURCE))
    (tmp_path / "thalweg_test_sibling.py").write_text("SIZE = 5\n")
    (tmp_path / "thalweg_test_broken.py").write_text("import thalweg_test_absent\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith(("thalweg_test_", "thalweg_entry_"))]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "entry",
    [
        "thalweg_test_entry:make",
        "thalweg_test_entry.py:make",
        "{}/thalweg_test_entry.py:make",
        "thalweg_test_entry.py:anything",
    ],
)
def test_an_entry_of_ones_own(folder, entry):
    problem = load_problem(entry.format(folder), width=2, depth=4)
    assert problem.name == "own 4" and len(problem.samples("train")) == 5
    assert type(pickle.loads(pickle.dumps(problem.model))).__name__ == "Net"


@pytest.mark.parametrize(
    ("entry", "settings", "error", "words"),
    [
        ("thalweg_test_nowhere:make", {}, EntryNotFound,
         ["working directory {}", "'thalweg_test_nowhere.py:make'"]),
        ("a.b.c:make", {}, EntryNotFound, ["no module 'a.b.c'", "'a/b/c.py:make'"]),
        ("nowhere.py:make", {}, EntryNotFound,
         ["nowhere.py is not there", "working directory {}", "thalweg_test_entry.py"]),
        ("thalweg_test_broken:make", {}, EntryNotFound, ["thalweg_test_absent", "install it"]),
        ("thalweg_test_broken.py:make", {}, EntryNotFound, ["thalweg_test_absent", "install it"]),
        ("thalweg_test_entry.py:made", {}, EntryNotFound,
         ["has no 'made'", "callables there: Net, make, nothing, anything"]),
        ("thalweg_test_entry.py:constant", {}, EntryNotFound, ["has no function 'constant'"]),
        ("thalweg_test_entry.py:nothing", {}, InvalidProblem,
         ["returned dict", "expected a thalweg.Problem", "return Problem(model, loss"]),
        ("thalweg_test_entry.py:make", {}, InvalidArgument,
         ["needs 'width'", "width=...", "--set width=VALUE"]),
        ("thalweg_test_entry.py:make", {"width": 1, "dept": 2}, InvalidArgument,
         ["no setting 'dept'", "did you mean 'depth'?", "it knows width, depth"]),
        ("digit", {}, EntryNotFound, ["did you mean 'digits'?", "'package.module:make'"]),
        ("teacher", {"input": 3}, InvalidArgument, ["did you mean 'inputs'?", "outputs, samples"]),
    ],
)  # fmt: skip
def test_an_entry_that_leads_nowhere(folder, entry, settings, error, words):
    with pytest.raises(error) as caught:
        load_problem(entry, **settings)
    assert all(word.format(folder) in str(caught.value) for word in words), str(caught.value)


def test_files_of_one_name_do_not_meet(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "problem.py").write_text(
            "import torch\nfrom torch import nn\nfrom thalweg.problems import Problem\n"
            "def make():\n    x = torch.ones(2, 1)\n"
            f"    return Problem(nn.Linear(1, 1), nn.MSELoss(), (x, x), name='{name}')\n"
        )
    names = [load_problem(f"{tmp_path}/{name}/problem.py:make").name for name in ("one", "two")]
    assert names == ["one", "two"]
