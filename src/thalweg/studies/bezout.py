"""The paper's zero-minimizers as polynomial equations: how many, how many-dimensional, how flat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.bezout_claims import claims, rules
from thalweg.studies.polynomial_networks import described
from thalweg.studies.trainings import UNITS_AN_EPOCH

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SIZES", "assemble", "claims", "rules", "tasks"]

_CUBE, _SQUARE, _FIFTH, _LINEAR = [0, 0, 0, 1], [0, 0, 1], [0, 0, 0, 0, 0, 1], [0, 1]
# What a draw of a network takes on one core, on average: nothing to do with the run's problem, of
# which the shared bar counts tenths of epochs.
_SECONDS_A_DRAW = 0.7


def _dense(
    *widths: int,
    activation: list[int],
    bias: bool = True,
    samples: int,
    draws: int = 1,
    **more: Any,
) -> dict[str, Any]:
    spec = {"widths": list(widths), "activation": activation, "bias": bias}
    return {"network": spec, "samples": samples, "draws": draws, **more}


def _convolution(positions: int, *, samples: int, draws: int = 1) -> dict[str, Any]:
    spec = {"positions": positions, "kernel": 2, "channels": 1, "activation": _CUBE, "bias": True}
    return {"network": spec, "samples": samples, "draws": draws}


# As many weights as samples.
_SQUARES = [
    _dense(1, 1, 1, activation=_CUBE, samples=2),
    _dense(2, 1, 1, activation=_CUBE, samples=3),
    _dense(2, 1, 1, activation=_SQUARE, samples=3, draws=4),
    _dense(1, 2, 1, activation=_FIFTH, samples=4),
    _dense(2, 2, 1, activation=_CUBE, samples=6),
    _dense(2, 3, 1, activation=_CUBE, samples=9),
    _convolution(3, samples=4),
]
# More weights than samples, and no more samples than the generic rank.
_WIDE = [
    _dense(1, 2, 1, activation=_CUBE, bias=False, samples=1, solve=True),
    _dense(2, 1, 1, activation=_CUBE, samples=2, solve=True),
    _dense(1, 2, 1, activation=_CUBE, samples=3, solve=False),
    _dense(1, 3, 1, activation=_CUBE, samples=4, solve=False),
    _dense(2, 2, 1, activation=_CUBE, samples=4, solve=False),
    _dense(2, 4, 1, activation=_FIFTH, samples=8, solve=False),
    _dense(2, 2, 2, 1, activation=_CUBE, samples=5, solve=False),
    {**_convolution(6, samples=4), "solve": False},
]
# More weights than samples, and more samples than the generic rank.
_BEYOND = [
    _dense(1, 3, 1, activation=_CUBE, bias=False, samples=2),
    _dense(2, 3, 1, activation=_SQUARE, samples=7),
]
_MINIMA = [
    _dense(1, 1, 1, activation=_SQUARE, samples=5, draws=3),
    _dense(1, 1, 1, activation=_CUBE, samples=5, draws=3),
    _dense(2, 1, 1, activation=_SQUARE, samples=6, draws=2),
    _dense(2, 1, 1, activation=_CUBE, samples=6),
]
# With the numbers of critical points that are known: Bharadwaj.
_DECAYED = [
    _dense(1, 1, 1, activation=_LINEAR, bias=False, samples=1, known=5),
    _dense(1, 2, 1, activation=_LINEAR, bias=False, samples=1, known=9),
    _dense(1, 1, 2, activation=_LINEAR, bias=False, samples=1, known=9),
    _dense(1, 1, 1, 1, activation=_LINEAR, bias=False, samples=1, known=17),
    _dense(1, 1, 1, activation=_SQUARE, samples=4),
    _dense(1, 1, 1, activation=_CUBE, samples=4),
]
_DEMO: dict[str, Any] = {
    "square": _SQUARES,
    "wide": _WIDE,
    "beyond": _BEYOND,
    # All three dimensions of zeros are rotations: as many samples as the rank, yet W > N. No zero
    # of about one draw in ten is real.
    "rotated": [_dense(2, 3, 1, activation=_SQUARE, samples=6, solve=False, draws=3)],
    "minima": _MINIMA,
    "decayed": _DECAYED,
    "splits": [0.8, 1.5],
    "points": 8,
    "seconds": 10.0,
    "pictures": {
        "solutions": _dense(2, 2, 1, activation=_CUBE, samples=6),
        "curve": _dense(1, 2, 1, activation=_CUBE, bias=False, samples=1),
        "extent": 2.5,
        "points": 101,
    },
}


def _more(entries: list[dict[str, Any]], factor: int) -> list[dict[str, Any]]:
    return [entry | {"draws": entry["draws"] * factor} for entry in entries]


_LAPTOP = _DEMO | {
    "square": [
        *_more(_SQUARES, 3),
        _dense(2, 2, 1, activation=[0, 0, 0, 0, 1], samples=6),
        _dense(1, 3, 1, activation=_FIFTH, samples=6),
        _dense(3, 5, 1, activation=_CUBE, samples=20),
    ],
    "wide": [
        *(
            {**entry, "solve": True}
            if entry["network"].get("widths") in ([1, 2, 1], [1, 3, 1], [2, 2, 1])
            else entry
            for entry in _more(_WIDE, 3)
        ),
        _dense(3, 6, 1, activation=_CUBE, samples=12, solve=False, draws=3),
    ],
    "minima": _more(_MINIMA, 3),
    "decayed": [
        *_more(_DECAYED, 3),
        _dense(1, 2, 2, activation=_LINEAR, bias=False, samples=1, known=33),
    ],
    "points": 20,
    "seconds": 60.0,
}
SIZES: dict[str, dict[str, Any]] = {
    "demo": _DEMO,
    "laptop": _LAPTOP,
    "paper": _LAPTOP
    | {
        "square": [*_more(_LAPTOP["square"], 2), _dense(2, 7, 1, activation=_FIFTH, samples=21)],
        "minima": [
            *_more(_LAPTOP["minima"], 2),
            _dense(3, 1, 1, activation=_CUBE, samples=8, draws=2),
        ],
        "points": 50,
        "seconds": 300.0,
    },
}


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the systems to be solved: one task for each network, and one for the counterexamples.

    None needs another.
    """
    groups = _groups(config)
    return [task for group in groups.values() for task in group]


