"""The geometry of a landscape around a point: directions, surfaces, spectra."""

from thalweg.geometry.counts import near_zero, shares_below
from thalweg.geometry.degeneracy import Degeneracy, degeneracy
from thalweg.geometry.density import spectral_density
from thalweg.geometry.directions import random_directions
from thalweg.geometry.extent import covering_extent
from thalweg.geometry.flatness import Flatness, flatness
from thalweg.geometry.gradient_noise import GradientNoise, gradient_noise
from thalweg.geometry.learning_coefficient import LearningCoefficient, learning_coefficient
from thalweg.geometry.noise import noise_level
from thalweg.geometry.points_plane import PointsPlane, through_points
from thalweg.geometry.principal import principal_directions
from thalweg.geometry.projection import project
from thalweg.geometry.sharpness import average_sharpness, worst_sharpness
from thalweg.geometry.spectrum import top_eigenvalues
from thalweg.geometry.surface import surface
from thalweg.geometry.trace import trace
from thalweg.geometry.volume import LogVolume, log_volume

__all__ = [
    "Degeneracy",
    "Flatness",
    "GradientNoise",
    "LearningCoefficient",
    "LogVolume",
    "PointsPlane",
    "average_sharpness",
    "covering_extent",
    "degeneracy",
    "flatness",
    "gradient_noise",
    "learning_coefficient",
    "log_volume",
    "near_zero",
    "noise_level",
    "principal_directions",
    "project",
    "random_directions",
    "shares_below",
    "spectral_density",
    "surface",
    "through_points",
    "top_eigenvalues",
    "trace",
    "worst_sharpness",
]
