"""Send results to an experiment tracker: wandb and its kind, or TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from thalweg.errors import InvalidArgument

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def log_result(
    tracker: Any,
    result: Any,
    *,
    name: str,
    step: int | None = None,
    figures: Mapping[str, Figure] | None = None,
) -> dict[str, float]:
    """
    Send the numbers of a result, and figures, to a tracker.

    Parameters
    ----------
    tracker : object
        With ``add_scalar`` and ``add_figure`` (``torch.utils.tensorboard.SummaryWriter``), or with
        ``log`` of a dict (a wandb run and others of its kind).
    result : dataclass, mapping or xarray.Dataset
        Whose single finite numbers are sent, also those of results within it; arrays are not.
    name : str
        Before each number: ``"flatness/trace"``.
    step : int, optional
        Of the training.
    figures : mapping of str to matplotlib Figure, optional
        Sent beside them.

    Returns
    -------
    dict of str to float
        What was sent.

    Raises
    ------
    InvalidArgument
        If the tracker has neither way, or the result no numbers.
    """
    numbers = dict(_numbers(result, name))
    if not numbers:
        raise InvalidArgument(
            f"log_result: {type(result).__name__} holds no single finite number; expected a result"
            " such as that of tw.flatness, a mapping, or a Dataset."
        )
    drawn = {f"{name}/{key}": figure for key, figure in (figures or {}).items()}
    if hasattr(tracker, "add_scalar"):
        for key, value in numbers.items():
            tracker.add_scalar(key, value, global_step=step)
        for key, figure in drawn.items():
            tracker.add_figure(key, figure, global_step=step, close=False)
    elif callable(getattr(tracker, "log", None)):
        content = {**numbers, **_images(tracker, drawn)}
        tracker.log(content) if step is None else tracker.log(content, step=step)
    else:
        raise InvalidArgument(
            f"log_result: a {type(tracker).__name__} has neither log nor add_scalar; give a wandb"
            " run, or torch.utils.tensorboard.SummaryWriter."
        )
    return numbers


def _images(tracker: Any, drawn: Mapping[str, Figure]) -> dict[str, Any]:
    """Wrap figures as wandb wants them; other trackers get them as they are."""
    if not drawn or type(tracker).__module__.partition(".")[0] != "wandb":
        return dict(drawn)
    import wandb

    return {key: wandb.Image(figure) for key, figure in drawn.items()}


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if hasattr(value, "data_vars"):
        value = {**value.attrs, **{k: v.item() for k, v in value.data_vars.items() if not v.ndim}}
    elif is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}/{key}")
    elif type(value) is not bool and isinstance(value, Real) and math.isfinite(value):
        yield name, float(value)
