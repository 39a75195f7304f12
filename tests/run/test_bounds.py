"""Requests for more memory than there is: told the estimate and the limit before any is taken."""

from __future__ import annotations

import copy
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
import xarray as xr
from numcodecs import Zstd

from thalweg.algebra import network
from thalweg.connectivity import barrier
from thalweg.errors import CheckpointRefused, DamagedFile, InvalidArgument, OutOfBudget
from thalweg.geometry import spectral_density, surface, top_eigenvalues
from thalweg.landscape import Quadratic
from thalweg.measurements.spectrum_parts import check_spectrum
from thalweg.problems import load_problem
from thalweg.problems.weight_files import read_weights
from thalweg.run import bounds
from thalweg.run.bounded_zstd import content_size
from thalweg.run.bounds import check_memory, memory_limit, shown_bytes
from thalweg.run.digests import checksum
from thalweg.run.events import read_events
from thalweg.run.files import read_json
from thalweg.run.store import create_run
from thalweg.studies import configure
from thalweg.studies.check_config import check_config, tasks_of
from thalweg.studies.spectrum import DEFAULTS

BOWL = Quadratic.of_spectrum(torch.linspace(1, 2, 50, dtype=torch.float64))
HUGE = 10**12


def test_the_limit_is_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(bounds, "_free", lambda: 8 << 30)
    monkeypatch.setattr(bounds, "_of_group", lambda: 6 << 30)
    monkeypatch.setattr(bounds, "_allowed", lambda: 1 << 62)
    assert memory_limit() == 3 << 30
    check_memory(3 << 30, "this", "")
    with pytest.raises(OutOfBudget, match=r"this would take about 4 GB .* limit is 3 GB.*Less\."):
        check_memory(4 << 30, "this", "Less.")


def test_bytes_are_shown_in_units():
    sizes = [0, 1023, 1024, 3 << 19, 10**12, 10**30]
    assert [shown_bytes(n) for n in sizes] == [
        "0 bytes",
        "1023 bytes",
        "1 KB",
        "1.5 MB",
        "931 GB",
        "8.88e+14 PB",
    ]


REQUESTS = {
    "points of a surface": lambda: surface(BOWL, BOWL.centre, points=HUGE),
    "points of a line": lambda: barrier(BOWL, BOWL.centre, BOWL.centre + 1, points=HUGE + 1),
    "steps of a density": lambda: spectral_density(BOWL.hessian(BOWL.centre), steps=HUGE),
    "probes of a density": lambda: spectral_density(BOWL.hessian(BOWL.centre), probes=HUGE),
    "probes of a spectrum": lambda: check_spectrum(DEFAULTS | {"density": True, "probes": HUGE}),
    "width of a network": lambda: load_problem("digits", widths=[HUGE]),
    "channels": lambda: load_problem("digits", network="allconv", widths=[10**6, 10**6]),
    "widths of a polynomial network": lambda: network((HUGE, HUGE, 1), (0, 0, 1)),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_request_for_too_much_is_refused_at_once(what):
    with pytest.raises(OutOfBudget, match=r"would take about .* limit is"):
        REQUESTS[what]()


def test_more_eigenvalues_than_there_are_are_no_request_for_memory():
    with pytest.raises(InvalidArgument):
        top_eigenvalues(BOWL.hessian(BOWL.centre), HUGE)


def test_a_polynomial_of_a_high_degree_is_refused():
    with pytest.raises(InvalidArgument, match="up to degree 200"):
        load_problem("digits", activation="poly999999")
    with pytest.raises(InvalidArgument, match="is not known"):
        load_problem("digits", activation="poly" + "9" * 5000)


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "long.pt")
    with (
        zipfile.ZipFile(tmp_path / "long.pt") as source,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in source.namelist():
            bomb.writestr(name, source.read(name))
    with pytest.raises(CheckpointRefused, match=r"is compressed .* 4 MB"):
        read_weights(tmp_path / "bomb.pt")
    assert read_weights(tmp_path / "long.pt").tensors["w"].shape == (1 << 20,)


@pytest.fixture
def little(monkeypatch):
    """Let the limit be half a megabyte."""
    monkeypatch.setattr(bounds, "_free", lambda: 1 << 20)


def test_a_numpy_archive_that_unpacks_to_too_much_is_refused(tmp_path, little):
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros(1 << 20))
    with pytest.raises(OutOfBudget, match="unpacks to would take about 16 MB"):
        read_weights(tmp_path / "a.npz")


