"""Pictures of labelled data: ``plot_*`` on matplotlib axes, ``*_figure`` with plotly."""

from thalweg.plots.animation import path_animation
from thalweg.plots.bands import plot_bands
from thalweg.plots.complex_solutions import plot_complex_solutions
from thalweg.plots.contour import plot_contour
from thalweg.plots.curves import plot_curves
from thalweg.plots.degeneracy import plot_boxes, plot_eigenvalues, plot_split
from thalweg.plots.density import plot_density
from thalweg.plots.disconnectivity import plot_disconnectivity
from thalweg.plots.embedding import plot_embedding
from thalweg.plots.excursions import plot_excursions
from thalweg.plots.fidelity import plot_fidelity
from thalweg.plots.height import plot_height
from thalweg.plots.interactive.curves import curves_figure
from thalweg.plots.interactive.embedding import embedding_figure
from thalweg.plots.interactive.height import height_figure
from thalweg.plots.interactive.surface import surface_figure
from thalweg.plots.ladder import plot_ladder
from thalweg.plots.line import plot_line, plot_lines
from thalweg.plots.matrix import plot_matrix
from thalweg.plots.profile import plot_profile
from thalweg.plots.reach import plot_reach
from thalweg.plots.stress import plot_stress
from thalweg.plots.surface import plot_surface
from thalweg.plots.trend_intervals import plot_trends
from thalweg.plots.zero_set import plot_zero_set

__all__ = [
    "curves_figure",
    "embedding_figure",
    "height_figure",
    "path_animation",
    "plot_bands",
    "plot_boxes",
    "plot_complex_solutions",
    "plot_contour",
    "plot_curves",
    "plot_density",
    "plot_disconnectivity",
    "plot_eigenvalues",
    "plot_embedding",
    "plot_excursions",
    "plot_fidelity",
    "plot_height",
    "plot_ladder",
    "plot_line",
    "plot_lines",
    "plot_matrix",
    "plot_profile",
    "plot_reach",
    "plot_split",
    "plot_stress",
    "plot_surface",
    "plot_trends",
    "plot_zero_set",
    "surface_figure",
]
