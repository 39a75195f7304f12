"""Checksums in files: every single flipped bit is seen, or changes nothing that is read."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch

from thalweg.errors import CheckpointRefused, DamagedFile
from thalweg.run.arrays import read_arrays
from thalweg.run.digests import (
    checksum,
    file_checksum,
    opened_json,
    opened_toml,
    sealed_json,
    sealed_toml,
)
from thalweg.run.events import EventLog, read_events
from thalweg.run.store import create_run
from thalweg.run.tensors import check_tensors, read_tensors, write_tensors
from thalweg.run.verify import verify

VALUE = {"verdict": "supported", "numbers": [1.5, -2, None, True], "nested": {"a": {}}, "é": "ü"}


def flips(content):
    for place in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        yield bytes(flipped)


def is_seen(read, content, expected):
    """Say whether a reader refuses; what it gives otherwise must be what was written."""
    try:
        assert read(content) == expected, content
    except (DamagedFile, CheckpointRefused):
        return True
    return False


def test_the_checksum_is_crc_32c():
    # The check value of CRC-32C (Castagnoli) in the catalogue of parametrised CRC algorithms.
    assert checksum(b"123456789") == 0xE3069283
    assert checksum(b"6789", checksum(b"12345")) == 0xE3069283


@pytest.mark.parametrize("indent", [None, 1])
def test_each_flipped_bit_of_json_is_seen(indent):
    content = sealed_json(VALUE, indent=indent).encode()
    assert opened_json(content, "x") == VALUE and json.loads(content).items() > VALUE.items()
    assert all(is_seen(lambda data: opened_json(data, "x"), c, VALUE) for c in flips(content))


def test_each_flipped_bit_of_toml_is_seen():
    value = {"created": 1, "config": {"lr": 0.5, "nested": {"names": ["a", "b"]}}}
    content = sealed_toml(value).encode()
    assert opened_toml(content, "x") == value
    assert all(is_seen(lambda data: opened_toml(data, "x"), c, value) for c in flips(content))


def test_each_flipped_bit_of_metrics_is_seen(tmp_path):
    path = tmp_path / "events.jsonl"
    for step in range(3):
        EventLog(path, trajectory="a")({"loss": 1 / (step + 3)}, step)
    events = read_events(path)

    def read(content):
        path.write_bytes(content)
        return read_events(path)

    assert all(is_seen(read, content, events) for content in flips(path.read_bytes()))


def test_a_torn_line_is_passed_over_wherever_it_is_cut(tmp_path):
    path = tmp_path / "events.jsonl"
    for step in range(2):
        EventLog(path)({"loss": 0.5}, step)
    content, events = path.read_bytes(), read_events(path)
    for cut in range(1, len(content)):
        path.write_bytes(content[:cut])
        before = read_events(path)
        assert before == events[: len(before)]
        EventLog(path)({"loss": 0.25}, 7)
        assert read_events(path) == [*before, {"step": 7, "loss": 0.25}]


def test_each_flipped_bit_of_tensors_is_seen_or_changes_nothing(tmp_path):
    tensors = {
        "w": torch.tensor([[1.0, -2.0]]),
        "n": torch.tensor(3),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors, {"about": "x y"})

    def read(content):
        path.write_bytes(content)
        found, about = read_tensors(path)
        return {k: (t.dtype, t.shape, t.tolist()) for k, t in found.items()}, about

    content = path.read_bytes()
    expected, unseen = read(content), 0
    for flipped in flips(content):
        unseen += not is_seen(read, flipped, expected)
    assert unseen == 0
    path.write_bytes(content)
    assert check_tensors(path)


def test_tensors_without_checksums_are_read(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(2)}, path, metadata={"format": "pt"})
    assert read_tensors(path)[1] == {"format": "pt"} and not check_tensors(path)


def test_arrays_that_ask_for_more_than_there_is_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(3), b=np.array("text"))
    assert read_arrays(path)["a"].tolist() == [0, 0, 0]
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header = header.ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00v\x00" + header + bytes(24))
    with pytest.raises(DamagedFile, match="as long as no array"):
        read_arrays(path)
    np.savez_compressed(path, a=np.zeros(1000))
    with pytest.raises(DamagedFile, match="compressed"):
        read_arrays(path)


def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"123456789")
    assert file_checksum(tmp_path / "a") == "e3069283"


def test_pages_are_covered_by_a_list(tmp_path):
    run = create_run(tmp_path / "run", {})
    run.cover("report.html", content=b"<html>")
    (run.path / "report.html").write_bytes(b"<html>")
    states = {finding.file: finding.state for finding in verify(run)}
    assert states["report.html"] == "whole"
    (run.path / "report.html").write_bytes(b"<htmm>")
    states = {finding.file: finding.state for finding in verify(run)}
    assert states["report.html"] == "damaged"
    (run.path / "report.html").unlink()
    states = {finding.file: finding.state for finding in verify(run)}
    assert states["report.html"] == "gone"
