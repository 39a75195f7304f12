from __future__ import annotations

from thalweg.report.about import about, shown
from thalweg.run import create_run


def test_a_page_tells_no_folder_of_the_machine(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    config = {
        "problem": {
            "entry": f"{tmp_path}/mine.py:make",
            "settings": {"table": f"{tmp_path}/t.csv"},
        },
        "studies": ["trajectories"],
        "at": {"checkpoints": [f"{tmp_path}/here/a.pt"]},
    }
    run = create_run(tmp_path / "run", config)
    monkeypatch.chdir(tmp_path / "here")
    page = about(run)
    assert str(tmp_path) not in repr(page)
    assert "mine.py:make" in page.again and page.resume == "thalweg resume run"
    assert shown(config)["at"] == {"checkpoints": ["a.pt"]}


def test_what_is_no_path_stays():
    for value in ("digits", "owner/name", "package.module:make", 3, True, [1.5, "a:b"]):
        assert shown(value) == value
