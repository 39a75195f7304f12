"""Torch's criteria taken apart: weights and losses of samples against torch's mean over all."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from thalweg.errors import DependsOnBatches, InvalidProblem
from thalweg.problems import as_loss
from thalweg.problems.criteria import is_torchs

WEIGHTS = torch.tensor([1.0, 5.0, 0.25])  # float32, as users write them beside float64 data
CLASSES = st.sampled_from([-100, 0, 1, 2])


def mean_by_parts(criterion, outputs, targets, cuts):
    """Sum weights times losses of the parts, and divide by all weights."""
    loss = as_loss(criterion)
    bounds = [0, *cuts, len(outputs)]
    parts = [
        loss(nn.Identity(), (outputs[a:b], targets[a:b])) for a, b in itertools.pairwise(bounds)
    ]
    weight = sum(
        len(part.losses) if part.weights is None else float(part.weights.double().sum())
        for part in parts
    )
    return sum(float(part.total(torch.float64)) for part in parts) / weight


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(CLASSES, min_size=2, max_size=24),
    weighted=st.booleans(),
    ignored=st.sampled_from([-100, 2]),
    smoothing=st.sampled_from([0.0, 0.3]),
    places=st.sampled_from([(), (2,), (2, 3)]),
    width=st.sampled_from([torch.int64, torch.int32, torch.int16, torch.int8]),
    data=st.data(),
)
def test_cross_entropy_in_parts_is_torchs_mean_over_all(
    labels, weighted, ignored, smoothing, places, width, data
):
    samples = len(labels)
    generator = torch.Generator().manual_seed(samples)
    count = torch.Size(places).numel()
    order = torch.randint(samples, (samples * count,), generator=generator)
    targets = torch.tensor(labels)[order].reshape(samples, *places)
    targets[targets == -100] = ignored
    if bool((targets == ignored).all()):
        targets.view(-1)[0] = 1  # torch's own mean of nothing is no number
    outputs = torch.randn(samples, 3, *places, generator=generator, dtype=torch.float64)
    options = {
        "weight": WEIGHTS if weighted else None,
        "ignore_index": ignored,
        "label_smoothing": smoothing,
    }
    criterion = data.draw(
        st.sampled_from([nn.CrossEntropyLoss(**options), partial(F.cross_entropy, **options)])
    )
    options["weight"] = WEIGHTS.double() if weighted else None
    expected = float(F.cross_entropy(outputs, targets, **options))
    cuts = sorted(data.draw(st.sets(st.integers(1, samples - 1), max_size=3)))
    found = mean_by_parts(criterion, outputs, targets.to(width), cuts)
    assert found == pytest.approx(expected, rel=1e-12)


G = torch.Generator().manual_seed(0)
OUTPUTS = torch.randn(7, 3, generator=G, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])
BITS = (torch.randn(7, 3, generator=G) > 0).double()
W64 = WEIGHTS.double()


@pytest.mark.parametrize(
    ("criterion", "targets"),
    [
        (nn.NLLLoss(weight=W64, ignore_index=0), LABELS),
        (nn.CrossEntropyLoss(weight=W64), F.softmax(BITS, 1)),  # class probabilities: by samples
        (nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1, 2]).double()), LABELS),
        (
            nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1, 2]).double(), label_smoothing=0.2),
            LABELS,
        ),
        (nn.MultiMarginLoss(weight=W64), LABELS),
        (nn.BCEWithLogitsLoss(weight=W64, pos_weight=W64), BITS),
        (partial(F.binary_cross_entropy_with_logits, weight=W64), BITS),
        (nn.BCELoss(weight=W64), BITS),
        (nn.KLDivLoss(reduction="batchmean"), F.softmax(BITS, 1)),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_weights_are_divided_by_where_torch_does(criterion, targets):
    outputs = OUTPUTS.sigmoid() if isinstance(criterion, nn.BCELoss) else OUTPUTS
    expected = float(criterion(outputs, targets))
    for cuts in ([], [3], [1, 2]):
        found = mean_by_parts(criterion, outputs, targets, cuts)
        assert found == pytest.approx(expected, rel=1e-11)


def test_a_sample_without_any_counted_target_weighs_nothing():
    targets = torch.tensor([[0, 1], [-100, -100], [-100, 2]])
    outputs = torch.randn(3, 3, 2, generator=G, requires_grad=True)
    evaluation = as_loss(nn.CrossEntropyLoss())(nn.Identity(), (outputs, targets))
    assert evaluation.weights.tolist() == [1.0, 0.0, 0.5]
    assert evaluation.losses[1] == 0
    evaluation.mean().backward()
    assert bool(outputs.grad.isfinite().all()) and bool((outputs.grad[1] == 0).all())
    alone = as_loss(nn.CrossEntropyLoss())(nn.Identity(), (outputs[1:2], targets[1:2]))
    assert float(alone.mean().detach()) == 0


def test_unreduced_losses_of_the_user_are_averaged_over_samples():
    criterion = nn.CrossEntropyLoss(weight=W64, reduction="none")
    found = as_loss(criterion)(nn.Identity(), (OUTPUTS, LABELS))
    assert found.weights is None
    torch.testing.assert_close(found.losses, criterion(OUTPUTS, LABELS))


@pytest.mark.parametrize(
    "criterion",
    [
        nn.BCEWithLogitsLoss(weight=torch.ones(7, 1)),
        partial(F.mse_loss, weight=torch.ones(7, 3)),
        partial(F.huber_loss, weight=torch.ones(7, 3)),
    ],
)
def test_a_weight_for_each_place_in_a_batch_is_refused(criterion):
    with pytest.raises(DependsOnBatches, match=r"\(7, \d\) for outputs of shape \(7, 3\).*weight="):
        as_loss(criterion)(nn.Identity(), (OUTPUTS, BITS))


class Renamed(nn.CrossEntropyLoss):
    """A class of the user's that adds nothing to the forward."""


