"""Unknown factors, tied to one another or fixed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Ties:
    """
    Unknown factors, some of which are powers of one another, and some of which are one.

    Factor 0 is one. Factors are looked at by their logarithms: ``tie(i, j, r)`` says that that of
    i is r times that of j.

    Examples
    --------
    >>> ties = Ties()
    >>> one, two, three = ties.new(3).tolist()
    >>> ties.tie(one, two, 2.0)
    >>> ties.tie(three, one, -1.0)
    >>> root, power = ties.find(two)
    >>> [ties.find(i) == (root, r * power) for i, r in ((one, 2.0), (three, -2.0))]
    [True, True]
    """

    def __init__(self) -> None:
        self._parent: list[int] = [0]
        self._power: list[float] = [1.0]

    def new(self, count: int) -> Tensor:
        """Give so many factors that nothing is known of: int64, shape (count,)."""
        first = len(self._parent)
        self._parent += range(first, first + count)
        self._power += [1.0] * count
        return torch.arange(first, first + count)

    def find(self, i: int) -> tuple[int, float]:
        """Give the factor that stands for all that are tied to i, and the power of it that i is."""
        path = []
        while self._parent[i] != i:
            path.append(i)
            i = self._parent[i]
        power = 1.0
        for j in reversed(path):  # the nearest to the one that stands for all comes first
            power *= self._power[j]
            self._parent[j], self._power[j] = i, power
        return i, power

    def tie(self, i: int, j: int, power: float = 1.0) -> None:
        """Say that factor i is the given power of factor j."""
        (root, a), (base, b) = self.find(i), self.find(j)
        if root == base:
            if root and a != power * b:
                self.fix([root])
        elif root == 0:
            self.fix([base])
        else:
            self._parent[root], self._power[root] = base, power * b / a

    def fix(self, factors: Iterable[int]) -> None:
        """Say that factors are one."""
        for i in factors:
            root, _ = self.find(i)
            if root:
                self._parent[root], self._power[root] = 0, 0.0

    def tie_all(self, first: Tensor, second: Tensor, power: float = 1.0) -> None:
        """Tie the factors of two tensors, entry by entry."""
        count = len(self._parent)
        # One number for each pair: torch takes twenty times as long to sort rows.
        pairs = (first * count + second).unique().tolist()
        for i, j in (divmod(pair, count) for pair in pairs):
            self.tie(i, j, power)

    def fix_all(self, factors: Tensor) -> None:
        """Say that all factors of a tensor are one."""
        self.fix(factors.unique().tolist())