def test_files_of_text_that_are_too_long_are_refused(tmp_path, little):
    (tmp_path / "a.json").write_text(json.dumps({"a": [1] * 100_000}))
    with pytest.raises(OutOfBudget, match=r"a\.json"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text("{}\n" * 20_000)
    with pytest.raises(OutOfBudget, match=r"a\.jsonl"):
        read_events(tmp_path / "a.jsonl")


def uncovered(run, dataset):
    """Save a result as an older version, or a stranger, writes it: nothing covers it."""
    run.save_result("old", dataset)
    folder = run.path / "results.zarr/old"
    about = json.loads((folder / "zarr.json").read_text())
    (folder / "zarr.json").write_text(json.dumps(about | {"attributes": {}}))
    return folder


@pytest.mark.parametrize("key", ["shape", "chunks"])
def test_a_result_that_asks_for_too_much_is_refused(tmp_path, key):
    run = create_run(tmp_path / "run", {})
    folder = uncovered(run, xr.Dataset({"x": ("n", np.arange(3.0))}))
    about = json.loads((folder / "x/zarr.json").read_text())
    if key == "shape":
        about["shape"] = [HUGE]
    about["chunk_grid"]["configuration"]["chunk_shape"] = [HUGE]
    (folder / "x/zarr.json").write_text(json.dumps(about))
    with pytest.raises(OutOfBudget, match=r"old/x would take about"):
        run.result("old")


FRAMES = {
    # Each unpacks to so many bytes; the sizes of RFC 8878's four widths of the field.
    **{size: Zstd().encode(bytes(size)) for size in (0, 5, 255, 256, 65_791, 65_792, 1 << 20)},
    None: b"\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00",  # a frame without the field
}


@pytest.mark.parametrize("size", FRAMES)
def test_the_length_of_a_frame_is_read_off_its_header(size):
    assert content_size(FRAMES[size][:18]) == size
    assert content_size(FRAMES[size][:4]) is None and content_size(b"anything else") is None


@pytest.mark.parametrize("in_shards", [False, True])
@pytest.mark.parametrize("lazily", [False, True])
def test_a_chunk_that_unpacks_to_more_than_it_holds_is_refused_before(tmp_path, in_shards, lazily):
    run = create_run(tmp_path / "run", {})
    folder = uncovered(run, xr.Dataset({"x": ("n", np.arange(3.0 if not in_shards else 3e5))}))
    (chunk,) = (folder / "x/c").iterdir()
    bomb = Zstd().encode(bytes(1 << 28))
    if in_shards:
        # The index at the end of a shard: offset and length of each chunk, then its CRC-32C.
        content = bytearray(chunk.read_bytes())
        index = np.frombuffer(content[-(16 * 64 + 4) : -4], "<u8").copy()
        index[:2] = len(content), len(bomb)
        tail = index.tobytes()
        bomb = bytes(content) + bomb + tail + checksum(tail).to_bytes(4, "little")
    chunk.write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(DamagedFile, match=r"unpacks to 256 MB, and has (24 bytes|1 MB)"):
        _ = run.results["old/x"].values if lazily else run.result("old")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 26


def test_text_that_says_to_hold_more_than_its_chunk_is_refused(tmp_path):
    run = create_run(tmp_path / "run", {})
    folder = uncovered(run, xr.Dataset({"x": ("n", ["a", "b"])}))
    (chunk,) = (folder / "x/c").iterdir()
    chunk.write_bytes(Zstd().encode((2**31 - 1).to_bytes(4, "little") + bytes(8)))
    with pytest.raises(DamagedFile, match=r"old: A chunk of text .* has 2147483647 pieces"):
        run.result("old")


def test_an_array_packed_in_another_way_is_refused(tmp_path):
    run = create_run(tmp_path / "run", {})
    folder = uncovered(run, xr.Dataset({"x": ("n", np.arange(3.0))}))
    about = json.loads((folder / "x/zarr.json").read_text())
    about["codecs"][1] = {"name": "gzip", "configuration": {"level": 5}}
    (folder / "x/zarr.json").write_text(json.dumps(about))
    for read in (lambda: run.result("old"), lambda: run.results):
        with pytest.raises(DamagedFile, match="packed with bytes, gzip, as no result is"):
            read()


def changed(**changes):
    config = copy.deepcopy(configure("demo", studies=["trajectories"]))
    for place, value in changes.items():
        *above, name = place.split("__")
        part = config
        for key in above:
            part = part[key]
        part[name] = value
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trajectories__copies": 10**9}, r"trajectories\.copies is 1000000000"),
        ({"trajectories__seeds": list(range(10**5))}, "how many"),
        ({"trajectories__scale": float("inf")}, r"trajectories\.scale is inf"),
        ({"trajectories": 3}, "trajectories is 3"),
        ({"studies": ["other"]}, "study 'other'"),
        ({"studies": []}, r"studies is \[\]"),
        ({"problem": "digits"}, "problem is 'digits'"),
        ({"training__lr": -1.0}, "lr=-1"),
        ({"training__lr": [1]}, "training cannot be used"),
        ({"training__speed": 1}, "speed is no setting"),
        ({"training": 1}, "training is 1"),
    ],
)
def test_a_configuration_is_looked_at_before_any_work(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        check_config(changed(**changes))


def test_a_configuration_that_lacks_something_is_told_so():
    config = changed()
    del config["trajectories"]["seeds"]
    with pytest.raises(InvalidArgument, match=r"trajectories cannot be used: KeyError 'seeds'"):
        tasks_of("trajectories", config)


@pytest.mark.parametrize("preset", ["demo", "laptop", "paper"])
def test_the_presets_are_within_bounds(preset):
    check_config(configure(preset))
