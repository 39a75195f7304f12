"""Results at rest: whole or not there, and what was put in comes out."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from run.killing import kill_at_random_moments, script, wait_for
from thalweg.errors import InvalidArgument
from thalweg.run.store import create_run

WRITER = """
import numpy as np, xarray as xr, xarray.backends.zarr, zarr.api.asynchronous
xr.backends.list_engines()
from thalweg.run.store import open_run
run = open_run(sys.argv[1])
def work():
    for turn in range(10**9):
        values = {name: ("x", np.full(50_000, float(turn))) for name in ("a", "b")}
        run.save_result("folder/result", xr.Dataset(values, attrs={"turn": turn}))
        yield
"""

words = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cf"], exclude_characters="/|\\"),
    min_size=1,
    max_size=8,
).filter(lambda word: word[0] not in "._")
dtypes = st.one_of(
    hnp.floating_dtypes(endianness="=", sizes=(32, 64)),
    hnp.integer_dtypes(endianness="="),
    hnp.unsigned_integer_dtypes(endianness="="),
    hnp.boolean_dtypes(),
    hnp.complex_number_dtypes(endianness="=", sizes=(64, 128)),
    hnp.unicode_string_dtypes(endianness="=", min_len=1, max_len=5),
)
attributes = st.dictionaries(
    words, st.one_of(st.text(max_size=5), st.integers(-5, 5), st.floats(allow_nan=False))
)


@st.composite
def datasets(draw):
    dims = draw(st.lists(words, min_size=1, max_size=3, unique=True))
    sizes = {dim: draw(st.integers(0, 4)) for dim in dims}
    others = words.filter(lambda word: word not in dims)
    names = draw(st.lists(others, min_size=1, max_size=3, unique=True))
    variables = {}
    for name in names:
        along = draw(st.lists(st.sampled_from(dims), unique=True))
        shape = tuple(sizes[dim] for dim in along)
        variables[name] = along, draw(hnp.arrays(draw(dtypes), shape)), draw(attributes)
    coords = {dims[0]: [f"n{i}é" for i in range(sizes[dims[0]])]} if draw(st.booleans()) else {}
    return xr.Dataset(variables, coords, draw(attributes))


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory):
    return create_run(tmp_path_factory.mktemp("runs") / "run", {})


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", {})


def numbers(**attrs):
    return xr.Dataset({"loss": ("step", np.arange(3.0))}, {"step": [0, 10, 20]}, attrs)


@settings(max_examples=40, deadline=None)
@given(dataset=datasets(), name=words)
def test_round_trip(shared_run, dataset, name):
    shared_run.save_result(f"round trips/{name}", dataset)
    read = shared_run.result(f"round trips/{name}")
    xr.testing.assert_identical(read, dataset)
    for key, variable in dataset.variables.items():
        assert read[key].dtype.kind == variable.dtype.kind
        if variable.dtype.kind in "fc":
            assert np.array_equal(np.signbit(read[key].real), np.signbit(variable.real))


def test_the_tree_holds_every_result(run):
    assert run.results.identical(xr.DataTree())
    run.save_result("trajectories/embedding", numbers())
    run.save_result("spectrum", numbers(method="lanczos"))
    assert run.results["trajectories/embedding"].to_dataset().equals(numbers())
    assert run.results["spectrum"].attrs == {"method": "lanczos"}
    assert run.has_result("trajectories/embedding")
    assert not run.has_result("trajectories")


def test_saving_again_replaces(run):
    run.save_result("a", xr.Dataset({"old": ("x", np.zeros(4))}))
    run.save_result("a", numbers())
    xr.testing.assert_identical(run.result("a"), numbers())


def test_long_arrays_are_cut_into_chunks_and_few_files(run):
    long = xr.Dataset(
        {"distances": (("i", "j"), np.random.default_rng(0).normal(size=(1500, 1000)))}
    )
    run.save_result("embedding", long)
    xr.testing.assert_identical(run.result("embedding"), long)
    folder = run.path / "results.zarr" / "embedding"
    assert run.results["embedding/distances"].encoding["chunks"] == (131, 1000)
    assert sum(file.is_file() for file in folder.rglob("*")) < 5


def test_a_lazy_dataset_and_one_read_from_a_file_can_be_saved(run):
    run.save_result("a", numbers())
    run.save_result("b", run.results["a"].to_dataset())
    xr.testing.assert_identical(run.result("b"), numbers())


def test_a_missing_result_names_those_that_are_there(run):
    with pytest.raises(InvalidArgument, match="no results yet"):
        run.result("embeding")
    run.save_result("embedding", numbers())
    with pytest.raises(InvalidArgument, match=r"no result 'embeding'.*There are: embedding"):
        run.result("embeding")


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", ".a", "_a", "a|b"])
def test_a_name_that_is_no_group_path_is_refused(run, name):
    with pytest.raises(InvalidArgument, match="cannot name a result"):
        run.save_result(name, numbers())


def test_a_result_has_none_below_it(run):
    run.save_result("a/b", numbers())
    with pytest.raises(InvalidArgument, match="'a' holds other results"):
        run.save_result("a", numbers())
    with pytest.raises(InvalidArgument, match="'a/b' is a result"):
        run.save_result("a/b/c", numbers())


def test_nothing_is_no_result(run):
    with pytest.raises(InvalidArgument, match="no variables"):
        run.save_result("a", xr.Dataset(attrs={"a": 1}))


def test_a_failed_write_leaves_the_old_result(run):
    run.save_result("a", numbers())
    with pytest.raises(TypeError):
        run.save_result("a", numbers(bad=object()))
    xr.testing.assert_identical(run.result("a"), numbers())


@pytest.mark.parametrize("killed", ["before the new one", "after the new one"])
def test_what_was_set_aside_comes_back_or_goes(run, killed):
    target, aside = run.path / "results.zarr/folder/a", run.path / ".results/folder|a.old"
    run.save_result("folder/a", numbers(age="old"))
    old = target.rename(run.path / "old")
    if killed == "after the new one":
        run.save_result("folder/a", numbers(age="new"))
    old.rename(aside)
    age = "old" if killed == "before the new one" else "new"
    assert run.result("folder/a").attrs == {"age": age}
    assert run.results["folder/a"].attrs == {"age": age}
    assert not aside.exists()


def assert_whole(dataset):
    for name in ("a", "b"):
        assert np.array_equal(dataset[name], np.full(50_000, float(dataset.attrs["turn"]))), name


@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_the_old_or_the_new_result(run, kills):
    caught = set()
    for _ in kill_at_random_moments(WRITER, kills, run.path, longest=0.1):
        caught |= {file.suffix for file in (run.path / ".results").glob("*.*")}
        assert_whole(run.result("folder/result"))
        assert_whole(run.results["folder/result"].to_dataset())
    assert ".new" in caught, "no kill fell into a write: the test has shown nothing"


def test_a_reader_beside_a_writer_sees_whole_results(run):
    with script("import sys\n" + WRITER + "list(work())", run.path):
        wait_for(lambda: run.has_result("folder/result"))
        turns = [run.result("folder/result") for _ in range(40)]

        def moved():  # reading may be faster than writing
            turns.append(run.result("folder/result"))
            return turns[-1].attrs["turn"] > turns[0].attrs["turn"]

        wait_for(moved)
    for dataset in turns:
        assert_whole(dataset)
