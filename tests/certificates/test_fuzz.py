"""No certificate of a fuzzed network is false; and the judge of certificates can tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import thalweg as tw
from certificates import fuzz
from certificates.fuzz_models import BranchOnValues, Plain

PART = 25


def examined(seeds):
    found = [fuzz.examine(seed) for seed in seeds]
    wrong = {answer["seed"]: answer["false"] for answer in found if answer["false"]}
    crashed = {answer["seed"]: answer["error"] for answer in found if answer["error"]}
    assert not wrong and not crashed, (wrong, crashed)
    return found


def test_no_certificate_is_false():
    found = examined(range(10))
    assert {answer["zero"] for answer in found} >= {"certified", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(500 // PART))
def test_no_certificate_of_many_is_false(part):
    found = examined(range(10 + part * PART, 10 + (part + 1) * PART))
    assert sum(answer["zero"] == "certified" for answer in found) >= 2
    assert sum(answer["margin"] == "certified" for answer in found) >= 2


def plain_case(seed):
    """A plain network with a certified zero, on data of which two samples are far out."""
    case = fuzz.Case(seed)
    torch.manual_seed(seed)
    case.model = Plain(2, 12, 1, nn.Tanh, deep=False).double()
    case.outputs, case.x = 1, torch.randn(5, 2, dtype=torch.float64)
    case.x[0], case.x[1] = 1.2 * fuzz.FAR, 2 * fuzz.FAR
    case.y = torch.randn(5, 1, dtype=torch.float64)
    case._solve(case.model)
    problem = tw.Problem(case.model, nn.MSELoss(), (case.x, case.y))
    risk = tw.EmpiricalRisk(problem, dtype=torch.float64, check=False)
    w = risk.space.pack(case.model).double()
    return case, list(risk.space.names), w.numpy().copy(), tw.certify_zero(risk, w)


def test_the_judge_knows_what_is_false_of_a_zero():
    case, names, w, found = plain_case(0)
    assert found.verdict == "certified"
    assert fuzz.judge_zero(case, names, w, found) == []
    forgeries = {
        "rank": {"equations": 6, "nullity": len(w) - 6},
        "nullity": {"nullity": found.nullity + 1},
        "singular value": {"singular_value": 1.1 * found.singular_value},
        "in the ball": {"slope": 2 * found.singular_value},
        "W is": {"weights": 1061},
    }
    for words, change in forgeries.items():
        assert words in " ".join(fuzz.judge_zero(case, names, w, replace(found, **change))), words
    away = w + 1e-3
    assert "residual" in " ".join(fuzz.judge_zero(case, names, away, found))


def test_the_judge_knows_another_network():
    """It clips both far samples to one, and their targets differ: it has no zero."""
    case, names, w, found = plain_case(1)
    other = BranchOnValues(2, 12, 1, nn.Tanh, False).double()
    other.load_state_dict(case.model.state_dict())
    case.model = other
    assert "no zero" in " ".join(fuzz.judge_zero(case, names, w, found))


def test_the_judge_knows_a_box_that_is_too_wide():
    case, names, w, _ = plain_case(2)
    labels = case.labels()
    problem = tw.Problem(case.model, nn.BCEWithLogitsLoss(), (case.x, labels))
    found = tw.certify_margin(tw.EmpiricalRisk(problem, dtype=torch.float64), torch.from_numpy(w))
    assert fuzz.judge_box(case, names, w, labels, found) == []
    wide = replace(found, half_width=1.2 * found.attacked)
    assert fuzz.judge_box(case, names, w, labels, wide)
