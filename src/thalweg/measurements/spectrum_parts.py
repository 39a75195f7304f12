"""The spectrum of the Hessian at a point, in tasks: its ends, its density, its trace."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from thalweg.errors import InvalidArgument
from thalweg.geometry import near_zero, top_eigenvalues, trace
from thalweg.geometry.density import check_quadratures, density_of, quadrature
from thalweg.geometry.operator import SymmetricOperator
from thalweg.measurements.point import load_measured_point
from thalweg.measurements.spectrum import DENSITY, EIGENVALUES, TRACE
from thalweg.measurements.spectrum_points import stack_checkpoints
from thalweg.measurements.told import UNITS_AN_EPOCH, Told
from thalweg.run import Report, Run, Task, open_run, task_result

if TYPE_CHECKING:
    import xarray as xr

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

    tasks = []
    if options["k"]:
        ends = {name: options[name] for name in ("k", "which", "rtol")}
        tasks.append(part("eigenvalues", 5 * options["k"], "eigenvalues", **ends))
    if options["density"]:
        steps = options["steps"]
        tasks += [
            part("probe", steps, f"probe {probe} of the density", probe=probe, steps=steps)
            for probe in range(options["probes"])
        ]
    if options["trace"]:
        tasks.append(part("trace", 40, "trace", rtol=options["trace_rtol"]))
    return tasks


def measure_eigenvalues(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Compute the eigenvalues asked for, in a worker."""
    operator, about = _at_point(run, arguments)
    top = top_eigenvalues(
        operator,
        min(arguments["k"], operator.shape[0]),
        which=arguments["which"],
        rtol=arguments["rtol"],
        seed=arguments["seed"],
        progress=lambda total, label: Told(report, _UNITS_A_PRODUCT),
    )
    return {
        "values": top.values.cpu().numpy(),
        "residuals": top.residuals.cpu().numpy(),
        "errors": top.errors.cpu().numpy(),
        "products": top.products,
        "status": top.status,
        "described": operator.described,
        "size": operator.shape[0],
        "checkpoint": about,
    }


