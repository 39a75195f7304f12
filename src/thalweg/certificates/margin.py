"""A box of weights on which every sample stays correctly classified, proved and attacked."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor, nn

from thalweg.certificates.attack import Attack, Attacker
from thalweg.certificates.bounds import MarginBounds, Scale
from thalweg.certificates.chain import Chain
from thalweg.certificates.margin_constraints import labels_and_threshold
from thalweg.certificates.statement import Statement
from thalweg.errors import InvalidArgument, NotDefined
from thalweg.landscape.protocols import require
from thalweg.result import Result
from thalweg.risk.risk import EmpiricalRisk
from thalweg.run.progress import Bar, Progress, silent
from thalweg.tracing.chain import Network

# The attack ranks so many samples by first-order reach, and bisects on so many inequalities.
_RANKED, _ATTACKED = 32, 4
_HALVINGS = 200  # of the half-width, before it counts as zero
_SHOWN = 50  # units of the bar for each of the two searches
_FINEST = 1e-9  # relative precision that bisection in float64 reaches
_DOUBLINGS = 64  # of what is estimated to first order
ASSUMPTIONS = (
    "weights and inputs are the stored numbers, taken as exact",
    "IEEE double precision; sums of products in any order, by products of the numbers themselves"
    " (no Strassen or Winograd)",
    "exponentials, hyperbolic tangents and error functions within 16 units of rounding",
    "the network in exact arithmetic; inputs fixed; batch norm, where present, at its frozen"
    " statistics",
)


@dataclass(frozen=True)
class MarginCertificate(Result):
    """
    Two-sided answer: how far all weights may move at once with no sample misclassified.

    Attributes
    ----------
    verdict : {"certified", "refused"}
        Whether a box of positive half-width is proved.
    half_width : float
        Every network whose weights each differ from w by at most this, times the layer's scale
        where ``scale`` is ``"layer"``, classifies all samples correctly. 0 where refused.
    attacked : float
        Half-width of a box in which the attack found weights that misclassify a sample: no larger
        box can be proved by anybody. Infinite where the attack broke nothing.
    ratio : float
        ``attacked / half_width``: 1 would be a complete answer.
    scale : {"absolute", "layer"}
        Unit of half-widths.
    layer_half_widths : dict of str to float
        The proved half-width of each layer's weights in absolute units.
    dimension : int
        W: a box is a set of full dimension.
    samples : int
        N.
    margin : float
        Smallest margin at w, in units of the outputs.
    tightest : int
        The sample whose proved margin is smallest on the proved box.
    broken : int or None
        The sample that the attack broke.
    reasons : tuple of str
        Why it was refused.
    assumptions : tuple of str
        What the proof rests on.
    status : {"converged", "out of time"}
        Whether both half-widths are known to ``rtol``. Out of time, ``half_width`` is the widest
        box that was proved till then, and ``attacked`` the smallest that was broken.
    undecided : float
        Half-width from which on no box was proved: what lies between it and ``half_width`` was not
        decided. Infinite where the search ended before a box was too wide.
    passes : int
        Interval passes over samples.
    gradients : int
        Gradients of the attack.
    statement : Statement or None
        What was claimed: the network, samples and class numbers, shape (N, 1); None where the
        network is none that `write_certificate` can write.
    threshold : float or None
        Of two classes that one output tells apart.
    """

    verdict: Literal["certified", "refused"]
    half_width: float
    attacked: float
    ratio: float
    scale: Scale
    layer_half_widths: dict[str, float]
    dimension: int
    samples: int
    margin: float
    tightest: int
    broken: int | None
    reasons: tuple[str, ...]
    assumptions: tuple[str, ...]
    status: Literal["converged", "out of time"]
    undecided: float
    passes: int
    gradients: int
    statement: Statement | None = None
    threshold: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as plain values; what is infinite becomes None."""
        values = {n: getattr(self, n) for n in self.__dataclass_fields__ if n != "statement"}
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }


