"""Judge the published tools by the conformance suite, each in an environment of its own.

Makes the environments under .bench/ on the first call (about a gigabyte; tools are never installed
into the environment that this runs in), runs every case of tests/conformance on Thalweg and on each
rival, and prints the table; --page writes it into docs/conformance.md. What could not be installed
or run stands in the table with its reason. Exits with 1 if Thalweg fails a case.

    python benchmarks/conformance.py [NAME ...] [--jobs 2] [--page]
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as own_version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from rivals import RIVALS, environments

from conformance.checks import CHECKS

PAGE = environments.ROOT / "docs" / "conformance.md"
BEGIN = "<!-- conformance: made by benchmarks/conformance.py -->"
END = "<!-- end of conformance -->"
LIMIT = 3600.0  # seconds for one tool
SIGNS = {"passes": "passes", "fails": "**fails**", "not offered": "–", "does not run": "no run"}
Answers = dict[str, dict[str, str]]


def judged(name: str, wrong: str) -> tuple[str, Answers]:
    """Version of a tool, and its outcome case by case; `wrong` is why it is not there."""
    if wrong:
        return "", {check.name: {"status": "does not run", "words": wrong} for check in CHECKS}
    worker = environments.run(name, "rivals.judge", name, stdout=subprocess.PIPE)
    try:
        output, _ = worker.communicate(timeout=LIMIT)
        answers: Answers = json.loads(output.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, json.JSONDecodeError) as error:
        worker.kill()
        words = f"ended without an answer ({type(error).__name__})"
        answers = {check.name: {"status": "does not run", "words": words} for check in CHECKS}
    return own_version(name) if name == "thalweg" else environments.version(name), answers


def table(found: dict[str, tuple[str, Answers]]) -> str:
    """Cases by tools, then why in a few words."""
    heads = [f"{name} {version}" for name, (version, _) in found.items()]
    lines = [f"| case | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for check in CHECKS:
        signs = [SIGNS[answers[check.name]["status"]] for _, answers in found.values()]
        lines.append(f"| {check.name} | {' | '.join(signs)} |")
    counts = [_count(answers) for _, answers in found.values()]
    lines.append(f"| **passed of offered** | {' | '.join(counts)} |")
    return "\n".join(lines)


def _count(answers: Answers) -> str:
    offered = [a for a in answers.values() if a["status"] != "not offered"]
    return f"{sum(a['status'] == 'passes' for a in offered)} of {len(offered)}"


def reasons(found: dict[str, tuple[str, Answers]]) -> str:
    """Say of each failure what was wrong."""
    parts = []
    for name, (_, answers) in found.items():
        wrong = {
            case: answer
            for case, answer in answers.items()
            if answer["status"] in ("fails", "does not run")
        }
        if wrong:
            rows = [f"- {case}: {answer['words']}" for case, answer in wrong.items()]
            parts.append("\n".join([f"**{name}**", "", *rows]))
    return "\n\n".join(parts)


def definitions() -> str:
    """Define each case in the suite's own words."""
    rows = [
        f"- **{check.name}**: {' '.join(check.definition.split())}"
        + (f" The published mistake: {check.mistake}." if check.mistake else "")
        for check in CHECKS
    ]
    return "\n".join(rows)


def write(found: dict[str, tuple[str, Answers]]) -> None:
    """Put table, reasons and definitions between the marks of the page."""
    page = PAGE.read_text()
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    day = datetime.date.today().isoformat()
    torch = own_version("torch").partition("+")[0]
    body = [
        f"Measured on {day} with torch {torch} and the newest release of each tool.",
        table(found),
        "## Why",
        reasons(found),
        "## The cases",
        definitions(),
    ]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(body) + f"\n\n{END}{after}")


def main() -> int:
    """Judge, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(['thalweg', *RIVALS])}; all")
    parser.add_argument("--jobs", type=int, default=2, help="tools judged at once")
    parser.add_argument("--page", action="store_true", help="write it into docs/conformance.md")
    options = parser.parse_args()
    unknown = set(options.names) - {"thalweg", *RIVALS}
    if unknown:
        parser.error(f"no tool {', '.join(sorted(unknown))}")
    names = options.names or ["thalweg", *RIVALS]
    # One after another: the first environment holds the torch of all.
    wrong = {name: environments.make(name) for name in names if name != "thalweg"}
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = pool.map(lambda name: judged(name, wrong.get(name, "")), names)
    found = dict(zip(names, outcomes, strict=True))
    print(table(found), reasons(found), sep="\n\n")
    if options.page:
        write(found)
    ours: dict[str, Any] = found.get("thalweg", ("", {}))[1]
    return int(any(answer["status"] != "passes" for answer in ours.values()))


if __name__ == "__main__":
    sys.exit(main())
