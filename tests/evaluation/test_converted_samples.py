"""Samples are brought into the form that the model takes once, and stay what they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from thalweg.problems import Problem
from thalweg.risk import EmpiricalRisk


def images(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, 8, 8, generator=generator, dtype=dtype)
    return x, torch.randint(3, (40,), generator=generator)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    )


def risk_of(problem: Problem, **options: object) -> EmpiricalRisk:
    return EmpiricalRisk(problem, batch_size=16, check=False, **options)


@pytest.mark.parametrize(
    "form",
    [tuple, lambda pair: TensorDataset(*pair), lambda pair: DataLoader(TensorDataset(*pair))],
)
def test_images_are_laid_out_once_and_no_number_moves(form):
    x, y = images()
    problem = Problem(network(), nn.CrossEntropyLoss(), form((x, y)), (x[:10], y[:10]))
    risk, tight = risk_of(problem), risk_of(problem, memory=8 * (x.nbytes + y.nbytes) - 8)
    assert tight.data is problem.samples("train"), "there is no room for another form"
    batch, again = risk.data.slice(8, 20)[0], risk.data.slice(8, 20)[0]
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch.data_ptr() == again.data_ptr() and torch.equal(batch, x[8:20])
    assert risk._measured.moved(batch) is batch
    chosen = torch.tensor([3, 0, 39])
    assert torch.equal(risk.data.take(chosen)[0], x[chosen])
    w = risk.space.pack(problem.model)
    assert risk.evaluate(w) == tight.evaluate(w)
    assert risk.on("test").evaluate(w) == tight.on("test").evaluate(w)
    assert torch.equal(risk.gradient(w), tight.gradient(w))
    assert torch.equal(risk.gradient(w, chosen), tight.gradient(w, chosen))
    # By one method: the one that is fastest at the moment may differ, and rounds otherwise.
    products = [r.hessian(w, method="graph") @ w for r in (risk, tight)]
    assert torch.equal(*products)
    assert risk.on("test").on("train").data is risk.data


def test_converted_samples_are_still_those_given():
    x, y = images(torch.float64)
    problem = Problem(network(), nn.CrossEntropyLoss(), (x, y))
    risk = risk_of(problem, dtype=torch.float32)
    assert risk.data.slice(0, 1)[0].dtype == torch.float32
    given = problem.samples("train")
    assert risk.data.fingerprint == given.fingerprint and risk.data.targets is given.targets
    assert risk.fingerprint() == risk_of(problem, dtype=torch.float32, memory=8).fingerprint()


@pytest.mark.parametrize("data", [images(), {"x": images()[0], "y": images()[1]}])
def test_samples_that_need_no_other_form_are_taken_as_they_are(data):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    if isinstance(data, dict):
        loss = lambda model, batch: nn.functional.cross_entropy(model(batch["x"]), batch["y"])  # noqa: E731
    else:
        loss = nn.CrossEntropyLoss()
    problem = Problem(model, loss, data)
    assert risk_of(problem).data is problem.samples("train")


def test_a_model_that_overwrites_its_inputs_leaves_the_form_that_is_held():
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.sub_(1.0))

    problem = Problem(Centred(), nn.CrossEntropyLoss(), images())
    risk = risk_of(problem)
    w = risk.space.pack(problem.model)
    assert risk.data.slice(0, 40)[0].is_contiguous(memory_format=torch.channels_last)
    assert risk.value(w) == risk.value(w)
    assert torch.equal(risk.data.slice(0, 40)[0], images()[0])
