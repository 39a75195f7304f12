"""Files of weights as other tools lay them out: each read, without running code, as the model's."""

from __future__ import annotations

import argparse
import collections
import datetime
import gzip
import json
import logging
import pathlib
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrizations

from thalweg.errors import CheckpointMismatch, CheckpointRefused, InvalidArgument, InvalidWeights
from thalweg.problems import Problem, fit_weights, load_weights, open_point


def net(out=2):
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, out))


def problem_of(model):
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    return Problem(model, nn.CrossEntropyLoss(), (x, torch.tensor([0, 1] * 3)))


@pytest.fixture
def state():
    torch.manual_seed(0)
    return dict(net().state_dict())


def under(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


class Config:
    """Beside the weights, as trainers leave it; a reader must not make one."""

    def __init__(self):
        raise AssertionError("made by a reader")

    def __setstate__(self, state):
        raise AssertionError("filled by a reader")


class Settings(dict):
    """A dict of one's own kind."""


def config():
    made = object.__new__(Config)
    made.width = 3
    return made


LAYOUTS = {
    "net": lambda s: {"net": under("module.", s), "acc": 95.1},
    "deep": lambda s: {"trainer": {"state": {"model": s}}, "epoch": 3},
    "pair": lambda s: ({"model": s}, {"epoch": 3}),
    "list of models": lambda s: {"models": [s]},
    "lightning": lambda s: {"state_dict": under("net.", s) | {"criterion.weight": torch.ones(2)}},
    "fabric": lambda s: {"model": under("_forward_module.", s)},
    "compiled and parallel": lambda s: under("module._orig_mod.", s),
    "compiled inside": lambda s: {n.replace("0.", "0._orig_mod."): t for n, t in s.items()},
    "sharded inside": lambda s: {
        n.replace("2.", "2._fsdp_wrapped_module."): t for n, t in s.items()
    },
    "attribute called module": lambda s: under("model.module.", s),
    "parameters": lambda s: {n: nn.Parameter(t) for n, t in s.items()},
    "NumPy arrays": lambda s: {"weights": {n: t.numpy() for n, t in s.items()}},
    "NumPy values": lambda s: {"model": s, "lr": np.float32(0.1), "steps": np.arange(3)},
    "Namespace": lambda s: {"model": s, "args": argparse.Namespace(path=pathlib.Path("a"))},
    "path of another system": lambda s: {"model": s, "at": pathlib.PureWindowsPath("c:/a")},
    "times": lambda s: {"model": s, "when": datetime.datetime(2024, 1, 2)},
    "defaultdict": lambda s: {"model": s, "log": collections.defaultdict(list, {"a": [1]})},
    "deque": lambda s: {"model": s, "last": collections.deque([1.0, 2.0])},
    "random state": lambda s: {
        "model": s,
        "rng": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
    },
    "optimizer": lambda s: {"model": s, "optimizer": _optimizer()},
    "best loss": lambda s: {"state_dict": s, "best": torch.tensor(0.1)},
    "sparse": lambda s: {n: t.to_sparse() if t.dim() == 2 else t for n, t in s.items()},
    "an entry that holds itself": lambda s: _holding_itself(s),
    "extra state": lambda s: s | {"0._extra_state": torch.zeros(3)},
}


def _holding_itself(state):
    content = {"model": state}
    content["all"] = content
    return content


def _optimizer():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 5)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_other_tools(layout, state, tmp_path):
    torch.save(LAYOUTS[layout](state), tmp_path / "w.pt")
    fitted = fit_weights(net(), load_weights(tmp_path / "w.pt")[0])
    assert fitted.keys() == state.keys()
    assert all(torch.equal(fitted[name], state[name]) for name in state)


def test_paths_of_a_system_that_is_not_this_one(state, tmp_path):
    """Their class cannot be made here; no value of it is needed."""
    path = pathlib.PurePath.__new__(pathlib.WindowsPath, "c:/a")
    torch.save({"model": state, "at": path}, tmp_path / "w.pt")
    with pytest.raises(NotImplementedError):
        pathlib.WindowsPath("c:/a")
    assert len(load_weights(tmp_path / "w.pt")[0]) == 4


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_the_model_is_wrapped_and_the_file_is_plain(wrap, state):
    fitted = fit_weights(wrap(net()), state)
    assert torch.equal(fitted["module.2.bias"], state["2.bias"])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_model_is_compiled_and_the_file_is_plain(state):
    fitted = fit_weights(torch.compile(net()), state)
    assert torch.equal(fitted["_orig_mod.2.bias"], state["2.bias"])


