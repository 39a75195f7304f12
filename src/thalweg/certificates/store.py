"""Certificates at rest: JSON beside the numbers they speak of, and their verification."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.certificates import checker
from thalweg.certificates.certificate import Certificate
from thalweg.certificates.chain import Chain
from thalweg.certificates.checker import Verdict
from thalweg.certificates.checker_layers import Unknown
from thalweg.certificates.margin import MarginCertificate
from thalweg.certificates.margin_constraints import labels_and_threshold
from thalweg.certificates.path import PathCertificate
from thalweg.certificates.statement import Statement
from thalweg.errors import InvalidArgument, ThalwegError
from thalweg.problems.load import BUILT_IN, load_problem
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.files import write_atomic, write_text
from thalweg.run.progress import Progress, silent
from thalweg.tracing import chain as links

Array = NDArray[np.float64]
Content = dict[str, Any]

# Shares of the estimated smallest eigenvalue, and of a half-width, that the checker is asked for.
_SHARES = (0.998, 0.99, 0.9, 0.5, 0.1)
# Room that a claim leaves for other machines, which sum in other orders.
_ROOM, _RESIDUAL_ROOM = 5e-4, 2e-3


def write_certificate(
    certificate: Certificate | PathCertificate | MarginCertificate,
    path: str | os.PathLike[str],
    *,
    problem: dict[str, Any] | None = None,
    state: str | None = None,
    progress: Progress = silent,
) -> Content:
    """
    Write a certificate as JSON, and beside it, as safetensors, the numbers it speaks of.

    What is claimed is what the checker proves of these numbers: that is done here, too.

    Parameters
    ----------
    certificate : Certificate, PathCertificate or MarginCertificate
        With its statement. One that is refused is written as such.
    path : path
        Ends in ``.json``; weights, inputs and targets go to the same name with ``.safetensors``.
    problem : dict, optional
        ``entry`` and ``settings`` of the problem, as for `load_problem`. It is loaded, and its
        network and data are compared; a reader of the file is told of it, and never loads it.
    state : str, optional
        Digest of the whole state of the checkpoint that was certified, `Point.sha256`: frozen
        weights and buffers, too. It is stored for who looks for the file, and proves nothing.
    progress : Progress
        Shows the checker's steps.

    Returns
    -------
    dict
        What was written as JSON. Its claim says ``refused``, with the reasons, where the
        certificate does, where the checker does not prove it, and where the problem is another.

    Raises
    ------
    InvalidArgument
        If the certificate has no statement: the network's structure is not one that files hold.
    """
    kind, statement = _statement_of(certificate)
    path = Path(path)
    if statement is None or path.suffix != ".json":
        raise InvalidArgument(
            f"got {path.name} and a certificate {'without' if statement is None else 'with'} a"
            " statement; write a name that ends in .json, and a certificate of a chain of linear"
            " and convolutional layers and known activations."
        )
    arrays = statement_arrays(statement)
    if isinstance(certificate, PathCertificate):
        arrays |= _stacks(certificate)
    numbers, network = path.with_suffix(".safetensors"), statement.chain.to_dict()
    outputs = None if statement.outputs is None else list(statement.outputs)
    content: Content = {
        "format": f"thalweg {kind} certificate 2",
        "claim": None,
        "problem": problem,
        "network": network,
        "outputs": certificate.threshold if isinstance(certificate, MarginCertificate) else outputs,
        "numbers": numbers.name,
        "sha256": None,
        "state": state,
        "assumptions": list(checker.ASSUMPTIONS),
    }
    content["claim"] = _claim(certificate, content, arrays, progress)
    if problem is not None and content["claim"]["verdict"] != "refused":
        reasons = _compare_problem(problem["entry"], problem["settings"], content, arrays)
        content["claim"] |= {"verdict": "refused", "reasons": reasons} if reasons else {}
    content["sha256"] = digests(network, arrays)
    _save(arrays, numbers)
    write_text(path, json.dumps(content, indent=1) + "\n")
    return content


def _statement_of(
    certificate: Certificate | PathCertificate | MarginCertificate,
) -> tuple[str, Statement | None]:
    if isinstance(certificate, PathCertificate):
        return "path", certificate.ends[0].statement
    kind = "margin" if isinstance(certificate, MarginCertificate) else "zero"
    return kind, certificate.statement


def _stacks(path: PathCertificate) -> dict[str, Array]:
    """Give the weights of all points, stacked, with the balls around them."""
    chains = [point.statement.chain.arrays() for point in path.certificates if point.statement]
    stacks = {name: np.stack([chain[name] for chain in chains]) for name in chains[0]}
    balls = {"radius": np.array([point.radius for point in path.certificates])}
    return stacks | balls | {"singular_value": np.array([p.slope for p in path.certificates])}


def _claim(
    certificate: Certificate | PathCertificate | MarginCertificate,
    content: Content,
    arrays: dict[str, Array],
    progress: Progress,
) -> dict[str, Any]:
    """Claim what the checker proves, with room for other machines."""
    kind = checker.FORMATS[content["format"]]
    names = checker.CLAIMS[kind]
    reasons = list(getattr(certificate, "reasons", ()))
    if certificate.verdict in ("certified", "connected"):
        for attempt in _attempts(certificate, arrays):
            try:
                attempted = content | {"claim": attempt}
                proved, reasons = checker.prove(attempted, arrays, progress=progress)
            except Unknown as error:
                reasons = [str(error)]
            if not reasons:
                claim: dict[str, Any] = {"verdict": certificate.verdict, "reasons": []}
                return claim | _with_room(proved, arrays)
        reasons = [f"the checker does not prove it: {reason}" for reason in reasons]
    else:
        reasons = reasons or [getattr(certificate, "reason", "")]
    return {"verdict": "refused", "reasons": reasons} | dict.fromkeys(names)


def _attempts(
    certificate: Certificate | PathCertificate | MarginCertificate, arrays: dict[str, Array]
) -> Iterator[dict[str, Any]]:
    """Give what the checker is asked to prove, the strongest first."""
    for share in _SHARES:
        if isinstance(certificate, Certificate):
            yield {
                "equations": certificate.equations,
                "radius": certificate.radius,
                "singular_value": _singular_value(certificate, share),
            }
        elif isinstance(certificate, PathCertificate):
            values = [_singular_value(point, share) for point in certificate.certificates]
            arrays["singular_value"] = np.array(values)
            yield {}
        else:
            halves = _half_widths(certificate)
            yield {"half_widths": [half * share for half in halves]}


def _singular_value(certificate: Certificate, share: float) -> float:
    parts = certificate.details
    low = share * parts["eigenvalue_estimate"] - 2 * parts["eigenvalue_rounding"]
    return max(math.sqrt(max(low, 0.0)) - 2 * parts["jacobian_error"], 0.0)


def _half_widths(certificate: MarginCertificate) -> list[float]:
    """Give each layer's half-width in absolute units."""
    assert certificate.statement is not None
    layers = certificate.statement.chain.layers
    return [certificate.layer_half_widths.get(layer.name, 1.0) for layer in layers]


