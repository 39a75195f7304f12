"""An interval drawn against what a rule asks of it, as a small picture within a line of text."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

_WIDTH, _HEIGHT, _EDGE = 132.0, 20.0, 7.0
# Free space at both ends, in lengths of what is shown.
_MARGIN = 0.35

_SVG = Markup(
    '<svg class="interval" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    ' role="img" aria-label="{label}"><title>{label}</title>{inside}</svg>'
)
_ASKED = Markup('<rect class="asked" x="{x:.1f}" y="2" width="{width:.1f}" height="{height:g}"/>')
_LINE = Markup('<line class="{kind}" x1="{x1:.1f}" y1="{y1:g}" x2="{x2:.1f}" y2="{y2:g}"/>')
_DOT = Markup('<circle class="value" cx="{x:.1f}" cy="{y:g}" r="3.2"/>')


def draw_interval(
    statistic: dict[str, Any], threshold: list[float | None], *, label: str
) -> Markup:
    """
    Draw a statistic's interval, and the range in which a rule wants it.

    Parameters
    ----------
    statistic : dict
        With ``value``, ``low`` and ``high``; None for an end that is infinite.
    threshold : list
        Lower and upper end of the range, None where there is none.
    label : str
        What a reader who does not see the picture is told.

    Returns
    -------
    Markup
        An SVG element. The range is shaded; an interval that leaves the picture ends at its edge
        without a bar.

    Examples
    --------
    >>> told = {"value": 0.9, "low": 0.7, "high": None}
    >>> draw_interval(told, [0.5, None], label="0.9, from 0.7").count("<line")
    2
    """
    low, high = _end(statistic["low"], -math.inf), _end(statistic["high"], math.inf)
    ends = _end(threshold[0], -math.inf), _end(threshold[1], math.inf)
    scale = _Scale([statistic["value"], *filter(math.isfinite, ends)], [low, high])
    middle = _HEIGHT / 2
    parts = [_shade(scale, *ends)]
    parts.append(_line("range", scale.at(low), middle, scale.at(high), middle))
    parts += [
        _line("end", scale.at(end), middle - 4, scale.at(end), middle + 4)
        for end in dict.fromkeys((low, high))
        if scale.shows(end)
    ]
    parts.append(_DOT.format(x=scale.at(statistic["value"]), y=middle))
    inside = Markup("").join(parts)
    return _SVG.format(width=_WIDTH, height=_HEIGHT, label=label, inside=inside)


class _Scale:
    """Places on the picture: what must be seen is, and of the interval as much as fits."""

    def __init__(self, seen: list[float], interval: list[float]) -> None:
        first, last = min(seen), max(seen)
        reach = [abs(end - first) for end in interval if math.isfinite(end)]
        length = (last - first) or max(reach, default=0.0) or abs(first) or 1.0
        # An interval many times as long as its way to the threshold leaves the picture.
        inside = [end for end in interval if first - 2 * length <= end <= last + 2 * length]
        first, last = min(first, *inside, first), max(last, *inside, last)
        length = (last - first) or length
        self.first, self.last = first - _MARGIN * length, last + _MARGIN * length

    def shows(self, x: float) -> bool:
        return self.first <= x <= self.last

    def at(self, x: float) -> float:
        share = (min(max(x, self.first), self.last) - self.first) / (self.last - self.first)
        return _EDGE + share * (_WIDTH - 2 * _EDGE)


def _shade(scale: _Scale, low: float, high: float) -> Markup:
    left, right = scale.at(low), scale.at(high)
    width = max(right - left, 1.5)  # a range of one number is a line
    return _ASKED.format(x=left, width=width, height=_HEIGHT - 4)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return _LINE.format(kind=kind, x1=x1, y1=y1, x2=x2, y2=y2)


def _end(value: float | None, infinite: float) -> float:
    return infinite if value is None else float(value)
