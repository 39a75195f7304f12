"""Recordings whose set of trained weights changes: points in the union, the rest standing still."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from thalweg.dynamics import record
from thalweg.embedding import CheckpointSource, embed
from thalweg.errors import CheckpointMismatch, CheckpointRefused
from thalweg.run import open_run, read_checkpoint, write_checkpoint

X = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


def train(model, run, before_step, trajectory="main", steps=6):
    """Record a training of whatever is trained at each step; return all weights on the way."""
    before_step(-1)
    on_the_way = [weights(model)]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    known = {p for group in optimizer.param_groups for p in group["params"]}
    with record(model, optimizer, run=run, every=1, trajectory=trajectory):
        for number in range(steps):
            before_step(number)
            new = [p for p in model.parameters() if p.requires_grad and p not in known]
            if new:
                optimizer.add_param_group({"params": new})
                known.update(new)
            model.zero_grad()
            nn.functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
            on_the_way.append(weights(model))
    return on_the_way


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def distances(points, names):
    rows = torch.stack(
        [torch.cat([point[name].flatten() for name in names]).double() for point in points]
    )
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def check(embedding, points, names):
    np.testing.assert_allclose(
        embedding["distance"].sel(layer="network").values, distances(points, names), rtol=1e-9
    )


def unfreeze(model):
    def before_step(number):
        if number == -1:
            model[0].requires_grad_(False)
        if number == 3:
            model[0].requires_grad_(True)

    return before_step


def freeze(model):
    def before_step(number):
        if number == 3:
            model[3].requires_grad_(False)

    return before_step


def one_layer_at_a_time(model):
    def before_step(number):
        for i, layer in enumerate((model[3], model[1], model[0])):
            layer.requires_grad_(i == max(number, 0) // 2)

    return before_step


@pytest.mark.parametrize("changes", [unfreeze, freeze, one_layer_at_a_time])
def test_points_lie_in_the_union_of_what_was_trained(changes, tmp_path, caplog):
    model = network()
    points = train(model, tmp_path / "run", changes(model))
    embedding = embed(tmp_path / "run", dims=2)
    check(embedding, points, [name for name, _ in model.named_parameters()])
    assert list(embedding["layer"].values) == ["network", "0", "1", "3"]
    still = {
        unfreeze: {"0.weight", "0.bias"},
        freeze: {"3.weight", "3.bias"},
        one_layer_at_a_time: {name for name, _ in model.named_parameters()},
    }
    assert set(embedding.attrs["frozen"]) == still[changes]
    assert "absent" not in embedding.attrs and not caplog.messages


def test_while_a_layer_is_frozen_its_distances_are_zero(tmp_path):
    model = network()
    train(model, tmp_path / "run", unfreeze(model))
    first = embed(tmp_path / "run", dims=2)["distance"].sel(layer="0").values
    assert (first[:4, :4] == 0).all() and (first[3:, 3:] + np.eye(4) > 0).all()


def test_weights_never_trained_are_no_part_of_the_points(tmp_path):
    model = network()
    model[1].requires_grad_(False)
    points = train(model, tmp_path / "run", unfreeze(model))
    embedding = embed(tmp_path / "run", dims=2)
    check(embedding, points, ["0.weight", "0.bias", "3.weight", "3.bias"])


def test_two_trajectories_that_train_other_layers(tmp_path):
    one, other = network(), network()
    one[0].requires_grad_(False)
    points = train(one, tmp_path / "run", lambda number: None, "head")
    points += train(other, tmp_path / "run", lambda number: None, "whole")
    check(embed(tmp_path / "run", dims=2), points, [name for name, _ in one.named_parameters()])


class Adapted(nn.Module):
    """A frozen layer, to which a correction of low rank is added and from which it is taken."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(5, 2)

    def forward(self, inputs):
        outputs = self.base(inputs)
        return self.up(self.down(inputs)) + outputs if hasattr(self, "up") else outputs


