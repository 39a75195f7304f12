"""The spectrum of the Hessian at a point, in tasks: its ends, its density, its trace."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.errors import InvalidArgument
from thalweg.geometry import near_zero, top_eigenvalues, trace
from thalweg.geometry.density import check_quadratures, density_of, quadrature
from thalweg.geometry.operator import SymmetricOperator
from thalweg.measurements.point import load_measured_point
from thalweg.measurements.told import UNITS_AN_EPOCH, Told
from thalweg.run import Report, Run, Task, open_run, task_result

if TYPE_CHECKING:
    from thalweg.risk import EmpiricalRisk

# A product costs more than a gradient; an eigenvalue takes about five.
_UNITS_A_PRODUCT = 3 * UNITS_AN_EPOCH // 2
_MODULE = "thalweg.measurements.spectrum_parts"


def check_spectrum(options: dict[str, Any]) -> None:
    """
    Check options before anything is computed.

    Raises
    ------
    InvalidArgument
        If one cannot be used, or nothing is asked for.
    """
    if not (options["k"] or options["density"] or options["trace"]):
        raise InvalidArgument("nothing is asked for; write -k 5, --density or --trace.")
    if options["k"] < 0 or options["probes"] < 2 or options["steps"] < 2:
        raise InvalidArgument(
            f"k={options['k']}, probes={options['probes']}, steps={options['steps']}; expected k of"
            " 0 or more, and at least 2 probes and 2 steps."
        )
    check_quadratures(options["probes"], options["steps"])
    if not options["near_zero"] > 0:
        raise InvalidArgument(f"near_zero={options['near_zero']}; write a positive share.")
    for name in ("rtol", "trace_rtol"):
        if not 0 < options[name] < 1:
            raise InvalidArgument(f"{name}={options[name]}; write a number between 0 and 1.")


def parts(
    spec: dict[str, Any],
    options: dict[str, Any],
    needs: tuple[Task, ...] = (),
    module: str = _MODULE,
) -> list[Task]:
    """
    Cut a spectrum into tasks: the eigenvalues, each probe of the density, the trace.

    Parameters
    ----------
    spec : dict
        Of `thalweg.measurements.point.load_measured_point`.
    options : dict
        All of `thalweg.measurements.spectrum.Options`.
    needs : tuple of Task
        What must be done before.
    module : str
        Under whose name the tasks are known.

    Returns
    -------
    list of Task
        Each with the part it does as its argument ``part``.
    """
    common = spec | {"operator": options["operator"], "seed": options["seed"]}

    def part(name: str, products: int, label: str, **more: Any) -> Task:
        arguments = common | {"part": name, **more}
        units = _UNITS_A_PRODUCT * products
        return Task(f"{module}:measure_{name}", arguments, needs, label, units)

    found = []
    if options["k"]:
        ends = {name: options[name] for name in ("k", "which", "rtol")}
        found.append(part("eigenvalues", 5 * options["k"], "eigenvalues", **ends))
    if options["density"]:
        steps = options["steps"]
        found += [
            part("probe", steps, f"probe {probe} of the density", probe=probe, steps=steps)
            for probe in range(options["probes"])
        ]
    if options["trace"]:
        found.append(part("trace", 40, "trace", rtol=options["trace_rtol"]))
    return found


def measure_eigenvalues(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Compute the eigenvalues asked for, in a worker."""
    operator = _operator(run, arguments)
    found = top_eigenvalues(
        operator,
        min(arguments["k"], operator.shape[0]),
        which=arguments["which"],
        rtol=arguments["rtol"],
        seed=arguments["seed"],
        progress=lambda total, label: Told(report, _UNITS_A_PRODUCT),
    )
    return {
        "values": found.values.cpu().numpy(),
        "residuals": found.residuals.cpu().numpy(),
        "errors": found.errors.cpu().numpy(),
        "products": found.products,
        "status": found.status,
        "described": operator.described,
        "size": operator.shape[0],
    }


