from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from thalweg.embedding.checkpoint_source import CheckpointSource
from thalweg.embedding.distances import pairwise_distances
from thalweg.embedding.source import ArraySource, Block
from thalweg.errors import (
    CheckpointMismatch,
    CheckpointRefused,
    DamagedFile,
    InvalidArgument,
    InvalidWeights,
)
from thalweg.run.checkpoints import checkpoint_path, write_checkpoint


def state(seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "conv.weight": torch.randn(4, 3, 2, 2, generator=generator),
        "conv.bias": torch.randn(4, generator=generator),
        "norm.running_mean": torch.full((4,), 100.0 * seed),
        "norm.num_batches_tracked": torch.tensor(seed),
        "scale": torch.randn((), generator=generator),
        "thalweg/momentum": torch.randn(5, generator=generator),
    }
    return {name: value for name, value in (tensors | changes).items() if value is not None}


def write(path, tensors, parameters=("conv.weight", "conv.bias", "scale")):
    about = {"trajectory": "a", "step": 1, "parameters": parameters}
    metadata = {"thalweg": json.dumps(about)} if parameters else None
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.parametrize("parameters", [("conv.weight", "conv.bias", "scale"), None])
def test_only_trainable_weights_are_points(tmp_path, parameters):
    source = CheckpointSource([write(tmp_path / "a.safetensors", state(), parameters)])
    assert set(source.blocks) == {
        Block("conv.weight", 48, "conv"),
        Block("conv.bias", 4, "conv"),
        Block("scale", 1, "scale"),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_pieces_are_the_file_s_weights(tmp_path, dtype):
    tensors = state(**{"conv.weight": torch.randn(4, 3, 2, 2).to(dtype)})
    source = CheckpointSource([write(tmp_path / "a.safetensors", tensors)])
    expected = tensors["conv.weight"].double().flatten()[5:31].numpy()
    np.testing.assert_array_equal(source.read(0, "conv.weight", 5, 31), expected)
    np.testing.assert_array_equal(source.read(0, "scale", 0, 1), tensors["scale"].numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv.bias": torch.zeros(5)}, r"'conv.bias' of shape \(5,\) instead of \(4,\)"),
        ({"conv.bias": None}, "no 'conv.bias'"),
        ({"extra": torch.zeros(1)}, "'extra' besides"),
    ],
)
def test_another_network_is_named_with_the_difference(tmp_path, changes, message):
    first = write(tmp_path / "first.safetensors", state(), None)
    other = write(tmp_path / "other.safetensors", state(**changes), None)
    with pytest.raises(CheckpointMismatch, match=f"other.safetensors has {message}"):
        CheckpointSource([first, other])


def test_a_listed_parameter_must_be_there(tmp_path):
    path = write(tmp_path / "a.safetensors", state(**{"conv.bias": None}))
    with pytest.raises(CheckpointMismatch, match=r"lists the parameter 'conv\.bias'"):
        CheckpointSource([path])


def test_pickles_truncated_and_missing_files_are_refused(tmp_path):
    torch.save(state(), tmp_path / "pickle.pt")
    whole = write(tmp_path / "whole.safetensors", state())
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-8])
    for name in ("pickle.pt", "cut.safetensors", "missing.safetensors"):
        with pytest.raises(CheckpointRefused, match=rf"{name}.*expected a safetensors file"):
            CheckpointSource([whole, tmp_path / name])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(tmp_path, bad):
    good = write(tmp_path / "good.safetensors", state())
    tensors = state()
    tensors["conv.bias"][2] = bad
    worse = write(tmp_path / "worse.safetensors", tensors)
    with pytest.raises(InvalidWeights, match=r"worse.safetensors: 'conv.bias'"):
        pairwise_distances(CheckpointSource([good, worse]))


@pytest.mark.parametrize(
    "layers",
    [{"a": slice(0, 3)}, {"a": slice(0, 4), "b": slice(3, 6)}, {"a": slice(0, 6, 2)}],
)
def test_layers_of_an_array_must_tile_it(layers):
    with pytest.raises(InvalidArgument, match="cover every column once"):
        ArraySource(np.zeros((2, 6)), layers=layers)


@pytest.mark.parametrize("weights", [np.zeros(3), np.zeros((2, 3), dtype=complex), ["a", "b"]])
def test_an_array_must_be_a_real_matrix(weights):
    with pytest.raises(InvalidArgument, match=r"expected a real \(n, W\) array"):
        ArraySource(weights)


def recorded(folder, steps=3):
    about = {"trajectory": "a", "parameters": ["w", "v"]}
    paths = [checkpoint_path(folder, "a", step) for step in range(steps)]
    for step, path in enumerate(paths):
        tensors = {
            "w": torch.arange(10.0) + step,
            "v": torch.full((3,), float(step)),
            "thalweg/momentum": torch.ones(4),
        }
        write_checkpoint(path, tensors, about | {"step": step})
    return paths


def flip(path, value, bit=0):
    """Flip a bit of the first number of that value."""
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(value).tobytes()) + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("memory", [8 * 3 * 2, 8 * 3 * 7, 1 << 20])
def test_a_flipped_bit_of_a_weight_is_seen_however_it_is_read(tmp_path, memory):
    paths = recorded(tmp_path)
    expected = pairwise_distances(CheckpointSource(paths), memory=memory)
    assert expected["network"][0, 1] == pytest.approx(np.sqrt(13))
    flip(paths[1], 10.0)  # the last of w
    with pytest.raises(DamagedFile, match=r"000000001.safetensors is damaged: the checksum of w"):
        pairwise_distances(CheckpointSource(paths), memory=memory)


def test_a_bit_that_makes_a_weight_infinite_is_damage_and_no_divergence(tmp_path):
    paths = recorded(tmp_path)
    content = bytearray(paths[2].read_bytes())
    where = content.index(np.float32(11.0).tobytes())
    content[where : where + 4] = np.float32(np.inf).tobytes()
    paths[2].write_bytes(content)
    with pytest.raises(DamagedFile, match="the checksum of w is another"):
        pairwise_distances(CheckpointSource(paths))


def test_what_is_read_from_the_middle_on_is_checked_from_the_beginning(tmp_path):
    paths = recorded(tmp_path)
    flip(paths[0], 3.0)
    with pytest.raises(DamagedFile, match="the checksum of w"):
        CheckpointSource(paths).read(0, "w", 5, 10)


def test_damage_that_is_not_read_hinders_nobody(tmp_path):
    paths = recorded(tmp_path)
    before = pairwise_distances(CheckpointSource(paths)).values
    content = paths[0].read_bytes()
    where = content.rindex(np.float32(1.0).tobytes() * 4)
    paths[0].write_bytes(content[:where] + b"\1" + content[where + 1 :])
    np.testing.assert_array_equal(pairwise_distances(CheckpointSource(paths)).values, before)
    with pytest.raises(DamagedFile, match="thalweg/momentum"):
        CheckpointSource(paths).check(0)
