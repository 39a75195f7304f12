"""The geometry of a landscape around a point: directions, surfaces, spectra."""

from thalweg.geometry.counts import near_zero, shares_below
from thalweg.geometry.degeneracy import Degeneracy, degeneracy
from thalweg.geometry.density import spectral_density
from thalweg.geometry.directions import (
    PointsPlane,
    principal_directions,
    project,
    random_directions,
    through_points,
)
from thalweg.geometry.extent import covering_extent
from thalweg.geometry.spectrum import top_eigenvalues
from thalweg.geometry.surface import surface
from thalweg.geometry.trace import trace

__all__ = [
    "Degeneracy",
    "PointsPlane",
    "covering_extent",
    "degeneracy",
    "near_zero",
    "principal_directions",
    "project",
    "random_directions",
    "shares_below",
    "spectral_density",
    "surface",
    "through_points",
    "top_eigenvalues",
    "trace",
]
