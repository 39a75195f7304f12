"""``thalweg barrier``: loss and error on the straight line between two checkpoints."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.errors import InvalidArgument
from thalweg.measurements.options import defaults, option
from thalweg.measurements.record import Job, Measurement, Output, Written
from thalweg.measurements.told import UNITS_AN_EPOCH, Told
from thalweg.run import Report, Run, Task

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from thalweg.connectivity import Alignment
    from thalweg.connectivity import Path as LowPath
    from thalweg.measurements.parts import Section

RESULT = "barrier/lines"
ALIGNED = "barrier/aligned"
COMPARED = {
    "barrier": "barrier: highest above the chord",
    "crossfit": "the same, chosen on other samples",
    "mean_excess": "mean of both minus mean of the ends",
    "mean_over_best": "mean of both minus the better end",
}
_ENDS = ("", "_stderr", "_low", "_high")
_CURVES = ("bezier", "chain", "band")
# Units that the search for an order counts, and that for a curve.
_SEARCH = 20 * UNITS_AN_EPOCH


@dataclass(frozen=True)
class Options:
    """What `thalweg.barrier` and `thalweg.one_basin` take."""

    points: int = option(21, "Points of the line, both ends included; odd.", least=3)
    test: bool = option(True, "Evaluate test data too.")
    allowed: float | None = option(
        None,
        "Largest barrier of one basin: of the error, by default 0.02, or of the loss, where no"
        " error is counted.",
    )
    align: bool = option(
        False,
        "Bring the second network's units into the order of the first's; the line without stands"
        " beside.",
    )
    curve: str | None = option(
        None, "Look for a path of low loss, too: bezier, chain or band (docs: Alignment and paths)."
    )


def settle(given: dict[str, Any], points: int, trajectory: bool) -> dict[str, Any]:
    """
    Complete the options.

    Raises
    ------
    InvalidArgument
        If an alignment or a curve is asked for between other than two points.
    """
    options = {**defaults(Options), **given}
    if options["curve"] is not None and options["curve"] not in _CURVES:
        raise InvalidArgument(f"--curve {options['curve']}; write one of {', '.join(_CURVES)}.")
    if (options["align"] or options["curve"]) and (trajectory or points != 2):
        raise InvalidArgument(
            "--align and --curve are between two networks; write --checkpoint A --checkpoint B."
        )
    return options


def perform(job: Job) -> dict[str, Any]:
    """Measure the line, or all lines of a path, and judge it."""
    from thalweg.measurements.dataset_codec import unpack

    chosen = {name: job.options[name] for name in ("points", "test", "align", "curve")}
    task = Task(
        "thalweg.measurements.barrier:measure_lines",
        {**job.spec, "options": chosen},
        label="lines",
        units=_units(chosen),
    )
    (result,) = job.perform([task], "barrier")
    found, files = unpack(result), result["files"]
    data = found["lines"]
    job.run.save_result(RESULT, data)
    if "aligned" in found:
        job.run.save_result(ALIGNED, found["aligned"])
    if "pair" in data.dims:
        return {"lines": _of_neighbours(data, files)}
    judged = _judged(data, job.options.get("allowed"))
    beside = {name: result[name] for name in ("alignment", "curve") if name in result}
    return _of_line(data) | {"one_basin": None if judged is None else asdict(judged)} | beside


def _units(chosen: dict[str, Any]) -> int:
    """Count the units of a task: those of lines, and of searches."""
    lines = 2 if chosen["align"] else 1
    searches = _SEARCH * (bool(chosen["align"]) + bool(chosen["curve"]))
    return int(lines * chosen["points"] * UNITS_AN_EPOCH // 3 + searches)


def measure_lines(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Measure the lines from each point to the next, in a worker."""
    from thalweg.connectivity import align, barrier, connect, neighbour_barriers
    from thalweg.measurements.dataset_codec import pack
    from thalweg.measurements.point import open_path

    risk, points = open_path(arguments, run)
    told = Told(report, UNITS_AN_EPOCH / 3)
    chosen = arguments["options"]
    options: Any = {**chosen, "progress": lambda total, label: told}
    options = {name: options[name] for name in ("points", "test", "progress")}
    files = [point.name for point in points]
    if len(points) != 2:
        return pack({"lines": neighbour_barriers(risk, points, **options)}) | {"files": files}
    results, beside = {}, {}
    if chosen.get("align"):
        plain = barrier(risk, *points, **options)
        found = align(risk, *points, progress=told.part(_SEARCH))
        beside["alignment"] = _of_alignment(found, plain)
        points = [points[0], found.state_of(risk, points[1])]
        results["aligned"] = _as_dataset(found)
    results["lines"] = barrier(risk, *points, **options)
    if chosen.get("align"):
        results["lines"].attrs["aligned"] = _words_of(beside["alignment"])
    if chosen.get("curve"):
        how: Any = {"points": chosen["points"], "test": False, "progress": told.part(_SEARCH / 2)}
        path = connect(risk, *points, kind=chosen["curve"], **how)  # two bars
        beside["curve"] = _of_path(path)
    return pack(results) | beside | {"files": files}


