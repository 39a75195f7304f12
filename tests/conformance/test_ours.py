"""Thalweg passes every check of the suite."""

from __future__ import annotations

import pytest

from conformance.checks import CHECKS, judge
from conformance.ours import Thalweg

CASES = [
    pytest.param(check, id=check.name, marks=[pytest.mark.slow] if check.slow else [])
    for check in CHECKS
]


@pytest.mark.parametrize("check", CASES)
def test_thalweg_passes(check):
    outcome = judge(check, Thalweg())
    assert outcome.status == "passes", outcome.words


def test_cases_are_named_and_defined():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.definition for check in CHECKS)
