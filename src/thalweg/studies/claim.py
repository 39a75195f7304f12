"""A claim: what is said, how it was tested, and the verdict that a rule stated beforehand gives."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from thalweg.errors import InvalidArgument


class Verdict(StrEnum):
    """What a rule says of a statistic."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Statistic:
    """
    A number with its confidence interval; `thalweg.studies.intervals` makes them.

    Parameters
    ----------
    name : str
        What it is.
    value, low, high : float
        Estimate and ends of the interval; all three are equal where a count is exact.
    units : str
        Of all three.
    method : str
        How the interval was made.
    n : int
        Number of observations behind it.
    level : float
        Of confidence; 1 for exact counts.

    Raises
    ------
    InvalidArgument
        If the estimate does not lie in the interval.
    """

    name: str
    value: float
    low: float
    high: float
    units: str
    method: str
    n: int
    level: float = 0.95

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise InvalidArgument(
                f"{self.name}: an estimate of {self.value} with an interval from {self.low} to"
                f" {self.high}; expected low <= value <= high, none of them NaN."
            )

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values; an end that is infinite becomes None."""
        return {key: _plain(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Rule:
    """
    Supported where the whole interval lies from ``low`` to ``high``, refuted where none of it does.

    Parameters
    ----------
    low, high : float
        Both belong to the range.

    Raises
    ------
    InvalidArgument
        If the range is empty, or everything.

    Examples
    --------
    >>> from thalweg.studies.intervals import share
    >>> rule = Rule(low=0.5)
    >>> [str(rule.verdict(share("returned", hits, 10))) for hits in (10, 6, 0)]
    ['supported', 'undecided', 'refuted']
    """

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high or (math.isinf(self.low) and math.isinf(self.high)):
            raise InvalidArgument(
                f"a rule from {self.low} to {self.high}; write Rule(low=...), Rule(high=...) or"
                " both, low first."
            )

    def verdict(self, statistic: Statistic | None) -> Verdict:
        """Judge a statistic; None, for one that does not exist, is not applicable."""
        if statistic is None:
            return Verdict.NOT_APPLICABLE
        if self.low <= statistic.low and statistic.high <= self.high:
            return Verdict.SUPPORTED
        if statistic.high < self.low or self.high < statistic.low:
            return Verdict.REFUTED
        return Verdict.UNDECIDED

    def __str__(self) -> str:
        if self.low == self.high:
            return f"exactly {self.low:g}"
        if math.isinf(self.low):
            return f"at most {self.high:g}"
        if math.isinf(self.high):
            return f"at least {self.low:g}"
        return f"from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Control:
    """
    A case for which the claim is known to be wrong, put through the same protocol.

    Parameters
    ----------
    description : str
        The case, and why the claim does not hold in it.
    statistic : Statistic or None
        The claim's own statistic, measured on the case; None where it cannot be.
    rule : Rule, optional
        By default the claim's own.
    near : bool
        Whether the case nearly passes. It may then be undecided: what the claim rests on is that
        a case that is far off is refuted, and none is supported.
    """

    description: str
    statistic: Statistic | None
    rule: Rule | None = None
    near: bool = False


@dataclass(frozen=True)
class Claim:
    """
    A statement with its test.

    Parameters
    ----------
    name : str
        ``"<study>/<claim>"``.
    statement : str
        What is claimed, of which networks and data.
    source : str
        Where it is claimed.
    protocol : str
        What was done to test it.
    statistic : Statistic or None
        What was measured; None if the claim does not apply to the run, which ``why`` explains.
    rule : Rule
        Stated before anything is measured.
    controls : tuple of Control
        At least one, where there is a statistic.
    section : str
        Anchor of the evidence in the report.
    why : str
        A remark on the verdict.

    Raises
    ------
    InvalidArgument
        If there is neither statistic nor ``why``, or no control.
    """

    name: str
    statement: str
    source: str
    protocol: str
    statistic: Statistic | None
    rule: Rule
    controls: tuple[Control, ...] = ()
    section: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        if self.statistic is None and not self.why:
            raise InvalidArgument(f"{self.name}: no statistic; say in `why` what is missing.")
        if self.statistic is not None and all(control.near for control in self.controls):
            raise InvalidArgument(
                f"{self.name}: no control that is far off; give a case in which it is wrong."
            )

    @property
    def verdict(self) -> Verdict:
        """What the rule says; a test that does not tell its controls apart supports nothing."""
        own = self.rule.verdict(self.statistic)
        if own is Verdict.SUPPORTED and not self._told_apart:
            return Verdict.UNDECIDED
        return own

    @property
    def _told_apart(self) -> bool:
        """Whether all controls came out as they must, and one that is far off was refuted."""
        far = (self.control_verdict(control) for control in self.controls if not control.near)
        return all(map(self.holds, self.controls)) and Verdict.REFUTED in far

    def control_verdict(self, control: Control) -> Verdict:
        """What the rule says of a control."""
        return (control.rule or self.rule).verdict(control.statistic)

    def holds(self, control: Control) -> bool:
        """Say whether a control came out as it must: refuted, or not applicable; see ``near``."""
        fitting = {Verdict.REFUTED, Verdict.NOT_APPLICABLE}
        return self.control_verdict(control) in fitting | (
            {Verdict.UNDECIDED} if control.near else set()
        )

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {
            "name": self.name,
            "statement": self.statement,
            "source": self.source,
            "protocol": self.protocol,
            "statistic": self.statistic and self.statistic.to_dict(),
            "rule": str(self.rule),
            "threshold": [_plain(self.rule.low), _plain(self.rule.high)],
            "verdict": str(self.verdict),
            "controls": [
                {
                    "description": control.description,
                    "statistic": control.statistic and control.statistic.to_dict(),
                    "rule": str(control.rule or self.rule),
                    "verdict": str(self.control_verdict(control)),
                    "near": control.near,
                }
                for control in self.controls
            ],
            "section": self.section,
            "why": self.why,
        }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value
