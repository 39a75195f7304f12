"""Certificates at rest: JSON beside the numbers they speak of, and their verification."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.certificates.chain import Chain
from thalweg.certificates.zero import Certificate, Statement, prove
from thalweg.errors import InvalidArgument, ThalwegError
from thalweg.problems.load import load_problem
from thalweg.problems.loss import pair
from thalweg.run.files import write_atomic
from thalweg.run.progress import Progress, silent

Array = NDArray[np.float64]

_FORMAT = "thalweg zero certificate 1"
# A number that is proved anew may differ from the recorded one by this: other machines sum in
# other orders, and the shift of the factorization follows an estimate.
_TOLERANCE = 0.01
_NUMBERS = ("residual", "singular_value", "lipschitz", "radius", "slope", "distance")
_COUNTS = ("verdict", "equations", "weights", "dimension", "nullity")


@dataclass(frozen=True)
class Verification:
    """
    The answer of `verify`.

    Attributes
    ----------
    verdict : {"verified", "refused"}
        Whether everything recorded was proved anew.
    reasons : tuple of str
        What was found wrong.
    certificate : Certificate or None
        What was proved anew; None where the stored numbers are not those that were certified.
    """

    verdict: str
    reasons: tuple[str, ...]
    certificate: Certificate | None

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        proved = None if self.certificate is None else self.certificate.to_dict()
        return {"verdict": self.verdict, "reasons": list(self.reasons), "certificate": proved}


def write_certificate(
    certificate: Certificate,
    path: str | os.PathLike[str],
    *,
    problem: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Write a certificate as JSON, and beside it, as safetensors, the numbers it speaks of.

    Parameters
    ----------
    certificate : Certificate
        Certified or refused, with its statement.
    path : path
        Ends in ``.json``; weights, inputs and targets go to the same name with ``.safetensors``.
    problem : dict, optional
        ``entry`` and ``settings`` of the problem, as for `load_problem`: a verification then also
        compares the data that they give.

    Returns
    -------
    dict
        What was written as JSON.

    Raises
    ------
    InvalidArgument
        If the certificate has no statement: the network's structure is not known.
    """
    statement, path = certificate.statement, Path(path)
    if statement is None or path.suffix != ".json":
        raise InvalidArgument(
            f"got {path.name} and a certificate {'without' if statement is None else 'with'} a"
            " statement; write a name that ends in .json, and a certificate of a network whose"
            " structure is known."
        )
    arrays = statement_arrays(statement)
    numbers = path.with_suffix(".safetensors")
    content = {
        "format": _FORMAT,
        "claim": certificate.to_dict(),
        "problem": problem,
        "network": statement.chain.to_dict(),
        "outputs": None if statement.outputs is None else list(statement.outputs),
        "strict": statement.strict,
        "numbers": numbers.name,
        "sha256": digests(statement.chain, arrays),
    }
    _save(arrays, numbers)
    text = json.dumps(content, indent=1) + "\n"
    write_atomic(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))
    return content


def verify(
    path: str | os.PathLike[str], *, rebuild: bool = True, progress: Progress = silent
) -> Verification:
    """
    Prove a stored certificate anew, from the stored numbers alone.

    Parameters
    ----------
    path : path
        The JSON file.
    rebuild : bool
        Where the certificate names its problem, load its data too and compare them.
    progress : Progress
        Counts stages of the proof.

    Returns
    -------
    Verification
        Refused if a digest does not fit, or a recorded number is not proved again to within 1%.

    Raises
    ------
    InvalidArgument
        If the file is no certificate.
    """
    content, arrays = _read(Path(path))
    network = Chain.from_dict(content["network"], arrays)
    found = digests(network, arrays)
    reasons = [
        f"the {name} are not those certified (sha256 {found.get(name)}, recorded {digest})"
        for name, digest in content["sha256"].items()
        if found.get(name) != digest
    ]
    if rebuild and content["problem"] is not None and not reasons:
        reasons += _compare_data(content["problem"], arrays)
    if reasons:
        return Verification("refused", tuple(reasons), None)
    outputs = None if content["outputs"] is None else tuple(content["outputs"])
    statement = Statement(network, arrays["inputs"], arrays["targets"], outputs, content["strict"])
    proved = prove(statement, progress=progress)
    reasons = _compare(content["claim"], proved.to_dict())
    return Verification("refused" if reasons else "verified", tuple(reasons), proved)


def statement_arrays(statement: Statement) -> dict[str, Array]:
    """Give all numbers of a statement by name."""
    return statement.chain.arrays() | {"inputs": statement.samples, "targets": statement.targets}


def digests(network: Chain, arrays: dict[str, Array]) -> dict[str, str]:
    """Hash weights, data and everything else that defines the network, coefficients included."""
    weights = [arrays[name] for name in sorted(network.arrays())]
    structure = json.dumps(network.to_dict(), sort_keys=True).encode()
    return {
        "weights": _digest(weights),
        "data": _digest([arrays["inputs"], arrays["targets"]]),
        "coefficients": hashlib.sha256(structure).hexdigest(),
    }


def _digest(arrays: list[Array]) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(str(array.shape).encode())
        total.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return total.hexdigest()


def _save(arrays: dict[str, Array], path: Path) -> None:
    from safetensors.numpy import save_file

    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomic(path, lambda temporary: save_file(plain, temporary))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise KeyError(content["format"])
        return content, load_file(path.with_name(content["numbers"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InvalidArgument(
            f"{path} with the numbers beside it is no certificate that can be read ({error!r});"
            " give a file that `thalweg certify ... --out CERT.json` wrote."
        ) from None


def _compare_data(problem: dict[str, Any], arrays: dict[str, Array]) -> list[str]:
    try:
        samples = load_problem(problem["entry"], **problem["settings"]).samples("train")
    except ThalwegError as error:
        return [f"the problem {problem['entry']!r} cannot be loaded to compare its data: {error}"]
    inputs, targets = pair(samples.slice(0, len(samples)))
    given = [t.detach().cpu().double().flatten(1).numpy() for t in (inputs, targets)]
    if all(map(np.array_equal, given, (arrays["inputs"], arrays["targets"]))):
        return []
    return [f"the data of {problem['entry']!r} are not those that were certified"]


def _compare(recorded: dict[str, Any], proved: dict[str, Any]) -> list[str]:
    wrong = [
        f"{name}: recorded {recorded.get(name)}, proved {proved[name]}"
        for name in _COUNTS
        if recorded.get(name) != proved[name]
    ]
    for name in _NUMBERS:
        one, other = recorded.get(name), proved[name]
        if (one is None) != (other is None) or (
            one is not None and abs(one - other) > _TOLERANCE * abs(other)
        ):
            wrong.append(f"{name}: recorded {one}, proved {other}")
    return wrong
