"""The studies by name, in the order in which they run and report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from thalweg.run import Progress, Run, Task
from thalweg.studies import (
    bezout,
    degeneracy,
    interpolation,
    perturb_and_return,
    polynomial_activations,
    spectrum,
    surface,
    trajectories,
    zero_error,
)
from thalweg.studies.claim import Claim


class Study(Protocol):
    """What a module must have to be a study."""

    SIZES: Mapping[str, dict[str, Any]]
    """Its numbers in each preset; the chosen ones stand in the configuration under its name."""

    def tasks(self, config: dict[str, Any], /) -> list[Task]:
        """List the work that may run in other processes."""

    def assemble(
        self, run: Run, config: dict[str, Any], /, *, progress: Progress
    ) -> dict[str, Any]:
        """Gather the results of the tasks, and say in JSON what was found."""

    def claims(self, run: Run, config: dict[str, Any], /) -> list[Claim]:
        """Judge the study's claims by what `assemble` saved in the run."""


STUDIES: Mapping[str, Study] = {
    "trajectories": cast(Study, trajectories),
    "zero_error": cast(Study, zero_error),
    "polynomial_activations": cast(Study, polynomial_activations),
    "perturb_and_return": cast(Study, perturb_and_return),
    "interpolation": cast(Study, interpolation),
    "bezout": cast(Study, bezout),
    "surface": cast(Study, surface),
    "spectrum": cast(Study, spectrum),
    "degeneracy": cast(Study, degeneracy),
}