def test_weights_that_were_added_stand_at_their_first_recorded_value_before(tmp_path, caplog):
    torch.manual_seed(0)
    model = Adapted()

    def before_step(number):
        if number == 3:
            model.base.requires_grad_(False)
            model.down, model.up = nn.Linear(5, 1, bias=False), nn.Linear(1, 2, bias=False)

    points = train(model, tmp_path / "run", before_step)
    names = ["base.weight", "base.bias", "down.weight", "up.weight"]
    first = points[4]
    points = [{**{name: first[name] for name in names}, **point} for point in points]
    embedding = embed(tmp_path / "run", dims=2)
    check(embedding, points, names)
    assert set(embedding.attrs["absent"]) == {"down.weight", "up.weight"}
    assert "2 tensors (down.weight, up.weight) are not in every checkpoint" in caplog.text


def test_weights_that_were_taken_away_stand_at_their_last_value_after(tmp_path):
    torch.manual_seed(0)
    model = Adapted()
    model.down, model.up = nn.Linear(5, 1, bias=False), nn.Linear(1, 2, bias=False)

    def before_step(number):
        if number == 4:
            del model.down, model.up

    points = train(model, tmp_path / "run", before_step)
    last = points[4]
    embedding = embed(tmp_path / "run", dims=2)
    check(embedding, [{**last, **point} for point in points], list(last))
    assert set(embedding.attrs["absent"]) == {"down.weight", "up.weight"}


def test_another_network_s_trajectory_fills_nothing(tmp_path):
    train(network(), tmp_path / "run", lambda number: None)
    torch.manual_seed(0)
    deeper = nn.Sequential(*network(), nn.Tanh(), nn.Linear(2, 2))
    train(deeper, tmp_path / "run", lambda number: None, "deeper")
    with pytest.raises(CheckpointMismatch, match=r"no '5\.|'5\.weight'"):
        embed(tmp_path / "run", dims=2)


def test_a_layer_of_another_shape_is_another_network(tmp_path):
    model = network()

    def before_step(number):
        if number == 3:
            model[3] = nn.Linear(4, 3)

    train(model, tmp_path / "run", before_step)
    with pytest.raises(CheckpointMismatch, match=r"'3\.weight' of shape \(3, 4\) instead of"):
        embed(tmp_path / "run", dims=2)


def test_plain_files_beside_a_recording_are_points_too(tmp_path):
    model = network()
    model[0].requires_grad_(False)
    points = train(model, tmp_path / "run", lambda number: None)
    last = open_run(tmp_path / "run").checkpoints()[-1]
    state = {n: t for n, t in read_checkpoint(last)[0].items() if not n.startswith("thalweg/")}
    state["0.weight"] = state["0.weight"] + 1
    save_file(state, tmp_path / "moved.safetensors")
    names = [name for name, _ in model.named_parameters()]
    points.append({name: state[name] for name in names})
    paths = [*open_run(tmp_path / "run").checkpoints(), tmp_path / "moved.safetensors"]
    check(embed(paths, dims=2), points, names)


class Fourier(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(5, 2, dtype=dtype))
        self.shift = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))

    def forward(self, inputs):
        return (inputs.to(self.kernel.dtype) @ self.kernel).abs().float() + self.shift.float()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_weights_are_pairs_of_reals(dtype, tmp_path):
    torch.manual_seed(0)
    model = Fourier(dtype)
    points = train(model, tmp_path / "run", lambda number: None)
    real = [
        {name: torch.view_as_real(t) if t.is_complex() else t for name, t in point.items()}
        for point in points
    ]
    check(embed(tmp_path / "run", dims=2), real, ["kernel", "shift"])
    sizes = {block.name: block.size for block in CheckpointSource(files(tmp_path)).blocks}
    assert sizes == {"kernel": 20, "shift": 2}


def files(path):
    return open_run(path / "run").checkpoints()


@pytest.mark.parametrize(
    ("weights", "about", "reason"),
    [
        ({"w": torch.eye(3).to_sparse()}, {}, "it is sparse"),
        ({"v": torch.ones(2)}, {"left_out": {"w": "its dtype is odd"}}, "its dtype is odd"),
        ({"w": torch.ones(2, dtype=torch.float8_e5m2)}, {}, "has type F8_E5M2"),
    ],
)
def test_weights_that_cannot_be_read_are_named_with_the_reason(weights, about, reason, tmp_path):
    path = tmp_path / "0.safetensors"
    write_checkpoint(path, weights, {"parameters": ["w"], "trajectory": "a", "step": 0, **about})
    with pytest.raises(CheckpointRefused, match=f"'w'.*{reason}"):
        CheckpointSource([path])
