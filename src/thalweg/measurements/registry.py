"""The measurements by name, in the order in which they are listed."""

from __future__ import annotations

from collections.abc import Mapping

from thalweg.measurements import (
    barrier,
    certify,
    degeneracy,
    embed,
    flatness,
    inspect,
    learning_coefficient,
    margin,
    spectrum,
    surface,
    volume,
)
from thalweg.measurements.record import Measurement

MEASUREMENTS: Mapping[str, Measurement] = {
    module.RECORD.name: module.RECORD
    for module in (
        inspect,
        surface,
        embed,
        spectrum,
        flatness,
        barrier,
        degeneracy,
        margin,
        certify,
        learning_coefficient,
        volume,
    )
}
