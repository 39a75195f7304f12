"""Checkpoints of other tools embedded: their weights found without a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from thalweg import embed
from thalweg.embedding.plain_files import FileSource
from thalweg.errors import CheckpointMismatch

LAYOUTS = {
    "plain": lambda state, i: state,
    "nested": lambda state, i: {"model": state, "epoch": i, "lr": 0.1},
    "wrapped": lambda state, i: {"state_dict": {f"module.{n}": t for n, t in state.items()}},
    "optimizer": lambda state, i: {
        "net": state,
        "optimizer": {"state": {0: {"exp_avg": torch.full((4, 3), 9.0 * i)}}},
    },
    "best": lambda state, i: {"model": state, "best": torch.tensor(1.0 * i)},
}


def state(i: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(i)
    return {
        "0.weight": torch.randn(4, 3, generator=generator),
        "0.bias": torch.randn(4, generator=generator),
        "1.running_mean": torch.full((4,), 100.0 * i),
        "1.num_batches_tracked": torch.tensor(i),
    }


def weights() -> np.ndarray:
    rows = [torch.cat([state(i)["0.weight"].flatten(), state(i)["0.bias"]]) for i in range(4)]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_distances_are_those_of_the_weights(layout, tmp_path):
    files = []
    for i in range(4):
        files.append(tmp_path / f"epoch_{i}.pt")
        torch.save(LAYOUTS[layout](state(i), i), files[-1])
    found, expected = embed(files, dims=2), embed(weights(), dims=2)
    np.testing.assert_allclose(found.distance[0], expected.distance[0], rtol=1e-9)
    assert found.step.values.tolist() == [0, 1, 2, 3]
    assert list(found.layer.values) == ["network", "0"]


def test_a_folder_and_a_pattern_are_in_order(tmp_path):
    for i, step in enumerate((0, 2, 10, 11)):
        torch.save(LAYOUTS["nested"](state(i), i), tmp_path / f"ckpt_{step}.pt")
    expected = embed(weights(), dims=2).distance[0]
    for given in (tmp_path, str(tmp_path), str(tmp_path / "ckpt_*.pt")):
        found = embed(given, dims=2)
        np.testing.assert_allclose(found.distance[0], expected, rtol=1e-9)
        assert found.step.values.tolist() == [0, 2, 10, 11]
        assert found.epoch.values.tolist() == [0, 1, 2, 3]
        assert (found.trajectory.values == tmp_path.name).all()


def test_a_folder_of_safetensors(tmp_path):
    for i in range(4):
        save_file(state(i), tmp_path / f"{i}.safetensors")
    found = embed(tmp_path, dims=2)
    np.testing.assert_allclose(found.distance[0], embed(weights(), dims=2).distance[0], rtol=1e-9)


def test_two_entries_are_listed_and_one_is_named(tmp_path):
    files = [tmp_path / f"{i}.pt" for i in range(4)]
    for i, file in enumerate(files):
        average = {name: tensor * 0 + i for name, tensor in state(i).items()}
        torch.save({"model": state(i), "ema": average}, file)
    with pytest.raises(CheckpointMismatch, match=r"2 entries.*'model', 'ema'.*entry='model'"):
        embed(files, dims=2)
    found = embed(files, dims=1, entry="ema")
    assert float(found.distance[0, 0, 3]) == pytest.approx(3 * 4)  # 16 weights, 3 apart each
    with pytest.raises(CheckpointMismatch, match="no such entry"):
        embed(files, dims=2, entry="teacher")


def test_other_networks_are_refused(tmp_path):
    files = [tmp_path / "a.pt", tmp_path / "b.pt"]
    torch.save(state(0), files[0])
    torch.save(state(1) | {"0.bias": torch.ones(5)}, files[1])
    with pytest.raises(CheckpointMismatch, match=r"b\.pt has '0\.bias' of shape \(5,\) instead"):
        FileSource(files)


def test_complex_weights_are_pairs_of_reals_and_halves_are_read(tmp_path):
    one = {"w": torch.randn(3, dtype=torch.complex64), "h": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(one, tmp_path / "w.pt")
    source = FileSource([tmp_path / "w.pt"])
    assert [(block.name, block.size) for block in source.blocks] == [("w", 6), ("h", 2)]
    pairs = torch.view_as_real(one["w"]).flatten().numpy()
    np.testing.assert_array_equal(source.read(0, "w", 1, 5), pairs[1:5])
    np.testing.assert_array_equal(source.read(0, "h", 0, 2), [1.0, 1.0])
