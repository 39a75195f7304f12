from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from thalweg.errors import InvalidArgument
from thalweg.problems import ImageSamples, load_problem, randomize_labels, teacher_network


def everything(problem, split="train"):
    samples = problem.samples(split)
    return samples.slice(0, len(samples))


def weights(problem):
    return sum(parameter.numel() for parameter in problem.model.parameters())


def test_digits_are_scikit_learns_each_once():
    problem = load_problem("digits")
    (x, y), (seen, known) = everything(problem), everything(problem, "test")
    assert x.shape == (1437, 1, 8, 8) and seen.shape == (360, 1, 8, 8)
    pixels, labels = load_digits(return_X_y=True)
    assert torch.equal(torch.cat([y, known]).bincount(), torch.as_tensor(labels).bincount())
    rows = torch.cat([x, seen]).reshape(1797, -1).double()
    scale = (pixels.max() - pixels.min()) / (rows.max() - rows.min())
    back = ((rows - rows.min()) * scale).round().to(torch.int64)
    together = torch.cat([back, torch.cat([y, known])[:, None]], 1).tolist()
    assert sorted(together) == sorted([*p, t] for p, t in zip(pixels.tolist(), labels, strict=True))


def test_digits_are_scaled_over_the_training_images():
    x = everything(load_problem("digits"))[0].double()
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_fewer_training_images_leave_the_test_images():
    few, all_ = load_problem("digits", train_size=100), load_problem("digits")
    assert len(few.samples("train")) == 100
    assert torch.equal(everything(few)[1], everything(all_)[1][:100])
    assert torch.equal(everything(few, "test")[1], everything(all_, "test")[1])
    assert len(load_problem("digits", test_size=50).samples("test")) == 50
    more = everything(load_problem("digits", train_size=100, test_size=1697), "test")[1]
    assert torch.equal(more[-360:], everything(all_, "test")[1])
    assert torch.equal(more[:1337], everything(all_)[1][100:])
    with pytest.raises(InvalidArgument, match="there are 1697"):
        load_problem("digits", train_size=100, test_size=1698)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 56_554),
        ({"width": 64}, 75_338),
        ({"widths": (8,)}, 72 + 16 + (8 * 16 + 1) * 10),
        ({"network": "mlp"}, 64 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10),
        ({"network": "mlp", "target": "scalar", "width": 3}, 64 * 3 + 3 + 3 * 3 + 3 + 3 + 1),
    ],
)
def test_sizes_of_the_networks(settings, expected):
    assert weights(load_problem("digits", **settings)) == expected


def test_seeds_are_apart():
    one, other = load_problem("digits", seed=1), load_problem("digits", seed=2)
    assert one.samples("train").fingerprint == other.samples("train").fingerprint
    assert not torch.equal(one.model[0].weight, other.model[0].weight)
    shuffled = load_problem("digits", seed=1, data_seed=5)
    assert torch.equal(one.model[0].weight, shuffled.model[0].weight)
    assert one.samples("train").fingerprint != shuffled.samples("train").fingerprint


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1.0])
def test_exactly_the_share_of_labels_is_drawn(share):
    labels = torch.arange(1000) % 10
    new, drawn = randomize_labels(labels, share, classes=10, seed=0)
    assert len(drawn) == len(set(drawn.tolist())) == round(share * 1000)
    kept = torch.ones(1000, dtype=torch.bool)
    kept[drawn] = False
    assert torch.equal(new[kept], labels[kept])
    # Of the labels drawn, one in ten is the old one again: within five standard deviations.
    changed = int((new != labels).sum())
    assert abs(changed - 0.9 * len(drawn)) <= 5 * (0.09 * len(drawn)) ** 0.5
    assert torch.equal(new, randomize_labels(labels, share, classes=10, seed=0)[0])


def test_random_labels_are_seeded_and_touch_training_alone():
    clean, noisy = load_problem("digits"), load_problem("digits", random_labels=0.5)
    other = load_problem("digits", random_labels=0.5, data_seed=1)
    assert torch.equal(everything(clean)[0], everything(noisy)[0])
    assert torch.equal(everything(clean, "test")[1], everything(noisy, "test")[1])
    assert int((everything(clean)[1] != everything(noisy)[1]).sum()) in range(600, 690)
    assert not torch.equal(everything(other)[1], everything(noisy)[1])


