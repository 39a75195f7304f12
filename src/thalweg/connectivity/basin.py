"""Whether two points lie in one basin, as far as the straight line between them tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from thalweg.errors import InvalidArgument
from thalweg.result import Result

if TYPE_CHECKING:
    import xarray as xr

Verdict = Literal["one basin", "a barrier", "undecided"]
# Frankle et al. (2020), section 2: a rise of the error of less than two points counts as none.
_ALLOWED = 0.02


@dataclass(frozen=True)
class OneBasin(Result):
    """
    A verdict on a line, from the interval of its barrier.

    Attributes
    ----------
    verdict : {"one basin", "a barrier", "undecided"}
        Whether the whole interval is at most what is allowed, above it, or neither.
    quantity : str
        What was judged: ``"error"`` or ``"loss"``.
    barrier, low, high : float
        Its barrier, and the 95 % interval over samples.
    allowed : float
        In its unit.
    """

    verdict: Verdict
    quantity: str
    barrier: float
    low: float
    high: float
    allowed: float

    def __str__(self) -> str:
        rise = f"{self.quantity} barrier {self.barrier:.3g} (95% {self.low:.3g} to {self.high:.3g})"
        along = " along the straight line" if self.verdict == "one basin" else ""
        return f"{self.verdict}{along}: {rise}, allowed {self.allowed:g}"


def one_basin(line: xr.Dataset, *, allowed: float | None = None) -> OneBasin:
    """
    Judge whether two points lie in one basin, by the barrier on the line between them.

    The training error is judged where it was counted, else the training loss. A barrier on the
    straight line does not part two basins: another path may be lower, and another order of hidden
    units may lie in the same basin.

    Parameters
    ----------
    line : xarray.Dataset
        Of `barrier`.
    allowed : float, optional
        The largest barrier of one basin. By default an error of 0.02 (Frankle et al., 2020); a
        loss has no unit of its own, so that for losses it must be given.

    Raises
    ------
    InvalidArgument
        If it is not given and only the loss is known.

    Examples
    --------
    >>> import torch
    >>> from thalweg.connectivity import barrier
    >>> from thalweg.landscape import Quadratic
    >>> bowl = Quadratic(torch.ones(2, dtype=torch.float64))
    >>> print(one_basin(barrier(bowl, bowl.centre - 1.0, bowl.centre + 1.0), allowed=0.1))
    one basin along the straight line: loss barrier -0.19 (95% -0.19 to -0.19), allowed 0.1
    """
    quantity = "error" if "error" in line["quantity"].values else "loss"
    if allowed is None and quantity == "loss":
        raise InvalidArgument(
            "this line has losses and no classification error, and no loss is small by itself;"
            " write allowed=0.1, the largest barrier of one basin in units of the loss."
        )
    limit = _ALLOWED if allowed is None else allowed
    here = line.sel(quantity=quantity)
    value, low, high = (float(here[f"barrier{end}"]) for end in ("", "_low", "_high"))
    verdict: Verdict = "undecided"
    if high <= limit:
        verdict = "one basin"
    elif low > limit:
        verdict = "a barrier"
    return OneBasin(verdict, quantity, value, low, high, limit)
