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


def _claims_of(study: str, *claims: str) -> tuple[str, ...]:
    return tuple(f"{study}/{claim}" for claim in claims)


PAPER: tuple[PaperClaim, ...] = (
    PaperClaim(
        1,
        "Networks with more weights than samples reach zero error.",
        _claims_of(
            "zero_error",
            "true-labels",
            "random-labels",
            "sweep-true-labels",
            "sweep-random-labels",
        )
        + _claims_of("overparametrization", "zero-error"),
        "zero_error_reach",
    ),
    PaperClaim(
        2,
        "There are very many zero-minimizers, modulo inconsistent equations.",
        _claims_of(
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
        _claims_of("polynomial_activations", "training", "test", "interval"),
        "polynomial_activations_curves",
    ),
    PaperClaim(
        4,
        "Zero-minimizers are degenerate where W > N; minima with nonzero error are not.",
        _claims_of("degeneracy", "certified", "nullity", "hessian")
        + _claims_of("overparametrization", "full-rank")
        + _claims_of(
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
        _claims_of("perturb_and_return", "flat", "flat-squared")
        + _claims_of("degeneracy", "box")
        + _claims_of(
            "sgd_selection",
            "batch",
            "rate",
            "langevin",
            "decay",
            "volume",
            "coefficient",
            "known-case",
        )
        + _claims_of("overparametrization", "flatter", "margin", "test-error"),
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
        _claims_of("perturb_and_return", "apart", "apart-squared")
        + _claims_of("interpolation", "low", "mean-not-worse", "mean-better")
        + _claims_of(
            "connectivity",
            "copies",
            "curve",
            "alignment",
            "one-basin",
            "known-case",
            "permuted-copy",
        )
        + _claims_of(
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
