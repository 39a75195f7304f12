from __future__ import annotations

import pytest
import torch
from torch import nn

from thalweg.errors import InvalidArgument, InvalidProblem, NotDefined
from thalweg.problems import NearestClass, Problem

X = torch.arange(12.0).reshape(4, 3)
Y = torch.tensor([0, 1, 0, 1])
LOGITS = torch.tensor([[2.0, 1.0], [2.0, 1.0], [-1.0, 3.0], [0.0, 1.0]])
EXPECTED = [False, True, True, False]


def problem(loss=None, targets=Y, model=None, **options):
    model = model or nn.Linear(3, 2)
    return Problem(model, loss or nn.CrossEntropyLoss(), (X, targets), **options)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (nn.CrossEntropyLoss(), LOGITS, Y),
        (nn.MSELoss(), LOGITS, nn.functional.one_hot(Y).float()),
        (nn.CrossEntropyLoss(), LOGITS, nn.functional.one_hot(Y).float()),
        (nn.BCEWithLogitsLoss(), LOGITS[:, 1] - LOGITS[:, 0], Y.float()),
        (nn.BCEWithLogitsLoss(), (LOGITS[:, 1] - LOGITS[:, 0])[:, None], Y.float()[:, None]),
        (nn.BCELoss(), torch.softmax(LOGITS, 1)[:, 1], Y.float()),
        (nn.SoftMarginLoss(), LOGITS[:, 1] - LOGITS[:, 0], 2 * Y.float() - 1),
    ],
)
def test_misclassified_samples_by_the_form_of_the_targets(loss, outputs, targets):
    assert problem(loss).wrong(outputs, (X, targets)).tolist() == EXPECTED


def test_an_error_given_by_the_user_goes_first():
    own = problem(error=lambda outputs, targets: outputs[:, 0] > 1)
    assert own.wrong(LOGITS, (X, Y)).tolist() == [True, True, False, False]


def test_an_error_of_the_wrong_shape_is_refused():
    own = problem(error=lambda outputs, targets: (outputs.argmax(1) != targets).sum())
    with pytest.raises(InvalidProblem, match=r"bool tensor of shape \(4,\).*got \(\)"):
        own.wrong(LOGITS, (X, Y))


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (nn.MSELoss(), torch.randn(4, 2)),  # a regression
        (nn.BCEWithLogitsLoss(), torch.ones(4, 2)),  # several labels
        (nn.CrossEntropyLoss(), torch.full((4, 2), 0.5)),  # mixed labels
        (nn.CrossEntropyLoss(), torch.zeros(4, 5, dtype=torch.long)),  # tokens
    ],
)
def test_an_error_that_is_not_defined_says_what_to_write(loss, targets):
    with pytest.raises(NotDefined, match=r"Write Problem\(\.\.\., error=wrong\)"):
        problem(loss).wrong(LOGITS, (X, targets))


def test_zero_and_one_are_numbers_to_a_regression():
    with pytest.raises(NotDefined):
        problem(nn.MSELoss()).wrong(LOGITS[:, :1], (X, Y.float()[:, None]))


def test_residuals_are_outputs_minus_targets():
    targets = torch.ones(4, 2)
    residuals = problem(nn.MSELoss()).residuals(LOGITS, (X, targets))
    assert torch.equal(residuals, LOGITS - 1)
    with pytest.raises(NotDefined, match=r"squared loss.*CrossEntropyLoss.*nn.MSELoss\(\)"):
        problem().residuals(LOGITS, (X, Y))


def test_a_class_as_one_number_and_back():
    coder = NearestClass(5)
    targets = coder.encode(torch.arange(5))
    assert targets.flatten().tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    outputs = targets + torch.tensor([[0.2], [0.2], [0.3], [-0.2], [9.0]])
    assert coder(outputs, targets).tolist() == [False, False, True, False, False]


def test_the_size_of_a_batch():
    assert problem().batch_size_of((X, Y)) == 4
    assert problem().batch_size_of({"a": X[:2], "b": [Y[:2]]}) == 2


def test_splits():
    both = problem(test=(X[:2], Y[:2]))
    assert [len(both.samples(split)) for split in ("train", "test")] == [4, 2]
    with pytest.raises(InvalidProblem, match=r"no test data; give Problem\(model, loss, train, te"):
        problem().samples("test")
    with pytest.raises(InvalidArgument, match="'valid'; write 'train' or 'test'"):
        problem().samples("valid")


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(InvalidProblem, match=r"Linear has no trainable param.*requires_grad=True"):
        problem(model=nn.Linear(3, 2).requires_grad_(False))


def test_a_model_that_is_no_module_is_refused():
    with pytest.raises(InvalidProblem, match=r"must be a torch.nn.Module, got dict"):
        Problem({"weight": X}, nn.MSELoss(), (X, X))


def test_weights_and_batch_on_different_devices_are_named():
    there = problem(model=nn.Linear(3, 2, device="meta"))
    with pytest.raises(
        InvalidProblem, match=r"weights lie on meta, the batch on cpu.*\.to\(device"
    ):
        there.evaluate(there.model, (X, Y))


def test_an_error_of_the_model_itself_comes_through():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        problem().evaluate(nn.Linear(5, 2), (X, Y))