def test_the_model_holds_the_one_that_was_saved(state):
    holder = nn.ModuleDict({"net": net()})
    assert torch.equal(fit_weights(holder, state)["net.2.bias"], state["2.bias"])
    nested = {"state_dict": under("model.", state)}
    assert torch.equal(fit_weights(holder, nested)["net.2.bias"], state["2.bias"])
    problem = problem_of(nn.Sequential(nn.Sequential(holder["net"])))
    point = open_point(problem, state)
    assert torch.equal(point.state["0.0.2.bias"], state["2.bias"])
    assert "names of the model have '0.0.' before those of the file" in point.notes


def test_a_checkpointed_block_has_its_buffers_from_the_file():
    def blocks():
        return nn.Sequential(
            nn.Linear(5, 4), checkpoint_wrapper(nn.BatchNorm1d(4)), nn.Linear(4, 2)
        )

    torch.manual_seed(1)
    model = blocks()
    model.train()(torch.randn(9, 5))
    point = open_point(problem_of(blocks()), model.state_dict())
    names = [name for name in point.state if name.endswith("running_mean")]
    assert len(names) == 1
    assert torch.equal(point.state[names[0]], model.state_dict()["1.running_mean"])


@pytest.mark.parametrize("kind", ["shards", "index", "hub", "hub of torch", "numpy"])
def test_formats(kind, state, tmp_path):
    path = write(kind, state, tmp_path)
    fitted = fit_weights(net(), load_weights(path)[0])
    assert all(torch.equal(fitted[name], state[name]) for name in state)


def write(kind, state, folder):
    if kind == "numpy":
        np.savez(folder / "w.npz", **{name: t.numpy() for name, t in state.items()})
        return folder / "w.npz"
    if kind.startswith("hub"):
        torch.save(state, folder / "optimizer.bin")
        if kind == "hub":
            save_file({name: t.clone() for name, t in state.items()}, folder / "model.safetensors")
        else:
            torch.save(state, folder / "pytorch_model.bin")
        return folder
    places = {name: f"part-{name[0]}.safetensors" for name in state}
    for file in set(places.values()):
        save_file({n: state[n].clone() for n, f in places.items() if f == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return folder if kind == "shards" else index


def test_shards_must_all_be_there_and_beside_the_index(state, tmp_path):
    index = write("index", state, tmp_path)
    (tmp_path / "part-0.safetensors").unlink()
    with pytest.raises(CheckpointRefused, match=r"2 files, of which 1 are not beside it"):
        load_weights(index)
    index.write_text(json.dumps({"weight_map": {"0.bias": "../w.safetensors"}}))
    save_file({"0.bias": torch.ones(8)}, tmp_path.parent / "w.safetensors")
    with pytest.raises(CheckpointRefused, match="into one folder"):
        load_weights(index)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_gguf_and_torchscript_are_refused_by_name(state, tmp_path):
    (tmp_path / "w.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(CheckpointRefused, match="is a GGUF file"):
        load_weights(tmp_path / "w.gguf")
    torch.jit.save(torch.jit.trace(net(), torch.ones(1, 5)), tmp_path / "s.pt")
    with pytest.raises(CheckpointRefused, match=r"TorchScript archive.*state_dict"):
        load_weights(tmp_path / "s.pt")


FOREIGN = {
    "gzip": ("w.pt.gz", gzip.compress(b"weights", mtime=0), "compressed by gzip"),
    "HDF5": ("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5 file"),
    "ONNX": ("w.onnx", b"\x08\x07\x12\x07pytorch" + bytes(60), "ONNX graph"),
    "Flax": ("w.msgpack", b"\x82\xa6params\x80", "file of Flax"),
    "Git LFS": ("w.pt", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "page": ("w.pt", b"<!DOCTYPE html><html>404</html>", "web page"),
    "array": ("w.npy", b"\x93NUMPY\x01\x00" + bytes(60), r"np\.savez"),
    "tar": ("w.tar", bytes(257) + b"ustar" + bytes(300), "tar archive"),
    "text": ("w.pt", b"just a text", "no archive and no pickle"),
    "nothing": ("w.pt", b"", r"w\.pt is empty"),
}


@pytest.mark.parametrize(("name", "content", "words"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_checkpoint_is_called_by_its_name(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointRefused, match=words):
        load_weights(tmp_path / name)


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_an_exported_program_is_refused_by_name(tmp_path):
    torch.export.save(torch.export.export(net(), (torch.ones(2, 5),)), tmp_path / "w.pt2")
    with pytest.raises(CheckpointRefused, match=r"exported program.*torch\.export\.load"):
        load_weights(tmp_path / "w.pt2")


def test_arrays_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{}], dtype=object))
    with pytest.raises(CheckpointRefused, match="pickles would run code"):
        load_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("allow", [[Config], [f"{Config.__module__}.Config"]])
def test_classes_are_passed_over_where_allowed_and_never_made(allow, state, tmp_path):
    torch.save({"model": state, "config": config()}, tmp_path / "w.pt")
    with pytest.raises(CheckpointRefused, match=r"test_weight_files\.Config.*--allow") as caught:
        load_weights(tmp_path / "w.pt")
    assert "weights_only" not in str(caught.value) and "only if you trust" not in str(caught.value)
    assert len(load_weights(tmp_path / "w.pt", allow=allow)[0]) == 4


def test_a_kind_of_dict_can_be_allowed(state, tmp_path):
    torch.save({"model": state, "config": Settings(width=3)}, tmp_path / "w.pt")
    assert len(load_weights(tmp_path / "w.pt", allow=[Settings])[0]) == 4


def test_functions_are_refused_whatever_stands_beside_them(state, tmp_path):
    torch.save({"model": state, "hook": print}, tmp_path / "w.pt")
    with pytest.raises(CheckpointRefused, match=r"builtins\.print"):
        load_weights(tmp_path / "w.pt")
    with pytest.raises(InvalidArgument, match="expected classes"):
        load_weights(tmp_path / "w.pt", allow=["Config"])


def test_another_protocol_is_named(state, tmp_path):
    torch.save(state, tmp_path / "w.pt", pickle_protocol=4)
    with pytest.raises(CheckpointRefused, match=r"another protocol than torch\.save's own, 2"):
        load_weights(tmp_path / "w.pt")


def test_two_that_fit_are_listed_and_one_can_be_named(state, tmp_path):
    average = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"model": state, "ema": under("module.", average)}, tmp_path / "w.pt")
    problem = problem_of(net())
    with pytest.raises(CheckpointMismatch, match=r"2 entries .*'model', 'ema'.*--entry model"):
        open_point(problem, tmp_path / "w.pt")
    point = open_point(problem, tmp_path / "w.pt", entry="ema")
    assert torch.equal(point.state["0.bias"], average["0.bias"])
    with pytest.raises(CheckpointMismatch, match=r"no entry 'teacher'.*'model', 'ema'"):
        open_point(problem, tmp_path / "w.pt", entry="teacher")


def test_two_that_are_equal_are_one(state):
    point = open_point(problem_of(net()), {"model": state, "compiled": under("_orig_mod.", state)})
    assert torch.equal(point.state["0.bias"], state["0.bias"])


def test_one_entry_may_be_named_by_a_part_of_its_name(state):
    student, teacher = (
        under("student.", state),
        under("teacher.", {n: -t for n, t in state.items()}),
    )
    nested = {"state_dict": student | teacher}
    point = open_point(problem_of(net()), nested, entry="teacher")
    assert torch.equal(point.state["0.bias"], -state["0.bias"])


def test_a_layer_of_another_network_is_not_taken_unasked():
    tensors = {"0.weight": torch.ones(2, 5), "0.bias": torch.ones(2), "2.weight": torch.ones(3, 2)}
    with pytest.raises(CheckpointMismatch, match=r"only as '0', one layer of several"):
        fit_weights(nn.Linear(5, 2), tensors)
    assert fit_weights(nn.Linear(5, 2), tensors, entry="0")["bias"].tolist() == [1.0, 1.0]


def test_weights_of_older_layers_are_renamed_as_torch_does():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 8)), nn.Linear(8, 2))
    with pytest.warns(FutureWarning):
        old = nn.Sequential(nn.utils.weight_norm(nn.Linear(5, 8)), nn.Linear(8, 2))
    fitted = fit_weights(model, old.state_dict())
    model.load_state_dict(fitted)
    x = torch.randn(3, 5)
    torch.testing.assert_close(model(x), old(x))


