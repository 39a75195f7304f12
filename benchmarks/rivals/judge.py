"""Run the suite on one tool in its environment: ``python -m rivals.judge NAME``, JSON out."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from typing import Any

import torch

from conformance.adapter import Adapter
from conformance.checks import CHECKS, judge
from rivals import RIVALS


def adapter(name: str) -> Adapter:
    """Import a tool's adapter; "thalweg" is the suite's own."""
    if name == "thalweg":
        return importlib.import_module("conformance.ours").Thalweg()  # type: ignore[no-any-return]
    return importlib.import_module(f"rivals.{RIVALS[name]}").Tool()  # type: ignore[no-any-return]


def main() -> None:
    torch.set_num_threads(1)
    answers: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr):  # what tools print
        tool = adapter(sys.argv[1])
        for check in CHECKS:
            start = time.process_time()
            outcome = judge(check, tool)
            seconds = time.process_time() - start
            words = [outcome.words]
            if outcome.status == "fails" and check.name in tool.notes:
                words.append(tool.notes[check.name])
            answers[check.name] = {"status": outcome.status, "words": "; ".join(words)}
            print(f"{tool.name}: {check.name}: {outcome} ({seconds:.1f} s)", flush=True)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
