from __future__ import annotations

import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from thalweg.cli.main import app
from thalweg.errors import EntryNotFound, InvalidProblem, NotTrusted, RunConflict
from thalweg.problems import load_problem, load_stored, trust_entry
from thalweg.run import InProcess, Task, create_run, open_run, run_tasks
from thalweg.run.sources import source_files
from thalweg.run.trust import name_entry, require_trust

SOURCE = """
    from pathlib import Path
    import torch
    import thalweg as tw
    from helpers import LIMIT

    Path("ran").touch()

    def make(seed=0):
        x = torch.linspace(-1, 1, 40).reshape(20, 2)
        return tw.Problem(
            torch.nn.Linear(2, 2), torch.nn.CrossEntropyLoss(), (x, (x[:, 0] > LIMIT).long())
        )

    def other():
        return 1
"""
ENTRY = "mine.py:make"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Give an empty folder with a problem, and nothing trusted yet."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(SOURCE))
    (tmp_path / "helpers.py").write_text("LIMIT = 0.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    before = set(sys.modules)
    in_a_later_process(monkeypatch)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name == "helpers" or name.startswith("thalweg_entry_"):
            del sys.modules[name]


def edit(folder, file, old, new):
    path = folder / file
    path.write_text(path.read_text().replace(old, new))


def in_a_later_process(monkeypatch):
    """Forget what was named in this one."""
    monkeypatch.setattr("thalweg.run.trust._granted", {})


def stored(entry=ENTRY):
    return {"entry": entry, "settings": {}}


def test_a_file_names_a_function_and_nothing_runs(folder):
    with pytest.raises(NotTrusted, match=r"mine\.py:make .* would run code: .*mine\.py.*--trust"):
        load_stored(stored())
    assert not (folder / "ran").exists()


def test_built_in_names_are_free(folder):
    assert (
        len(load_stored({"entry": "digits", "settings": {"train_size": 5}}).samples("train")) == 5
    )


def test_what_the_user_named_may_be_loaded_again(folder):
    load_problem(ENTRY)
    load_stored(stored(str(folder / ENTRY)))
    edit(folder, "helpers.py", "0.0", "0.5")
    with pytest.raises(RunConflict, match="edited while this command ran"):
        load_stored(stored())


@pytest.mark.parametrize("file", ["mine.py", "helpers.py"])
def test_trust_is_remembered_until_a_source_changes(folder, file, monkeypatch):
    trust_entry(ENTRY)
    assert not (folder / "ran").exists()
    in_a_later_process(monkeypatch)
    load_stored(stored())
    (folder / file).write_text((folder / file).read_text() + "\n# another\n")
    with pytest.raises(NotTrusted):
        load_stored(stored())


def test_trust_is_of_one_function(folder):
    trust_entry(ENTRY)
    with pytest.raises(NotTrusted, match=r"mine\.py:other"):
        require_trust("mine.py:other")


@pytest.mark.parametrize(
    "entry",
    [
        "os:system",
        "subprocess:run",
        "builtins:exec",
        "posix:system",
        "shutil:rmtree",
        "os.path:join",
    ],
)
def test_functions_of_pythons_library_are_never_called(folder, entry):
    with pytest.raises(NotTrusted, match="Python's own library"):
        trust_entry(entry)
    with pytest.raises(NotTrusted, match="Python's own library"):
        load_stored(stored(entry))
    with pytest.raises(InvalidProblem, match="Python's own library"):
        load_problem(entry, command="touch ran")
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("from os import system as make", ENTRY),
        ("import os\nclass make:\n    run = staticmethod(os.system)", "mine.py:make.run"),
        ("from shutil import rmtree as make", ENTRY),
        ("from functools import partial\nimport os\nmake = partial(os.system)", ENTRY),
        ("def make(command='') -> int:\n    return open('ran', 'w').write(command)", ENTRY),
        ("def make(command=''):\n    return open('ran', 'w').write(command)", ENTRY),
        ("", "torch:save"),
        ("", "numpy:save"),
        ("", "thalweg.run.files:write_text"),
    ],
)
def test_only_what_makes_a_problem_is_called(folder, line, entry):
    (folder / "mine.py").write_text(line + "\n")
    with pytest.raises(InvalidProblem, match="return Problem"):
        load_problem(entry)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "lines",
    [
        "def make(size=20):\n    import thalweg as tw\n    return inner(tw, size)\n\n",
        "def make(size=20) -> 'Problem':\n    return inner(__import__('thalweg'), size)\n\n",
        "def make(size=20):\n    return build.of(size)\n\nimport build\n",
        "def make(size=20):\n    return of(size)\n\nfrom build import of\n",
        "from functools import partial\nfrom build import of\nmake = partial(of, 20)\n",
        "from functools import cache\nfrom build import of\nmake = cache(of)\n",
    ],
)
def test_functions_that_make_a_problem_some_other_way(folder, lines):
    inner = """
def inner(tw, size):
    import torch
    x = torch.zeros(size, 2)
    return tw.Problem(torch.nn.Linear(2, 1), torch.nn.MSELoss(), (x, x[:, :1]))
"""
    build = "import thalweg\n" + inner + "\ndef of(size=20):\n    return inner(thalweg, size)\n"
    (folder / "build.py").write_text(build)
    (folder / "mine.py").write_text(lines + inner)
    try:
        assert len(load_problem(ENTRY).samples("train")) == 20
    finally:
        sys.modules.pop("build", None)


