"""Optimizer states at rest: whatever goes in comes out."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from enum import IntEnum

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.dynamics.optimizer_state import flatten_state, restore_state
from thalweg.errors import InvalidArgument
from thalweg.run import read_checkpoint, write_checkpoint

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TENSORS = st.lists(st.floats(width=32, allow_nan=False)).map(torch.tensor)
SCALARS = st.integers() | st.text()
KEYS = SCALARS | st.tuples(SCALARS, SCALARS)
STATES = st.recursive(
    PLAIN | TENSORS,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(map(same, one, other)) and len(one) == len(other)
    return type(one) is type(other) and one == other


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, STATES, max_size=4))
def test_any_state_survives_the_round_trip_through_json(state):
    tensors, structure = flatten_state(state)
    assert same(restore_state(tensors, json.loads(json.dumps(structure))), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_adam_survives_the_round_trip_through_a_file(dtype, tmp_path):
    w = torch.ones(7, dtype=dtype)
    optimizer = torch.optim.AdamW([w], lr=0.1, amsgrad=True)
    for scale in (1.0, 2.0):
        w.grad = scale * torch.arange(7, dtype=dtype)
        optimizer.step()
    tensors, structure = flatten_state(optimizer.state_dict())
    assert "thalweg/optimizer/state.0.max_exp_avg_sq" in tensors
    write_checkpoint(tmp_path / "a.safetensors", tensors, {"optimizer": structure})
    read, about = read_checkpoint(tmp_path / "a.safetensors")
    assert same(restore_state(read, about["optimizer"]), optimizer.state_dict())


RARE = {
    "array": np.arange(6, dtype=np.int16).reshape(2, 3),
    "complex array": np.array([1 + 2j]),
    "number": np.float32(0.1),
    "count": np.int64(7),
    "bytes": b"\x00\xffab",
    "nothing": b"",
    "set": {1, 2, "three"},
    "dtype": torch.bfloat16,
    "complex": 1 - 2j,
    "ordered": OrderedDict(a=1),
    "infinite": float("-inf"),
}


@pytest.mark.parametrize("kind", RARE)
def test_rare_values_survive_the_round_trip_through_a_file(kind, tmp_path):
    tensors, structure = flatten_state({"deep": [RARE[kind]]}, prefix="thalweg/extra/")
    write_checkpoint(tmp_path / "a.safetensors", tensors, {"extra": structure})
    read, about = read_checkpoint(tmp_path / "a.safetensors")
    (again,) = restore_state(read, about["extra"], prefix="thalweg/extra/")["deep"]
    expected = dict(RARE[kind]) if kind == "ordered" else RARE[kind]
    assert same(again, expected)


def test_two_places_of_one_path_keep_their_own_tensors():
    state = {"a.b": torch.tensor(1.0), "a": {"b": torch.tensor(2.0)}, 0: torch.tensor(3.0)}
    state["0"] = torch.tensor(4.0)
    assert same(restore_state(*flatten_state(state)), state)


def test_a_tensor_in_several_places_is_kept_once():
    moment = torch.ones(3)
    tensors, structure = flatten_state({"outer": {0: moment}, "inner": {0: moment}})
    assert len(tensors) == 1
    assert same(restore_state(tensors, structure), {"outer": {0: moment}, "inner": {0: moment}})


class Colour(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [namedtuple("Pair", "a b")(1, 2), Colour.RED, open, {frozenset({1}): 3}, frozenset({1})],
)
def test_what_would_come_back_as_another_thing_is_refused(value):
    with pytest.raises(InvalidArgument, match=type(value).__name__):
        flatten_state({"it": value})


def test_an_object_in_the_state_is_named():
    with pytest.raises(InvalidArgument, match=r"state\.0\.hook = <object"):
        flatten_state({"state": {0: {"hook": object()}}})
