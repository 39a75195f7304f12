"""Certified paths: joined where they must be, stopped with a reason where they must not."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import thalweg as tw
from certificates.cases import dense, solved
from thalweg.errors import InvalidArgument


def _two(activation, away, seed=5):
    """Give a risk and two zeros of it."""
    risk = dense(activation, 0, samples=4)
    w = solved(risk)
    generator = torch.Generator().manual_seed(seed)
    other = w + away * torch.randn(len(w), dtype=w.dtype, generator=generator)
    return risk, w, tw.train(risk, other, optimizer="gauss-newton", steps=40).w


@pytest.mark.parametrize("activation", ["tanh", "cubic"])
def test_near_zeros_are_connected(activation):
    risk, w0, w1 = _two(activation, 0.003)
    found = tw.certify_path(risk, w0, w1)
    assert found.verdict == "connected", found.reason
    assert found.left == 0 and found.steps == len(found.points) - 1 >= 2
    assert found.direct <= found.length <= 1.01 * found.direct
    # Every ball's centre is a zero to rounding, and the steps are shorter than the radii.
    assert max(float(risk.residuals(w).norm()) for w in found.points) < 1e-13
    pieces = (found.points[1:] - found.points[:-1]).norm(dim=1)
    assert float(pieces.max()) < found.ends[0].radius * 4
    # In the middle of a piece the error stays within what the strays allow.
    middle = (found.points[1:] + found.points[:-1]) / 2
    bound = found.ends[0].lipschitz * 2 * found.strays + 10 * found.strays
    assert max(float(risk.residuals(w).norm()) for w in middle) < bound


def test_takes_points_and_files(tmp_path):
    risk, w0, w1 = _two("tanh", 0.0005)
    model = risk.problem.model.double()
    named = {"w0": w0, "w1": w1}
    for name, w in named.items():
        state = {k: v.clone() for k, v in risk.space.unpack(w).items()}
        save_file(state, tmp_path / f"{name}.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in named]
    points = [tw.open_point(tw.Problem(model, nn.MSELoss(), risk.problem.train), f) for f in files]
    expected = tw.certify_path(risk, w0, w1)
    for ends in (points, [points[0], str(files[1])], [w0, files[1]]):
        found = tw.certify_path(risk, *ends)
        assert found.verdict == "connected"
        assert torch.equal(found.points, expected.points)


def test_ends_with_other_frozen_weights_are_refused(tmp_path):
    risk, w0, _ = _two("tanh", 0.01)
    model = risk.problem.model
    model[0].bias.requires_grad_(False)
    frozen = tw.EmpiricalRisk(tw.Problem(model, nn.MSELoss(), risk.problem.train), dtype=w0.dtype)
    one = tw.open_point(frozen.problem, dict(model.state_dict()))
    other = tw.open_point(frozen.problem, {**model.state_dict(), "0.bias": torch.ones(12)})
    with pytest.raises(InvalidArgument, match=r"differ besides .* 1 frozen weight \(0\.bias\)"):
        tw.certify_path(frozen, one, other)


def test_says_where_it_stops():
    risk, w0, w1 = _two("tanh", 0.01)
    found = tw.certify_path(risk, w0, w1, steps=2)
    assert (found.verdict, found.steps) == ("stopped", 2)
    assert "2 steps are taken" in found.reason and 0 < found.left < found.direct


def test_a_goal_straight_across_is_not_walked_to():
    risk, w0, _ = _two("tanh", 0.01)
    far = _two("tanh", 0.0)[1].clone()
    # A permuted copy of the same network: a zero of its own, with the same function.
    order = torch.arange(12).roll(1)
    parts = {name: t.clone() for name, t in risk.space.unpack(far).items()}
    names = list(parts)
    for name in names[:2]:
        parts[name] = parts[name][order]
    parts[names[2]] = parts[names[2]][:, order]
    found = tw.certify_path(risk, w0, risk.space.pack(parts), steps=3)
    assert found.verdict == "stopped" and found.length < found.direct
    assert found.left < found.direct


def test_an_end_that_is_no_zero_is_refused():
    risk, w0, _ = _two("tanh", 0.01)
    found = tw.certify_path(risk, w0, w0 + 0.1)
    assert found.verdict == "refused" and found.reason.startswith("w1 is no such zero")
    single = tw.EmpiricalRisk(risk.problem)
    with pytest.raises(InvalidArgument, match="float64"):
        tw.certify_path(single, w0, w0)