def certify_margin(
    risk: EmpiricalRisk,
    w: Tensor,
    *,
    scale: Scale = "absolute",
    rtol: float = 0.01,
    attack: bool = True,
    seconds: float = 3600.0,
    progress: Progress = silent,
) -> MarginCertificate:
    """
    Prove a box of weights around w on which every sample stays correctly classified, and attack it.

    Intervals are carried through the network layer by layer, over weights (Gowal et al., On the
    Effectiveness of Interval Bound Propagation, 2018, with weights instead of inputs as intervals):
    the first layer's outputs are exact up to rounding, later ones products of two intervals, and
    the last layer's are bounded for differences of outputs. The largest half-width with all margins
    positive is found by bisection. Beside it stands the smallest box in which projected
    sign-gradient descent on the tightest samples finds weights that misclassify one.

    Parameters
    ----------
    risk : EmpiricalRisk
        A chain of layers; where it has batch norm, with ``batchnorm="frozen"``.
    w : Tensor
        Shape (W,).
    scale : {"absolute", "layer"}
        Whether all weights may move equally far, or each in proportion to its layer's scale
        (`ParameterSpace.layer_scales`).
    rtol : float
        Relative precision of both half-widths.
    attack : bool
        Whether to attack.
    seconds : float
        Time after which no further box is tried, nor a further attack begun; the last one is
        brought to its end. What was proved till then is the answer, and ``status`` says so.
    progress : Progress
        Shows how far the bisections came.

    Returns
    -------
    MarginCertificate
        Refused, with half-width 0 and the reason, where a sample is misclassified at w.

    Raises
    ------
    NotDefined
        If the network is no chain, a layer has no interval rule, or classes are not read off the
        outputs' largest or their side of a threshold.

    Examples
    --------
    One weight and one sample: 2 x - 0 > 0 for x = 1 while the weight moves by less than 2.

    >>> import torch
    >>> from thalweg.problems import Problem
    >>> data = (torch.ones(1, 1), torch.ones(1, 1))
    >>> problem = Problem(nn.Linear(1, 1, bias=False), nn.BCEWithLogitsLoss(), data)
    >>> found = certify_margin(EmpiricalRisk(problem), torch.tensor([2.0]))
    >>> 1.98 < found.half_width < 2 <= found.attacked < 2.03
    True
    """
    _check_options(scale, rtol, seconds)
    clock = _Clock(seconds)
    require(risk, Network, "certify_margin", "give an EmpiricalRisk(problem)")
    _check_frozen(risk)
    bounds = MarginBounds(risk, w, scale)
    margin, sample = bounds.lowest(0.0)
    if margin <= 0:
        return _refused(
            bounds, scale, margin, sample, f"sample {sample} is not correctly classified at w"
        )
    attacker = Attacker(bounds.chain, bounds.w, bounds.scales)
    near = min(map(attacker.reach, bounds.tightest(0.0, _RANKED)))
    with progress(2 * _SHOWN if attack else _SHOWN, "margin") as bar:
        half_width, undecided = _largest(bounds, near, rtol, clock, _Share(bar))
        share = _Share(bar)
        breach = _attack(bounds, attacker, half_width, rtol, clock, share) if attack else None
        share.show(1.0)
    layers = {layer: half_width * unit for layer, unit in bounds.layer_scales.items()}
    if flat := [layer for layer, width in layers.items() if not 0 < width < math.inf]:
        late = f" within {seconds:g} s, down to {undecided:.3g}" if clock.over else ""
        reason = f"no box of positive half-width was proved in {', '.join(flat)}{late}"
        refusal = _refused(bounds, scale, margin, sample, reason)
        return replace(refusal, status=clock.status, undecided=undecided)
    if breach is not None and breach.half_width <= half_width:
        return _refused(bounds, scale, margin, breach.sample, _contradicted(breach, half_width))
    attacked = breach.half_width if breach else math.inf
    statement, threshold = _statement(bounds)
    return MarginCertificate(
        verdict="certified",
        half_width=half_width,
        attacked=attacked,
        ratio=attacked / half_width,
        scale=scale,
        layer_half_widths=layers,
        dimension=len(bounds.w),
        samples=bounds.samples,
        margin=margin,
        tightest=bounds.tightest(half_width, 1)[0].sample,
        broken=breach.sample if breach else None,
        reasons=(),
        assumptions=ASSUMPTIONS,
        status=clock.status,
        undecided=undecided,
        passes=bounds.passes,
        gradients=attacker.gradients,
        statement=statement,
        threshold=threshold,
    )


def _check_options(scale: str, rtol: float, seconds: float) -> None:
    if scale not in get_args(Scale):
        raise InvalidArgument(f"scale={scale!r}; write 'absolute' or 'layer'.")
    if not _FINEST <= rtol < 1:
        raise InvalidArgument(f"rtol={rtol}; write a number from {_FINEST:g} to 1.")
    if not seconds > 0:
        raise InvalidArgument(f"seconds={seconds}; write a positive number.")


def _contradicted(breach: Attack, half_width: float) -> str:
    """Say that the attack reaches into the box that was proved."""
    return (
        f"the attack misclassifies sample {breach.sample} within {breach.half_width:.3g}, inside"
        f" the box of half-width {half_width:.3g} that intervals prove: one of them is wrong"
    )


