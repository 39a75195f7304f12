"""What differs between two runs: verdicts, statistics, settings, versions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from thalweg.result import Result
from thalweg.run import Run
from thalweg.run.files import read_json

Both = tuple[Any, Any]


@dataclass(frozen=True)
class Difference(Result):
    """
    What differs between two runs; each entry has the first run's value and the last's.

    Attributes
    ----------
    verdicts : dict of str to (str or None, str or None)
        By the name of the claim; None where a run does not judge it.
    statistics : dict of str to (object, object)
        Values and ends of intervals of claims, and the numbers of a measurement's summary.
    settings : dict of str to (object, object)
        Of the configuration, by name.
    versions : dict of str to (str or None, str or None)
        Of Python and of the libraries.
    same : int
        Number of claims with the same verdict.
    """

    verdicts: dict[str, Both]
    statistics: dict[str, Both]
    settings: dict[str, Both]
    versions: dict[str, Both]
    same: int

    @property
    def none(self) -> bool:
        """Whether nothing differs."""
        return not (self.verdicts or self.statistics or self.settings or self.versions)

    def told(self) -> list[str]:
        """Write the differences in lines."""
        rows = []
        for title in ("verdicts", "statistics", "settings", "versions"):
            differences: dict[str, Both] = getattr(self, title)
            rows += [f"{title}:"] * bool(differences)
            rows += [f"  {name}: {_cell(a)} -> {_cell(b)}" for name, (a, b) in differences.items()]
        same = f"{self.same} claims have the same verdict." if self.same else ""
        return [*rows, *([same] if same else [])] if rows else [f"Nothing differs. {same}".strip()]


def compare_runs(first: Run, last: Run) -> Difference:
    """
    Compare two runs by what they were told to do and what they found.

    Parameters
    ----------
    first, last : Run
        As `thalweg.open_run` gives them.

    Returns
    -------
    Difference
        Of what is in both and differs, and of what is in one only.
    """
    verdicts = [{c["name"]: c["verdict"] for c in run.claims} for run in (first, last)]
    numbers = [dict(_statistics(run)) for run in (first, last)]
    settings = [dict(_leaves(run.config)) for run in (first, last)]
    versions = [dict(run.about.get("versions", {})) for run in (first, last)]
    shared = set(verdicts[0]) & set(verdicts[1])
    return Difference(
        verdicts=_apart(*verdicts),
        statistics=_apart(*numbers),
        settings=_apart(*settings),
        versions=_apart(*versions),
        same=sum(verdicts[0][name] == verdicts[1][name] for name in shared),
    )


def _apart(first: dict[str, Any], last: dict[str, Any]) -> dict[str, Both]:
    names = dict.fromkeys([*first, *last])
    pairs = {name: (first.get(name), last.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if not _equal(*pair)}


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return bool(first == second)


def _statistics(run: Run) -> Iterator[tuple[str, Any]]:
    for claim in run.claims:
        for end in ("value", "low", "high"):
            if claim["statistic"]:
                yield f"{claim['name']} {end}", claim["statistic"][end]
    path = run.inside("summary.json")
    if path.exists() and "measurement" in run.config:
        summary = read_json(path)
        yield from ((name, value) for name, value in _leaves(summary) if _is_number(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    parts: Any = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list) and any(isinstance(element, dict) for element in value):
        parts = enumerate(value)
    else:
        yield name, value
    for key, element in parts:
        yield from _leaves(element, f"{name}.{key}" if name else str(key))


def _cell(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
