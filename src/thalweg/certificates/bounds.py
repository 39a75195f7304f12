"""Lower bounds of every sample's margin over a box of weights."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from thalweg.certificates.attack import Target
from thalweg.certificates.interval import UNIT, Box, gamma, propagate
from thalweg.certificates.margin_constraints import Decision, decisions
from thalweg.errors import NotDefined
from thalweg.risk.risk import EmpiricalRisk
from thalweg.tracing.chain import Chain, Link

Scale = Literal["absolute", "layer"]
_BATCH = 128


class MarginBounds:
    """
    Interval bounds over boxes of one shape around one point.

    Parameters
    ----------
    risk : EmpiricalRisk
        A chain of layers.
    w : Tensor
        Centre of the boxes, shape (W,).
    scale : {"absolute", "layer"}
        Unit of half-widths: 1, or each layer's scale.

    Attributes
    ----------
    layer_scales : dict of str to float
        Half-width of each layer's weights per unit.
    passes : int
        Samples propagated so far.
    """

    def __init__(self, risk: EmpiricalRisk, w: Tensor, scale: Scale) -> None:
        self.chain, self.problem = Chain(risk), risk.problem
        self.w = risk.space.check(w).detach().cpu().double()
        layers = risk.space.layers
        self.layer_scales = (
            risk.space.layer_scales(self.w) if scale == "layer" else dict.fromkeys(layers, 1.0)
        )
        self.passes = 0
        self.samples = risk.samples
        self._starts = list(range(0, self.samples, _BATCH))
        self._elsewhere = self.chain.elsewhere(self.w)
        self._check_same()

    @torch.no_grad()
    def _check_same(self) -> None:
        """Compare the chain of layers with the user's own module, at w and elsewhere."""
        for start in self._starts:
            x = self.chain.inputs(start, min(start + _BATCH, self.samples))
            if not self.chain.whole(self.w, x).isfinite().all():
                raise NotDefined(
                    f"samples {start} to {start + len(x) - 1}: outputs of the network are NaN or"
                    " infinite; weights, frozen weights and data have to be finite."
                )
            for w, where in [(self.w, "at w"), *((v, "away from w") for v in self._elsewhere)]:
                self._compare(start, x, w, where)

    def _compare(self, start: int, x: Tensor, w: Tensor, where: str) -> None:
        own, by_layers = self.chain.whole(w, x), self.chain.forward(w, x)
        box = Box.point(x)
        for link in self.chain.links:
            tensors = self.chain.tensors(link, w)
            box = propagate(link.module, tensors, dict.fromkeys(tensors, 0.0), box)
        apart, rounding = (own - by_layers).abs().flatten(1), 2 * box.radius.flatten(1)
        same = apart <= rounding
        if where != "at w":  # where numbers overflow, nothing is told apart
            same |= ~rounding.isfinite()
        differing = torch.nonzero(~same.all(1)).flatten()
        if len(differing):
            raise NotDefined(
                f"sample {start + int(differing[0])}: {where}, the network's outputs are"
                f" {float(apart[differing[0]].max()):.3g} away from those of the chain of its"
                " layers, more than rounding explains. It does more than apply its layers."
            )

    @property
    def scales(self) -> Tensor:
        """Half-width of each weight per unit, float64, shape (W,)."""
        scales = torch.empty_like(self.w)
        for layer, entries in self.chain.space.layers.items():
            scales[entries] = self.layer_scales[layer]
        return scales

    def lowest(self, half_width: float) -> tuple[float, int]:
        """
        Bound the smallest margin on a box from below, and say whose it is.

        Parameters
        ----------
        half_width : float
            In units of the scale.

        Returns
        -------
        margin : float
            Of the samples seen: the search ends at the first batch where it is not positive.
        sample : int
            Its number.
        """
        lowest, whose = math.inf, 0
        for start in list(self._starts):
            margins = self._batch(start, half_width)[0]
            worst = int(margins.argmin())
            if float(margins[worst]) < lowest:
                lowest, whose = float(margins[worst]), start + worst
            if lowest <= 0:
                # What failed once is asked first the next time.
                self._starts.remove(start)
                self._starts.insert(0, start)
                break
        return lowest, whose

    def tightest(self, half_width: float, count: int) -> list[Target]:
        """List the inequalities, one a sample, whose bounds on a box are smallest."""
        by_margin: list[tuple[float, Target]] = []
        for start in self._starts:
            margins, rows, thresholds = self._batch(start, half_width)
            by_margin += [
                (float(m), Target(start + i, rows[i], float(thresholds[i])))
                for i, m in enumerate(margins)
            ]
        by_margin.sort(key=lambda pair: pair[0])
        return [target for _, target in by_margin[:count]]

    @torch.no_grad()
    def _batch(self, start: int, half_width: float) -> tuple[Tensor, Tensor, Tensor]:
        """Bound each sample's smallest margin: bounds (n,), its row (n, C), its threshold (n,)."""
        stop = min(start + _BATCH, self.samples)
        self.passes += stop - start
        x = Box.point(self.chain.inputs(start, stop))
        *first, last = self.chain.links
        for link in first:
            x = propagate(link.module, *self._interval(link, half_width), x)
        if not isinstance(last.module, nn.Linear):
            x = propagate(last.module, *self._interval(last, half_width), x)
            last = Link("", nn.Identity(), {})
        return self._margins(last, half_width, x, self.chain.targets(start, stop))

    def _interval(
        self, link: Link, half_width: float
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Give a layer's tensors, and the half-width of the interval around each."""
        owners = {p.name: p.layer for p in self.chain.space.parameters}
        # Rounded up, so that the box in the answer is inside the one that is proved.
        room = half_width * (1 + 2 * UNIT)
        half = {k: room * self.layer_scales[owners[name]] for k, name in link.trained.items()}
        return self.chain.tensors(link, self.w), half

    def _margins(
        self, last: Link, half_width: float, x: Box, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights, half = self._interval(last, half_width)
        linear = isinstance(last.module, nn.Linear)
        outputs = last.module(x.center) if linear else x.center
        bounds = torch.empty(len(x.center), dtype=torch.float64)
        thresholds = torch.empty_like(bounds)
        rows = torch.empty(len(bounds), outputs[0].numel(), dtype=torch.float64)
        for decision in decisions(self.problem, outputs, targets):
            chosen_inputs = x.map(lambda t, chosen=decision.samples: t[chosen])  # type: ignore[misc]
            margins = (
                _linear_margins(decision, _fixed(last.module, weights), half, chosen_inputs)
                if linear
                else _output_margins(decision, chosen_inputs)
            )
            # What is not finite bounds nothing.
            least, which = torch.nan_to_num(margins, nan=-math.inf).min(1)
            bounds[decision.samples] = least
            rows[decision.samples] = decision.rows[which]
            thresholds[decision.samples] = decision.threshold
        return bounds, rows, thresholds


def _fixed(module: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Complete a layer's trainable tensors by those that are not trained."""
    own = {name: tensor.detach() for name, tensor in module.named_parameters(recurse=False)}
    return own | weights


def _linear_margins(
    decision: Decision, weights: dict[str, Tensor], half: dict[str, float], x: Box
) -> Tensor:
    """
    Bound margins after a last linear layer: shape (n, K).

    The rows of a difference of outputs are bounded themselves, so that what two outputs have in
    common cancels, and each product of two intervals by the least of its corners.
    """
    moved = float(decision.rows.abs().sum(1).max())
    matrix = decision.rows @ weights["weight"]
    # Differences of rows are rounded once: the interval takes it up.
    width = half.get("weight", 0.0) * moved + 2 * UNIT * float(matrix.abs().max())
    low, high = matrix - width, matrix + width
    x_low, x_high = x.low[:, None], x.high[:, None]
    corners = torch.minimum(low * x_low, low * x_high)
    if bool((x.low < 0).any()):
        corners = torch.minimum(corners, torch.minimum(high * x_low, high * x_high))
    size = torch.maximum(low.abs(), high.abs()) * torch.maximum(x_low.abs(), x_high.abs())
    total, error = corners.sum(2), gamma(matrix.shape[1] + 8) * size.sum(2)
    if "bias" in weights:
        bias = decision.rows @ weights["bias"]
        total = total + bias - half.get("bias", 0.0) * moved
        error = error + 8 * UNIT * (bias.abs() + weights["bias"].abs().max() * moved)
    return total - decision.threshold - error - 8 * UNIT * (total.abs() + abs(decision.threshold))


def _output_margins(decision: Decision, x: Box) -> Tensor:
    """Bound margins of outputs in intervals: shape (n, K)."""
    center, radius = x.center.reshape(len(x.center), -1), x.radius.reshape(len(x.radius), -1)
    reach = (radius + gamma(16) * center.abs()) @ decision.rows.abs().T
    margins = decision.margins(center)
    return margins - reach * (1 + gamma(16)) - gamma(16) * abs(decision.threshold)
