"""Whether chains have converged: rank-normalized R-hat, effective sizes, the virial identity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def rhat(draws: Tensor) -> float:
    """
    Rank-normalized split R-hat, the larger of that of the draws and of their spread.

    Parameters
    ----------
    draws : Tensor
        Shape (n, k): n draws of k chains of one quantity.

    References
    ----------
    Vehtari et al., Rank-normalization, folding, and localization: an improved R-hat (2021).

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> draws = torch.randn(1000, 4, generator=generator)
    >>> rhat(draws) < 1.01, rhat(draws + torch.arange(4)) > 1.5
    (True, True)
    """
    halves = _split(draws)
    folded = (halves - halves.flatten().quantile(0.5)).abs()
    return max(_rhat(_ranked(halves)), _rhat(_ranked(folded)))


def bulk_ess(draws: Tensor) -> float:
    """Effective number of draws for their mean, after rank normalization; shape (n, k)."""
    return _ess(_ranked(_split(draws)))


def tail_ess(draws: Tensor) -> float:
    """Effective number of draws for the quantiles 5 % and 95 %, the lesser; shape (n, k)."""
    halves = _split(draws)
    flat = halves.flatten()
    return min(_ess((halves <= flat.quantile(share)).double()) for share in (0.05, 0.95))


def mean_ess(draws: Tensor) -> float:
    """Effective number of draws for their mean, as they are; shape (n, k)."""
    return _ess(_split(draws))


def standard_error(draws: Tensor) -> float:
    """Standard error of the mean of all draws, shape (n, k)."""
    return float(draws.double().std()) / math.sqrt(max(mean_ess(draws), 1.0))


@dataclass(frozen=True)
class Diagnosis:
    """
    What chains say of themselves.

    Attributes
    ----------
    rhat, rhat_distance : float
        Of ``beta (L - L0)``, and of the squared distance, which moves slowest.
    bulk_ess, tail_ess : float
        Of ``beta (L - L0)``.
    acceptance : float
        Mean share of accepted proposals.
    virial, virial_stderr : float
        Mean of ``(w - w0) . grad U / W``: one under the density ``exp(-U)``, whatever U is.
    draws, chains : int
        Their numbers.
    """

    rhat: float
    rhat_distance: float
    bulk_ess: float
    tail_ess: float
    acceptance: float
    virial: float
    virial_stderr: float
    draws: int
    chains: int

    def reasons(self, *, tolerance: float = 0.05, mixing: float = 1.1) -> list[str]:
        """
        Say why the draws are not those of the density, in sentences; none where they pass.

        Parameters
        ----------
        tolerance : float
            Of the virial: so far from one at most.
        mixing : float
            The largest R-hat that passes.
        """
        sentences = []
        if not abs(self.virial - 1) <= tolerance:
            sentences.append(
                f"the virial is {self.virial:.3g} where 1 is exact: the chains have not reached"
                " the density (too few draws) or their step is too large"
            )
        if not self.rhat <= mixing:
            sentences.append(f"R-hat is {self.rhat:.3g}: the chains disagree; take more draws")
        return sentences


def diagnose(
    energy: Tensor, distance: Tensor, virial: Tensor, acceptance: float, *, together: int = 1
) -> Diagnosis:
    """
    Judge the draws of chains.

    Parameters
    ----------
    energy, distance, virial : Tensor
        Shape (n, k): ``beta (L - L0)``, ``|w - w0|^2``, and ``(w - w0) . grad U / W``.
    acceptance : float
        Mean share accepted.
    together : int
        So many chains count as one for R-hat: of very many short chains each by itself has seen
        little, and only whole groups must agree.

    References
    ----------
    Margossian et al., Nested R-hat: assessing the convergence of Markov chain Monte Carlo when
    running many short chains (2024), for ``together``.
    """
    return Diagnosis(
        rhat(_grouped(energy, together)),
        rhat(_grouped(distance, together)),
        bulk_ess(energy),
        tail_ess(energy),
        acceptance,
        float(virial.mean()),
        standard_error(virial),
        *energy.shape,
    )


def _grouped(draws: Tensor, together: int) -> Tensor:
    """Put the draws of each ``together`` chains, (n, k), in one column; a rest is left out."""
    count, groups = len(draws), draws.shape[1] // together
    columns = draws[:, : groups * together].reshape(count, groups, together)
    return columns.transpose(1, 2).reshape(count * together, groups)


def _split(draws: Tensor) -> Tensor:
    half = len(draws) // 2
    return torch.cat([draws[:half], draws[-half:]], dim=1).double()


def _ranked(draws: Tensor) -> Tensor:
    """Replace draws by the normal quantiles of their ranks; of equal ones the mean rank."""
    _, place, count = draws.flatten().unique(return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    mean_rank = (last - (count - 1) / 2)[place]
    shares = (mean_rank - 0.375) / (draws.numel() + 0.25)
    normal: Tensor = torch.special.ndtri(shares)
    return normal.reshape(draws.shape)


def _rhat(draws: Tensor) -> float:
    count = len(draws)
    within = float(draws.var(0).mean())
    between = float(draws.mean(0).var())
    if within == 0:
        return 1.0 if between == 0 else math.inf
    return math.sqrt((count - 1) / count + between / within)


def _ess(draws: Tensor) -> float:
    """Geyer's initial monotone sequence over the chains' mean autocorrelation."""
    count, chains = draws.shape
    centred = draws - draws.mean(0)
    spectrum = torch.fft.rfft(centred, n=2 * count, dim=0)
    covariance = torch.fft.irfft(spectrum * spectrum.conj(), n=2 * count, dim=0)[:count] / count
    within = float(covariance[0].mean()) * count / (count - 1)
    total = within * (count - 1) / count + float(draws.mean(0).var())
    if total <= 0 or not math.isfinite(total):
        return float(count * chains)
    correlation = 1 - (within - covariance.mean(1) * count / (count - 1)) / total
    correlation[0] = 1
    pairs = correlation[: count // 2 * 2].reshape(-1, 2).sum(1)
    negative = (pairs < 0).nonzero()
    pairs = pairs[: int(negative[0])] if len(negative) else pairs
    time = -1 + 2 * float(pairs.cummin(0).values.sum())
    size = count * chains
    return size / max(time, 1 / math.log10(size))