@pytest.mark.parametrize(
    ("file", "model", "why"),
    [
        (torch.complex64, torch.float32, "imaginary parts would be lost"),
        (torch.float32, torch.complex64, "imaginary parts are missing"),
        (torch.int8, torch.float32, "without their scales"),
    ],
)
def test_numbers_of_another_kind_are_refused(file, model, why):
    layer = nn.Linear(3, 2, bias=False, dtype=model)
    with pytest.raises(CheckpointMismatch, match=why):
        fit_weights(layer, {"weight": torch.ones(2, 3).to(file)})


@pytest.mark.parametrize("pair", [(torch.complex128, torch.complex64), (torch.complex64,) * 2])
def test_complex_weights_keep_their_imaginary_parts(pair):
    weight = torch.randn(2, 3, dtype=pair[0])
    fitted = fit_weights(nn.Linear(3, 2, bias=False, dtype=pair[1]), {"weight": weight})["weight"]
    assert fitted.dtype == pair[1] and torch.equal(fitted, weight.to(pair[1]))


def test_counts_that_were_written_as_floats_are_counts():
    model = nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))
    tensors = model.state_dict() | {"1.num_batches_tracked": torch.tensor(7.0)}
    assert fit_weights(model, tensors)["1.num_batches_tracked"] == 7
    tensors["1.num_batches_tracked"] = torch.tensor(7.5)
    with pytest.raises(CheckpointMismatch, match="another kind"):
        fit_weights(model, tensors)


