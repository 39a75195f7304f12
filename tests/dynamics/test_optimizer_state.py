"""Optimizer states at rest: whatever goes in comes out."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.dynamics.optimizer_state import flatten_state, restore_state
from thalweg.errors import InvalidArgument
from thalweg.run import read_checkpoint, write_checkpoint

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TENSORS = st.lists(st.floats(width=32, allow_nan=False)).map(torch.tensor)
KEYS = st.integers() | st.text()
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


def test_an_object_in_the_state_is_named():
    with pytest.raises(InvalidArgument, match=r"state\.0\.hook = <object"):
        flatten_state({"state": {0: {"hook": object()}}})