def _groups(config: dict[str, Any]) -> dict[str, list[Task]]:
    tenth = config.get("seconds_an_epoch", 0.1) / UNITS_AN_EPOCH
    study = config["bezout"] | {"units": max(1, round(_SECONDS_A_DRAW / tenth))}
    seed = config["seed"]
    groups = {
        "square": [_zeros(study, entry, seed, solve=True) for entry in study["square"]],
        "wide": [_zeros(study, entry, seed, solve=entry["solve"]) for entry in study["wide"]],
        "beyond": [_zeros(study, entry, seed, solve=True) for entry in study["beyond"]],
        "planted": [
            _zeros(study, entry, seed, solve=False, targets="planted") for entry in study["beyond"]
        ],
        "rotated": [_zeros(study, entry, seed, solve=False) for entry in study["rotated"]],
        "minima": [_critical(study, entry, seed, 0.0) for entry in study["minima"]],
        "decayed": [_critical(study, entry, seed, "generic") for entry in study["decayed"]],
    }
    cases = {"seed": seed, "splits": study["splits"]}
    groups["cases"] = [_task(study, "nonzero_minima:counterexamples", cases, "counterexamples")]
    pictures = {"seed": seed, **study["pictures"]}
    groups["pictures"] = [_task(study, "zero_sets:gallery", pictures, "solutions to be drawn")]
    return groups


def _zeros(
    study: dict[str, Any],
    entry: dict[str, Any],
    seed: int,
    *,
    solve: bool,
    targets: str = "generic",
) -> Task:
    arguments = {
        "network": entry["network"],
        "samples": entry["samples"],
        "seeds": [seed + draw for draw in range(entry["draws"])],
        "targets": targets,
        "solve": solve,
        "points": study["points"],
        "seconds": study["seconds"],
    }
    label = f"zeros of {described(entry['network'])}, {entry['samples']} samples"
    return _task(study, "zero_sets:zero_minimizers", arguments, label)


