"""Checkpoints at rest: bit for bit, readable by anyone, nothing else taken for one."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from run.killing import kill_at_random_moments
from thalweg.errors import CheckpointRefused
from thalweg.run.checkpoints import (
    checkpoint_path,
    describe_checkpoint,
    read_checkpoint,
    why_not_storable,
    write_checkpoint,
)

ABOUT = {"trajectory": "seed0", "step": 7, "parameters": ["b", "a"]}

WRITER = """
from pathlib import Path
import torch
from thalweg.run.checkpoints import write_checkpoint
def work():
    for turn in range(10**9):
        weights = {"w": torch.full((200_000,), float(turn))}
        write_checkpoint(Path(sys.argv[1]), weights, {"step": turn})
        yield
"""


def tensors():
    awkward = torch.tensor([0.0, -0.0, torch.inf, torch.nan, 1e-45])
    return {
        "a": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
        "b": awkward.requires_grad_(),
        "count": torch.tensor(3),
        "thalweg/rng": torch.arange(5, dtype=torch.uint8),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }


def test_paths_sort_by_step(tmp_path):
    paths = [checkpoint_path(tmp_path, "seed0", step) for step in (2, 10, 999_999_999)]
    assert paths == sorted(paths)
    assert paths[0] == tmp_path / "seed0" / "000000002.safetensors"


def test_round_trip_is_bit_for_bit(tmp_path):
    path = checkpoint_path(tmp_path, "seed0", 7)
    write_checkpoint(path, tensors(), ABOUT)
    read, about = read_checkpoint(path)
    assert about == ABOUT == describe_checkpoint(path)
    assert read.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert read[name].dtype == tensor.dtype
        expected = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(read[name].reshape(-1).view(torch.uint8), expected), name


def awkward_layouts():
    matrix = torch.tensor([[0.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, -1.0]])
    twice = torch.tensor([[0, 0], [1, 1]])
    base = torch.arange(6.0)
    return {
        "single": torch.tensor([1 + 2j, -0.5j]),
        "double": torch.tensor([[1 + 2j], [3 - 4j]], dtype=torch.complex128),
        "conjugate": torch.tensor([1 + 2j, 3 - 1j]).conj(),
        "coo": matrix.to_sparse(),
        "uncoalesced": torch.sparse_coo_tensor(twice, torch.tensor([1.0, 4.0]), (2, 3)),
        "csr": matrix.to_sparse_csr(),
        "csc": matrix.to_sparse_csc(),
        "bsr": matrix.to_sparse_bsr((1, 2)),
        "empty": torch.empty(0, 3),
        "none": torch.empty(0),
        "view": base[1:4],
        "whole": base,
        "flags": torch.tensor([True, False]),
    }


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")  # torch calls some layouts beta
def test_every_kind_of_tensor_comes_back(tmp_path):
    kept = awkward_layouts()
    write_checkpoint(tmp_path / "all.safetensors", kept, {"step": 1})
    read, about = read_checkpoint(tmp_path / "all.safetensors")
    assert about == {"step": 1} == describe_checkpoint(tmp_path / "all.safetensors")
    assert read.keys() == kept.keys()
    for name, tensor in kept.items():
        assert (read[name].dtype, read[name].layout) == (tensor.dtype, tensor.layout), name
        assert torch.equal(read[name].to_dense(), tensor.to_dense()), name
    assert read["coo"].is_coalesced() and not read["uncoalesced"].is_coalesced()
    assert torch.equal(load_file(tmp_path / "all.safetensors")["single"], kept["single"])


@pytest.mark.parametrize("name", ["a" * length for length in range(1, 17)])
def test_complex_numbers_lie_where_kernels_take_them(tmp_path, name):
    kept = {name: torch.randn(3, 5, dtype=torch.complex128), "z": torch.ones(1)}
    write_checkpoint(tmp_path / "it.safetensors", kept, {})
    read = read_checkpoint(tmp_path / "it.safetensors")[0][name]
    assert read.data_ptr() % 16 == 0
    assert torch.equal(torch.empty_like(read).copy_(read), kept[name])


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (nn.parameter.UninitializedParameter(), "not initialized yet"),
        (torch.empty(3, device="meta"), "no data"),
        (torch.ones(2, dtype=torch.float8_e4m3fnuz), "float8_e4m3fnuz"),
    ],
)
def test_what_no_file_can_hold_is_told_with_the_reason(tensor, reason):
    assert reason in why_not_storable(tensor)


def test_others_read_it_and_we_read_others(tmp_path):
    path = tmp_path / "mine.safetensors"
    write_checkpoint(path, {"w": torch.ones(2)}, {})
    assert torch.equal(load_file(path)["w"], torch.ones(2))
    assert describe_checkpoint(path) == {}


@pytest.mark.parametrize("read", [read_checkpoint, describe_checkpoint])
def test_a_pickle_is_refused(tmp_path, read):
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointRefused, match=r"model\.pt is not a safetensors file"):
        read(tmp_path / "model.pt")


def test_a_killed_writer_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "seed0" / "000000001.safetensors"
    write_checkpoint(path, {"w": torch.zeros(200_000)}, {"step": 0})
    for _ in kill_at_random_moments(WRITER, 20, path):
        read, about = read_checkpoint(path)
        assert torch.equal(read["w"], torch.full((200_000,), float(about["step"])))