def _as_dataset(found: Alignment) -> xr.Dataset:
    import xarray as xr

    about = {"long_name": "weights of the second network, aligned", "units": "weights"}
    return xr.Dataset({"w": ("weight", found.w.cpu().numpy(), about)})


def _of_alignment(found: Alignment, plain: xr.Dataset) -> dict[str, Any]:
    """Write down an alignment, and the barriers without it."""
    numbers = ("cost", "bound", "unaligned", "losses", "difference")
    orders = {name: order.tolist() for name, order in found.permutations.items()}
    barriers = {
        str(name): float(plain["barrier"].sel(quantity=name)) for name in plain["quantity"].values
    }
    return {
        **{name: getattr(found, name) for name in numbers},
        "left": list(found.left),
        "permutations": orders,
        "unaligned_barriers": barriers,
    }


def _words_of(alignment: dict[str, Any]) -> str:
    was = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in alignment["unaligned_barriers"].items()
    )
    return (
        f"the second network is aligned to the first: squared distance {alignment['cost']:.4g},"
        f" {alignment['unaligned']:.4g} without, never below {alignment['bound']:.4g}; barriers"
        f" without: {was}"
    )


def _of_path(path: LowPath) -> dict[str, Any]:
    names = ("highest", "at", "error", "stderr", "barrier", "line_highest", "line_barrier")
    profile = {name: path.profile[name].values.tolist() for name in ("t", "loss")}
    return {
        "kind": path.curve.kind,
        **{name: getattr(path, name) for name in (*names, "status", "steps", "slope")},
        "profile": profile,
    }


def _judged(data: xr.Dataset, allowed: float | None) -> Any:
    """Judge the line, where there is an error or what is allowed of the loss is said."""
    from thalweg.connectivity import one_basin

    if allowed is None and "error" not in data["quantity"].values:
        return None
    return one_basin(data, allowed=allowed)


def _of_neighbours(data: xr.Dataset, files: list[str]) -> list[dict[str, Any]]:
    return [
        {"from": files[i], "to": files[i + 1], **_of_line(data.isel(pair=i))}
        for i in range(data.sizes["pair"])
    ]


def _of_line(data: xr.Dataset) -> dict[str, Any]:
    quantities = [str(name) for name in data["quantity"].values]
    along = {name: data[name].values.tolist() for name in quantities}
    errors = {f"{name}_stderr": data[f"{name}_stderr"].values.tolist() for name in quantities}
    keys = [part + end for part in COMPARED for end in _ENDS]
    compared = {
        name: {key: float(data[key].sel(quantity=name)) for key in (*keys, "barrier_at")}
        for name in quantities
    }
    line = {"t": data["t"].values.tolist(), **along, **errors}
    of_pair = {name: data[name].item() for name in ("length", "between") if name in data}
    return {"line": line, **compared, "about": {**data.attrs, **of_pair}}


