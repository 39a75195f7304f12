"""Numbers and counts as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def number(value: float | None) -> str:
    """
    Write a measured number with three digits; a dash where there is none.

    Examples
    --------
    >>> [number(value) for value in (0.0, 0.06421, 2.5e-7, None)]
    ['0', '0.0642', '2.5e-07', '–']
    """
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


def percent(share: float) -> str:
    """
    Write a share as percent.

    Examples
    --------
    >>> percent(0.0612), percent(0.0)
    ('6.12 %', '0 %')
    """
    return f"{100 * share:.3g} %"


def count(amount: int, thing: str, things: str = "") -> str:
    """
    Write how many there are.

    Examples
    --------
    >>> count(1, "branch", "branches"), count(1797, "sample")
    ('1 branch', '1,797 samples')
    """
    return f"{amount:,} {thing if amount == 1 else things or thing + 's'}"


def span(values: Sequence[float]) -> str:
    """Write the range of some shares as percent, or the one value they have."""
    low, high = percent(min(values)), percent(max(values))
    return low if low == high else f"{low} to {high}"


def listing(words: Sequence[str]) -> str:
    """
    Join words as a sentence does.

    Examples
    --------
    >>> listing(["early", "middle", "final"])
    'early, middle and final'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def duration(seconds: float) -> str:
    """
    Write a time in the unit a person would use.

    Examples
    --------
    >>> [duration(seconds) for seconds in (42.4, 312, 7500)]
    ['42 s', '5 min', '2 h 5 min']
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours = f"{minutes // 60} h " if minutes >= 60 else ""
    return f"{hours}{minutes % 60 if hours else minutes} min"


def estimate(statistic: dict[str, Any]) -> str:
    """
    Write a statistic of a claim with its interval and how it was made.

    Examples
    --------
    >>> told = {"name": "share back at zero", "value": 0.9, "low": 0.68, "high": 0.99}
    >>> estimate(told | {"units": "", "method": "exact binomial", "n": 20, "level": 0.95})
    'share back at zero: 0.9 (95 % interval 0.68 to 0.99; exact binomial, n = 20)'
    """
    value = f"{statistic['value']:.4g}"
    units = f" {statistic['units']}" if statistic["units"] else ""
    if statistic["low"] == statistic["high"]:
        return f"{statistic['name']}: {value}{units} ({statistic['method']})"
    low, high = (_end(statistic[key]) for key in ("low", "high"))
    interval = f"{percent(statistic['level'])} interval {low} to {high}"
    made = f"{statistic['method']}, n = {statistic['n']:,}"
    return f"{statistic['name']}: {value}{units} ({interval}; {made})"


def _end(value: float | None) -> str:
    return "infinity" if value is None else f"{value:.4g}"
