"""The paper's seven claims, and which of a run's claims test each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperClaim:
    """
    A claim of Liao and Poggio, Theory II (2017), as the first screen of a report says it.

    Parameters
    ----------
    number : int
        Its place in the paper's abstract.
    statement : str
        In a line.
    tests : tuple of str
        Names of the claims that test it, ``"<study>/<claim>"``.
    picture : str
        Name of the picture that shows it.
    remark : str
        What no study judges of it.
    """

    number: int
    statement: str
    tests: tuple[str, ...]
    picture: str
    remark: str = ""


def _of(study: str, *claims: str) -> tuple[str, ...]:
    return tuple(f"{study}/{claim}" for claim in claims)


PAPER: tuple[PaperClaim, ...] = (
    PaperClaim(
        1,
        "Networks with more weights than samples reach zero error.",
        _of(
            "zero_error",
            "true-labels",
            "random-labels",
            "sweep-true-labels",
            "sweep-random-labels",
        )
        + _of("overparametrization", "zero-error"),
        "zero_error_reach",
    ),
    PaperClaim(
        2,
        "There are very many zero-minimizers, modulo inconsistent equations.",
        _of(
            "bezout",
            "many",
            "rank",
            "loaded",
            "bound-is-count",
            "always-real",
            "more-weights-suffice",
        ),
        "bezout_solutions",
    ),
    PaperClaim(
        3,
        "A polynomial in place of the ReLU works as well.",
        _of("polynomial_activations", "training", "test", "interval"),
        "polynomial_activations_curves",
    ),
    PaperClaim(
        4,
        "Zero-minimizers are degenerate where W > N; minima with nonzero error are not.",
        _of("degeneracy", "certified", "nullity", "hessian")
        + _of("overparametrization", "full-rank")
        + _of(
            "bezout",
            "dimension",
            "zeros-degenerate",
            "minima-one-unit",
            "minima-any",
            "generic-decay",
        ),
        "degeneracy-spectrum",
    ),
    PaperClaim(
        5,
        "SGD finds degenerate minimizers, and among them the most robust.",
        _of("perturb_and_return", "flat", "flat-squared")
        + _of("degeneracy", "box")
        + _of(
            "sgd_selection",
            "batch",
            "rate",
            "langevin",
            "decay",
            "volume",
            "coefficient",
            "known-case",
        )
        + _of("overparametrization", "flatter", "margin", "test-error"),
        "sgd_selection_ladders",
    ),
    PaperClaim(
        6,
        "The landscape can be shown during the whole of a training.",
        (),
        "embedding",
        "Shown, not judged.",
    ),
    PaperClaim(
        7,
        "The landscape is a collection of basins with flat bottoms.",
        _of("perturb_and_return", "apart", "apart-squared")
        + _of("interpolation", "low", "mean-not-worse", "mean-better")
        + _of(
            "connectivity",
            "copies",
            "curve",
            "alignment",
            "one-basin",
            "known-case",
            "permuted-copy",
        )
        + _of(
            "basins",
            "side-by-side",
            "one-valley",
            "described",
            "known-case",
            "inside-basins",
        ),
        "lines",
    ),
)
