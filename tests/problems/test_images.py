from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from thalweg.errors import DataUnavailable, InvalidArgument, InvalidProblem, MissingExtra
from thalweg.problems import cache_folder, images, load_problem, load_stored, read_images
from thalweg.run.progress import silent

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 1, 0, 2, 2, 2, 0, 1, 0, 1]
NAMES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def write(path, pixels, labels, *, image="img", label="label", names=NAMES):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": png(p), "path": None} for p in pixels]
    table = pa.table({image: rows, label: pa.array(labels, pa.int64())})
    if names:
        features = {label: {"names": names, "_type": "ClassLabel"}}
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(about)
    pq.write_table(table, path)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "data" / "train-00000-of-00002.parquet", PIXELS[:5], LABELS[:5])
    write(tmp_path / "data" / "train-00001-of-00002.parquet", PIXELS[5:], LABELS[5:])
    write(tmp_path / "data" / "test-00000-of-00001.parquet", PIXELS[:4], LABELS[:4])
    return tmp_path


def test_a_folder_of_several_files(folder):
    train, test = (read_images(str(folder), split) for split in ("train", "test"))
    assert torch.equal(train.pixels, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert train.pixels.is_contiguous(memory_format=torch.channels_last)
    assert train.labels.tolist() == LABELS and train.classes == tuple(NAMES)
    assert len(test.pixels) == 4


def test_images_are_decoded_once(folder, monkeypatch):
    seen = []

    def progress(total, label):
        seen.append((total, label))
        return silent(total, label)

    first = read_images(str(folder), "train", progress=progress)
    again = read_images(str(folder), "train", progress=progress)
    assert seen == [(12, "decoding 12 images")]
    assert torch.equal(first.pixels, again.pixels)
    assert [path.suffix for path in cache_folder().iterdir()] == [".npy"]


def test_other_content_has_another_cache(folder, tmp_path):
    read_images(str(folder), "train")
    write(folder / "data" / "train-00001-of-00002.parquet", PIXELS[5:][::-1], LABELS[5:])
    changed = read_images(str(folder), "train")
    assert torch.equal(changed.pixels[-1], torch.from_numpy(PIXELS[5]).permute(2, 0, 1))


@pytest.mark.parametrize("size", [0, 100, 300])
def test_a_cache_cut_short_is_made_anew(folder, size):
    expected = read_images(str(folder), "train").pixels.clone()
    (path,) = cache_folder().iterdir()
    path.write_bytes(path.read_bytes()[:size])
    assert torch.equal(read_images(str(folder), "train").pixels, expected)


def test_writing_to_the_pixels_leaves_the_cache_alone(folder):
    read_images(str(folder), "train").pixels.zero_()
    assert int(read_images(str(folder), "train").pixels.sum()) == int(PIXELS.sum(dtype=np.int64))


def test_grey_images_other_columns_and_classes_without_names(tmp_path):
    write(tmp_path / "train.parquet", PIXELS[..., 0], LABELS, image="image", names=None)
    train = read_images(str(tmp_path), "train")
    assert train.pixels.shape == (12, 1, 6, 5) and train.classes == ("0", "1", "2")
    assert read_images(str(tmp_path), "test") is None
    problem = load_problem(str(tmp_path), widths=(3,))
    assert problem.test is None and problem.name == tmp_path.name
    batch = problem.samples("train").slice(0, 12)
    assert problem.evaluate(problem.model, batch).outputs.shape == (12, 3)


def test_subsets_are_seeded_and_the_whole_keeps_its_order(folder):
    whole = load_problem(str(folder), widths=(3,))
    assert whole.samples("train").targets.tolist() == LABELS
    some = [load_problem(str(folder), widths=(3,), train_size=5, data_seed=s) for s in (0, 0, 1)]
    prints = [problem.samples("train").fingerprint for problem in some]
    assert prints[0] == prints[1] != prints[2]


def test_the_network_is_placed_on_a_device(folder):
    problem = load_problem("cifar10", data=str(folder), widths=(3,), device="meta")
    assert {weight.device.type for weight in problem.model.parameters()} == {"meta"}
    with pytest.raises(InvalidArgument, match=r"device='gpu': .* Write 'cpu', or a device"):
        load_problem("cifar10", data=str(folder), widths=(3,), device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has such a device")
def test_what_was_made_on_a_device_that_is_not_here_is_evaluated_on_the_cpu(folder, caplog):
    stored = {"entry": "cifar10", "settings": {"data": str(folder), "device": "cuda:0"}}
    problem = load_stored(stored, widths=(3,))
    assert {weight.device.type for weight in problem.model.parameters()} == {"cpu"}
    assert "made with device='cuda:0', which this machine lacks" in caplog.text
    with pytest.raises(InvalidArgument, match="device='cuda:0'"):  # asked for now, it is refused
        load_problem("cifar10", **stored["settings"])


def test_a_name_on_the_hub(folder, monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = {"train": str(folder / "data" / "train-*.parquet")}
    files["validation"] = str(folder / "data" / "test-*.parquet")
    asked = []

    def load_dataset(name):
        asked.append(name)
        return real("parquet", data_files=files, cache_dir=str(tmp_path / "hub"))

    real = datasets.load_dataset
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    problem = load_problem("someone/insects", widths=(3,))
    assert set(asked) == {"someone/insects"} and problem.name == "insects"
    train = read_images("someone/insects", "train")
    assert torch.equal(train.pixels, torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    assert train.labels.tolist() == LABELS
    assert len(problem.samples("test")) == 4  # validation stands in


def test_a_hub_that_cannot_be_reached(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(name):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataUnavailable, match=r"'uoft-cs/cifar10' cannot.*no route.*data='/path"):
        load_problem("cifar10")


def test_a_missing_library_names_the_extra(folder, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(images.importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"needs pyarrow.*pip install 'thalweg\[datasets\]'"):
        read_images(str(folder), "train")


def test_folders_that_hold_something_else(tmp_path):
    with pytest.raises(DataUnavailable, match=r"expected files train\*.parquet, found no parquet"):
        read_images(str(tmp_path), "train")
    with pytest.raises(DataUnavailable, match=r"nowhere is no folder; give one with train\*.parq"):
        read_images(str(tmp_path / "nowhere"), "train")
    write(tmp_path / "train.parquet", PIXELS, LABELS, image="picture")
    with pytest.raises(
        InvalidProblem, match="no image column: expected 'img' or 'image', found pic"
    ):
        read_images(str(tmp_path), "train")


def test_images_of_several_sizes_are_refused_and_leave_no_file(tmp_path):
    write(tmp_path / "train.parquet", [PIXELS[0], PIXELS[1][:4]], [0, 1])
    with pytest.raises(InvalidProblem, match=r"differ in size: 5x6 and 5x4 \(image 1\); resize"):
        read_images(str(tmp_path), "train")
    assert not list(cache_folder().iterdir())


def test_cifar10_is_decoded_as_pillow_does(cifar10_folder):
    test = read_images(str(cifar10_folder), "test")
    assert test.pixels.shape == (10_000, 3, 32, 32) and len(test.classes) == 10
    assert test.classes[0] == "airplane"
    assert test.labels.bincount().tolist() == [1000] * 10  # as published
    (file,) = cifar10_folder.rglob("test-*.parquet")
    for row, encoded in enumerate(pq.read_table(file).slice(0, 3)["img"].to_pylist()):
        expected = np.asarray(Image.open(io.BytesIO(encoded["bytes"])).convert("RGB"))
        assert np.array_equal(test.pixels[row].permute(1, 2, 0).numpy(), expected)
