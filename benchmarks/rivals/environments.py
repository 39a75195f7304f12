"""Make an environment for each rival: one torch for all, each tool and what it asks for on top.

A tool that needs no torch gets an environment without it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".bench"


def python(name: str) -> Path:
    """Path of an environment's interpreter."""
    return FOLDER / name / "bin" / "python"


def made(name: str) -> bool:
    """Whether a rival's environment is whole."""
    return (FOLDER / name / "made").exists()


def make(name: str, *, torch: bool = True) -> str:
    """Make a rival's environment unless it is there; say in words what went wrong, or nothing."""
    try:
        if torch:
            _install("base", [_torch(), "numpy"])
        if torch and not made(name):
            _create(name)
            packages = _packages("base")
            # Seen by interpreter and pip alike, so that torch is there once.
            (_packages(name) / "base.pth").write_text(f"{packages}\n")
        _install(name, [name])
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
        return lines[0] if lines else f"pip ended with {error.returncode}"
    return ""


def run(name: str, module: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    """Start a module of this folder in an environment, one thread, no display."""
    interpreter = Path(sys.executable) if name == "thalweg" else python(name)
    path = [ROOT / "tests", ROOT / "benchmarks", *([ROOT / "src"] if name == "thalweg" else [])]
    inherited = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [interpreter, "-W", "ignore", "-m", module, *arguments],
        env=inherited | {"PYTHONPATH": os.pathsep.join(map(str, path))},
        text=True,
        **options,
    )


def version(name: str) -> str:
    """Version of a rival's distribution in its environment."""
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return _call([python(name), "-c", code]).strip()


def _torch() -> str:
    lock = (ROOT / "requirements-dev.lock").read_text()
    found = re.search(r"^torch==\S+$", lock, re.MULTILINE)
    assert found, "requirements-dev.lock names no torch"
    return found.group()


def _create(name: str) -> None:
    if not python(name).exists():
        venv.create(FOLDER / name, with_pip=True)


def _install(name: str, packages: list[str]) -> None:
    if made(name):
        return
    _create(name)
    constraint = FOLDER / "constraint.txt"
    constraint.write_text(_torch() + "\n")
    print(f"installing {' '.join(packages)} into {FOLDER.name}/{name}", file=sys.stderr, flush=True)
    pip = [python(name), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    _call([*pip, "--constraint", constraint, *packages])
    (FOLDER / name / "made").touch()


def _packages(name: str) -> Path:
    return Path(
        _call([python(name), "-c", "import site; print(site.getsitepackages()[0])"]).strip()
    )


def _call(command: list[object]) -> str:
    done = subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True
    )
    return done.stdout
