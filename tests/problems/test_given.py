"""Batches as given, wholes, and the boxes in which they travel."""

from __future__ import annotations

import dataclasses
import logging
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.data import DataLoader, Dataset, TensorDataset

from thalweg.errors import InvalidProblem, NotDeterministic, OutOfBudget
from thalweg.problems import Batches, Whole, as_samples, given
from thalweg.problems.objects import box, unbox

X = torch.arange(20.0).reshape(10, 2)
Y = torch.arange(10)


class Graph:
    def __init__(self, n: int) -> None:
        self.x, self.edges, self.name = torch.ones(n, 2), torch.zeros(2, n, dtype=int), f"of {n}"
        self.store = Store(self)


class Store:
    """Refers back to what holds it, as the storages of graph libraries do."""

    def __init__(self, parent: Graph) -> None:
        self.parent, self.mapping = parent, {"y": torch.zeros(1), "kind": "node"}


@dataclasses.dataclass
class Record:
    image: torch.Tensor
    label: str


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "structure",
    [
        Graph(3),
        Record(torch.ones(2), "cat"),
        {"x": X, "names": ["a", "b"], "inner": Record(Y, "dog")},
        (Point(X, 3), [Y, None]),
        {"graph": Graph(2), "again": X, "same": X},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_box_is_a_tree_of_the_tensors_in_it(structure) -> None:
    boxed = box(structure)
    leaves, form = tree_flatten(boxed)
    assert leaves and all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    opened = unbox(tree_unflatten([leaf + 1 for leaf in leaves], form))
    again = tree_leaves(box(opened))
    assert type(opened) is type(structure)
    assert all(torch.equal(a, b + 1) for a, b in zip(again, leaves, strict=True))
    # What was boxed is as it was, and another box is another form.
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(box(structure)), leaves, strict=True))
    assert tree_flatten(box(structure))[1] != form


def test_an_opened_box_is_a_copy_that_may_be_written_to() -> None:
    graph = Graph(3)
    opened = unbox(tree_map(lambda tensor: tensor, box(graph)))
    assert opened is not graph and opened.name == "of 3"
    opened.x, opened.store.mapping["y"] = None, None
    assert graph.x is not None and graph.store.mapping["y"] is not None


def test_what_is_a_tree_of_tensors_needs_no_box() -> None:
    batch = {"x": X, "pair": (Y, [X])}
    assert box(batch) is batch and unbox(batch) is batch


def test_batches_are_taken_one_by_one() -> None:
    batches = Batches([(X, Y), (X[:3].numpy(), Y[:3].numpy())])
    assert len(batches) == 2 and not batches.joined and batches.targets is None
    assert batches.described == "batches as given (2 batches)"
    (only,) = batches.slice(1, 2).batches
    assert torch.equal(only[0], X[:3]) and torch.equal(only[1], Y[:3])
    first, second = batches.take(torch.tensor([1, 0])).batches
    assert len(first[0]) == 3 and len(second[0]) == 10
    assert batches.fingerprint != Batches([(X, Y), (X[:3] + 1, Y[:3])]).fingerprint


def test_a_whole_is_one_batch() -> None:
    whole = Whole(Graph(4))
    assert len(whole) == 1 and whole.described == "one whole"
    assert unbox(whole.slice(0, 1).batches[0]).name == "of 4"


def ragged(rows):
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


