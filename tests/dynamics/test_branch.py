"""Branches: noise of the stated size, at the stated moments, each copy its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dynamics.cases import Bowl, classification, start_of
from thalweg.dynamics import branch, moments, perturb, train, train_branch
from thalweg.errors import InvalidArgument
from thalweg.landscape import ParameterSpace
from thalweg.run import describe_checkpoint, read_checkpoint, torch_generator


def network():
    model = nn.Sequential(nn.Conv2d(3, 50, 3), nn.BatchNorm2d(50), nn.Flatten(), nn.Linear(50, 200))
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.normal_(0.0, 10.0**-i, generator=torch.Generator().manual_seed(i))
    return model


def test_noise_is_proportional_to_each_layers_weights():
    model = network()
    space = ParameterSpace.of(model)
    w = space.pack(model)
    noisy = [
        perturb(space, w, scale=0.25, generator=torch_generator(0, copy)) - w for copy in range(40)
    ]
    noise = space.unpack(torch.stack(noisy).double().square().mean(0).sqrt().to(w))
    for layer, kernel in [("0", model[0].weight), ("1", model[1].weight), ("3", model[3].weight)]:
        expected = 0.25 * float(kernel.detach().double().square().mean().sqrt())
        for part in ("weight", "bias"):
            measured = noise[f"{layer}.{part}"].double().square().mean().sqrt()
            # 40 copies of at least 50 numbers: a standard error of 1 / sqrt(2 * 2000) = 1.6%.
            assert float(measured) == pytest.approx(expected, rel=0.065)
    differences = torch.stack(noisy)
    assert abs(torch.corrcoef(differences[:2])[0, 1]) < 0.03


def test_noise_is_a_function_of_its_generator_and_scales():
    space, w = ParameterSpace.euclidean(100), torch.linspace(-1, 1, 100)
    once, again = (
        perturb(space, w, scale=s, generator=torch_generator(1, "x")) - w for s in (0.1, 0.2)
    )
    torch.testing.assert_close(2 * once, again, rtol=1e-3, atol=1e-6)
    assert torch.equal(w, torch.linspace(-1, 1, 100))


def test_moments_are_recorded_steps():
    steps = [0, 7, 14, 50, 99, 100]
    assert moments(steps) == {"early": 14, "middle": 50, "final": 100}
    assert moments(steps, [99, "final"]) == {"step99": 99, "final": 100}
    assert moments([0], ["early"]) == {"early": 0}
    with pytest.raises(InvalidArgument, match=r"recorded steps near it: 14, 50, 99, 100"):
        moments(steps, [80])
    with pytest.raises(InvalidArgument, match="'late'; write 'early'"):
        moments(steps, ["late"])
    with pytest.raises(InvalidArgument, match="no recorded steps"):
        moments([], ["final"])


def test_branches_leave_recorded_points_and_are_trained_on(tmp_path):
    risk, model, *_ = classification(dtype=torch.float32)
    options = {"epochs": 4, "batch_size": 20, "every": 5, "run": tmp_path / "run"}
    parent = train(risk, start_of(risk, model), **options)

    tree = branch(risk, parent, at=["middle", "final"], copies=2, scale=0.1, **options)

    names = [b.result.checkpoints[0].parent.name for b in tree]
    assert names == ["main-middle-0", "main-middle-1", "main-final-0", "main-final-1"]
    for b in tree:
        path = next(path for path in parent.checkpoints if int(path.stem) == b.step)
        w = risk.space.pack(read_checkpoint(path)[0])
        distance = (b.start - w).norm() / w.norm()
        assert 0.05 < float(distance) < 0.2 and b.result.status == "finished"
        first, about = read_checkpoint(b.result.checkpoints[0])
        assert torch.equal(risk.space.pack(first), b.start)
        origin = {"parent": "main", "from_step": b.step, "moment": b.moment, "copy": b.copy}
        assert origin.items() <= about.items()
        # The parent's running statistics go on from where they were.
        seen = read_checkpoint(path)[0]["1.num_batches_tracked"]
        assert torch.equal(first["1.num_batches_tracked"], seen)
    ends = torch.stack([b.result.w for b in tree])
    assert float(torch.pdist(ends).min()) > 0.1
    assert len({describe_checkpoint(b.result.checkpoints[0])["seed"] for b in tree}) == 4


def test_branches_of_snapshots_and_of_files_are_the_same(tmp_path):
    bowl, w0 = Bowl([1.0, 2.0]), torch.ones(2).double()
    options = {"optimizer": "gd", "lr": 0.1, "steps": 20, "every": 2}
    kept = train(bowl, w0, **options, run=tmp_path / "run")
    trees = [branch(bowl, t, copies=2, **options) for t in (kept, kept.checkpoints)]
    trees.append(branch(bowl, train(bowl, w0, **options), copies=2, **options))
    for one, two, three in zip(*trees, strict=True):
        assert torch.equal(one.result.w, two.result.w) and torch.equal(two.start, three.start)
    assert [b.step for b in trees[0]] == [2, 2, 10, 10, 20, 20]


def test_one_branch_alone_is_that_of_the_tree():
    bowl, w0 = Bowl([1.0, 2.0]), torch.ones(2).double()
    options = {"optimizer": "gd", "lr": 0.1, "steps": 20, "every": 2}
    parent = train(bowl, w0, **options)
    tree = branch(bowl, parent, copies=2, seed=4, **options)
    middle = dict(parent.snapshots)[10]
    alone = train_branch(bowl, middle, moment="middle", step=10, copy=1, seed=4, **options)
    twin = next(b for b in tree if (b.moment, b.copy) == ("middle", 1))
    assert torch.equal(alone.start, twin.start) and torch.equal(alone.result.w, twin.result.w)


def test_no_copies_are_refused():
    bowl = Bowl([1.0])
    result = train(bowl, torch.ones(1).double(), steps=1)
    with pytest.raises(InvalidArgument, match="copies=0"):
        branch(bowl, result, copies=0, steps=1)
