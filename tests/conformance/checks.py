"""The list of checks, and the verdict of one on a tool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from conformance import directions, spectra, surfaces
from conformance.adapter import Adapter, Failure, NotOffered

Status = Literal["passes", "fails", "not offered", "does not run"]


@dataclass(frozen=True)
class Check:
    """
    One case.

    `run` returns a few words on how well the tool did, or raises `Failure` or `NotOffered`; its
    docstring defines the case. `mistake` is the published mistake that it is there to catch.
    """

    name: str
    run: Callable[[Adapter], str]
    mistake: str = ""
    slow: bool = False

    @property
    def definition(self) -> str:
        return (self.run.__doc__ or "").strip()


@dataclass(frozen=True)
class Outcome:
    """What became of a check, and why in a few words."""

    status: Status
    words: str


CHECKS = (
    Check("quadratic bowl on the grid", surfaces.bowl_on_the_grid),
    Check("quadratic bowl off the grid", surfaces.bowl_off_the_grid),
    Check(
        "centre cell is the training loss",
        surfaces.centre_is_the_training_loss,
        "a centre cell that is not the trained point",
    ),
    Check(
        "rows and columns aligned",
        surfaces.rows_and_columns_are_aligned,
        "surface rows shifted by one grid step",
    ),
    Check(
        "surface: batches of 60 + 4",
        surfaces.uneven_batches_change_nothing,
        "uneven last batches averaged without weights",
    ),
    Check(
        "losses that are not finite kept",
        surfaces.losses_that_are_not_finite_are_kept,
        "non-finite losses replaced by finite numbers",
    ),
    Check(
        "batch norm: no NaN",
        surfaces.batch_norm_stays_finite,
        "batch-norm buffers perturbed as if they were weights",
    ),
    Check(
        "batch norm: model unchanged",
        surfaces.batch_norm_model_is_left_as_it_was,
        "the user's model changed by drawing a picture",
    ),
    Check(
        "resume",
        surfaces.a_resume_does_each_cell_once,
        "a resume that recomputes or skips cells",
    ),
    Check(
        "random directions orthogonal",
        directions.pairs_are_orthogonal,
        "'random orthogonal' directions with cosine 0.9996 between them",
    ),
    Check(
        "random directions Gaussian",
        directions.entries_are_gaussian,
        "directions drawn uniform on [0, 1] and called Gaussian",
    ),
    Check(
        "filter norms",
        directions.norms_are_those_of_the_filters,
        "layer-wise scaling sold as filter-wise",
    ),
    Check(
        "bias rule",
        directions.biases_follow_a_rule,
        "biases rescaled once per filter",
    ),
    Check("linear layer: Hessian", spectra.linear_layer_products),
    Check("two linear layers: Hessian", spectra.deep_linear_products),
    Check("dense oracle: all eigenvalues", spectra.all_eigenvalues),
    Check(
        "Hessian: batches of 60 + 4",
        spectra.uneven_batches_change_no_product,
        "uneven last batches averaged without weights",
    ),
    Check(
        "five eigenvalues of a network",
        spectra.top_eigenvalues_of_a_network,
        "power iteration that reports wrong eigenvalues as converged",
    ),
    Check(
        "five close eigenvalues",
        spectra.close_eigenvalues,
        "power iteration that reports wrong eigenvalues as converged",
    ),
    Check(
        "five eigenvalues across a gap",
        spectra.eigenvalues_across_a_gap,
        "Lanczos without reorthogonalization and its ghost copies",
    ),
    Check("repeated eigenvalues", spectra.repeated_eigenvalues),
    Check("density: two bulks", spectra.density_integrates_to_the_histogram),
    Check("density: dense oracle", spectra.density_of_a_network),
    Check(
        "density: quadrature weights",
        spectra.weights_are_a_quadrature,
        "squared entries of all eigenvectors used as quadrature weights",
    ),
    Check(
        "density: no ghosts",
        spectra.no_ghosts,
        "Lanczos without reorthogonalization and its ghost copies",
    ),
    Check(
        "trace within its stated error",
        spectra.trace_has_the_stated_error,
        "a trace estimate that stops after two probes",
        slow=True,
    ),
    Check("trace unbiased", spectra.trace_is_unbiased),
)


def judge(check: Check, adapter: Adapter) -> Outcome:
    """Run a check on a tool."""
    try:
        return Outcome("passes", check.run(adapter))
    except NotOffered as reason:
        return Outcome("not offered", str(reason))
    except Failure as reason:
        return Outcome("fails", str(reason))
    except Exception as error:
        first = str(error).partition("\n")[0]
        return Outcome("does not run", f"{type(error).__name__}: {first}")
