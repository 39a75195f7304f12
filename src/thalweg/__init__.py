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

from importlib.metadata import version as _version

from thalweg import algebra
from thalweg.certificates import certify_margin, certify_path, certify_zero
from thalweg.connectivity import barrier
from thalweg.dynamics import branch, perturb, record, train
from thalweg.embedding import embed
from thalweg.errors import ThalwegError
from thalweg.geometry import (
    degeneracy,
    random_directions,
    spectral_density,
    surface,
    top_eigenvalues,
    trace,
)
from thalweg.landscape import Landscape, ParameterSpace
from thalweg.problems import Problem, load_problem
from thalweg.risk import EmpiricalRisk
from thalweg.run import Run, list_runs, open_run

__version__ = _version("thalweg")

__all__ = [
    "EmpiricalRisk",
    "Landscape",
    "ParameterSpace",
    "Problem",
    "Run",
    "ThalwegError",
    "algebra",
    "barrier",
    "branch",
    "certify_margin",
    "certify_path",
    "certify_zero",
    "degeneracy",
    "embed",
    "list_runs",
    "load_problem",
    "open_run",
    "perturb",
    "random_directions",
    "record",
    "spectral_density",
    "surface",
    "top_eigenvalues",
    "trace",
    "train",
]