def _statement(bounds: MarginBounds) -> tuple[Statement | None, float | None]:
    """Write the claim down for a file, where the network is one that files can hold."""
    read, count = bounds.chain, bounds.samples
    targets, outputs = read.targets(0, count), read.forward(bounds.w, read.inputs(0, 1))
    labels, threshold = labels_and_threshold(bounds.problem, targets, outputs.detach())
    try:
        chain = Chain.of(read, bounds.w)
    except NotDefined:
        return None, threshold
    samples = read.inputs(0, count).flatten(1).numpy()
    return Statement(chain, samples, labels.double().numpy()[:, None]), threshold


def _check_frozen(risk: EmpiricalRisk) -> None:
    norms = [
        name
        for name, module in risk.problem.model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    if norms and risk.policy != "frozen":
        raise NotDefined(
            f"{norms[0]} is a batch norm whose statistics depend on all weights and samples: no"
            " interval rule. Write EmpiricalRisk(problem, batchnorm='frozen') for the network with"
            " statistics frozen at its buffers."
        )


def _largest(
    bounds: MarginBounds, near: float, rtol: float, clock: _Clock, share: _Share
) -> tuple[float, float]:
    """
    Bisect the largest half-width with all margins proved positive.

    Gives it, 0 where there is none, and the smallest for which that failed. Each of the three
    searches ends after a bounded number of boxes, and all of them when time is up.
    """
    low, high = 0.0, near if math.isfinite(near) and near > 0 else 1.0
    for _ in range(_DOUBLINGS):
        if clock.is_over() or not bounds.lowest(high)[0] > 0:
            break
        low, high = high, 2 * high
    undecided = math.inf if clock.over else high
    for _ in range(_HALVINGS):
        if low or clock.is_over():
            break
        low = high / 2 if bounds.lowest(high / 2)[0] > 0 else 0.0
        high = high if low else high / 2
        undecided = high
    first = math.log(high / low) if low else 1.0
    while low and high > low * (1 + rtol) and not clock.is_over():
        middle = math.sqrt(low * high)
        low, high = (middle, high) if bounds.lowest(middle)[0] > 0 else (low, middle)
        undecided = high
        share.show(math.log(first / math.log(high / low)) / math.log(max(first / rtol, math.e)))
    share.show(1.0)
    return low, undecided


def _attack(
    bounds: MarginBounds,
    attacker: Attacker,
    half_width: float,
    rtol: float,
    clock: _Clock,
    share: _Share,
) -> Attack | None:
    # The inequality that breaks first is among the tightest at w, or among those whose margins are
    # most sensitive, and these are the tightest on the box.
    candidates = bounds.tightest(0.0, _RANKED) + bounds.tightest(half_width, _RANKED)
    distinct = {target.sample: target for target in candidates}.values()
    nearest = sorted(distinct, key=attacker.reach)[:_ATTACKED]
    best = attacker.inside(nearest, half_width)  # whatever the time: it is what tells of a fault
    if best is not None:
        return best
    for number, target in enumerate(nearest):
        if clock.is_over():
            break
        best = attacker.smallest(target, best, rtol=rtol / 2)
        share.show((number + 1) / len(nearest))
    return best


class _Clock:
    """Time that is left, and whether it ran out before the work was done."""

    def __init__(self, seconds: float) -> None:
        self.end, self.over = time.monotonic() + seconds, False

    def is_over(self) -> bool:
        """Say whether no further step may begin."""
        self.over = self.over or time.monotonic() > self.end
        return self.over

    @property
    def status(self) -> Literal["converged", "out of time"]:
        """What the answer says of it."""
        return "out of time" if self.over else "converged"


class _Share:
    """Part of a bar, told as shares of the whole."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.shown = bar, 0

    def show(self, share: float) -> None:
        """Move the bar to a share between 0 and 1; it never goes back."""
        more = int(_SHOWN * min(max(share, 0.0), 1.0)) - self.shown
        if more > 0:
            self.bar.update(more)
            self.shown += more


def _refused(
    bounds: MarginBounds, scale: Scale, margin: float, sample: int, reason: str
) -> MarginCertificate:
    return MarginCertificate(
        verdict="refused",
        half_width=0.0,
        attacked=0.0,
        ratio=math.nan,
        scale=scale,
        layer_half_widths=dict.fromkeys(bounds.layer_scales, 0.0),
        dimension=len(bounds.w),
        samples=bounds.samples,
        margin=margin,
        tightest=sample,
        broken=sample if margin <= 0 else None,
        reasons=(f"{reason}: its margin is {margin:.6g}",),
        assumptions=ASSUMPTIONS,
        status="converged",
        undecided=0.0,
        passes=bounds.passes,
        gradients=0,
    )
