from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy.spatial.distance import pdist, squareform

from thalweg.embedding import ArraySource, embed, shown_distances
from thalweg.errors import CheckpointMismatch, InvalidArgument, RunNotFound
from thalweg.run import create_run

METHODS = ["mds", "classical", "pca"]
WIDTH = 500


def immersed(points, seed=0):
    """Carry points into WIDTH dimensions by a random isometry."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((WIDTH, points.shape[1])))
    return points @ basis.T + rng.standard_normal(WIDTH)


def shapes():
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    return {
        "circle": np.stack([np.cos(angle), np.sin(angle)], axis=1),
        "line": np.linspace(0, 5, 60)[:, None],
        "cloud": np.random.default_rng(1).standard_normal((80, 3)),
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", shapes())
def test_known_landscapes_embed_right(name, method):
    points = shapes()[name]
    picture = embed(immersed(points), method=method).sel(layer="network")
    shown = pdist(picture["position"].values)
    np.testing.assert_allclose(shown, pdist(points), rtol=1e-6)
    assert picture["stress"] < 1e-7
    assert picture["point_stress"].max() < 1e-7
    assert picture["fidelity"].min() > 1 - 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_a_simplex_does_not_fit_and_says_so(method):
    picture = embed(np.eye(10), method=method).sel(layer="network")
    true = np.sqrt(2.0)
    shown = pdist(picture["position"].values)
    expected = np.sqrt(((shown - true) ** 2).sum() / (shown**2).sum())
    assert picture["stress"] == pytest.approx(expected)
    assert picture["stress"] > 0.1
    np.testing.assert_allclose(pdist(np.eye(10)), true)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(METHODS))
def test_turning_and_moving_all_points_changes_nothing(seed, method):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((9, 6)) * [8, 4, 2, 0.3, 0.2, 0.1]
    turn, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    one = embed(points, method=method)
    other = embed(points @ turn + rng.standard_normal(6), method=method)
    np.testing.assert_allclose(other["distance"], one["distance"], rtol=1e-9)
    np.testing.assert_allclose(other["stress"], one["stress"], rtol=1e-5, atol=1e-9)
    before, after = (shown_distances(p["position"].values[0]) for p in (one, other))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_points_give_the_same_picture(method):
    points = np.random.default_rng(2).standard_normal((20, 30))
    assert embed(points, method=method).identical(embed(points.copy(), method=method))


def test_arrays_tensors_and_sources_agree():
    points = np.random.default_rng(2).standard_normal((6, 30)).astype(np.float32)
    expected = embed(points)
    for given_points in (
        torch.from_numpy(points).requires_grad_(),
        points.tolist(),
        ArraySource(points),
    ):
        assert embed(given_points).identical(expected)
    coarse = torch.from_numpy(points).bfloat16()
    assert embed(coarse).identical(embed(coarse.float()))


def checkpoints(folder, stated=({"loss": 2.0}, {"loss": 1.0, "parent": "start"}, {}, {})):
    rng = np.random.default_rng(0)
    paths = []
    for step, more in enumerate(stated):
        tensors = {
            "conv.weight": rng.standard_normal((3, 4)),
            "conv.bias": np.zeros(3),
            "norm.running_mean": rng.standard_normal(3),
        }
        about = {"trajectory": "a", "step": 10 * step, "parameters": ["conv.weight", "conv.bias"]}
        metadata = {"thalweg": json.dumps(about | more)}
        paths.append(folder / f"{step}.safetensors")
        save_file(tensors, paths[-1], metadata=metadata)
    return paths


def test_checkpoints_keep_what_they_say_of_themselves(tmp_path):
    picture = embed(checkpoints(tmp_path), dims=2)
    assert picture["layer"].values.tolist() == ["network", "conv"]
    assert picture["trajectory"].values.tolist() == ["a"] * 4
    assert picture["step"].values.tolist() == [0, 10, 20, 30]
    assert picture["parent"].values.tolist() == ["", "start", "", ""]
    np.testing.assert_array_equal(picture["loss"], [2.0, 1.0, np.nan, np.nan])
    assert "error" not in picture.coords
    # All trainable weights are one layer's: the buffers do not count.
    np.testing.assert_array_equal(*picture["distance"].values)
    assert picture["distance"].attrs["units"] == "weight"


def test_a_run_is_its_checkpoints(tmp_path):
    paths = checkpoints(tmp_path)

    class Run:
        def checkpoints(self):
            return paths

    assert embed(Run()).identical(embed(paths))


def test_a_run_directory_is_opened(tmp_path):
    run = create_run(tmp_path / "run", {"preset": "demo"})
    folder = run.path / "checkpoints" / "a"
    folder.mkdir(parents=True)
    expected = embed(checkpoints(folder))
    assert embed(run).identical(expected)
    assert embed(str(run.path)).identical(expected)
    with pytest.raises(RunNotFound):
        embed(tmp_path / "nowhere")


def test_layers_are_chosen_and_embedded_by_their_own_distances():
    points = np.random.default_rng(0).standard_normal((8, 20))
    source = ArraySource(points, layers={"a": slice(0, 12), "b": slice(12, 20)})
    picture = embed(source, method="pca", layers=["b", "network"])
    assert picture["layer"].values.tolist() == ["b", "network"]
    np.testing.assert_allclose(
        picture["distance"].sel(layer="b"), squareform(pdist(points[:, 12:]))
    )
    assert picture["explained_variance"].dims == ("layer", "dim")


def test_a_frozen_layer_is_one_point():
    points = np.random.default_rng(0).standard_normal((6, 20))
    points[:, :5] = 0.1
    source = ArraySource(points, layers={"frozen": slice(0, 5), "free": slice(5, 20)})
    for method in METHODS:
        frozen = embed(source, method=method).sel(layer="frozen")
        assert (frozen["position"] == 0).all()
        assert frozen["stress"] == 0
        assert frozen["fidelity"].isnull().all()


def test_bad_input_gets_its_own_message(tmp_path):
    points = np.zeros((3, 5))
    with pytest.raises(InvalidArgument, match="'tsne', expected one of mds, classical, pca"):
        embed(points, method="tsne")
    with pytest.raises(InvalidArgument, match="got dims=3 for 3 points, expected 1 to 2"):
        embed(points)
    with pytest.raises(InvalidArgument, match="got 0 points to embed, expected at least 2"):
        embed([])
    with pytest.raises(InvalidArgument, match="expected one of network"):
        embed(points, dims=2, layers=["conv"])
    for mixed in (["a", 1.0], [torch.ones(2, requires_grad=True)] * 2):
        with pytest.raises(InvalidArgument, match=r"pass a run|expected a real"):
            embed(mixed)
    with pytest.raises(InvalidArgument, match=r"expected a real \(n, W\) array"):
        embed(object())
    paths = checkpoints(tmp_path)
    save_file({"other.weight": np.zeros(3)}, paths[2])
    with pytest.raises(CheckpointMismatch, match=r"2\.safetensors has no 'conv.weight'"):
        embed(paths)


def test_importing_the_package_leaves_the_heavy_libraries_alone():
    code = (
        "import sys, thalweg.embedding; "
        "print([m for m in ('xarray', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
