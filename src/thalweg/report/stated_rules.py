"""Say by which rules a run was judged, and whether they were stated before it began."""

from __future__ import annotations

from thalweg.run import Run

_UNKNOWN = (
    "This run does not say by which rules it was to be judged: it was made before runs said so, and"
    " nothing shows that they were not changed after it had been seen."
)


def told_rules(run: Run) -> tuple[str, list[str]]:
    """
    Say what is known of a run's rules.

    Parameters
    ----------
    run : Run
        With its claims.

    Returns
    -------
    sentence : str
        Whether the rules were stated before the first task and are those that it was judged by.
    changed : list of str
        What was changed after the run had begun, by each judgement in turn.
    """
    rules = run.judged_by
    stated = rules.get("stated")
    if stated is None:
        return _UNKNOWN, []
    before = (
        "Rules, sizes and the code that takes the statistics were hashed into run.toml before the"
        f" first task (SHA-256 {stated[:12]}…)"
    )
    judged = rules["judged"]
    if all(judgement["digest"] == stated for judgement in judged):
        return f"{before}; the run has been judged by no others.", []
    changed = [change for judgement in judged for change in judgement["changed"]]
    times = "" if len(judged) == 1 else f" It has been judged {len(judged)} times."
    return f"{before}, and were changed after the run had begun.{times}", changed
