"""
Thalweg: what the loss landscape of an overparametrized network looks like where training leads.

Thalweg, the line that joins the lowest points of a valley. Everything public is here:

>>> import thalweg as tw
>>> problem = tw.load_problem("digits", width=16)
>>> risk = tw.EmpiricalRisk(problem)
>>> w = risk.space.pack(problem.model)
>>> w.shape == (risk.space.size,)
True
"""

from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from types import FunctionType as _FunctionType
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from thalweg import algebra
    from thalweg.basins import basin_labels, disconnectivity_graph, fit_basins, signature
    from thalweg.certificates import certify_margin, certify_path, certify_zero
    from thalweg.connectivity import (
        align,
        align_all,
        barrier,
        connect,
        mean_state,
        neighbour_barriers,
        one_basin,
    )
    from thalweg.display import explain, plot
    from thalweg.dynamics import branch, gradient_flow, perturb, record, train
    from thalweg.embedding import embed
    from thalweg.errors import ThalwegError
    from thalweg.geometry import (
        degeneracy,
        gradient_noise,
        learning_coefficient,
        log_volume,
        random_directions,
        spectral_density,
        surface,
        top_eigenvalues,
        trace,
    )
    from thalweg.landscape import Landscape, ParameterSpace
    from thalweg.measurements.bounded_flatness import flatness
    from thalweg.measurements.checkup import inspect
    from thalweg.problems import Batches, Problem, Whole, load_problem, open_point
    from thalweg.risk import EmpiricalRisk
    from thalweg.run import Run, create_run, list_runs, open_run

    __version__: str

__all__ = [
    "Batches",
    "EmpiricalRisk",
    "Landscape",
    "ParameterSpace",
    "Problem",
    "Run",
    "ThalwegError",
    "Whole",
    "algebra",
    "align",
    "align_all",
    "barrier",
    "basin_labels",
    "branch",
    "certify_margin",
    "certify_path",
    "certify_zero",
    "connect",
    "create_run",
    "degeneracy",
    "disconnectivity_graph",
    "embed",
    "explain",
    "fit_basins",
    "flatness",
    "gradient_flow",
    "gradient_noise",
    "inspect",
    "learning_coefficient",
    "list_runs",
    "load_problem",
    "log_volume",
    "mean_state",
    "neighbour_barriers",
    "one_basin",
    "open_point",
    "open_run",
    "perturb",
    "plot",
    "random_directions",
    "record",
    "signature",
    "spectral_density",
    "surface",
    "top_eigenvalues",
    "trace",
    "train",
]

_ROOMS = {
    "Batches": "problems",
    "EmpiricalRisk": "risk",
    "Landscape": "landscape",
    "ParameterSpace": "landscape",
    "Problem": "problems",
    "Run": "run",
    "ThalwegError": "errors",
    "Whole": "problems",
    "align": "connectivity",
    "align_all": "connectivity",
    "barrier": "connectivity",
    "basin_labels": "basins",
    "branch": "dynamics",
    "certify_margin": "certificates",
    "certify_path": "certificates",
    "certify_zero": "certificates",
    "connect": "connectivity",
    "create_run": "run",
    "degeneracy": "geometry",
    "disconnectivity_graph": "basins",
    "embed": "embedding",
    "explain": "display",
    "fit_basins": "basins",
    "flatness": "measurements.bounded_flatness",
    "gradient_noise": "geometry",
    "inspect": "measurements.checkup",
    "learning_coefficient": "geometry",
    "list_runs": "run",
    "load_problem": "problems",
    "log_volume": "geometry",
    "mean_state": "connectivity",
    "neighbour_barriers": "connectivity",
    "one_basin": "connectivity",
    "open_point": "problems",
    "open_run": "run",
    "perturb": "dynamics",
    "plot": "display",
    "random_directions": "geometry",
    "record": "dynamics",
    "signature": "basins",
    "spectral_density": "geometry",
    "surface": "geometry",
    "top_eigenvalues": "geometry",
    "trace": "geometry",
    "gradient_flow": "dynamics",
    "train": "dynamics",
}


if not _TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name, or a room, when it is first asked for: torch alone takes seconds."""
        if name in _ROOMS:
            public = getattr(_import_module(f"thalweg.{_ROOMS[name]}"), name)
            if isinstance(public, _FunctionType):  # takes arguments as people guess them
                public = _import_module("thalweg.boundary").guarded(public)
            elif isinstance(public, type):
                _import_module("thalweg.boundary").guard(public)
        elif name == "__version__":
            public = _import_module("importlib.metadata").version("thalweg")
        elif not name.startswith("_") and _find_spec(f"thalweg.{name}"):
            public = _import_module(f"thalweg.{name}")
        else:
            raise AttributeError(f"module 'thalweg' has no attribute {name!r}")
        globals()[name] = public
        return public


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