class Sequences(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.ones(i + 1)


@pytest.mark.parametrize(
    ("data", "anything", "described"),
    [
        ((X, Y), False, "samples joined along the first dimension"),
        ((X, X, Y), False, "samples joined along the first dimension"),
        ([(X[:6], Y[:6]), (X[6:], Y[6:])], True, "samples joined along the first dimension"),
        ([(X, Y), (X[:, :1], Y)], False, "batches as given (2 batches)"),
        ([(X, Y[:3]), (X, Y)], True, "batches as given (2 batches)"),
        ([Graph(3), Graph(4)], False, "batches as given (2 batches)"),
        ([(Graph(3), Y[:1])], False, "batches as given (1 batches)"),
        ([{"x": X, "names": ["a"] * 10}], True, "batches as given (1 batches)"),
        (
            DataLoader(Sequences(), batch_size=2, collate_fn=lambda rows: [Graph(len(rows))]),
            True,
            "batches as given (3 batches)",
        ),
        (
            DataLoader(Sequences(), batch_size=2, drop_last=True, collate_fn=ragged),
            True,
            "batches as given (3 batches)",
        ),
        (
            DataLoader(Sequences(), batch_size=2, collate_fn=ragged),
            True,
            "samples joined along the first dimension",
        ),
        ({"x": X, "edges": torch.zeros(2, 7)}, True, "one whole"),
        ({"x": X, "temperature": torch.tensor(0.1)}, True, "one whole"),
        (Graph(3), True, "one whole"),
        (Record(X, "all"), True, "one whole"),
        ({"x": X, "matrix": torch.eye(10).to_sparse()}, True, "one whole"),
        ([((X, torch.zeros(2, 7)), Y)], False, "batches as given (1 batches)"),
        ([pack_sequence([torch.ones(3), torch.ones(2)])], True, "batches as given (1 batches)"),
    ],
)
def test_what_has_one_meaning_is_taken_so(data, anything, described) -> None:
    assert as_samples(data, anything=anything).described == described


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"x": X, "y": Y[:9]}, ["differ in length", "10, 9"]),
        ([(X, ["a"] * 10)], ["str where a tensor is expected"]),
        (Graph(3), ["got Graph", "tw.Whole"]),
    ],
)
def test_a_criterion_of_torchs_takes_nothing_but_tensors_of_one_length(data, words) -> None:
    with pytest.raises(InvalidProblem) as caught:
        len(as_samples(data))
    assert all(word in str(caught.value) for word in words)


def test_what_cannot_be_joined_is_said(caplog) -> None:
    with caplog.at_level(logging.INFO, "thalweg"):
        len(as_samples([(X, Y), (X[:, :1], Y)]))
    assert "taken as they are given" in caplog.text


def test_batches_that_come_shuffled_are_found_out() -> None:
    torch.manual_seed(0)
    shuffled = DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True)
    with pytest.raises(NotDeterministic, match=r"read twice, the batches differ.*list\(loader\)"):
        len(Batches(shuffled))
    assert len(Batches(list(shuffled))) == 4


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], ["are empty"]),
        (iter([X]), ["read only once"]),
        (X, ["got Tensor", "Whole(data)"]),
        (3, ["got int"]),
        (DataLoader(TensorDataset(X[:0])), ["are empty"]),
    ],
)
def test_what_holds_no_batches_is_refused(batches, words) -> None:
    with pytest.raises(InvalidProblem) as caught:
        len(Batches(batches))
    assert all(word in str(caught.value) for word in words)


def test_a_loader_beyond_memory_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(given, "HELD_BYTES", 100)
    with pytest.raises(OutOfBudget, match="held in memory"):
        len(Batches(DataLoader(TensorDataset(X, Y), batch_size=5)))


def test_the_samples_of_a_batch_are_counted_where_it_says_how_many() -> None:
    class Many(Graph):
        def __len__(self) -> int:
            return 7

    labelled = Graph(3)
    labelled.num_graphs = 5
    counted = [(X, Y), {"x": X, "y": Y}, Many(3), labelled, {"x": X, "e": X[:1]}, Graph(3)]
    assert [given.count_samples(batch) for batch in counted] == [10, 10, 7, 5, None, None]
    assert given.count_samples(Record(X, "of ten")) == 10
    assert np.prod([given.count_samples(given.given_batch(Many(2)))]) == 7
    assert isinstance(nn.Linear(1, 1), nn.Module)
