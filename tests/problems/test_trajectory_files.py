"""Trainings of other tools: files in the order of their steps, by name, by content or as listed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from thalweg.errors import CheckpointRefused
from thalweg.problems.trajectory_files import trajectory_files


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (("epoch_0.pt", "epoch_10.pt", "epoch_2.pt"), [0, 2, 10]),
        (("epoch=0-step=32.ckpt", "epoch=1-step=64.ckpt"), [32, 64]),
        (("net007.pth.tar", "net012.pth.tar"), [7, 12]),
        (("resnet18_cifar10_50.pth", "resnet18_cifar10_5.pth"), [5, 50]),
        (("m-e3-loss0.25.pt", "m-e12-loss0.20.pt"), [3, 12]),
        (("1000.safetensors", "20.safetensors"), [20, 1000]),
    ],
)
def test_steps_in_names(names, steps, tmp_path):
    found = trajectory_files(touch(tmp_path, *names))
    assert list(found.steps) == steps and found.name == tmp_path.name
    assert [path.name for path in found.files] != sorted(names) or steps == sorted(steps)


def test_files_of_another_kind_are_left_out_and_named(tmp_path, caplog):
    touch(tmp_path, "epoch_0.pt", "epoch_1.pt", "best.pt", "log.txt")
    with caplog.at_level(logging.WARNING, "thalweg"):
        assert trajectory_files(tmp_path).steps == (0, 1)
    assert "best.pt" in caplog.text and "log.txt" not in caplog.text


def test_steps_in_files(tmp_path):
    for name, epoch in (("a", 7), ("b", 0), ("c", torch.tensor(3))):
        torch.save({"model": {"w": torch.ones(1)}, "epoch": epoch}, tmp_path / f"{name}.pt")
    found = trajectory_files(tmp_path)
    assert found.steps == (0, 3, 7) and [path.stem for path in found.files] == ["b", "c", "a"]


def test_folders_of_a_hub_are_points(tmp_path):
    for step in (500, 1000, 50):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"w": torch.ones(1)}, folder / "model.safetensors")
    assert trajectory_files(tmp_path).steps == (50, 500, 1000)


def test_a_pattern_names_one_of_several_trainings(tmp_path):
    touch(tmp_path, *(f"seed{seed}_epoch_{epoch}.pt" for seed in (1, 2) for epoch in (1, 2)))
    with pytest.raises(CheckpointRefused, match=r"4 files that share a step.*seed1_epoch_\*\.pt"):
        trajectory_files(tmp_path)
    found = trajectory_files(str(tmp_path / "seed2_epoch_*.pt"))
    assert [path.name for path in found.files] == ["seed2_epoch_1.pt", "seed2_epoch_2.pt"]


def test_two_series_are_refused(tmp_path):
    touch(tmp_path, "model_1.pt", "model_2.pt", "ema_1.pt", "ema_2.pt")
    with pytest.raises(CheckpointRefused, match=r"2 series of 2 files.*ema_\*\.pt"):
        trajectory_files(tmp_path)


def test_a_list_keeps_its_order(tmp_path):
    files = [tmp_path / "epoch_2.pt", tmp_path / "epoch_1.pt"]
    found = trajectory_files(files)
    assert list(found.files) == files and found.steps == (0, 1)
    assert trajectory_files(files[::-1]).steps == (1, 2)


def test_files_without_an_order_are_refused(tmp_path):
    for name in ("a", "b"):
        torch.save({"w": torch.ones(1)}, tmp_path / f"{name}.pt")
    with pytest.raises(CheckpointRefused, match="give them as a list, first to last"):
        trajectory_files(tmp_path)
    with pytest.raises(CheckpointRefused, match="at least two"):
        trajectory_files(str(tmp_path / "a*.pt"))
