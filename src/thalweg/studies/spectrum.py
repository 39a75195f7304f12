"""The spectrum of the Hessian at the end of a training: its ends, its density, its trace."""

from __future__ import annotations

from typing import Any

from thalweg.measurements.options import defaults
from thalweg.measurements.spectrum import Options
from thalweg.measurements.spectrum_parts import (
    gather,
    measure_eigenvalues,
    measure_probe,
    measure_trace,
    parts,
)
from thalweg.run import Progress, Run, Task, silent
from thalweg.studies.claim import Claim
from thalweg.studies.surface import at_the_end_of, first_trunk

# Tasks are known under this module's name: runs hold results of them.
__all__ = ["measure_eigenvalues", "measure_probe", "measure_trace"]

DEFAULTS: dict[str, Any] = defaults(Options)
SIZES: dict[str, dict[str, Any]] = {
    "demo": {"k": 3, "density": True, "probes": 2, "steps": 10, "near_zero": 1e-2},
    "laptop": {"k": 5, "density": True, "probes": 3, "steps": 24},
    "paper": {"k": 10, "density": True, "probes": 10, "steps": 80, "trace": True},
}


def tasks(config: dict[str, Any]) -> list[Task]:
    """List the measurements, at the end of the training of the first seed of `trajectories`."""
    trunk = first_trunk(config)
    end = at_the_end_of(trunk)
    # Through re-estimated statistics a product takes three times as long.
    arguments = {**end, "risk": {**end["risk"], "batchnorm": "held"}}
    return parts(arguments, {**DEFAULTS, **config["spectrum"]}, needs=(trunk,), module=__name__)


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """Gather the measurements in the run's results, and say what `gather` says of them."""
    return gather(run, [tasks(config)], {**DEFAULTS, **config["spectrum"]})


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge nothing: how degenerate the end of a training is has a study of its own."""
    return []
