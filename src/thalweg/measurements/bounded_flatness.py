"""`thalweg.flatness`: the measures of flatness, with what certificates prove of the worst one."""

from __future__ import annotations

from functools import wraps
from typing import Any

from torch import Tensor

from thalweg.certificates.rise import bound_rise
from thalweg.geometry.flatness import Flatness
from thalweg.geometry.flatness import flatness as measure
from thalweg.landscape.protocols import Landscape


@wraps(measure)
def flatness(landscape: Landscape, w: Tensor, **options: Any) -> Flatness:
    """Measure flatness, an upper bound of the worst direction included where one is proved."""
    return measure(landscape, w, **{"bound": bound_rise, **options})
