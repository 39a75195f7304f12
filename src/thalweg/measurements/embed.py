"""``thalweg embed``: the checkpoints of trainings in two or three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from thalweg.measurements.formatting import count
from thalweg.measurements.options import defaults, option
from thalweg.measurements.record import Job, Measurement, in_order
from thalweg.measurements.told import UNITS_AN_EPOCH
from thalweg.run import Report, Run, Task

if TYPE_CHECKING:
    import xarray as xr

    from thalweg.measurements.parts import Section

RESULT = "embed/embedding"


@dataclass(frozen=True)
class Options:
    """What of `thalweg.embed` is chosen, and which trainings are shown."""

    dims: int = option(3, "2, drawn flat, or 3.", least=2, most=3)
    method: Literal["mds", "classical", "pca"] = option(
        "mds", "Metric or classical scaling, or principal components."
    )
    also: list[str] | None = option(
        None,
        "Another training to embed with it, RUN or RUN:TRAJECTORY; repeatable.",
        metavar="RUN",
        open=True,
    )


class _Row(NamedTuple):
    """A checkpoint that is embedded: its file, and where in which training it is."""

    file: str
    name: str
    trajectory: str
    step: int


def settle(given: dict[str, Any], points: int, trajectory: bool) -> dict[str, Any]:
    """Complete the options, and check that the other trainings are there."""
    from thalweg.measurements.places import named_anywhere

    chosen = {**defaults(Options), **given}
    if chosen.get("also"):
        chosen["also"] = [named_anywhere(text) for text in chosen["also"]]
    return chosen


def perform(job: Job) -> dict[str, Any]:
    """Evaluate each checkpoint in a task of its own, and embed all in another."""
    rows = _rows(job)
    # `prepare` has checked the model; files differ from one another in nothing that it looks at.
    shared = {**job.spec, "check": False}
    tasks = [
        Task(
            "thalweg.measurements.embed:evaluate_checkpoint",
            {**shared, "at": {**_opening(job), "checkpoints": [row.file]}},
            label=f"loss of {row.name}",
            units=UNITS_AN_EPOCH,
        )
        for row in rows
    ]
    evaluated = job.perform(tasks, "losses")
    placing = Task(
        "thalweg.measurements.embed:embed_checkpoints",
        {
            "at": job.spec["at"],  # with digests of the files
            "files": [row.file for row in rows],
            "dims": job.options["dims"],
            "method": job.options["method"],
        },
        label="embedding",
    )
    ((placed,), (result,)) = (
        job.answers([placing], "embedding"),
        job.perform([placing], "embedding"),
    )
    prefix = "test_" if job.spec["risk"]["split"] == "test" else ""
    scores = [{prefix + name: value for name, value in each.items()} for each in evaluated]
    data = _dataset(placed["embedding"], result["distance"], rows, scores)
    job.run.save_result(RESULT, data)
    return _summary(data, prefix + "loss")


def _opening(job: Job) -> dict[str, Any]:
    opening = job.spec["at"].get("opening")
    return {"opening": opening} if opening else {}


def _rows(job: Job) -> list[_Row]:
    """List what is embedded: the checkpoints, then each training in the order of its steps."""
    from thalweg.measurements.places import each_point, files_of_ways

    at = job.spec["at"]
    names = [name for name, _ in each_point(job.spec)]
    points = zip(at.get("checkpoints", ()), names, strict=False)
    rows = [_Row(file, name, name, -1) for file, name in points]
    for way in files_of_ways(at, job.options.get("also") or ()):
        rows += [
            _Row(str(file), f"{way.name}/{step}", way.name, step)
            for file, step in zip(way.files, way.steps, strict=True)
        ]
    return rows


def evaluate_checkpoint(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Evaluate one checkpoint, in a worker."""
    from thalweg.measurements.point import open_one

    risk, w, _ = open_one(arguments, run)
    scores = risk.evaluate(w)
    return {name: scores[name] for name in ("loss", "error") if name in scores}


def embed_checkpoints(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Embed all checkpoints, in a worker."""
    from thalweg.embedding import embed

    opening = arguments["at"].get("opening", {})
    how = {name: opening[name] for name in ("entry", "allow") if name in opening}
    data = embed(arguments["files"], dims=arguments["dims"], method=arguments["method"], **how)
    rest = data.drop_vars("distance").to_dict(data="list")
    return in_order({"embedding": rest}) | {"distance": data["distance"].values}


def _dataset(
    placed: dict[str, Any], distance: Any, rows: list[_Row], scores: list[dict[str, float]]
) -> xr.Dataset:
    """Label the embedding by training and step, with the losses that were measured here."""
    import xarray as xr

    data = xr.Dataset.from_dict(placed)
    units = {"long_name": "Euclidean distance in weight space", "units": "weight"}
    data["distance"] = (("layer", "checkpoint", "other"), distance, units)
    columns = {
        "name": [row.name for row in rows],
        "trajectory": [row.trajectory for row in rows],
        "step": [row.step for row in rows],
        **{key: [each[key] for each in scores] for key in scores[0]},
    }
    return data.assign_coords({key: ("checkpoint", value) for key, value in columns.items()})


def _summary(data: xr.Dataset, loss: str) -> dict[str, Any]:
    layers = [
        {
            "layer": str(here["layer"].values),
            "stress": float(here["stress"]),
            "least_fidelity": float(here["fidelity"].min()),
        }
        for here in (data.isel(layer=number) for number in range(data.sizes["layer"]))
    ]
    ends = [
        {"trajectory": name, "checkpoints": len(places), "loss": float(data[loss][places[-1]])}
        for name, places in _by_trajectory(data).items()
    ]
    return {"method": data.attrs["method"], "trajectories": ends, "layers": layers}


def _by_trajectory(data: xr.Dataset) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, name in enumerate(data["trajectory"].values):
        places.setdefault(str(name), []).append(place)
    return places


def answer(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    """Add positions and distances of the whole network to the summary."""
    whole = run.result(RESULT).isel(layer=0)
    scores = ("loss", "error", "test_loss", "test_error")
    names = ("name", "trajectory", "step", *scores, "position", "distance")
    shown = {name: whole[name].values.tolist() for name in names if name in whole}
    return {**found, "embedding": shown}


def lines(found: dict[str, Any]) -> list[str]:
    """Write what was embedded, and how faithful the picture of each layer is."""
    rows = [found["method"]]
    for way in found["trajectories"]:
        number = count(way["checkpoints"], "checkpoint")
        rows.append(f"  {way['trajectory']}: {number}, loss {way['loss']:.4g} at the end")
    rows.append(f"\n{'stress':>8} {'least fidelity':>15}  layer")
    for layer in found["layers"]:
        rows.append(f"{layer['stress']:>8.3g} {layer['least_fidelity']:>15.3g}  {layer['layer']}")
    return rows


def section(run: Run) -> Section | None:
    """Give the section of the report."""
    from thalweg.measurements.embed_section import section as drawn

    return drawn(run)


RECORD = Measurement(
    name="embed",
    question="Embed the checkpoints of trainings in two or three dimensions, by their distances.",
    options=Options,
    perform=perform,
    lines=lines,
    section=section,
    results=(RESULT,),
    settle=settle,
    checkpoints=(1, None),
    kept=True,
    answer=answer,
)