def test_targets():
    labels = everything(load_problem("digits"))[1]
    onehot = load_problem("digits", target="onehot")
    assert torch.equal(everything(onehot)[1], nn.functional.one_hot(labels, 10).float())
    scalar = load_problem("digits", target="scalar")
    targets = everything(scalar)[1]
    torch.testing.assert_close(targets.flatten(), labels * 2 / 9 - 1)
    assert isinstance(onehot.loss, nn.MSELoss) and isinstance(scalar.loss, nn.MSELoss)
    for problem in (onehot, scalar):
        batch = problem.samples("train").slice(0, 20)
        assert not problem.wrong(batch[1], batch).any()
        assert problem.wrong(-batch[1], batch).any()


@torch.no_grad()
def test_a_teacher_has_zero_risk_at_its_own_weights():
    problem = load_problem("teacher", inputs=3, outputs=2, samples=50, widths=(4, 5), data_seed=7)
    master = teacher_network(3, (4, 5), 2, "tanh", 7)
    problem.model.load_state_dict(master.state_dict())
    losses, _, outputs = problem.evaluate(problem.model, everything(problem))
    assert losses.shape == (50,) and float(losses.max()) < 1e-12
    assert float(everything(problem)[1].var()) > 0.01
    assert float(problem.residuals(outputs, everything(problem)).abs().max()) < 1e-6


@torch.no_grad()
def test_a_student_does_not_start_at_its_teacher():
    problem = load_problem("teacher", width=8)
    assert float(problem.evaluate(problem.model, everything(problem)).mean()) > 0.01


def test_sizes_and_noise_of_a_teacher():
    problem = load_problem("teacher", inputs=4, outputs=3, samples=4000, test_size=9, noise=0.5)
    clean = load_problem("teacher", inputs=4, outputs=3, samples=4000, test_size=9)
    (x, y), (same, pure) = everything(problem), everything(clean)
    assert x.shape == (4000, 4) and y.shape == (4000, 3) and torch.equal(x, same)
    # 12,000 numbers: their standard deviation scatters by 0.65%.
    assert float((y - pure).std()) == pytest.approx(0.5, rel=0.035)
    assert torch.equal(everything(problem, "test")[1], everything(clean, "test")[1])
    assert len(problem.samples("test")) == 9


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"widht": 3}, "no setting 'widht' (did you mean 'width'?); it knows network, width"),
        ({"width": 3, "widths": (3,)}, "width=3 and widths=(3,); write one of them"),
        ({"network": "resnet"}, "network='resnet'; write 'allconv' or 'mlp'"),
        ({"target": "label"}, "target='label'; write 'class', 'onehot' or 'scalar'"),
        ({"train_size": 1797}, "train_size=1797, and there are 1796; write at most 1796"),
        ({"train_size": 0}, "train_size=0; write a positive whole number"),
        ({"random_labels": 10}, "random_labels=10; write a share between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_used(settings, words):
    with pytest.raises(InvalidArgument) as caught:
        load_problem("digits", **settings)
    assert words in str(caught.value)


@pytest.mark.slow  # decodes 60,000 images
def test_cifar10_is_in_the_layout_of_the_hub(cifar10_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    problem = load_problem("cifar10", data=str(cifar10_folder), train_size=5000, test_size=1000)
    train = problem.samples("train")
    assert isinstance(train, ImageSamples) and weights(problem) == 188_570
    assert (len(train), len(problem.samples("test"))) == (5000, 1000)
    x = train.slice(0, 5000)[0].double()
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-6)
    assert x.std((0, 2, 3), correction=0).tolist() == pytest.approx([1] * 3, abs=1e-6)
    assert problem.name == "cifar10"
    whole = load_problem("cifar10", data=str(cifar10_folder))
    assert whole.samples("train").targets.bincount().tolist() == [5000] * 10  # as published
