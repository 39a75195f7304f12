"""The sections a report may have, in their order in the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from thalweg.measurements.parts import Section
from thalweg.measurements.registry import MEASUREMENTS
from thalweg.report.sections import (
    basins,
    bezout,
    connectivity,
    degeneracy,
    interpolation,
    overparametrization,
    perturb_and_return,
    polynomial_activations,
    sgd_selection,
    trajectories,
    zero_error,
)
from thalweg.run import Run
from thalweg.studies.plugins import PLUGINS


@dataclass(frozen=True)
class Entry:
    """
    A section that a run may fill.

    Parameters
    ----------
    study : str
        Of the configuration's ``studies``: where it is listed, an absent section is told.
    results : tuple of str
        Names of the results it reads.
    section : callable
        Gives the section, or None if the run holds none of them.
    """

    study: str
    results: tuple[str, ...]
    section: Callable[[Run], Section | None]


SECTIONS: tuple[Entry, ...] = (
    Entry("trajectories", trajectories.RESULTS, trajectories.section),
    Entry("zero_error", zero_error.RESULTS, zero_error.section),
    Entry("polynomial_activations", polynomial_activations.RESULTS, polynomial_activations.section),
    Entry("perturb_and_return", perturb_and_return.RESULTS, perturb_and_return.section),
    Entry("interpolation", interpolation.RESULTS, interpolation.section),
    Entry("bezout", bezout.RESULTS, bezout.section),
    *(Entry(record.name, record.results, record.section) for record in MEASUREMENTS.values()),
    Entry("degeneracy", degeneracy.RESULTS, degeneracy.section),
    Entry("sgd_selection", sgd_selection.RESULTS, sgd_selection.section),
    Entry("overparametrization", overparametrization.RESULTS, overparametrization.section),
    Entry("connectivity", connectivity.RESULTS, connectivity.section),
    Entry("basins", basins.RESULTS, basins.section),
    *(
        Entry(name, module.RESULTS, module.section)
        for name, module in PLUGINS.items()
        if hasattr(module, "section")
    ),
)
