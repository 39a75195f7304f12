"""Any result in words: what each of its numbers is, from where that is documented."""

from __future__ import annotations

import html
import inspect
import re
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from thalweg.errors import InvalidArgument
from thalweg.result import brief

if TYPE_CHECKING:
    import xarray as xr

# Attributes of data sets that say how they were measured, in the order in which they are told.
_HOW = ("batchnorm", "stderr", "directions", "method", "measured", "orientation", "self_check")


def explain(result: Any) -> str:
    """
    Say in words what a result holds: each number with what it is, and how it was measured.

    Parameters
    ----------
    result : object
        What an instrument returned: a result such as that of `thalweg.degeneracy`, or a labelled
        data set such as that of `thalweg.surface`.

    Returns
    -------
    str
        Of several lines.

    Raises
    ------
    InvalidArgument
        If it is none.

    Examples
    --------
    >>> import torch
    >>> import thalweg as tw
    >>> print(tw.explain(tw.trace(torch.eye(3, dtype=torch.float64))).splitlines()[2])
    value = 3: The estimate.
    """
    if hasattr(result, "told"):
        return "\n".join(result.told())
    if is_dataclass(result) and not isinstance(result, type):
        return "\n".join(_of_fields(result))
    if hasattr(result, "data_vars"):
        return "\n".join(_of_dataset(result))
    raise _refused("explain", result)


def table_of(result: Any) -> str:
    """Write the fields of a result as a table in HTML."""
    meant = meanings(type(result))
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td>'
        f'<td style="text-align:left">{html.escape(meant.get(name, ""))}</td></tr>'
        for name, value in brief(result).items()
    )
    caption = f"<caption><b>{type(result).__name__}</b> {html.escape(_summary(result))}</caption>"
    return f"<table>{caption}<tbody>{rows}</tbody></table>"


def meanings(kind: type) -> dict[str, str]:
    """Read what each field of a class is from its docstring, in numpydoc form."""
    text = inspect.cleandoc(kind.__doc__ or "")
    _, found, body = text.partition("Attributes\n----------\n")
    answer: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", body.split("\n\n")[0]) if found else []:
        names, _, meaning = block.partition("\n")
        for name in names.partition(" : ")[0].split(","):
            answer[name.strip()] = " ".join(meaning.split())
    return answer


def _summary(result: Any) -> str:
    return " ".join(inspect.cleandoc(type(result).__doc__ or "").split("\n\n")[0].split())


def _of_fields(result: Any) -> list[str]:
    meant = meanings(type(result))
    rows = [f"{type(result).__name__}: {_summary(result)}", ""]
    for name, value in brief(result).items():
        meaning = meant.get(name, "")
        rows.append(f"{name} = {value}" + (f": {meaning}" if meaning else ""))
    return rows


def _of_dataset(data: xr.Dataset) -> list[str]:
    shape = ", ".join(f"{size} along {dim}" for dim, size in data.sizes.items())
    rows = [f"A data set{f': {shape}' if shape else ''}.", ""]
    for name, variable in data.data_vars.items():
        about = str(variable.attrs.get("long_name", ""))
        unit = str(variable.attrs.get("units", ""))
        told = ", ".join(part for part in (about, f"in {unit}" if unit else "") if part)
        rows.append(f"{name}: {told or 'no description'}{_range(variable)}")
    how = [f"{name}: {data.attrs[name]}" for name in _HOW if data.attrs.get(name)]
    return [*rows, *(["", *how] if how else [])]


def _range(variable: xr.DataArray) -> str:
    if variable.dtype.kind not in "iuf" or not variable.size:
        return ""
    low, high = float(variable.min()), float(variable.max())
    return f"; {low:.4g}" if low == high else f"; {low:.4g} to {high:.4g}"


def _refused(what: str, result: Any) -> InvalidArgument:
    return InvalidArgument(
        f"{what}: got a {type(result).__name__}; expected what an instrument returns, such as"
        " tw.flatness(...), tw.barrier(...) or tw.surface(...), or a data set of run.result(...)."
    )
