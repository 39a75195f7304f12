"""Zero training error: where it is reached, on true and on random labels, by weights an equation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.intervals import exact, share
from thalweg.studies.trainings import trunk_task

if TYPE_CHECKING:
    import xarray as xr

CELLS, CURVES = "zero_error/cells", "zero_error/curves"
SECTION = "zero_error"

# Networks are trained once a seed at the preset's full size; a control has fewer weights than
# samples. The sweep trains many small networks on few samples; an `epochs_worth` of it is what one
# costs in epochs of the full size, for the estimate of time.
SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "seeds": [0, 1],
        "checkpoints": 12,
        "networks": {
            "true-labels": {"labels": "true", "epochs": 40},
            "random-labels": {"labels": "random", "epochs": 100},
            "narrow-true-labels": {"labels": "true", "epochs": 20, "control": [2, 2, 2]},
            "narrow-random-labels": {"labels": "random", "epochs": 20, "control": [2, 2, 2]},
        },
        "sweep": {"seeds": [0, 1, 2, 3], "samples": 200, "epochs": 100, "epochs_worth": 5},
    },
    "laptop": {
        "seeds": [0],
        "checkpoints": 10,
        "networks": {
            "true-labels": {"labels": "true", "epochs": 40},
            "random-labels": {"labels": "random", "epochs": 50},
            "narrow-true-labels": {"labels": "true", "epochs": 20, "control": [4, 4, 6, 6]},
            "narrow-random-labels": {"labels": "random", "epochs": 20, "control": [4, 4, 6, 6]},
        },
        "sweep": {"seeds": [0, 1, 2], "samples": 400, "epochs": 60, "epochs_worth": 1},
    },
    "paper": {
        "seeds": [0],
        "checkpoints": 10,
        "networks": {
            "true-labels": {"labels": "true", "epochs": 36},
            "random-labels": {"labels": "random", "epochs": 40},
            "random-labels-10000": {"labels": "random", "epochs": 50, "train_size": 10000},
            "narrow-true-labels": {"labels": "true", "epochs": 10, "control": [4, 4, 6, 6]},
            "narrow-random-labels": {"labels": "random", "epochs": 10, "control": [4, 4, 6, 6]},
        },
        "sweep": {"seeds": [0, 1, 2, 3], "samples": 400, "epochs": 60, "epochs_worth": 0.2},
    },
}
# Networks of the sweep, from fewer weights than samples to more than outputs of all samples.
_DIGITS: dict[str, Any] = {
    "settings": {"network": "mlp"},
    "widths": [[1], [2], [4], [8], [12], [16], [32], [48], [64]],
}
_IMAGES: dict[str, Any] = {
    "settings": {"network": "allconv", "test_size": 1000},
    "widths": [
        [1, 1, 1, 1],
        [2, 2, 2, 2],
        [4, 4, 4, 4],
        [6, 6, 8, 8],
        [10, 10, 12, 12],
        [12, 12, 16, 16],
        [16, 16, 20, 20],
    ],
}
_SWEEP_BATCH = 20
_SHARES = {"true": 0.0, "random": 1.0}

# Rules, stated before anything was measured.
ZERO = Rule(high=0)
MOST = Rule(low=0.5)

_SOURCE = "Liao and Poggio, Theory II (2017), abstract: overparametrized networks reach zero error"
_INAPPLICABLE = (
    "The study varies widths and labels of the built-in image problems; this run's problem is its "
    "own."
)


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the trainings of the study: the networks at full size, and the sweep over widths.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.

    Returns
    -------
    list of Task
        None for a problem that is not one of images: its widths and labels cannot be chosen.
    """
    if not _applies(config):
        return []
    study = config["zero_error"]
    whole = [
        _network_task(config, name, network, config["seed"] + seed)
        for name, network in study["networks"].items()
        for seed in study["seeds"]
    ]
    family = _DIGITS if config["problem"]["entry"] == "digits" else _IMAGES
    cells = [
        _cell_task(config, family["settings"], widths, labels, config["seed"] + seed)
        for labels in _SHARES
        for widths in family["widths"]
        for seed in study["sweep"]["seeds"]
    ]
    return whole + cells


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather how far each training came, and save it as ``zero_error/cells`` and ``.../curves``.

    Parameters
    ----------
    run : Run
        Whose trainings are done.
    config : dict
        The one that `tasks` was given.
    progress : callable
        Not used: there is little to do.

    Returns
    -------
    dict
        For each network at full size what it came to; for each kind of labels from how many
        weights an equation on every network of the sweep reached zero error.
    """
    done = [(task, outcome) for task in tasks(config) if (outcome := task_result(run, task))]
    if not done:
        return {}
    cells = _cells(done)
    run.save_result(CELLS, cells)
    run.save_result(CURVES, _curves([one for one in done if not _is_sweep(one[0])]))
    whole = cells.isel(cell=np.flatnonzero(cells["part"].values == "network"))
    return {
        "networks": {
            str(row["name"].values): {
                key: row[key].item() for key in (*_COUNTS, "misclassified", "test_error", "epochs")
            }
            for row in (whole.isel(cell=i) for i in range(whole.sizes["cell"]))
        },
        "reached_from": {labels: reached_from(cells, labels) for labels in _SHARES},
    }


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """
    Judge the claims of the study by what `assemble` saved.

    Parameters
    ----------
    run : Run
        With the results of the study.
    config : dict
        The one that `tasks` was given.

    Returns
    -------
    list of Claim
        One for each network at full size that is no control, and one for each kind of labels in
        the sweep.
    """
    if not _applies(config):
        return [_network_claim(labels, labels, None) for labels in _SHARES]
    cells = run.result(CELLS)
    networks = config["zero_error"]["networks"]
    return [
        *(
            _network_claim(name, network["labels"], cells)
            for name, network in networks.items()
            if "control" not in network
        ),
        *(_sweep_claim(labels, cells) for labels in _SHARES),
    ]


def reached_from(cells: xr.Dataset, labels: str) -> dict[str, float] | None:
    """
    Give the fewest weights an equation from which on all networks of the sweep reach zero error.

    Parameters
    ----------
    cells : xarray.Dataset
        ``zero_error/cells``.
    labels : {"true", "random"}
        Which.

    Returns
    -------
    dict or None
        ``weights``, and ratios by the three counts; None where the largest do not reach it.
    """
    mine = _chosen(cells, part="sweep", labels=labels)
    missed = mine["weights"].values[mine["misclassified"].values > 0]
    above = mine["weights"].values > (missed.max() if missed.size else 0)
    if not above.any():
        return None
    first = mine.isel(cell=int(np.flatnonzero(above)[mine["weights"].values[above].argmin()]))
    return {key: float(first[key]) for key in ("weights", *_COUNTS)}


def _applies(config: dict[str, Any]) -> bool:
    return config["problem"]["entry"] in ("digits", "cifar10")
