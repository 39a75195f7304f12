from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thalweg.errors import InvalidProblem
from thalweg.problems import Problem, as_loss
from thalweg.problems.forms import check_loss

G = torch.Generator().manual_seed(0)
X = torch.randn(7, 4, generator=G)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])
REAL = torch.randn(7, 3, generator=G)
BITS = (REAL > 0).float()


def model(outputs=3):
    net = nn.Linear(4, outputs)
    with torch.no_grad():
        net.weight.copy_(torch.linspace(-1, 1, net.weight.numel()).reshape_as(net.weight))
        net.bias.zero_()
    return net


@pytest.mark.parametrize(
    ("criterion", "targets"),
    [
        (nn.CrossEntropyLoss(), LABELS),
        (nn.CrossEntropyLoss(label_smoothing=0.1), LABELS),
        (nn.CrossEntropyLoss(), F.softmax(REAL, 1)),
        (nn.MultiMarginLoss(), LABELS),
        (nn.MSELoss(), REAL),
        (nn.L1Loss(), REAL),
        (nn.HuberLoss(delta=0.3), REAL),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0])), BITS),
        (nn.KLDivLoss(reduction="batchmean"), F.softmax(REAL, 1)),
        (F.cross_entropy, LABELS),
        (F.mse_loss, REAL),
        (partial(F.cross_entropy, label_smoothing=0.2), LABELS),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_a_known_criterion_is_evaluated_per_sample_and_its_mean_is_torchs(criterion, targets):
    net = model()
    evaluation = as_loss(criterion)(net, (X, targets))
    assert evaluation.losses.shape == (7,)
    torch.testing.assert_close(evaluation.mean(), criterion(evaluation.outputs, targets))
    single = as_loss(criterion)(net, (X[2:3], targets[2:3])).losses
    torch.testing.assert_close(single, evaluation.losses[2:3])


def test_trailing_dimensions_are_averaged():
    outputs, targets = torch.randn(5, 3, 2, generator=G), torch.ones(5, 2, dtype=torch.long)
    losses = as_loss(nn.CrossEntropyLoss())(nn.Identity(), (outputs, targets)).losses
    torch.testing.assert_close(losses.mean(), F.cross_entropy(outputs, targets))
    assert losses.shape == (5,)


def test_the_users_criterion_is_not_changed():
    criterion = nn.MSELoss()
    as_loss(criterion)
    assert criterion.reduction == "mean"


@pytest.mark.parametrize("targets", [REAL, REAL.sum(1)])
def test_an_opaque_criterion_may_give_one_loss_per_sample_or_a_mean(targets):
    net = model()

    def each(outputs, targets):
        return (outputs.sum(1) - targets.reshape(7, -1).sum(1)) ** 2

    losses, weights, outputs = as_loss(each)(net, (X, targets))
    assert losses.shape == (7,) and weights is None and outputs.shape == (7, 3)
    mean = as_loss(lambda outputs, targets: each(outputs, targets).mean())(net, (X, targets))
    torch.testing.assert_close(mean.losses, losses.mean())
    assert mean.losses.dim() == 0 and float(mean.weights) == 7


def test_a_loss_of_model_and_batch_is_recognised_by_its_first_parameters_name():
    def loss(model, batch):
        return model(batch["x"]).square().mean(1)

    losses, weights, outputs = as_loss(loss)(model(), {"x": X})
    assert losses.shape == (7,) and weights is None and outputs is None


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        (nn.MSELoss(reduction="sum"), ["MSELoss sums over the samples", "reduction='mean'"]),
        (partial(F.mse_loss, reduction="sum"), ["mse_loss sums", "reduction='mean'"]),
        (partial(F.l1_loss, size_average=False), ["l1_loss sums", "reduction='mean'"]),
        ("mse", ["must be a function", "'mse'"]),
    ],
)
def test_a_criterion_that_is_no_mean_over_samples_is_refused(criterion, words):
    with pytest.raises(InvalidProblem) as caught:
        Problem(model(), criterion, (X, LABELS))
    assert all(word in str(caught.value) for word in words)


def test_a_class_is_no_criterion():
    with pytest.raises(InvalidProblem, match=r"must be a function.*nn\.MSELoss\(\)"):
        check_loss(nn.MSELoss)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda o, t: ((o - t) ** 2).sum(), ["sums over the samples", "loss.mean()"]),
        (lambda model, batch: model(batch[0]).square().sum(), ["sums over the samples"]),
        (
            lambda o, t: ((o - t) ** 2).mean() ** 0.5,
            ["depends on how samples are put", "shape (n,"],
        ),
        (lambda o, t: ((o - o.mean(0)) ** 2).mean(1), ["depends on how samples are put"]),
        (lambda o, t: 1.0, ["must return a tensor", "float", "without .item()"]),
    ],
)
def test_the_reduction_of_an_opaque_loss_is_found_out(loss, words):
    problem = Problem(model(), loss, (X, REAL))
    with pytest.raises(InvalidProblem) as caught:
        problem.samples("train")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_mean_passes_the_check_of_its_reduction(size):
    problem = Problem(model(), lambda o, t: ((o - t) ** 2).mean(), (X[:size], REAL[:size]))
    assert len(problem.samples("train")) == size


def test_the_check_leaves_the_model_as_it_was():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout())
    net[2].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    Problem(net, lambda o, t: ((o - t) ** 2).mean(), (X, REAL)).samples("train")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert [module.training for module in net] == [True, True, False]


def test_outputs_and_targets_are_not_broadcast_against_each_other():
    problem = Problem(model(1), nn.MSELoss(), (X, REAL[:, 0]))
    with pytest.raises(InvalidProblem, match=r"\(7, 1\).*\(7,\).*reshape\(N, 1\)"):
        problem.evaluate(problem.model, (X, REAL[:, 0]))


def test_a_criterion_on_batches_that_are_no_pairs_says_what_to_write():
    with pytest.raises(InvalidProblem, match=r"keys \['x', 'y'\].*loss\(model, batch\)"):
        as_loss(nn.MSELoss())(model(), {"x": X, "y": REAL})


def test_a_model_that_returns_no_tensor_says_what_to_write():
    class Wrapped(nn.Module):
        def forward(self, x):
            return {"logits": x}

    with pytest.raises(InvalidProblem, match=r"returns dict.*takes the tensor out"):
        as_loss(nn.MSELoss())(Wrapped(), (X, REAL))