class Focal(nn.CrossEntropyLoss):
    def forward(self, outputs, targets):
        return super().forward(outputs, targets) ** 2


def test_subclasses_count_as_torchs_where_they_compute_the_same():
    found = mean_by_parts(Renamed(weight=W64), OUTPUTS, LABELS, [3])
    assert found == pytest.approx(float(Renamed(weight=W64)(OUTPUTS, LABELS)), rel=1e-12)
    assert not is_torchs(Focal()) and is_torchs(Renamed())


def test_labels_as_numbers_of_any_kind_serve_elementwise_criteria():
    for criterion in (nn.BCEWithLogitsLoss(), nn.MSELoss(), nn.L1Loss()):
        expected = float(criterion(OUTPUTS, BITS))
        for width in (torch.uint8, torch.int64, torch.bool):
            found = as_loss(criterion)(nn.Identity(), (OUTPUTS, BITS.to(width))).mean()
            assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("outputs", "targets", "words"),
    [
        (OUTPUTS, LABELS[:, None], [r"shape \(7, 3\), \(7,\), .* \(7, 1\)", "squeeze"]),
        (OUTPUTS, LABELS.double(), ["numbers with a fraction", r"targets\.long\(\)"]),
        (torch.ones(7, 6, 3), LABELS[:, None].expand(7, 6), [r"transpose\(1, 2\)"]),
    ],
)
def test_class_targets_that_do_not_fit_say_what_to_give(outputs, targets, words):
    for word in words:
        with pytest.raises(InvalidProblem, match=word):
            as_loss(nn.CrossEntropyLoss())(nn.Identity(), (outputs, targets))


@pytest.mark.parametrize("width", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_class_numbers_may_have_any_width(width):
    for criterion in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=W64), nn.MultiMarginLoss()):
        found = as_loss(criterion)(nn.Identity(), (OUTPUTS, LABELS.to(width))).mean()
        assert float(found) == pytest.approx(float(criterion(OUTPUTS, LABELS)), rel=1e-12)
