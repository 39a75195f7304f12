"""Claims: what a rule says of an interval, and what controls do to a verdict."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.errors import InvalidArgument
from thalweg.studies.claim import Claim, Control, Rule, Statistic, Verdict
from thalweg.studies.intervals import exact

AT_LEAST = Rule(low=0.5)


def interval(low: float, high: float) -> Statistic:
    return Statistic("share", (low + high) / 2, low, high, "", "made up", 10)


def claim(statistic: Statistic | None, *controls: Statistic | None, why: str = "") -> Claim:
    return Claim(
        "test/claim",
        "It is so.",
        "nobody",
        "none",
        statistic,
        AT_LEAST,
        tuple(Control("a case", control) for control in controls),
        why=why,
    )


@pytest.mark.parametrize(
    ("rule", "low", "high", "verdict"),
    [
        (AT_LEAST, 0.5, 0.9, "supported"),
        (AT_LEAST, 0.49, 0.9, "undecided"),
        (AT_LEAST, 0.1, 0.5, "undecided"),
        (AT_LEAST, 0.1, 0.49, "refuted"),
        (Rule(high=0.1), 0.0, 0.1, "supported"),
        (Rule(high=0.1), 0.2, 0.3, "refuted"),
        (Rule(-1.0, 1.0), -0.5, 0.5, "supported"),
        (Rule(-1.0, 1.0), -1.5, 0.5, "undecided"),
        (Rule(-1.0, 1.0), 1.5, 2.0, "refuted"),
        (Rule(3, 3), 3, 3, "supported"),
        (Rule(3, 3), 4, 4, "refuted"),
    ],
)
def test_a_verdict_looks_at_the_whole_interval(
    rule: Rule, low: float, high: float, verdict: str
) -> None:
    assert str(rule.verdict(interval(low, high))) == verdict


@given(low=st.floats(-9, 9), width=st.floats(0, 9), threshold=st.floats(-9, 9))
def test_opposite_rules_never_agree_on_a_decision(
    low: float, width: float, threshold: float
) -> None:
    found = interval(low, low + width)
    above, below = Rule(low=threshold).verdict(found), Rule(high=threshold).verdict(found)
    assert not above == below == Verdict.REFUTED
    if above == below == Verdict.SUPPORTED:
        assert found.low == found.high == threshold


@pytest.mark.parametrize(
    ("control", "verdict"),
    [
        (interval(0.0, 0.1), "supported"),
        (None, "undecided"),
        (interval(0.4, 0.6), "undecided"),
        (interval(0.8, 1.0), "undecided"),
    ],
)
def test_only_a_control_that_fails_lets_a_claim_stand(
    control: Statistic | None, verdict: str
) -> None:
    assert str(claim(interval(0.9, 1.0), control).verdict) == verdict


def test_a_control_that_does_not_apply_neither_helps_nor_harms() -> None:
    assert claim(interval(0.9, 1.0), interval(0.0, 0.1), None).verdict is Verdict.SUPPORTED
    assert claim(interval(0.9, 1.0), interval(0.9, 1.0), None).verdict is Verdict.UNDECIDED


def test_a_control_does_not_save_a_refuted_claim() -> None:
    assert claim(interval(0.0, 0.1), interval(0.9, 1.0)).verdict is Verdict.REFUTED


def test_a_claim_without_statistic_is_not_applicable_and_says_why() -> None:
    assert claim(None, why="A regression has no classes.").verdict is Verdict.NOT_APPLICABLE
    with pytest.raises(InvalidArgument, match="why"):
        claim(None)


def test_a_claim_without_control_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="control"):
        claim(interval(0.9, 1.0))


@pytest.mark.parametrize(("low", "high"), [(2.0, 1.0), (float("nan"), 1.0)])
def test_a_rule_with_an_empty_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(InvalidArgument, match="rule"):
        Rule(low, high)
    with pytest.raises(InvalidArgument, match="rule"):
        Rule()


def test_an_estimate_outside_its_interval_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="interval"):
        Statistic("x", 3.0, 0.0, 1.0, "", "made up", 1)
    with pytest.raises(InvalidArgument, match="NaN"):
        exact("x", float("nan"))


def test_a_claim_survives_json_with_its_infinite_ends() -> None:
    told = json.loads(
        json.dumps(claim(interval(0.9, 1.0), interval(0.0, 0.1)).to_dict(), allow_nan=False)
    )
    assert told["threshold"] == [0.5, None]
    assert told["verdict"] == "supported"
    assert [control["verdict"] for control in told["controls"]] == ["refuted"]