def _with_room(proved: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Any]:
    """Weaken a claim a little, so that it is proved on machines that round otherwise."""
    claim = dict(proved)
    if "residual" in claim:
        claim["residual"] *= 1 + _RESIDUAL_ROOM
        claim["lipschitz"] *= 1 + _ROOM
        claim["singular_value"] *= 1 - _ROOM
        slope = claim["singular_value"] - claim["lipschitz"] * claim["radius"]
        claim["slope"] = slope * (1 - _ROOM)
        claim["distance"] = claim["residual"] / claim["slope"]
    if "strays" in claim:
        claim["strays"] *= 1 + 2 * _RESIDUAL_ROOM
        arrays["singular_value"] *= 1 - _ROOM
    if "margin" in claim:
        claim["margin"] *= 1 - _ROOM
    return claim


def verify(
    path: str | os.PathLike[str],
    *,
    problem: tuple[str, dict[str, Any]] | None = None,
    state: str | None = None,
    strict: bool = False,
    progress: Progress = silent,
) -> Verdict:
    """
    Prove a stored certificate anew, from the stored numbers alone.

    The problem that the file names is not loaded: a file can name any function.

    Parameters
    ----------
    path : path
        The JSON file.
    problem : tuple of str and dict, optional
        Entry and settings of your own problem, as for `load_problem`: its network and data are
        compared with those stored. The settings on file count besides where both name the same
        built-in problem.
    state : str, optional
        `Point.sha256` of your own checkpoint, compared with the digest on file.
    strict : bool
        Trust no library's matrix products or factorization: see `checker.check`.
    progress : Progress
        Shows steps.

    Returns
    -------
    Verdict
        Refused if a digest does not fit, the certificate itself is refused, or a recorded number
        is stronger than what the checker proves.

    Raises
    ------
    InvalidArgument
        If the file is no certificate.
    """
    verdict = checker.check(path, strict=strict, progress=progress)
    content = checker.parse(Path(path).read_bytes())
    try:
        arrays = checker.read(Path(path), content)
    except Unknown:
        return verdict  # which says so
    reasons = _other_digests(content, arrays)
    if reasons:
        return Verdict("refused", tuple(reasons))
    if verdict.verdict == "verified":
        reasons = [] if problem is None else _compare_problem(*problem, content, arrays)
        if state is not None and state != content.get("state"):
            reasons.append(
                f"the state of the checkpoint has the digest {state}, and the certificate names"
                f" {content.get('state') or 'none'}"
            )
    return Verdict("refused", tuple(reasons), verdict.certificate) if reasons else verdict


