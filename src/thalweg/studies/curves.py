"""The curves of many trainings in one labelled data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.run import Task

if TYPE_CHECKING:
    import xarray as xr

_UNITS = {"loss": "mean loss a sample", "error": "share of samples misclassified"}
_MEASURED = ("loss", "error", "test_loss", "test_error")


def gather_curves(outcomes: Sequence[tuple[Task, dict[str, Any]]]) -> xr.Dataset:
    """
    Gather the curves of trainings that are done.

    Parameters
    ----------
    outcomes : sequence of (Task, dict)
        Trainings of `thalweg.studies.trainings` with their results.

    Returns
    -------
    xarray.Dataset
        Losses and errors, train and test, along ``record``, with ``step`` and ``epoch`` and the
        names of ``trajectory``, ``parent`` and ``moment`` (empty for trunks).
    """
    import xarray as xr

    lengths = [len(outcome["step"]) for _, outcome in outcomes]

    def column(key: str) -> tuple[str, Any]:
        return "record", np.concatenate([outcome[key] for _, outcome in outcomes])

    def named(key: str) -> tuple[str, Any]:
        return "record", np.repeat([task.arguments.get(key, "") for task, _ in outcomes], lengths)

    dataset = xr.Dataset(
        {key: column(key) for key in _MEASURED},
        coords={
            **{key: column(key) for key in ("step", "epoch")},
            **{key: named(key) for key in ("trajectory", "parent", "moment")},
        },
    )
    for key in _MEASURED:
        dataset[key].attrs["units"] = _UNITS[key.removeprefix("test_")]
    return dataset
