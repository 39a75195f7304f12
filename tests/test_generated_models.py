"""
Whatever the model, its data and its modes: the function measured is the user's function.

`make test` tries thirty problems, `make slow` three hundred. A failure names its seed and prints
the model: ``grow_case(seed)`` of `generated` makes it again.
"""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor

from generated import Case, grow_case
from thalweg.errors import NotDefined
from thalweg.landscape.differences import Difference, difference
from thalweg.risk import EmpiricalRisk

EPS = torch.finfo(torch.float64).eps
# Relative: of one sum in two orders, and of differences that may decide.
SUMS, DECISIVE = 1e-9, 1e-5


@pytest.mark.parametrize("seed", range(30))
def test_what_is_measured_is_the_users_function(seed: int) -> None:
    judge(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30, 300))
def test_what_is_measured_is_the_users_function_however_often(seed: int) -> None:
    judge(seed)


# Of the last three, two have zeros that torch does not store, one a weight counted in Python.
@pytest.mark.parametrize("seed", [*range(0, 30, 5), 226, 242, 251])
def test_products_by_a_trace_are_of_the_users_function(seed: int) -> None:
    judge_trace(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(31, 300, 2))
def test_products_by_a_trace_are_of_the_users_function_however_often(seed: int) -> None:
    judge_trace(seed)


def judge_trace(seed: int) -> None:
    case = grow_case(seed)
    try:
        risk = EmpiricalRisk(case.problem, dtype=torch.float64, **case.options)
        w = risk.space.pack(case.model).double()
        generator = torch.Generator().manual_seed(case.seed)
        aside = w + 0.1 * torch.randn(len(w), generator=generator, dtype=torch.float64)
        default = risk.hessian(aside)
        default @ aside
        if default.method != "differences":  # else torch has no second derivative to be traced
            _judge_hessian(case, risk, aside, generator, method="trace")
    except Exception as error:
        error.add_note(str(case))
        raise


def judge(seed: int) -> None:
    case = grow_case(seed)
    try:
        _judge(case)
    except Exception as error:
        error.add_note(str(case))
        raise


def _judge(case: Case) -> None:
    before = _everything(case.model)
    risk = EmpiricalRisk(case.problem, dtype=torch.float64, **case.options)
    w = risk.space.pack(case.model).double()
    generator = torch.Generator().manual_seed(case.seed)
    aside = w + 0.1 * torch.randn(len(w), generator=generator, dtype=torch.float64)
    for point in (w, aside):
        _judge_value(case, risk, point)
        _judge_gradient(case, risk, point, generator)
    _judge_hessian(case, risk, aside, generator)
    _same(before, _everything(case.model))


def _judge_value(case: Case, risk: EmpiricalRisk, w: Tensor) -> None:
    wanted = float(case.reference(w).detach())
    assert risk.value(w) == pytest.approx(wanted, rel=SUMS, abs=1e-12), "value"
    if case.sampled:
        mean = float(risk.sample_losses(w).mean())
    else:
        with pytest.raises(NotDefined, match="depend on all samples"):
            risk.sample_losses(w)
        mean = wanted
    assert mean == pytest.approx(wanted, rel=SUMS, abs=1e-12), "mean of the samples' losses"


def _judge_gradient(case: Case, risk: EmpiricalRisk, w: Tensor, generator: torch.Generator) -> None:
    gradient = risk.gradient(w)
    everything = torch.randperm(risk.samples, generator=generator)
    _close(risk.gradient(w, everything), gradient, "gradient of the batch of all")
    directions = [gradient] if float(gradient.norm()) > 0 else []
    directions.append(torch.randn(len(w), generator=generator, dtype=torch.float64))
    for direction in directions:
        v = direction / direction.norm()
        found = difference(lambda t, v=v: case.reference(w + t * v).detach(), _step(case, w), EPS)
        _agree(found, gradient @ v, float(gradient.norm()), f"gradient, |g| {gradient.norm()}")


