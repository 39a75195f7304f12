"""One answer of a check-up, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """
    The answer to one question.

    Attributes
    ----------
    question : str
        Which.
    about : str
        Names of the points.
    verdict : str
        In a word or two, for code: "flatter", "one basin", ...
    answer : str
        In words, with numbers and intervals.
    trust : str
        How far it goes, and what it leaves out.
    numbers : dict
        The numbers of the answer.
    """

    question: str
    about: str
    verdict: str
    answer: str
    trust: str
    numbers: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return asdict(self)


def not_measured(question: str, about: str, answer: dict[str, Any]) -> Verdict:
    """Say why there is no answer, and whether more time would give one."""
    trust = "give more --minutes" if answer.get("late") else "the other parts do not rest on it"
    return Verdict(question, about, "not measured", answer["refused"], trust, answer)
