from __future__ import annotations

import logging
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from thalweg.errors import CheckpointMismatch, CheckpointRefused, InvalidWeights
from thalweg.problems import fit_weights, load_weights
from thalweg.run.checkpoints import write_checkpoint


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight


@pytest.fixture
def net():
    return Net()


def same(got, expected):
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("nest", [None, "state_dict", "model_state_dict", "model"])
def test_files_of_torch(net, tmp_path, nest):
    state = dict(net.state_dict())
    content = state if nest is None else {nest: state, "epoch": 3, "lr": 0.1}
    torch.save(content, tmp_path / "w.pt")
    tensors, about = load_weights(tmp_path / "w.pt")
    same(fit_weights(net, tensors), state)
    assert about == {}


def test_old_files_of_torch(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    same(fit_weights(net, load_weights(tmp_path / "w.pt")[0]), net.state_dict())


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_by_content_or_name(net, tmp_path, name):
    save_file(dict(net.state_dict()), tmp_path / name)
    same(fit_weights(net, load_weights(str(tmp_path / name))[0]), net.state_dict())


def test_our_own_checkpoints_say_about_themselves(net, tmp_path):
    path = tmp_path / "1.safetensors"
    extra = {"thalweg/momentum": torch.ones(2)}
    write_checkpoint(path, {**net.state_dict(), **extra}, {"step": 7})
    tensors, about = load_weights(path)
    assert about == {"step": 7} and "thalweg/momentum" in tensors
    same(fit_weights(net, tensors), net.state_dict())


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_is_refused_and_not_run(net, tmp_path, capsys):
    torch.save(net, tmp_path / "net.pt")
    torch.save({"state_dict": net.state_dict(), "hook": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("net.pt", "evil.pt", "raw.pkl"):
        with pytest.raises(CheckpointRefused) as caught:
            load_weights(tmp_path / name)
        text = str(caught.value)
        assert name in text and "is a pickle" in text
        assert "torch.save(model.state_dict()" in text and "safetensors.torch.save_file" in text
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_cut_short_says_so(net, tmp_path, name, share):
    path = tmp_path / name
    save_file(dict(net.state_dict()), path) if "safe" in name else torch.save(
        net.state_dict(), path
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointRefused, match=r"truncated|not a safetensors file"):
        load_weights(path)


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(CheckpointRefused, match=r"is not there; give a checkpoint file"):
        load_weights(tmp_path / "absent.pt")
    with pytest.raises(CheckpointRefused, match=r"is a folder; give a checkpoint file"):
        load_weights(tmp_path)
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(CheckpointRefused, match=r"holds a list without named tensors; expected a"):
        load_weights(tmp_path / "list.pt")


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("first.", "first._orig_mod."),
    ],
)
def test_wrappers_prefixes_are_stripped_and_named(net, caplog, rename):
    wrapped = {rename(name): tensor for name, tensor in net.state_dict().items()}
    with caplog.at_level(logging.WARNING, "thalweg"):
        same(fit_weights(net, wrapped), net.state_dict())
    assert "stripped" in caplog.text
    assert ("'module.'" in caplog.text) == rename("x").startswith("module.")


def test_names_that_fit_are_left_alone(net, caplog):
    holder = nn.Module()
    holder.module = net
    same(fit_weights(holder, holder.state_dict()), holder.state_dict())
    assert not caplog.text


def test_what_does_not_fit_is_listed(net):
    tensors = dict(net.state_dict())
    del tensors["norm.running_mean"]
    tensors["second.bias"] = torch.ones(2)
    tensors["first.weight"] = torch.ones(5, 3)
    with pytest.raises(CheckpointMismatch) as caught:
        fit_weights(net, tensors)
    text = str(caught.value)
    assert "1 missing: norm.running_mean;" in text and "1 unexpected: second.bias;" in text
    assert "1 of another shape: first.weight (got (5, 3), expected (4, 3))" in text
    assert "settings it was trained with" in text


def test_only_the_first_of_many_are_listed(net):
    with pytest.raises(CheckpointMismatch, match=r"6 missing: first.weight, .* and 1 more"):
        fit_weights(net, {})


@pytest.mark.parametrize(
    "given", [["embed.weight"], ["head.weight"], ["embed.weight", "head.weight"]]
)
def test_tied_weights_need_one_of_their_names(given):
    model, tensor = Tied(), torch.randn(4, 3)
    fitted = fit_weights(model, dict.fromkeys(given, tensor))
    same(fitted, {"embed.weight": tensor, "head.weight": tensor})
    model.load_state_dict(fitted)
    assert torch.equal(model.head.weight, tensor)


def test_tied_weights_that_differ_are_refused():
    with pytest.raises(CheckpointMismatch, match=r"embed.weight and head.weight are one tied tens"):
        fit_weights(Tied(), {"embed.weight": torch.ones(4, 3), "head.weight": torch.zeros(4, 3)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_counted(net, value):
    tensors = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    tensors["first.weight"][0, :2] = value
    with pytest.raises(InvalidWeights, match=r"first.weight: 2 of 12 weights are NaN or infinite"):
        fit_weights(net, tensors)


def test_floats_get_the_models_type(net):
    tensors = {
        name: t.double() if t.is_floating_point() else t for name, t in net.state_dict().items()
    }
    fitted = fit_weights(net, tensors)
    assert fitted["first.weight"].dtype == torch.float32
    assert fitted["norm.num_batches_tracked"].dtype == torch.int64
    same(fitted, net.state_dict())
