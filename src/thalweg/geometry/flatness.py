"""Flatness around a point: measures of several kinds, each with its uncertainty and invariance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import Tensor

from thalweg.geometry.noise import noise_level
from thalweg.geometry.scales import Form, Scaled, perturbation_scales
from thalweg.geometry.sharpness import average_sharpness, worst_sharpness
from thalweg.geometry.spectrum import Eigenvalues, top_eigenvalues
from thalweg.geometry.trace import trace
from thalweg.landscape.protocols import Curved, Landscape, evaluator, require, words_of
from thalweg.result import Result
from thalweg.run.progress import Progress, silent


class Bound(Protocol):
    """An upper bound of a rise, or why there is none."""

    @property
    def value(self) -> float | None:
        """The bound; None where nothing is proved."""

    @property
    def reason(self) -> str:
        """Why there is none, in words."""


# From the landscape, w, the scales of a form and the length of the ball in them.
BoundRise = Callable[[object, Tensor, Tensor, float], Bound]
_FORMS: tuple[Form, ...] = ("plain", "adaptive", "filter")
# Under which changes of the weights, that leave the function as it is, a form's numbers stay.
_INVARIANT: dict[Form, tuple[str, ...]] = {
    "plain": ("permutation",),
    "adaptive": ("permutation", "rescaling"),
    "filter": ("permutation", "rescaling"),
}


@dataclass(frozen=True)
class Measure(Result):
    """
    One measure of flatness.

    Attributes
    ----------
    name : str
        What is measured.
    form : str
        Units of the weights: ``"plain"``, ``"adaptive"`` or ``"filter"``, see
        `thalweg.geometry.scales.perturbation_scales`.
    value : float
        Its value.
    low, high : float or None
        Where it lies: in 95 % of cases for an estimate, always where a bound is proved; ``high``
        is None for what is known from below alone.
    stderr : float or None
        Standard error, where one is estimated.
    status : str
        Of the instrument: ``"converged"``, ``"exact"``, ``"max_products"``, ...
    invariant : tuple of str
        Changes of the weights that leave the function, and this number, as they are:
        ``"permutation"`` of hidden units, ``"rescaling"`` of one layer against the next.
    flatter : {"smaller", "larger"}
        Which values are those of flatter places.
    note : str
        What else is to be known: why there is no upper bound.
    """

    name: str
    form: str
    value: float
    low: float | None
    high: float | None
    stderr: float | None
    status: str
    invariant: tuple[str, ...]
    flatter: str = "smaller"
    note: str = ""


@dataclass(frozen=True)
class Flatness(Result):
    """
    All measures of flatness around a point.

    Attributes
    ----------
    measures : tuple of Measure
        In the order in which they were taken.
    value : float
        The landscape there.
    settings : dict
        ``noise``, ``radius``, ``rise``, ``error_rise``, ``pairs``, ``copies``, ``seed``.
    described : dict
        Which function was measured.
    """

    measures: tuple[Measure, ...]
    value: float
    settings: dict[str, Any]
    described: dict[str, Any]

    def __getitem__(self, key: tuple[str, str]) -> Measure:
        """Give the measure of a name and a form: ``flatness["worst", "adaptive"]``."""
        for measure in self.measures:
            if (measure.name, measure.form) == key:
                return measure
        known = ", ".join(f"({m.name!r}, {m.form!r})" for m in self.measures)
        raise KeyError(f"{key!r}; there are {known}.")

    def to_dict(self) -> dict[str, Any]:
        """Give plain numbers and words, as JSON takes them."""
        return asdict(self)


def flatness(
    landscape: Landscape,
    w: Tensor,
    *,
    noise: float = 0.05,
    radius: float = 0.01,
    rise: float = 0.1,
    error_rise: float = 0.01,
    pairs: int = 20,
    copies: int = 20,
    seed: int = 0,
    bound: BoundRise | None = None,
    progress: Progress = silent,
) -> Flatness:
    """
    Measure how flat a landscape is around a point, in plain and in relative units.

    - ``average``: mean rise under noise of relative size ``noise``.
    - ``worst``: greatest rise found within the relative distance ``radius``: a lower bound, and
      ``high`` an upper one that is proved, where ``bound`` has one.
    - ``eigenvalue``: the largest of the Hessian, in units of each form.
    - ``trace``: of the Hessian.
    - ``loss noise``: relative noise that raises the loss by ``rise``: the noise of a PAC-Bayes
      bound.
    - ``error noise``: relative noise within which half of the copies keep their error within
      ``error_rise``.

    No single number is flatness, and few of them tell which network generalizes better
    (Andriushchenko et al., 2023). Plain ones change where layers are rescaled though the network
    computes the same.

    Parameters
    ----------
    landscape : Landscape
        An `EmpiricalRisk`, or anything with a gradient; a Hessian gives eigenvalues and trace,
        counted errors the noise that keeps them.
    w : Tensor
        Shape (W,).
    noise, radius : float
        Relative to ``|w|``.
    rise, error_rise : float
        Of the loss, and of the share of misclassified samples.
    pairs, copies : int
        Of noise, for means and for levels.
    seed : int
        Of all that is random.
    bound : callable, optional
        Proves an upper bound of the greatest rise. `thalweg.flatness` brings the one of
        `thalweg.certificates.rise.bound_rise`, for chains of layers.
    progress : Progress
        Shows each measure.

    Returns
    -------
    Flatness
        ``flatness["worst", "adaptive"].value``, and ``measures`` for all.

    Raises
    ------
    InvalidArgument
        If a number cannot be used, or the weights are all zero.
    NotFinite
        If the landscape is not finite at ``w``.

    References
    ----------
    Kwon et al., ASAM (2021); Neyshabur et al. (2017); Andriushchenko et al., A modern look at the
    relationship between sharpness and generalization (2023).

    Examples
    --------
    >>> import torch
    >>> from thalweg.landscape import Quadratic
    >>> bowl = Quadratic(torch.full((400,), 2.0, dtype=torch.float64))
    >>> found = flatness(bowl, bowl.centre, radius=0.1, noise=0.1, rise=4.0)
    >>> round(found["worst", "plain"].value, 9), round(found["eigenvalue", "plain"].value, 9)
    (4.0, 2.0)
    """
    require(landscape, Landscape, "flatness", "give an EmpiricalRisk(problem)")
    settings = {
        "noise": noise,
        "radius": radius,
        "rise": rise,
        "error_rise": error_rise,
        "pairs": pairs,
        "copies": copies,
        "seed": seed,
    }
    base = evaluator(landscape)(w)
    measures = []
    for form in _FORMS:
        scales = perturbation_scales(landscape.space, w, form)
        eigenvalues = _eigenvalues(landscape, w, scales, seed, progress)
        measures += [
            _average(landscape, w, form, settings, progress),
            _worst(landscape, w, form, eigenvalues, settings, bound, progress),
            *_largest(eigenvalues, form),
        ]
    measures += [
        *_trace(landscape, w, seed, progress),
        *_levels(landscape, w, settings, set(base), progress),
    ]
    return Flatness(tuple(measures), base["loss"], settings, words_of(landscape))


def _average(
    landscape: Landscape, w: Tensor, form: Form, settings: dict[str, Any], progress: Progress
) -> Measure:
    from scipy.stats import t as student

    chosen = {name: settings[name] for name in ("noise", "pairs", "seed")}
    sharpness = average_sharpness(landscape, w, form=form, progress=progress, **chosen)
    half = float(student.ppf(0.975, sharpness.pairs - 1)) * sharpness.stderr
    low, high = sharpness.value - half, sharpness.value + half
    return Measure(
        "average", form, sharpness.value, low, high, sharpness.stderr, "converged", _INVARIANT[form]
    )


def _worst(
    landscape: Landscape,
    w: Tensor,
    form: Form,
    eigenvalues: Eigenvalues | None,
    settings: dict[str, Any],
    bound: BoundRise | None,
    progress: Progress,
) -> Measure:
    sharpness = worst_sharpness(
        landscape,
        w,
        radius=settings["radius"],
        form=form,
        eigenvectors=None if eigenvalues is None else eigenvalues.vectors,
        seed=settings["seed"],
        progress=progress,
    )
    upper, note = None, ""
    if bound is not None:
        length = settings["radius"] * math.sqrt(len(w))
        proved = bound(landscape, w, perturbation_scales(landscape.space, w, form), length)
        upper, note = proved.value, proved.reason
    bounds = (sharpness.value, upper, None)
    return Measure(
        *("worst", form, sharpness.value, *bounds, sharpness.status, _INVARIANT[form]), note=note
    )


def _eigenvalues(
    landscape: Landscape, w: Tensor, scales: Tensor, seed: int, progress: Progress
) -> Eigenvalues | None:
    if not isinstance(landscape, Curved):
        return None
    scaled = Scaled(landscape.hessian(w), scales)
    count = min(2, len(w))
    return top_eigenvalues(scaled, count, rtol=1e-3, max_products=300, seed=seed, progress=progress)


def _largest(eigenvalues: Eigenvalues | None, form: Form) -> Iterator[Measure]:
    if eigenvalues is not None:
        value, error = float(eigenvalues.values[0]), float(eigenvalues.errors[0])
        bounds = (value - error, value + error, None)
        yield Measure("eigenvalue", form, value, *bounds, eigenvalues.status, _INVARIANT[form])


def _trace(landscape: Landscape, w: Tensor, seed: int, progress: Progress) -> Iterator[Measure]:
    if isinstance(landscape, Curved):
        estimate = trace(landscape.hessian(w), rtol=0.05, seed=seed, progress=progress)
        low, high = estimate.value - estimate.error, estimate.value + estimate.error
        yield Measure(
            *("trace", "plain", estimate.value, low, high, estimate.stderr),
            *(estimate.status, _INVARIANT["plain"]),
        )


def _levels(
    landscape: Landscape,
    w: Tensor,
    settings: dict[str, Any],
    counted: set[str],
    progress: Progress,
) -> Iterator[Measure]:
    chosen = {name: settings[name] for name in ("copies", "seed")}
    for quantity, rise in (("loss", settings["rise"]), ("error", settings["error_rise"])):
        if quantity not in counted:
            continue
        level = noise_level(landscape, w, quantity=quantity, rise=rise, progress=progress, **chosen)  # type: ignore[arg-type]
        yield Measure(
            *(f"{quantity} noise", "adaptive", level.value, level.low, level.high, None),
            *(level.status, _INVARIANT["adaptive"], "larger"),
        )
