"""What was measured for a claim, as a sentence for captions; its verdict is said in the ledger."""

from __future__ import annotations

from thalweg.measurements.formatting import estimate
from thalweg.run import Run


def measured(run: Run, *names: str) -> str:
    """
    Say what was measured for claims, as the end of a caption; nothing of those not judged.

    Parameters
    ----------
    run : Run
        With its claims.
    *names : str
        Of the claims, ``"<study>/<claim>"``.
    """
    claims = {claim["name"]: claim for claim in run.claims}
    texts = (
        estimate(claim["statistic"]) if claim["statistic"] else claim["why"]
        for name in names
        if (claim := claims.get(name))
    )
    return " ".join(f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in texts if text)