def measure_probe(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Take one probe of the density, in a worker."""
    operator, about = _at_point(run, arguments)
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
        "checkpoint": about,
    }


def measure_trace(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Estimate the trace, in a worker."""
    operator, about = _at_point(run, arguments)
    estimate = trace(
        operator,
        rtol=arguments["rtol"],
        seed=arguments["seed"],
        progress=lambda total, label: Told(report, _UNITS_A_PRODUCT),
    )
    return {
        "value": estimate.value,
        "stderr": estimate.stderr,
        "error": estimate.error,
        "products": estimate.products,
        "status": estimate.status,
        "described": operator.described,
        "size": operator.shape[0],
        "checkpoint": about,
    }


def _at_point(run: Run, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    names = ("problem", "at", "risk", "evaluation_batch", "operator")
    return _made(str(run.path), json.dumps({name: arguments[name] for name in names}))


@lru_cache(maxsize=1)
def _made(run: str, text: str) -> tuple[Any, dict[str, Any]]:
    """Make the operator once for all tasks of a worker: tracing it costs several products."""
    spec = json.loads(text)
    measured = load_measured_point(spec, open_run(run))
    risk: EmpiricalRisk = measured.risk
    make = risk.hessian if spec["operator"] == "hessian" else risk.gauss_newton
    return make(measured.centre), measured.about


def gather(run: Run, groups: list[list[Task]], options: dict[str, Any]) -> dict[str, Any]:
    """
    Save what the tasks of spectra measured as the results ``spectrum/...`` of a run.

    Parameters
    ----------
    run : Run
        Whose tasks are done.
    groups : list of list of Task
        Those of `parts` for each checkpoint.
    options : dict
        All of `thalweg.measurements.spectrum.Options`.

    Returns
    -------
    dict
        Of one checkpoint ``size`` (W), ``products``, and of what was asked for ``eigenvalues`` (a
        list of ``value``, ``residual``, ``error``), ``density``, ``near_zero`` and ``trace``. Of
        several a list of such under ``checkpoints``, each with its ``checkpoint``.
    """
    spectra = [_spectrum(run, tasks, options) for tasks in groups]
    files = [spectrum.about.get("file", "") for spectrum in spectra]
    for name in spectra[0].data:
        run.save_result(name, stack_checkpoints([each.data[name] for each in spectra], files))
    if len(spectra) == 1:
        return spectra[0].summary
    return {"checkpoints": [{**each.summary, "checkpoint": each.about} for each in spectra]}


class _Spectrum(NamedTuple):
    """What was measured at one checkpoint: results by name, a summary, the checkpoint."""

    data: dict[str, xr.Dataset]
    summary: dict[str, Any]
    about: dict[str, Any]


def _spectrum(run: Run, tasks: list[Task], options: dict[str, Any]) -> _Spectrum:
    done: dict[str, list[dict[str, Any]]] = {"eigenvalues": [], "probe": [], "trace": []}
    for task in tasks:
        result = task_result(run, task)
        assert result is not None
        done[task.arguments["part"]].append(result)
    first = next(results[0] for results in done.values() if results)
    data: dict[str, xr.Dataset] = {}
    summary: dict[str, Any] = {"size": first["size"], "operator": options["operator"]}
    for result in done["eigenvalues"]:
        data[EIGENVALUES], told = _eigenvalues(result)
        summary |= told
    if done["probe"]:
        data[DENSITY], told = _density(done["probe"], options)
        summary |= told
    for result in done["trace"]:
        data[TRACE], told = _trace(result)
        summary |= told
    spent = sum(result["products"] for results in done.values() for result in results)
    return _Spectrum(data, summary | {"products": spent}, first.get("checkpoint", {}))


def _eigenvalues(result: dict[str, Any]) -> tuple[xr.Dataset, dict[str, Any]]:
    import xarray as xr

    names = {"values": "value", "residuals": "residual", "errors": "error"}
    columns = {
        single: ("rank", result[plural], {"units": "loss per squared weight"})
        for plural, single in names.items()
    }
    about = {name: result[name] for name in ("products", "status", "size")}
    data = xr.Dataset(columns, attrs={**result["described"], **about})
    rows = zip(*(result[name].tolist() for name in names), strict=True)
    listed = [dict(zip(names.values(), row, strict=True)) for row in rows]
    return data, {"eigenvalues": listed, "status": result["status"]}


def _density(
    probes: list[dict[str, Any]], options: dict[str, Any]
) -> tuple[xr.Dataset, dict[str, Any]]:
    nodes, weights = (np.stack([probe[name] for probe in probes]) for name in ("nodes", "weights"))
    size, spent = probes[0]["size"], sum(probe["products"] for probe in probes)
    rounding = max(probe["rounding"] for probe in probes)
    data = density_of(nodes, weights, size, rounding=rounding).assign_attrs(
        **probes[0]["described"], products=spent, seed=options["seed"]
    )
    threshold = options["near_zero"] * float(np.nanmax(np.abs(nodes)))
    near = near_zero(data, threshold)
    names = ("count", "stderr", "least", "most", "low", "high")
    counted = {name: getattr(near, name) for name in names}
    attrs = {f"near_zero_{name}": value for name, value in counted.items()}
    data = data.assign_attrs(**attrs, near_zero_threshold=threshold)
    return data, {
        "density": {name: data.attrs[name] for name in ("probes", "steps", "width")},
        "near_zero": counted | {"threshold": threshold, "share": near.count / size},
    }


def _trace(result: dict[str, Any]) -> tuple[xr.Dataset, dict[str, Any]]:
    import xarray as xr

    told = {name: result[name] for name in ("value", "stderr", "error")}
    about = {name: result[name] for name in ("products", "status", "size")}
    data = xr.Dataset(told, attrs={**result["described"], **about})
    return data, {"trace": told | {"status": result["status"]}}