def test_the_files_precision_is_kept_in_a_point(state):
    point = open_point(problem_of(net()), {name: t.double() / 3 for name, t in state.items()})
    assert point.state["0.bias"].dtype == torch.float64
    half = open_point(problem_of(net()), {name: t.bfloat16() for name, t in state.items()})
    assert half.state["0.bias"].dtype == torch.float32


def test_masks_may_be_infinite_and_weights_not():
    class Masked(nn.Linear):
        def __init__(self):
            super().__init__(5, 2)
            self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    model = Masked()
    assert torch.isinf(fit_weights(model, model.state_dict())["mask"]).any()
    with pytest.raises(InvalidWeights, match="1 of 2 weights"):
        fit_weights(model, model.state_dict() | {"bias": torch.tensor([torch.inf, 0.0])})


def test_what_a_file_holds_besides_is_said_with_names_and_counts(state, caplog):
    content = {"state_dict": under("net.", state) | {"metric.total": torch.ones(3)}}
    with caplog.at_level(logging.INFO, "thalweg"):
        point = open_point(problem_of(net()), content)
    (besides,) = [note for note in point.notes if "besides" in note]
    assert "1 tensor besides" in besides and "metric.total" in besides and besides in caplog.text


def test_an_adapter_takes_the_rest_from_the_problem(state):
    model = net()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    head = {"2.weight": state["2.weight"], "2.bias": state["2.bias"], "lora": torch.ones(1)}
    with pytest.raises(CheckpointMismatch, match=r"2 missing: 0.weight, 0.bias.*--partial"):
        open_point(problem_of(model), head)
    point = open_point(problem_of(model), head, partial=True)
    assert torch.equal(point.state["2.bias"], state["2.bias"])
    assert torch.equal(point.state["0.bias"], own["0.bias"])
    taken = next(note for note in point.notes if "taken from the problem" in note)
    assert "2 tensors of 4" in taken and "0.weight, 0.bias" in taken
    assert any("1 tensor of it" in note and "lora" in note for note in point.notes)


def test_another_head_stays_the_problems(state):
    model = net(out=3)
    point = open_point(problem_of(model), state, partial=True)
    assert torch.equal(point.state["0.bias"], state["0.bias"])
    assert torch.equal(point.state["2.bias"], model.state_dict()["2.bias"])
    assert any("2 tensors of another shape" in note for note in point.notes)
    with pytest.raises(CheckpointMismatch, match="no tensor of the mapping has a name and shape"):
        open_point(problem_of(model), {"x": torch.ones(2)}, partial=True)


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter, named as the library of adapters does."""

    def __init__(self):
        super().__init__()
        self.base_layer = nn.Linear(5, 2)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(5, 1, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(1, 2, bias=False)})


def test_a_file_of_adapters_leaves_out_their_name():
    model = nn.ModuleDict({"base_model": nn.ModuleDict({"q": Adapted()})})
    file = {
        "base_model.q.lora_A.weight": torch.ones(1, 5),
        "base_model.q.lora_B.weight": torch.ones(2, 1),
    }
    problem = Problem(model, nn.CrossEntropyLoss(), (torch.ones(2, 5), torch.tensor([0, 1])))
    point = open_point(problem, file, partial=True)
    assert point.lacking == ("base_model.q.base_layer.weight", "base_model.q.base_layer.bias")
    assert bool((point.state["base_model.q.lora_B.default.weight"] == 1).all())


def _never(*_):
    raise AssertionError("a registered function was called")


def test_what_other_libraries_register_stands_in_for_nothing_of_ours(state, tmp_path):
    """PyTorch Geometric registers the true defaultdict; which of two torch takes is chance."""
    torch.save(LAYOUTS["defaultdict"](state), tmp_path / "w.pt")
    others = [(lambda *_, i=i: _never(i), "collections.defaultdict") for i in range(30)]
    with torch.serialization.safe_globals([collections.defaultdict, *others]):
        before = set(torch.serialization.get_safe_globals())
        assert len(before) >= 31
        for _ in range(3):
            contents = load_weights(tmp_path / "w.pt")[0]
        assert set(torch.serialization.get_safe_globals()) == before
    assert len(contents) == len(state)


def test_files_are_read_by_several_threads_at_once(state, tmp_path):
    torch.save(LAYOUTS["defaultdict"](state), tmp_path / "w.pt")
    before = set(torch.serialization.get_safe_globals())
    with ThreadPoolExecutor(8) as pool:
        read = [*pool.map(lambda _: load_weights(tmp_path / "w.pt")[0], range(200))]
    assert all(len(contents) == len(state) for contents in read)
    assert set(torch.serialization.get_safe_globals()) == before