def _critical(
    study: dict[str, Any], entry: dict[str, Any], seed: int, penalty: float | str
) -> Task:
    arguments = {
        "network": entry["network"],
        "samples": entry["samples"],
        "seeds": [seed + draw for draw in range(entry["draws"])],
        "penalty": penalty,
        "seconds": study["seconds"],
    }
    label = f"critical points of {described(entry['network'])}"
    return _task(study, "nonzero_minima:critical", arguments, label)


def _task(study: dict[str, Any], function: str, arguments: dict[str, Any], label: str) -> Task:
    units = study["units"] * len(arguments.get("seeds", [0]))
    return Task(
        f"thalweg.studies.{function}", {**arguments, "units": units}, label=label, units=units
    )


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather what the tasks counted into tables of draws and of points.

    What is returned are the numbers of systems, zero-minimizers and critical points.
    """
    groups = _groups(config)
    zeros = [name for name in groups if name in ("square", "wide", "beyond", "planted", "rotated")]
    losses = ["minima", "decayed"]
    tables = {
        "systems": _rows(run, config, groups, zeros, "draws"),
        "zeros": _rows(run, config, groups, zeros, "points"),
        "losses": _rows(run, config, groups, losses, "draws"),
        "critical": _rows(run, config, groups, losses, "points"),
        "cases": _case_rows(run, groups["cases"][0]),
    }
    for name, rows in tables.items():
        run.save_result(f"bezout/{name}", _table(rows))
    _save_pictures(run, groups["pictures"][0])
    return {name: len(rows) for name, rows in tables.items()}


def _rows(
    run: Run, config: dict[str, Any], groups: dict[str, list[Task]], names: list[str], table: str
) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        entries = config["bezout"].get("beyond" if name == "planted" else name)
        for task, entry in zip(groups[name], entries, strict=True):
            about = {
                "group": name,
                "network": described(entry["network"]),
                "units": _units(entry["network"]),
                "samples": entry["samples"],
                "known": entry.get("known"),
            }
            rows += [about | row for row in (task_result(run, task) or {}).get(table, [])]
    return rows


def _units(spec: dict[str, Any]) -> int:
    """Hidden units, or channels, of a network."""
    return sum(spec["widths"][1:-1]) if "widths" in spec else spec["channels"]


def _case_rows(run: Run, task: Task) -> list[dict[str, Any]]:
    cases = (task_result(run, task) or {"cases": []})["cases"]
    return [{"singular": None, **case} for case in cases]


def _table(rows: list[dict[str, Any]]) -> xr.Dataset:
    """One dimension, ``row``; numbers as float64, NaN where there is none; text as text."""
    import xarray as xr

    columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
    text = {name for name, values in columns.items() if isinstance(values[0], str)}
    data = {
        name: ("row", np.array(values if name in text else [_number(v) for v in values]))
        for name, values in columns.items()
    }
    return xr.Dataset(data)


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def _save_pictures(run: Run, task: Task) -> None:
    import xarray as xr

    arrays = task_result(run, task)
    if arrays is None:
        return
    solutions = {"real_part": "real", "imaginary_part": "imaginary"}
    run.save_result(
        "bezout/solutions",
        xr.Dataset(
            {name: (("solution", "weight"), arrays[name]) for name in solutions}
            | {name: ("solution", np.asarray(arrays[name])) for name in ("real", "solution_class")},
            attrs={"network": described(task.arguments["solutions"]["network"])},
        ),
    )
    run.save_result(
        "bezout/surface",
        xr.Dataset(
            {
                "loss": (("first", "second"), arrays["loss"]),
                "curve": (("step", "weight"), arrays["curve"]),
            },
            coords={"first": arrays["axis"], "second": arrays["axis"]},
            attrs={"network": described(task.arguments["curve"]["network"])},
        ),
    )
