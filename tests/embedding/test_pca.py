from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist, squareform
from sklearn.decomposition import PCA

from thalweg.embedding.orientation import orient
from thalweg.embedding.pca import principal_components


def test_scores_and_variances_are_scikit_learn_s():
    points = np.random.default_rng(0).standard_normal((15, 6)) * [5, 4, 3, 2, 1, 0.5] + 7
    rival = PCA(n_components=3, svd_solver="full")
    scores = rival.fit_transform(points)
    ours = principal_components(squareform(pdist(points)), dims=3)
    np.testing.assert_allclose(orient(ours.positions), orient(scores), atol=1e-10)
    np.testing.assert_allclose(ours.explained_variance, rival.explained_variance_)
    np.testing.assert_allclose(ours.explained_variance_ratio, rival.explained_variance_ratio_)


def test_one_point_many_times_has_no_variance_to_share():
    components = principal_components(np.zeros((3, 3)), dims=2)
    assert (components.explained_variance == 0).all()
    assert np.isnan(components.explained_variance_ratio).all()