def test_sources_are_what_is_imported_from_beside(folder):
    package = folder / "package" / "inner"
    package.mkdir(parents=True)
    (folder / "package" / "__init__.py").write_text("raise SystemExit('it ran')")
    (package / "__init__.py").write_text("from . import near\n")
    (package / "near.py").write_text("from ..far import x\nimport json, torch\n")
    (folder / "package" / "far.py").write_text("import package.inner\n")
    assert list(source_files("mine.py:make")) == ["mine.py", "helpers.py"]
    assert set(source_files("package.inner:make")) == {
        f"package/{name}.py" for name in ("__init__", "far", "inner/__init__", "inner/near")
    }
    assert source_files("mine.py:make")["helpers.py"] == folder / "helpers.py"
    assert source_files("absent.py:make") == source_files("json.absent:make") == {}
    assert next(iter(source_files("thalweg.errors:NotFinite"))).endswith("errors.py")


def test_a_missing_source_is_said(folder):
    with pytest.raises(EntryNotFound, match="no Python file defines it"):
        load_stored(stored("absent.py:make"))


def count(run, arguments, report):
    return {"samples": len(load_stored(arguments["problem"]).samples("train"))}


def test_a_driver_hands_trust_on_to_its_workers(folder):
    run = create_run(folder / "run", {"problem": stored(str(folder / ENTRY))})
    task = Task(f"{__name__}:count", {"problem": run.config["problem"]})
    name_entry(ENTRY)
    assert run_tasks(run, [task], engine=InProcess())[task.key] == {"samples": 20}


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("mine.py", "> LIMIT", "> LIMIT + 1", r"mine\.py \(make changed\)"),
        ("mine.py", "other", "another", r"mine\.py \(other gone, another added\)"),
        ("helpers.py", "0.0", "1.0", r"helpers\.py \(other statements changed\)"),
    ],
)
def test_a_run_refuses_an_edited_problem(folder, file, old, new, said):
    name_entry(ENTRY)
    create_run(folder / "run", {"problem": stored(str(folder / ENTRY))})
    open_run(folder / "run").require_source()
    edit(folder, file, old, new)
    name_entry(ENTRY)
    with pytest.raises(RunConflict, match=said):
        open_run(folder / "run").require_source()


def test_the_run_of_its_user_is_trusted_in_later_processes(folder, monkeypatch):
    name_entry(ENTRY)
    create_run(folder / "run", {"problem": stored(str(folder / ENTRY))})
    in_a_later_process(monkeypatch)
    open_run(folder / "run").require_source()


STRANGER = """
[config]
studies = ["trajectories"]
[config.training]
batch_size = 100
[config.problem]
entry = "mine.py:make"
"""


@pytest.mark.parametrize(
    "words", [["resume", "run"], ["surface", "--run", "run"], ["spectrum", "--run", "run"]]
)
def test_commands_call_nothing_that_a_run_names(folder, words):
    main = folder / "run" / "checkpoints" / "main"
    main.mkdir(parents=True)
    save_file({"model.weight": torch.ones(1)}, main / "000000000.safetensors")
    (folder / "run" / "run.toml").write_text(STRANGER)
    answer = CliRunner().invoke(app, words)
    assert isinstance(answer.exception, NotTrusted) and "\n" not in str(answer.exception)
    assert not (folder / "ran").exists()
    CliRunner().invoke(app, [*words, "--trust"])
    require_trust(ENTRY)
    assert (folder / "state" / "thalweg" / "trusted.json").exists()
