"""Numbers and counts as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
