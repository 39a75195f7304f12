"""The plan of a check-up in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from thalweg.measurements.checkup_sizes import OF_PAIRS, Sizes


def told_plan(plan: dict[str, Any]) -> list[str]:
    """Write the sizes in words, one line a part."""
    rows = [
        f"sizes for {plan['minutes']:g} min: {plan['weights']:,} weights, {plan['train']:,}"
        f" training and {plan['test']:,} test samples"
    ]
    for part, told in _TOLD.items():
        if plan["points"] > 1 or part not in OF_PAIRS:
            sizes = plan.get(part)
            words = _NONE if sizes is None else f"{told(sizes)}; about {_time(sizes['seconds'])}"
            rows.append(f"  {_CALLED[part]}: {words}")
    return rows


_NONE = "does not fit; give more --minutes"
_CALLED = {
    "fit": "loss, error, confidence",
    "lines": "lines between checkpoints",
    "noise": "flatness under noise",
    "curvature": "curvature",
    "inside": "what inner layers compute",
    "degeneracy": "degeneracy",
    "surface": "surface",
    "aligned": "lines between aligned checkpoints",
}


def _told_fit(sizes: Sizes) -> str:
    test = f" and {sizes['test']:,} test" if sizes["test"] else ""
    return f"{sizes['train']:,} training{test} samples"


def _told_noise(sizes: Sizes) -> str:
    return f"{sizes['draws']} draws on {_of(sizes['samples'])}"


def _told_curvature(sizes: Sizes) -> str:
    trace = f", {sizes['trace_products']} of the trace" if sizes["trace_products"] else ", no trace"
    return (
        f"{sizes['products']} products{trace}, {sizes['gradients']} gradients on"
        f" {_of(sizes['samples'])}"
    )


def _told_surface(sizes: Sizes) -> str:
    shape = " x ".join([str(sizes["points"])] * sizes["dims"])
    return f"{shape} points on {_of(sizes['samples'])}"


def _told_line(sizes: Sizes) -> str:
    return f"{sizes['points']} points on {_of(sizes['samples'])}"


_TOLD: dict[str, Callable[[Sizes], str]] = {
    "fit": _told_fit,
    "lines": _told_line,
    "noise": _told_noise,
    "curvature": _told_curvature,
    "inside": lambda sizes: f"{sizes['samples']:,} samples",
    "degeneracy": lambda sizes: _of(sizes["samples"]),
    "surface": _told_surface,
    "aligned": _told_line,
}


def _of(samples: int) -> str:
    return f"{samples:,} training samples"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "a second"