def _judge_hessian(
    case: Case,
    risk: EmpiricalRisk,
    w: Tensor,
    generator: torch.Generator,
    method: Literal["trace"] | None = None,
) -> None:
    op = risk.hessian(w, method=method)
    u, v = torch.randn(2, len(w), generator=generator, dtype=torch.float64)
    u, v = u / u.norm(), v / v.norm()
    hu, hv = op @ u, op @ v
    found = difference(lambda t: case.reference_gradient(w + t * v), _step(case, w), EPS)
    scale = float(found.value.norm())
    stated = 3 * op.error * scale
    _agree(found, hv, scale, f"Hessian by {op.method}", stated)
    asymmetry = abs(float(u @ hv) - float(v @ hu))
    largest = max(float(hu.norm()), float(hv.norm()))
    assert asymmetry <= SUMS * largest + stated, f"Hessian by {op.method} is not symmetric"


def _step(case: Case, w: Tensor) -> float:
    """Far from any kink, as far as chance allows, where there are some."""
    return (1e-2 if case.smooth else 1e-4) * max(1.0, float(w.norm()) / len(w) ** 0.5)


def _agree(found: Difference, wanted: Tensor, scale: float, what: str, stated: float = 0.0) -> None:
    if found.error > DECISIVE * scale + 1e-9:
        return  # a kink within reach of every step
    miss = float((found.value - wanted).abs().max())
    limit = 10 * found.error + SUMS * scale + stated
    assert miss <= limit, f"{what}: off by {miss:.3g} where {scale:.3g} is its size"


def _close(one: Tensor, other: Tensor, what: str) -> None:
    assert float((one - other).norm()) <= SUMS * float(other.norm()) + 1e-12, what


def _everything(model: torch.nn.Module) -> dict[str, object]:
    """Copy all of a model that a measurement must leave as it was."""
    state = copy.deepcopy(model.state_dict())
    modes = {name: module.training for name, module in model.named_modules()}
    slopes = {name: p.grad for name, p in model.named_parameters()}
    return {"state": state, "modes": modes, "slopes": slopes}


def _same(before: dict[str, object], after: dict[str, object]) -> None:
    assert before["modes"] == after["modes"] and before["slopes"] == after["slopes"]
    for name, tensor in before["state"].items():
        assert torch.equal(tensor, after["state"][name]), f"{name} of the user's model changed"


def test_most_differences_decide() -> None:
    decided = [_decides(grow_case(seed)) for seed in range(40)]
    assert sum(decided) >= 36


def _decides(case: Case) -> bool:
    """Say whether differences of the reference decide; torch's own gradient of it is right then."""
    named = dict(case.model.named_parameters())
    w = torch.cat([named[name].detach().double().flatten() for name in case.names])
    gradient = case.reference_gradient(w)
    v = torch.randn(len(w), generator=torch.Generator().manual_seed(case.seed)).double()
    v = v / v.norm()
    found = difference(lambda t: case.reference(w + t * v).detach(), _step(case, w), EPS)
    _agree(found, gradient @ v, float(gradient.norm()), str(case))
    return found.error <= DECISIVE * float(gradient.norm()) + 1e-9


def test_cases_are_functions_of_their_seed_and_of_every_sort() -> None:
    cases = [grow_case(seed) for seed in range(120)]
    again = grow_case(7)
    assert str(again) == str(cases[7])
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            again.model.state_dict().values(), cases[7].model.state_dict().values(), strict=True
        )
    )
    kinds = {type(module).__name__ for case in cases for module in case.model.modules()}
    assert kinds >= {
        *("Linear", "Bilinear", "Conv2d", "ConvTranspose2d", "Conv1d", "MultiheadAttention"),
        *("TransformerEncoderLayer", "LSTM", "GRU", "RNN", "Embedding", "EmbeddingBag"),
        *("BatchNorm1d", "BatchNorm2d", "LayerNorm", "GroupNorm", "InstanceNorm2d", "RMSNorm"),
    }
    assert len({case.layout for case in cases}) == 10
    assert {case.options["batchnorm"] for case in cases} == {"frozen", "recalibrate", "batch"}
    frozen = [p for case in cases for p in case.model.parameters() if not p.requires_grad]
    shared = [c for c in cases if len({n for n, _ in c.model.uses}) < len(c.model.uses)]
    assert len(frozen) > 50 and len(shared) > 10
