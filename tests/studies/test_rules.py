"""Rules are hashed into run.toml before the first task, and what is changed later is named."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from studies.small import CONFIG
from thalweg.report import write_report
from thalweg.report.stated_rules import told_rules
from thalweg.run import InProcess, Run, create_run, open_run
from thalweg.studies import configure, registry, reproduce, resume, rules
from thalweg.studies.claim import Rule
from thalweg.studies.registry import JUDGES, RULES, STUDIES

LINES: dict[str, Any] = {
    "epochs": 9,
    "checkpoints": 3,
    "scale": 0.25,
    "branch_epochs": 1,
    "branch_checkpoints": 1,
    "parents": 3,
    "rivals": 3,
    "moments": {"final": 2},
    "points": 3,
}
SMALL = CONFIG | {"studies": ["interpolation"], "interpolation": LINES}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return reproduce(SMALL, tmp_path_factory.mktemp("runs") / "ruled", engine=InProcess())[0]


def again(run: Run) -> Run:
    resume(run.path, engine=InProcess())
    return open_run(run.path)


@pytest.mark.parametrize("preset", ["demo", "laptop", "paper"])
def test_every_study_that_judges_states_its_rules(preset: str) -> None:
    config = configure(preset)
    assert set(RULES) == set(JUDGES) <= set(STUDIES)
    for name, of in RULES.items():
        assert of(config), name


def test_the_rules_of_a_run_are_those_of_its_claims(run: Run) -> None:
    stated = run.about["rules"]
    assert stated["claims"] == {claim["name"]: claim["rule"] for claim in run.claims}
    assert run.judged_by["stated"] == stated["digest"]
    assert [one["changed"] for one in run.judged_by["judged"]] == [[]]
    sentence, changed = told_rules(run)
    assert "before the first task" in sentence and "judged by no others" in sentence
    assert stated["digest"][:12] in sentence and not changed


def test_rules_are_written_before_the_first_task(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(seconds: float) -> None:
        assert not list((tmp_path / "run" / "tasks").glob("*.json"))
        raise Killed

    with pytest.raises(Killed):
        reproduce(SMALL, tmp_path / "run", engine=InProcess(), announce=kill)
    assert open_run(tmp_path / "run").about["rules"]["claims"]["interpolation/low"] == "at most 0.1"


def test_what_was_changed_after_the_run_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "interpolation", lambda config: {"low": Rule(high=0.5)})
    later = again(run)
    sentence, changed = told_rules(later)
    assert "were changed after the run had begun" in sentence
    assert 'interpolation/low: the rule was "at most 0.1", and is "at most 0.5"' in changed
    page = write_report(later).read_text(encoding="utf-8")
    assert "the rule was &#34;at most 0.1&#34;, and is &#34;at most 0.5&#34;" in page
    # Judged by the first rules again: what was done in between stays on record.
    monkeypatch.undo()
    sentence, changed = told_rules(again(run))
    assert "judged 3 times" in sentence and changed


def test_code_is_hashed_without_words_about_it() -> None:
    def module(source: str, folder: Path) -> ModuleType:
        import importlib.util

        path = folder / "judge.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("judge", path)
        assert spec is not None
        return importlib.util.module_from_spec(spec)

    import linecache
    import tempfile

    digests = []
    for source in (
        'def f(x):\n    """Double."""\n    return 2 * x\n',
        'def f(x):\n    """Twice."""\n    # A remark.\n    return 2 * x\n',
        'def f(x):\n    """Double."""\n    return 3 * x\n',
    ):
        linecache.clearcache()
        with tempfile.TemporaryDirectory() as folder:
            judge = module(source, Path(folder))
            stated = rules.state({"studies": [], "training": {}}, {}, {"study": (judge,)})
            digests.append(stated["statistics"]["study"])
    assert digests[0] == digests[1] != digests[2]


def test_a_run_of_an_older_version_says_that_it_states_none(tmp_path: Path) -> None:
    old = create_run(tmp_path / "old", SMALL)
    (old.path / "claims.json").write_text(json.dumps({"claims": []}))
    assert "does not say" in told_rules(old)[0]


def test_only_what_differs_counts() -> None:
    config = configure("demo")
    one, same = (registry.RULES["zero_error"](config) for _ in range(2))
    assert one == same
    before = rules.state(config, {"zero_error": one}, {})
    assert rules.changes(before, rules.state(config, {"zero_error": same}, {})) == []
    more = config | {"training": config["training"] | {"lr": 0.1}}
    more |= {"zero_error": config["zero_error"] | {"draws": 7}}
    changed = rules.changes(before, rules.state(more, {"zero_error": one}, {}))
    assert changed == ["training: its sizes are others", "zero_error: its sizes are others"]