def answer(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    """Give what was found without the notes, which stand in it already."""
    return {name: value for name, value in found.items() if name != "notes"}


def lines(found: dict[str, Any]) -> list[str]:
    """Write a row for each point of one line, or one for each of several lines."""
    return _rows_of_lines(found["lines"]) if "lines" in found else _rows_of_points(found)


def _rows_of_points(found: dict[str, Any]) -> list[str]:
    from thalweg.connectivity import OneBasin

    quantities = [name for name in found["line"] if name in found]
    rows = [f"{'t':>6}" + "".join(f"{name.replace('_', ' '):>14}" for name in quantities)]
    for i, t in enumerate(found["line"]["t"]):
        cells = "".join(f"{found['line'][name][i]:>14.5g}" for name in quantities)
        rows.append(f"{t:>6.3f}{cells}")
    for name in quantities:
        here = found[name]
        rows.append(f"\n{name.replace('_', ' ')} (at t = {here['barrier_at']:.3f})")
        for key, head in COMPARED.items():
            value, error, low, high = (here[key + end] for end in _ENDS)
            ends = f"95% {low:.3g} to {high:.3g}"
            rows.append(f"  {head:<36} {value:>10.4g} ± {error:.2g} (standard error), {ends}")
    rows += ["", *_told([found])]
    if "aligned" in found["about"]:
        rows += ["", found["about"]["aligned"]]
    if "curve" in found:
        rows += ["", _row_of_path(found["curve"])]
    judged = found["one_basin"]
    return rows if judged is None else [*rows, "", str(OneBasin(**judged))]


def _row_of_path(path: dict[str, Any]) -> str:
    return (
        f"{path['kind']} path ({path['status']}): training loss at most {path['highest']:.4g} ±"
        f" {path['stderr']:.2g} at t = {path['at']:.3f}, {path['barrier']:.3g} above the chord;"
        f" the straight line {path['line_highest']:.4g}, {path['line_barrier']:.3g} above it"
    )


def _rows_of_lines(found: list[dict[str, Any]]) -> list[str]:
    wide = max(len(name) for one in found for name in (one["from"], one["to"]))
    rows = []
    for name in [name for name in found[0]["line"] if name in found[0]]:
        rows.append(f"{name.replace('_', ' ')}: highest above the chord, ± standard error")
        for one in found:
            here = one[name]
            rows.append(
                f"  {one['from']:<{wide}} to {one['to']:<{wide}} {here['barrier']:>11.4g} ±"
                f" {here['barrier_stderr']:<8.2g} at t = {here['barrier_at']:.3f}"
            )
        rows.append("")
    return [*rows, *_told(found)]


def _told(found: list[dict[str, Any]]) -> list[str]:
    """Say how it was measured, and what files lacked or held besides."""
    about = found[0]["about"]
    between = next((str(b) for one in found if (b := one["about"].get("between"))), "")
    notes = [*about.get("notes", []), *([between] if between else [])]
    head = ["notes:"] if notes else []
    return [f"{about['batchnorm']}; {about['stderr']}.", *head, *(f"  - {note}" for note in notes)]


def section(run: Run) -> Section | None:
    """Give the section of the report."""
    from thalweg.measurements.barrier_section import section as drawn

    return drawn(run)


def _figure_endings() -> Collection[str]:
    from matplotlib.backend_bases import FigureCanvasBase

    endings: Collection[str] = FigureCanvasBase.get_supported_filetypes()
    return endings


def _draw(job: Job, path: Path) -> Written:
    from thalweg.measurements.barrier_section import line_still

    line_still(job.run.result(RESULT)).savefig(path, dpi=160)
    return Written()


def _write_mean(job: Job, path: Path) -> Written:
    from thalweg.connectivity import mean_state
    from thalweg.measurements.point import open_path

    risk, points = open_path(job.spec, job.run)
    if job.options.get("align"):
        import torch

        moved = torch.from_numpy(job.run.result(ALIGNED)["w"].values)
        state = mean_state(risk, points[0], moved)
    else:
        state = mean_state(risk, *points)
    write_state(state, path)
    return Written([f"mean of both models: {path}"])


def write_state(state: dict[str, Tensor], path: Path) -> None:
    """Write a state to a file of ``torch.save`` or safetensors, by its ending."""
    from thalweg.run.files import write_atomic

    if path.suffix == ".pt":
        import torch

        write_atomic(path, lambda temporary: torch.save(state, temporary))
    else:
        from safetensors.torch import save_file

        write_atomic(path, lambda temporary: save_file(state, temporary))


RECORD = Measurement(
    name="barrier",
    question="Measure loss and error on the line between two checkpoints, and the barrier on it."
    "\n\nOf more checkpoints, or of a trajectory (--run), each is joined to the next.",
    options=Options,
    perform=perform,
    lines=lines,
    section=section,
    results=(RESULT,),
    settle=settle,
    checkpoints=(2, None),
    too_few="a line has two ends: --checkpoint A --checkpoint B",
    answer=answer,
    outputs=(
        Output(
            "--picture",
            "Draw the line into this file, e.g. line.png.",
            _figure_endings,
            _draw,
            limit=(2, "draws one line"),
        ),
        Output(
            "--mean",
            "Write the mean of both models into this file, .safetensors or .pt, batch-norm"
            " statistics re-estimated; so does --out with such a name.",
            lambda: ("safetensors", "pt"),
            _write_mean,
            is_out=True,
            limit=(2, "writes the mean of two models"),
        ),
    ),
)
