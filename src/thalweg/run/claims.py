"""The claims of a run as a list that becomes a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_OF_CLAIM = ("name", "study", "verdict", "statement", "source", "rule", "section", "why")
_OF_STATISTIC = ("value", "low", "high", "units", "n", "level", "method")


class Claims(list[dict[str, Any]]):
    """
    Claims as `Run.claims` gives them, in their order.

    Examples
    --------
    >>> claims = Claims([{"name": "flat", "verdict": "supported", "controls": []}])
    >>> claims.to_dataframe().loc["flat", "verdict"]
    'supported'
    """

    def rows(self) -> list[dict[str, Any]]:
        """
        Give a row a claim, and one a control below it.

        Returns
        -------
        list of dict
            What a claim says of itself; ``statistic``, its name, with ``value``, ``low``, ``high``,
            ``units``, ``n``, ``level`` and ``method``; and ``control``: empty, or what the control
            is. None where there is nothing.
        """
        rows = []
        for claim in self:
            about = {name: claim.get(name) for name in _OF_CLAIM}
            rows.append({**about, "control": "", **_numbers(claim.get("statistic"))})
            for control in claim.get("controls") or []:
                judgement = {
                    "verdict": control.get("verdict"),
                    "control": control.get("description"),
                }
                rows.append({**about, **judgement, **_numbers(control.get("statistic"))})
        return rows

    def to_dataframe(self) -> pd.DataFrame:
        """Give the rows as a table of pandas, by the names of the claims."""
        import pandas as pd

        return pd.DataFrame(self.rows()).set_index("name") if self else pd.DataFrame()


def _numbers(statistic: dict[str, Any] | None) -> dict[str, Any]:
    numbers = statistic or {}
    return {"statistic": numbers.get("name"), **{name: numbers.get(name) for name in _OF_STATISTIC}}
