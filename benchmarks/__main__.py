"""Run every benchmark after another: ``python -m benchmarks [NAME ...]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the named benchmarks, or all; return how many failed."""
    scripts = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("_"))
    chosen = [path for path in scripts if not sys.argv[1:] or path.stem in sys.argv[1:]]
    if not chosen:
        names = ", ".join(path.stem for path in scripts)
        print(f"No benchmark {sys.argv[1:]}; there are: {names}.", file=sys.stderr)
        return 2
    failed = 0
    for path in chosen:
        print(f"\n== {path.stem}", flush=True)
        failed += subprocess.run([sys.executable, str(path)], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