def measure_probe(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Take one probe of the density, in a worker."""
    operator = _operator(run, arguments)
    counted = SymmetricOperator(operator)
    told = Told(report, _UNITS_A_PRODUCT)
    steps, seed, probe = (arguments[name] for name in ("steps", "seed", "probe"))
    nodes, weights, rounding = quadrature(counted, steps, seed, probe, told)
    return {
        "nodes": nodes,
        "weights": weights,
        "rounding": rounding,
        "products": counted.products,
        "described": operator.described,
        "size": operator.shape[0],
    }


def measure_trace(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Estimate the trace, in a worker."""
    operator = _operator(run, arguments)
    found = trace(
        operator,
        rtol=arguments["rtol"],
        seed=arguments["seed"],
        progress=lambda total, label: Told(report, _UNITS_A_PRODUCT),
    )
    return {
        "value": found.value,
        "stderr": found.stderr,
        "error": found.error,
        "products": found.products,
        "status": found.status,
        "described": operator.described,
        "size": operator.shape[0],
    }


def _operator(run: Run, arguments: dict[str, Any]) -> Any:
    names = ("problem", "at", "risk", "evaluation_batch", "operator")
    return _made(str(run.path), json.dumps({name: arguments[name] for name in names}))


@lru_cache(maxsize=1)
def _made(run: str, text: str) -> Any:
    """Make the operator once for all tasks of a worker: tracing it costs several products."""
    spec = json.loads(text)
    measured = load_measured_point(spec, open_run(run))
    risk: EmpiricalRisk = measured.risk
    make = risk.hessian if spec["operator"] == "hessian" else risk.gauss_newton
    return make(measured.centre)


def gather(run: Run, parts: list[Task], options: dict[str, Any]) -> dict[str, Any]:
    """
    Save what the tasks of a spectrum measured as the results ``spectrum/...`` of a run.

    Returns
    -------
    dict
        ``size`` (W), ``products``, and of what was asked for ``eigenvalues`` (a list of ``value``,
        ``residual``, ``error``), ``density``, ``near_zero`` and ``trace``.
    """
    done: dict[str, list[dict[str, Any]]] = {"eigenvalues": [], "probe": [], "trace": []}
    for task in parts:
        result = task_result(run, task)
        assert result is not None
        done[task.arguments["part"]].append(result)
    first = next(results[0] for results in done.values() if results)
    summary: dict[str, Any] = {"size": first["size"], "operator": options["operator"]}
    for one in done["eigenvalues"]:
        summary |= _save_eigenvalues(run, one)
    if done["probe"]:
        summary |= _save_density(run, done["probe"], options)
    for one in done["trace"]:
        summary |= _save_trace(run, one)
    spent = sum(one["products"] for results in done.values() for one in results)
    return summary | {"products": spent}


def _save_eigenvalues(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    import xarray as xr

    names = {"values": "value", "residuals": "residual", "errors": "error"}
    columns = {
        single: ("rank", found[plural], {"units": "loss per squared weight"})
        for plural, single in names.items()
    }
    about = {name: found[name] for name in ("products", "status", "size")}
    data = xr.Dataset(columns, attrs={**found["described"], **about})
    run.save_result("spectrum/eigenvalues", data)
    rows = zip(*(found[name].tolist() for name in names), strict=True)
    listed = [dict(zip(names.values(), row, strict=True)) for row in rows]
    return {"eigenvalues": listed, "status": found["status"]}


def _save_density(
    run: Run, probes: list[dict[str, Any]], options: dict[str, Any]
) -> dict[str, Any]:
    nodes, weights = (np.stack([one[name] for one in probes]) for name in ("nodes", "weights"))
    size, spent = probes[0]["size"], sum(one["products"] for one in probes)
    rounding = max(one["rounding"] for one in probes)
    data = density_of(nodes, weights, size, rounding=rounding).assign_attrs(
        **probes[0]["described"], products=spent, seed=options["seed"]
    )
    threshold = options["near_zero"] * float(np.nanmax(np.abs(nodes)))
    near = near_zero(data, threshold)
    names = ("count", "stderr", "least", "most", "low", "high")
    found = {name: getattr(near, name) for name in names}
    attrs = {f"near_zero_{name}": value for name, value in found.items()}
    data = data.assign_attrs(**attrs, near_zero_threshold=threshold)
    run.save_result("spectrum/density", data)
    return {
        "density": {name: data.attrs[name] for name in ("probes", "steps", "width")},
        "near_zero": found | {"threshold": threshold, "share": near.count / size},
    }


def _save_trace(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    import xarray as xr

    told = {name: found[name] for name in ("value", "stderr", "error")}
    about = {name: found[name] for name in ("products", "status", "size")}
    run.save_result("spectrum/trace", xr.Dataset(told, attrs={**found["described"], **about}))
    return {"trace": told | {"status": found["status"]}}
