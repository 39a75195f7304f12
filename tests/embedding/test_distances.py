from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy.spatial.distance import pdist, squareform

from thalweg.embedding.checkpoint_source import CheckpointSource
from thalweg.embedding.distances import RELATIVE_ACCURACY, pairwise_distances
from thalweg.embedding.source import ArraySource
from thalweg.errors import InvalidArgument


def oracle(points):
    """Brute force in extended precision."""
    points = points.astype(np.longdouble)
    return np.sqrt(((points[:, None] - points) ** 2).sum(axis=-1))


def assert_accurate(got, points):
    expected = oracle(points)
    assert (got == got.T).all()
    assert (got[expected == 0] == 0).all()
    error = np.abs(got - expected)[expected > 0] / expected[expected > 0]
    assert error.max(initial=0) < RELATIVE_ACCURACY


def adversaries():
    rng = np.random.default_rng(0)
    offset = 1e3 * rng.standard_normal(3000)
    near = offset + 1e-7 * rng.standard_normal((12, 3000))
    identical = near.copy()
    identical[[3, 8]] = identical[5]
    outlier = near.copy()
    outlier[0] += 1e6
    clusters = near + np.repeat([0.0, 50.0], 6)[:, None]
    walk = offset + np.cumsum(1e-4 * rng.standard_normal((12, 3000)), axis=0)
    frozen = np.repeat(offset[None], 12, axis=0)
    half_frozen = np.where(np.arange(3000) < 1500, frozen, walk)
    ladder = offset * (1 + 10.0 ** -np.arange(1, 13))[:, None]
    return locals() | {"rng": None, "offset": None}


CASES = {name: case for name, case in adversaries().items() if case is not None}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_adversaries_against_extended_precision(name, dtype):
    points = CASES[name].astype(dtype)
    layers = {"front": slice(0, 1400), "back": slice(1400, 3000)}
    source = ArraySource(points, layers=layers)
    distances = pairwise_distances(source, memory=8 * 12 * 601)
    assert distances.layers == ("network", "front", "back")
    assert_accurate(distances["network"], points)
    for layer, columns in layers.items():
        assert_accurate(distances[layer], points[:, columns])


def test_the_gram_matrix_alone_would_fail():
    points = CASES["outlier"]
    centred = points - points.mean(axis=0)
    gram = centred @ centred.T
    squared = np.diag(gram)[:, None] + np.diag(gram) - 2 * gram
    off = np.triu_indices(12, 1)
    naive = np.sqrt(np.maximum(squared[off], 0))
    assert (np.abs(naive / oracle(points)[off] - 1) > 1e-3).any()
    assert pairwise_distances(ArraySource(points)).refined == (55,)


def test_a_frozen_layer_needs_no_second_look():
    assert pairwise_distances(ArraySource(CASES["frozen"])).refined == (0,)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 7),
    width=st.integers(1, 40),
    memory=st.integers(1, 4000),
    seed=st.integers(0, 99),
)
def test_blocks_do_not_change_distances(n, width, memory, seed):
    points = np.random.default_rng(seed).standard_normal((n, width))
    cut = seed % (width + 1)
    source = ArraySource(points, layers={"a": slice(0, cut), "b": slice(cut, width)})
    distances = pairwise_distances(source, memory=memory)
    assert_accurate(distances["network"], points)
    np.testing.assert_allclose(distances["network"], squareform(pdist(points)), rtol=1e-9)
    squares = distances["a"] ** 2 + distances["b"] ** 2
    np.testing.assert_allclose(distances["network"] ** 2, squares, rtol=1e-9)


def write_run(folder, checkpoints, shapes):
    rng = np.random.default_rng(1)
    point = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    about = {"trajectory": "a", "parameters": list(shapes)}
    paths = []
    for step in range(checkpoints):
        for name, shape in shapes.items():
            point[name] += 0.05 * rng.standard_normal(shape, dtype=np.float32)
        paths.append(folder / f"{step:06d}.safetensors")
        metadata = {"thalweg": json.dumps(about | {"step": step})}
        save_file(point | {"thalweg/momentum": point["a.weight"]}, paths[-1], metadata=metadata)
    return paths


def test_files_and_arrays_agree(tmp_path):
    shapes = {"a.weight": (7, 11), "b.weight": (5, 3), "a.bias": (7,)}
    source = CheckpointSource(write_run(tmp_path, 6, shapes))
    points = np.array(
        [
            np.concatenate([source.read(i, block.name, 0, block.size) for block in source.blocks])
            for i in range(6)
        ]
    )
    distances = pairwise_distances(source, memory=8 * 6 * 10)
    assert distances.layers == ("network", "a", "b")
    assert_accurate(distances["network"], points)
    assert_accurate(distances["a"], points[:, [*range(77), *range(92, 99)]])
    only = pairwise_distances(source, layers=["b"])
    np.testing.assert_allclose(only.values, [distances["b"]], rtol=1e-12)


def test_an_unknown_layer_is_refused_with_the_names():
    source = ArraySource(np.zeros((2, 3)), layers={"a": slice(0, 3)})
    with pytest.raises(InvalidArgument, match="'c', expected one of network, a"):
        pairwise_distances(source, layers=["c"])


def test_progress_counts_every_weight():
    class Bar:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, n=1):
            counts[-1][2] += n

    def progress(total, label):
        counts.append([label, total, 0])
        return Bar()

    counts = []
    pairwise_distances(ArraySource(CASES["outlier"]), memory=8 * 12 * 700, progress=progress)
    assert counts == [["distances", 3000, 3000], ["near pairs", 3000, 3000]]


CHILD = """
import sys, time
from pathlib import Path
from thalweg.embedding.distances import pairwise_distances
from thalweg.embedding.checkpoint_source import CheckpointSource

paths = sorted(Path(sys.argv[1]).iterdir())
start = time.perf_counter()
distances = pairwise_distances(CheckpointSource(paths), memory=int(sys.argv[2]))
seconds = time.perf_counter() - start
# Not getrusage: its peak is inherited from the process that started this one.
status = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
print(peak, seconds, distances["network"][0, -1])
print(distances.refined, file=sys.stderr)
"""


def measure_child(folder, memory):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(memory)],
        check=True,
        capture_output=True,
        text=True,
    )
    print(done.stdout, done.stderr)
    return (float(word) for word in done.stdout.split())


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("checkpoints", "side", "memory", "limit"),
    [
        # The files hold 160 MB. Without a limit: less than half of that above two checkpoints.
        (200, 447, 2**24, None),
        pytest.param(1000, 1000, 2**28, 1.5e9, marks=pytest.mark.slow),
    ],
)
def test_memory_is_bounded(tmp_path, checkpoints, side, memory, limit):
    paths = write_run(tmp_path, checkpoints, {"a.weight": (side - 100, side), "b": (100, side)})
    try:
        resting, *_ = measure_child(_first_two(tmp_path), memory)
        peak, _, last = measure_child(tmp_path / "all", memory)
        ends = CheckpointSource([paths[0], paths[-1]])
        assert last == pytest.approx(pairwise_distances(ends)["network"][0, 1], rel=1e-9)
        on_disk = checkpoints * side * side * 4
        assert peak < (limit or resting + on_disk / 2)
    finally:
        shutil.rmtree(tmp_path)


def _first_two(folder):
    """Sort the run's files into a folder of all and one of two, by links."""
    for name, count in (("all", None), ("two", 2)):
        (folder / name).mkdir()
        for path in sorted(folder.glob("*.safetensors"))[:count]:
            (folder / name / path.name).hardlink_to(path)
    return folder / "two"
