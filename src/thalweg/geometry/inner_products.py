"""Inner products of long vectors, which sums in float32 lose thousandths of."""

from __future__ import annotations

import torch
from torch import Tensor

# Entries that are summed in the vectors' own dtype. Of 11 million positive numbers in float32 a
# plain product is off by 1e-3 to 1e-2 of itself, sums of so many by 1e-7, at the same price.
_SUMMED = 1 << 14
# Entries of each vector that are converted to float64 at once.
_CONVERTED = 1 << 20
# Rows of columns that are factored at once.
_FACTORED = 1 << 20


def inner(rows: Tensor, others: Tensor) -> Tensor:
    """
    Multiply vectors with vectors: parts in their own dtype, the sum of the parts in float64.

    Parameters
    ----------
    rows, others : Tensor
        Vectors, shapes (..., k, W) and (..., m, W), or (W,) for one.

    Returns
    -------
    Tensor
        Shape (..., k, m) without the axes of single vectors, float64, on the CPU.

    Examples
    --------
    >>> inner(torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 4.0], [0.0, 1.0]])).tolist()
    [11.0, 2.0]
    """
    left, right = (v[None] if v.dim() == 1 else v for v in (rows, others))
    width = left.shape[-1]
    summed = width if left.dtype == torch.float64 else _SUMMED
    total = left.new_zeros((), dtype=torch.float64)
    for start in range(0, max(1, width), max(1, summed)):
        part = slice(start, start + summed)
        total = total + (left[..., part] @ right[..., part].mT).double()
    shape = (*total.shape[:-2], *rows.shape[-2:-1], *others.shape[-2:-1])
    return total.reshape(shape).cpu()


def lengths(rows: Tensor) -> Tensor:
    """
    Take Euclidean norms: float32 loses many small entries behind a large one.

    Parameters
    ----------
    rows : Tensor
        Vectors, shape (..., W).

    Returns
    -------
    Tensor
        Shape (...), float64, on the CPU.
    """
    total = rows.new_zeros(rows.shape[:-1], dtype=torch.float64)
    for part in rows.split(_CONVERTED, dim=-1):  # never the whole of them in float64
        total += part.double().square().sum(-1)
    return total.sqrt().cpu()


def orthonormal(columns: Tensor) -> Tensor:
    """
    Give an orthonormal basis of what columns span, in their place.

    Parts of the rows are factored one by one, and then what is left of them together (Demmel et
    al., Communication-optimal QR, SIAM J. Sci. Comput. 34, 2012): beside the columns themselves
    little memory is needed.

    Parameters
    ----------
    columns : Tensor
        Shape (W, k), k at most W; overwritten.

    Returns
    -------
    Tensor
        The same tensor, orthonormal to the rounding of single entries, however long it is.
    """
    parts = columns.split(max(_FACTORED, columns.shape[1]))
    if len(parts) > 1 and len(parts[-1]) < columns.shape[1]:
        parts = (*parts[:-2], columns[-len(parts[-2]) - len(parts[-1]) :])
    upper = []
    for part in parts:
        basis, rest = torch.linalg.qr(part)
        part.copy_(basis)
        upper.append(rest)
    if len(parts) > 1:
        together = torch.linalg.qr(torch.cat(upper))[0].split(columns.shape[1])
        for part, share in zip(parts, together, strict=True):
            part.copy_(part @ share)
    # A step of Newton's method for the nearest orthonormal columns: what long sums left of the
    # Gram matrix beside the identity is squared.
    gram = inner(columns.T, columns.T)
    step = (1.5 * torch.eye(len(gram), dtype=gram.dtype) - gram / 2).to(columns)
    for part in parts:
        part.copy_(part @ step)
    return columns
