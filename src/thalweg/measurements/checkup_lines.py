"""What a check-up answers of the line between two points: one basin, and the cost of averaging."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import xarray as xr

from thalweg.connectivity import one_basin
from thalweg.measurements.verdict import Verdict, not_measured

_STRAIGHT = (
    "A barrier on the straight line may vanish on another path, or in another order of hidden units"
)
_IN_ORDER = (
    "The units of the second are in the order that was found nearest to the first's; others may be"
    " better"
)


def on_the_aligned_line(found: xr.Dataset | dict[str, Any], one: str, other: str) -> list[Verdict]:
    """Judge the line to the second point once its units are in the order of the first's."""
    question = "And with their hidden units in one order?"
    if isinstance(found, dict):
        return [Verdict(question, f"{one}, {other}", "not aligned", found["refused"], "", found)]
    basin, mean = on_the_line(found, one, other, question, _IN_ORDER)
    distance = found.attrs["cost"] / found.attrs["unaligned"] if found.attrs["unaligned"] else 1.0
    answer = f"{basin.answer}; {mean.answer}; squared distance {distance:.3g} of that without"
    numbers = {**basin.numbers, "mean": mean.numbers, "distance": distance}
    return [replace(basin, answer=answer, numbers=numbers)]


def on_the_line(
    data: xr.Dataset | dict[str, Any],
    one: str,
    other: str,
    question: str = "Do they lie in one basin?",
    beware: str = _STRAIGHT,
) -> list[Verdict]:
    """Judge the line between two points: one basin, and what averaging costs."""
    about = f"{one}, {other}"
    if isinstance(data, dict):
        return [not_measured(question, about, data)]
    counted = "error" in data["quantity"].values
    found = []
    if counted:
        judged = one_basin(data)
        samples = data.attrs.get("samples", 0)
        trust = (
            f"95% interval over {samples:,} training samples, paired, with the choice of the"
            f" highest of {data.sizes['t']} points; allowed {judged.allowed:g}. {beware}"
        )
        numbers = {"barrier": judged.barrier, "low": judged.low, "high": judged.high}
        value = max(0.0, round(judged.barrier, 12))
        words = f"{judged.verdict}: error barrier {value:.3g} ({judged.low:.3g}, {judged.high:.3g})"
        found.append(Verdict(question, about, judged.verdict, words, trust, numbers))
    else:
        here = data.sel(quantity="loss")
        numbers = {k: float(here[f"barrier{e}"]) for k, e in _ENDS.items()}
        words = (
            f"loss barrier {numbers['barrier']:.4g} ({numbers['low']:.3g}, {numbers['high']:.3g})"
        )
        trust = "a loss has no unit of its own: say what is small, --allowed of thalweg barrier"
        found.append(Verdict(question, about, "not judged", words, trust, numbers))
    return [*found, *_mean(data, about)]


_ENDS = {"barrier": "", "low": "_low", "high": "_high"}


def _mean(data: xr.Dataset, about: str) -> list[Verdict]:
    known = [str(name) for name in data["quantity"].values]
    name = next((k for k in ("test_error", "error", "test_loss") if k in known), "loss")
    here = data.sel(quantity=name)
    value, low, high = (float(here[f"mean_over_best{e}"]) for e in ("", "_low", "_high"))
    verdict = "no cost seen"
    if low > 0:
        verdict = "averaging costs"
    elif high < 0:
        verdict = "averaging gains"
    points = name.endswith("error")
    scale, unit = (100, " points") if points else (1, "")
    answer = (
        f"{verdict}: the mean has {scale * value:+.3g}{unit} of {name.replace('_', ' ')} against"
        f" the better one ({scale * low:+.3g}, {scale * high:+.3g})"
    )
    trust = "batch-norm statistics, if any, re-estimated at the mean; 95% interval over samples,"
    trust += " paired"
    numbers = {"difference": value, "low": low, "high": high}
    return [Verdict("Can they be averaged?", about, verdict, answer, trust, numbers)]
