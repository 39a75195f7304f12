"""The check-up in the report: the answers first, then how far each can be trusted."""

from __future__ import annotations

from typing import Any

from thalweg.measurements.checkup_words import told_plan
from thalweg.measurements.parts import Fact, Section, Table

# What is read first, as far as it is there.
_FIRST = (
    "Which is flatter?",
    "Do they lie in one basin?",
    "Can they be averaged?",
    "Which predicts better?",
    "Can its confidence be trusted?",
)
_FACTS = 4


def section_of(found: dict[str, Any]) -> Section:
    """Make the section of a check-up, which may still be under way."""
    verdicts = found["verdicts"]
    rows: list[tuple[str, ...]] = []
    for i, verdict in enumerate(verdicts):
        same = i > 0 and verdicts[i - 1]["question"] == verdict["question"]
        question = "" if same else verdict["question"]
        rows.append((question, verdict["about"], verdict["answer"], verdict["trust"]))
    head, *sizes = told_plan(found["plan"])
    return Section(
        name="inspect",
        title="The check-up",
        lead="An answer to each question, and how far it can be trusted. The time that was given"
        " decided how much was measured.",
        facts=_facts(verdicts),
        parts=[
            Table("Answers", ("question", "of", "answer", "how far to trust it"), rows, words=4),
            Table(
                head[:1].upper() + head[1:],
                ("part", "size"),
                [tuple(text.strip().split(": ", 1)) for text in sizes],
                words=2,
            ),
        ],
    )


def _facts(verdicts: list[dict[str, Any]]) -> list[Fact]:
    named = [
        Fact(f"{verdict['question']} ({verdict['about']})", verdict["verdict"])
        for question in _FIRST
        for verdict in verdicts
        if verdict["question"] == question
    ]
    return named[:_FACTS]
