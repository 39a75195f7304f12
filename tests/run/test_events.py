"""The log of metrics: several writers, torn lines, steps written twice."""

from __future__ import annotations

import math
import multiprocessing

from hypothesis import given
from hypothesis import strategies as st

from thalweg.run.events import EventLog, read_events


def test_no_file_is_no_events(tmp_path):
    assert read_events(tmp_path / "events.jsonl") == []


def test_an_event_has_its_context_step_and_metrics(tmp_path):
    EventLog(tmp_path / "new" / "events.jsonl", trajectory="seed0")({"loss": 0.5}, 3)
    assert read_events(tmp_path / "new" / "events.jsonl") == [
        {"trajectory": "seed0", "step": 3, "loss": 0.5}
    ]


def test_the_last_writing_of_a_step_counts_in_the_place_of_the_first(tmp_path):
    first, other = (EventLog(tmp_path / "e", trajectory=name) for name in ("a", "b"))
    first({"loss": 1.0}, 1)
    first({"loss": 0.5}, 2)
    other({"loss": 7.0}, 1)
    first({"loss": 2.0}, 1)
    events = [(e["trajectory"], e["step"], e["loss"]) for e in read_events(tmp_path / "e")]
    assert events == [("a", 1, 2.0), ("a", 2, 0.5), ("b", 1, 7.0)]


@given(cut=st.integers(min_value=1, max_value=40))
def test_a_torn_line_costs_that_line_only(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    log = EventLog(path, trajectory="seed0")
    log({"loss": 1.0}, 1)
    log({"loss": 0.5}, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    log({"loss": 0.25}, 3)
    # Cut by one, only the end of the line is missing: the line is whole.
    expected = [1, 2, 3] if cut == 1 else [1, 3]
    assert [event["step"] for event in read_events(path)] == expected


def test_losses_that_are_not_finite_come_back(tmp_path):
    log = EventLog(tmp_path / "e")
    log({"loss": math.inf}, 0)
    log({"loss": math.nan}, 1)
    first, second = read_events(tmp_path / "e")
    assert first["loss"] == math.inf
    assert math.isnan(second["loss"])


def write_many(path, name):
    log = EventLog(path, trajectory=name)
    for step in range(200):
        log({"text": "x" * 500}, step)


def test_processes_do_not_write_into_one_anothers_lines(tmp_path):
    context = multiprocessing.get_context("fork")
    names = ["a", "b", "c"]
    writers = [context.Process(target=write_many, args=(tmp_path / "e", n)) for n in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    events = read_events(tmp_path / "e")
    written = {(event["trajectory"], event["step"]) for event in events}
    assert written == {(name, step) for name in names for step in range(200)}
    assert all(e["text"] == "x" * 500 for e in events)