def _other_digests(content: Content, arrays: dict[str, Array]) -> list[str]:
    computed, recorded = digests(content["network"], arrays), content["sha256"]
    if not isinstance(recorded, dict) or set(recorded) != set(computed):
        return [f"sha256 is not given for {', '.join(computed)}"]
    return [
        f"the {name} are not those certified (sha256 {digest}, recorded {recorded[name]})"
        for name, digest in computed.items()
        if recorded[name] != digest
    ]


def statement_arrays(statement: Statement) -> dict[str, Array]:
    """Give all numbers of a statement by name."""
    return statement.chain.arrays() | {"inputs": statement.samples, "targets": statement.targets}


def digests(network: dict[str, Any], arrays: dict[str, Array]) -> dict[str, str]:
    """Hash weights, data and everything else that defines the network, coefficients included."""
    data = ("inputs", "targets")
    structure = json.dumps(network, sort_keys=True).encode()
    return {
        "weights": _digest([arrays[name] for name in sorted(arrays) if name not in data]),
        "data": _digest([arrays[name] for name in data if name in arrays]),
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


def _compare_problem(
    name: str, settings: dict[str, Any], content: Content, arrays: dict[str, Array]
) -> list[str]:
    """Compare network and data with those of the user's own problem."""
    named = content["problem"]
    if name in BUILT_IN and isinstance(named, dict) and named.get("entry") == name:
        settings = dict(named.get("settings", {})) | settings
    try:
        problem = load_problem(name, **settings)
        risk = EmpiricalRisk(problem, batchnorm="frozen", dtype=torch.float64)
        read, w = links.Chain(risk), risk.space.pack(problem.model).double()
        network = Chain.of(read, w).to_dict()
    except ThalwegError as error:
        return [f"the problem {name!r} cannot be loaded to compare it: {error}"]
    inputs, targets = read.inputs(0, risk.samples), read.targets(0, risk.samples)
    if checker.FORMATS[content["format"]] == "margin":
        targets = labels_and_threshold(problem, targets, read.whole(w, inputs[:1]))[0]
    of_problem = [
        tensor.double().flatten(1).numpy() for tensor in (inputs, targets.view(len(targets), -1))
    ]
    reasons = []
    if network != content["network"]:
        reasons.append(f"the network of {name!r} is not the one that was certified")
    if not all(map(np.array_equal, of_problem, (arrays["inputs"], arrays["targets"]))):
        reasons.append(f"the data of {name!r} are not those that were certified")
    return reasons
