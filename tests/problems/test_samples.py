from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from thalweg.errors import InvalidProblem, NotDeterministic, OutOfBudget
from thalweg.problems import ImageSamples, as_samples, batch_samples, dataset_samples

X = torch.arange(20.0).reshape(10, 2)
Y = torch.arange(10)


class Rows(Dataset):
    def __init__(self, noise=0.0):
        self.noise = noise

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return {"x": X[i] + self.noise * torch.rand(2), "y": int(Y[i])}


class Uneven(Rows):
    def __getitem__(self, i):
        return torch.zeros(i + 1)


class Pictures(Rows):
    def __getitem__(self, i):
        return Image.new("RGB", (2, 2))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


FORMS = {
    "pair": (X, Y),
    "arrays": (X.numpy(), Y.numpy()),
    "dataset": TensorDataset(X, Y),
    "batches": [(X[:7], Y[:7]), (X[7:], Y[7:])],
    "loader": DataLoader(TensorDataset(X, Y), batch_size=4),
    "stream": DataLoader(Stream(), batch_size=4),
}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20)
@given(data=st.data())
def test_every_form_gives_the_same_samples(form, data):
    held = as_samples(FORMS[form])
    start = data.draw(st.integers(0, 9))
    stop = data.draw(st.integers(start + 1, 10))
    indices = torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=1)))
    assert len(held) == 10
    assert torch.equal(held.targets, Y)
    for batch, where in (
        (held.slice(start, stop), slice(start, stop)),
        (held.take(indices), indices),
    ):
        assert torch.equal(batch[0], X[where]) and torch.equal(batch[1], Y[where])


def test_the_fingerprint_is_that_of_the_content():
    prints = {name: as_samples(data).fingerprint for name, data in FORMS.items()}
    assert len(set(prints.values())) == 1
    assert as_samples((X + 1, Y)).fingerprint != prints["pair"]
    assert as_samples((X.double(), Y)).fingerprint != prints["pair"]
    assert as_samples((X.reshape(10, 2, 1), Y)).fingerprint != prints["pair"]


def test_batches_may_be_dicts():
    held = as_samples(Rows())
    batch = held.take(torch.tensor([3, 1]))
    assert torch.equal(batch["x"], X[[3, 1]]) and batch["y"].tolist() == [3, 1]


def test_a_dict_of_tensors_is_one_batch_of_all_samples():
    held = as_samples({"x": X, "y": Y})
    assert len(held) == 10 and held.targets is None
    assert torch.equal(held.slice(2, 4)["x"], X[2:4])


def test_a_padding_collate_is_used():
    def pad(rows):
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    held = as_samples(DataLoader(Uneven(), batch_size=3, collate_fn=pad))
    assert held.slice(0, 2).shape == (2, 10)


def test_a_large_dataset_is_collated_as_needed(monkeypatch):
    monkeypatch.setattr(dataset_samples, "HELD_BYTES", 0)
    held = as_samples(TensorDataset(X, Y))
    assert held.targets is None
    assert torch.equal(held.slice(2, 5)[0], X[2:5])
    assert torch.equal(held.take(torch.tensor([9, 0]))[1], torch.tensor([9, 0]))
    assert held.fingerprint == as_samples(TensorDataset(X, Y)).fingerprint
    assert held.fingerprint != as_samples(TensorDataset(X, Y + 1)).fingerprint


def test_a_large_loader_names_the_dataset(monkeypatch):
    monkeypatch.setattr(batch_samples, "HELD_BYTES", 0)
    with pytest.raises(OutOfBudget, match="map-style dataset itself"):
        len(as_samples(FORMS["stream"]))


def test_images_are_normalized_a_batch_at_a_time():
    images = torch.randint(0, 256, (6, 3, 5, 4), dtype=torch.uint8)
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 8.0])
    expected = (images.double() - mean[:, None, None]) / std[:, None, None]
    last = images.to(memory_format=torch.channels_last)
    for held in (ImageSamples(i, torch.arange(6), mean, std) for i in (images, last)):
        batch = held.slice(1, 4)
        assert batch[0].dtype == torch.float32 and batch[1].tolist() == [1, 2, 3]
        torch.testing.assert_close(batch[0].double(), expected[1:4], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(held.take(torch.tensor([5, 0]))[0], held.slice(0, 6)[0][[5, 0]])
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert batch[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: iter([(X, Y)]), ["read only once", "list_iterator", "list(...)"]),
        (lambda: (batch for batch in [(X, Y)]), ["read only once", "generator", "DataLoader"]),
        (lambda: (X, Y[:9]), ["differ in length", "10, 9", "the same number"]),
        (lambda: (X[:0], Y[:0]), ["are empty"]),
        (lambda: [], ["are empty"]),
        (lambda: TensorDataset(X[:0], Y[:0]), ["are empty"]),
        (lambda: "train.csv", ["got str", "pair of tensors", "DataLoader"]),
        (lambda: 3, ["got int", "pair of tensors"]),
        (lambda: [(X[:3], ["a"])], ["str where a tensor is expected", "collate_fn"]),
        (lambda: [(X, Y[:9])], ["differ in length", "10, 9"]),
        (lambda: Uneven(), ["do not make a batch", "pad sequences", "collate_fn"]),
        (lambda: Pictures(), ["do not make a batch", "images to tensors in __getitem__"]),
        (lambda: {"x": X, "y": "text"}, ["str where a tensor is expected"]),
    ],
)
def test_data_that_cannot_be_measured_say_what_to_give(data, words):
    with pytest.raises(InvalidProblem) as caught:
        len(as_samples(data(), what="the train data"))
    assert all(word in str(caught.value) for word in ["the train data", *words])


class OnceOnly:
    def __init__(self):
        self.left = [(X, Y)]

    def __iter__(self):
        while self.left:
            yield self.left.pop()


class Reordered:
    def __iter__(self):
        order = torch.randperm(10)
        yield X[order], Y[order]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: DataLoader(TensorDataset(X, Y), shuffle=True), ["shuffles", "shuffle=False"]),
        (lambda: Rows(noise=1.0), ["second time", "augmentation"]),
        (lambda: DataLoader(Rows(noise=1.0), batch_size=4), ["second time", "augmentation"]),
        (Reordered, ["differ from sample 0", "shuffle=False", "augmentation"]),
        (OnceOnly, ["differ from sample 0", "only once"]),
    ],
)
def test_shuffled_and_augmented_data_are_found_out(data, words):
    with pytest.raises(NotDeterministic) as caught:
        len(as_samples(data(), what="the train data"))
    assert all(word in str(caught.value) for word in ["the train data", *words])


def test_reading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    for data in FORMS.values():
        as_samples(data).slice(0, 2)
    assert torch.equal(torch.get_rng_state(), before)
