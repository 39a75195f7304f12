"""Embedding: recorded weights as points in a few dimensions, with what the picture distorts."""

from __future__ import annotations

from thalweg.embedding.checkpoint_source import CheckpointSource
from thalweg.embedding.distances import Distances, pairwise_distances
from thalweg.embedding.embed import embed
from thalweg.embedding.mds import ClassicalScaling, MetricScaling, classical_mds, metric_mds
from thalweg.embedding.orientation import orient
from thalweg.embedding.pca import PrincipalComponents, principal_components
from thalweg.embedding.quality import fidelity, point_stress, shown_distances, stress_1
from thalweg.embedding.source import ArraySource, WeightSource

__all__ = [
    "ArraySource",
    "CheckpointSource",
    "ClassicalScaling",
    "Distances",
    "MetricScaling",
    "PrincipalComponents",
    "WeightSource",
    "classical_mds",
    "embed",
    "fidelity",
    "metric_mds",
    "orient",
    "pairwise_distances",
    "point_stress",
    "principal_components",
    "shown_distances",
    "stress_1",
]
