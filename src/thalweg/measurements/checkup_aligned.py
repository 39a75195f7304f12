"""The line between two points of a check-up once the second is in the first one's order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from thalweg.connectivity import align, barrier
from thalweg.measurements.checkup_clock import ending
from thalweg.measurements.checkup_sizes import Sizes
from thalweg.measurements.checkup_subject import Subject
from thalweg.measurements.dataset_codec import pack
from thalweg.run.freed_memory import give_back


def aligned(subject: Subject, first: int, last: int, sizes: Sizes) -> dict[str, Any]:
    """Align the second point to the first, and measure the line."""
    risk = subject.moving(sizes["samples"])
    ends = ending(sizes["most"] / len(subject.pairs))
    a, b = subject.points[first], subject.points[last]
    how: Any = {
        "restarts": sizes["restarts"],
        "seconds": sizes["swaps"],
        "seed": subject.seed,
        "progress": ends,
    }
    found = align(risk, a, b, **how)
    if found.cost > found.unaligned:
        return {"refused": "no order was found in which they are nearer than they are"}
    moved = replace(found.state_of(risk, b), name=subject.names[last])
    give_back()
    line = barrier(risk, a, moved, points=sizes["points"], progress=ends)
    numbers = {name: getattr(found, name) for name in ("cost", "unaligned", "bound")}
    return pack({"line": line.assign_attrs(numbers)})
