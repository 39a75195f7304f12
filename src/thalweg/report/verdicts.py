"""Verdicts of claims as sentences for captions."""

from __future__ import annotations

from thalweg.measurements.formatting import estimate
from thalweg.run import Run


def verdict(run: Run, name: str) -> str:
    """
    Say what became of a claim, as the end of a caption; nothing if it was not judged.

    Parameters
    ----------
    run : Run
        With its claims.
    name : str
        Of the claim, ``"<study>/<claim>"``.
    """
    for claim in run.claims:
        if claim["name"] == name:
            measured = estimate(claim["statistic"]) if claim["statistic"] else claim["why"]
            statement = claim["statement"].rstrip(".")
            told = f"{measured[:1].upper()}{measured[1:].rstrip('.')}."
            return f"Verdict on “{statement}”: {claim['verdict']}. {told}"
    return ""
