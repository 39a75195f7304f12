"""Which family of landscapes a signature is of: model choice by simulation, and its checks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.basins.families import (
    FAMILIES,
    draw_parameters,
    feature_names,
    features,
    simulate,
)
from thalweg.basins.signature import Design, Floats, Signature
from thalweg.errors import InvalidArgument
from thalweg.run.progress import Progress, silent

if TYPE_CHECKING:
    import xarray as xr

NONE = "none of them"
# Stated before any fit: below this share of a family's own signatures lying as far out, none fits.
MISFIT = 0.05
_NEIGHBOURS, _LEAST = 5, 10


@dataclass(frozen=True, eq=False)
class Library:
    """
    Simulated signatures to compare with.

    Attributes
    ----------
    design : Design
        Of all of them.
    families : ndarray of str
        Shape (n,).
    seeds : ndarray of int
        Shape (n,), by which `simulate` makes each again.
    features : ndarray
        Shape (n, F).
    """

    design: Design
    families: NDArray[np.str_]
    seeds: NDArray[np.int64]
    features: Floats

    @classmethod
    def of(cls, design: Design, rows: Iterable[tuple[str, int, Floats]]) -> Library:
        """
        Gather simulations.

        Parameters
        ----------
        design : Design
            Of all of them.
        rows : iterable of (str, int, ndarray)
            Family, seed and features of each.
        """
        families, seeds, table = zip(*rows, strict=True)
        return cls(design, np.array(families), np.array(seeds), np.stack(table))

    @classmethod
    def shipped(cls) -> Library:
        """Read the library that comes with the package: `benchmarks/basin_library.py` makes it."""
        with resources.files("thalweg.basins").joinpath("library.npz").open("rb") as file:
            data = np.load(file)
            return cls(
                Design(parents=4, copies=4),
                data["families"],
                data["seeds"],
                data["features"].astype(np.float64),
            )

    @cached_property
    def classifier(self) -> Any:
        """Give the classifier: multinomial logistic regression, whose shares are probabilities."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        # On folds of the library its log loss was a seventh of that of trees with sigmoids.
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
        return model.fit(self.features, self.families)

    def posteriors(self, table: Floats) -> Floats:
        """Give the probability of each family, in `FAMILIES`' order, for rows of features."""
        shares = self.classifier.predict_proba(table)
        places = [list(self.classifier.classes_).index(name) for name in FAMILIES]
        answer: Floats = shares[:, places]
        return answer

    def misfit(self, family: str, row: Floats) -> float:
        """
        Give the share of a family's signatures, this one among them, that lie as far out.

        Of a signature of the family it is below p in at most a share p of all cases: all are
        treated alike (a conformal p-value).
        """
        everyone = np.vstack([self.features[self.families == family], row])
        scaled = everyone / _scale(everyone)
        away = np.sort(np.linalg.norm(scaled[:, None] - scaled, axis=2), axis=1)
        # The first neighbour of each is itself.
        far = away[:, 1 : _NEIGHBOURS + 1].mean(1)
        return float((far >= far[-1]).mean())

    def nearest(self, family: str, row: Floats, count: int) -> list[int]:
        """Give the seeds of the simulations of a family that are nearest to a signature."""
        mine = np.flatnonzero(self.families == family)
        away = np.linalg.norm((self.features[mine] - row) / _scale(self.features[mine]), axis=1)
        return [int(self.seeds[mine[i]]) for i in np.argsort(away)[:count]]


@dataclass(frozen=True)
class BasinFit:
    """
    What a signature says about families.

    Attributes
    ----------
    posterior : dict of str to float
        Of each family, all alike beforehand; they add up to 1 *if it is one of them*.
    best : str
        The most probable family.
    misfit : float
        Share of the best family's own signatures that lie as far out.
    family : str
        The best family; ``"none of them"`` where its misfit is below `MISFIT`.
    """

    posterior: dict[str, float]
    best: str
    misfit: float
    family: str
    features: Floats = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Give all but the features as JSON values."""
        return {name: value for name, value in vars(self).items() if name != "features"}


def _scale(table: Floats) -> Floats:
    spread = table.std(0)
    scale: Floats = np.where(spread > 1e-9, spread, 1.0)
    return scale


def simulate_library(
    per_family: int,
    *,
    design: Design | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Library:
    """
    Simulate so many signatures of each family, in this process.

    Parameters
    ----------
    per_family : int
        Number, 10 or more.
    design : Design, optional
        Of all: that of the signatures to be fitted.
    seed : int
        Of the first; the others follow.
    progress : Progress
        Shows signatures.
    """
    if per_family < _LEAST:
        raise InvalidArgument(f"per_family={per_family}; write {_LEAST} or more.")
    design = design or Design()
    rows = []
    with progress(per_family * len(FAMILIES), "signatures") as bar:
        for number in range(seed, seed + per_family):
            for family in FAMILIES:
                rows.append((family, number, features(simulate(family, number, design=design))))
                bar.update(1)
    return Library.of(design, rows)


def fit_basins(measured: Signature, library: Library | None = None) -> BasinFit:
    """
    Choose the family of landscapes that a signature is of, or none.

    Simulated signatures stand for likelihoods that cannot be written down. A classifier
    gives the posterior; whether the best family fits at all is a question of its own,
    answered by the distance to its nearest signatures against that of its own among themselves.

    Parameters
    ----------
    measured : Signature
        Of a network, or of anything.
    library : Library, optional
        Simulated by the same design, or one with fewer parents and copies; by default the one that
        comes with the package, of 4 parents and 4 copies.

    Raises
    ------
    InvalidArgument
        If the library's design is no part of the signature's.

    References
    ----------
    P. Pudlo et al., Reliable ABC model choice via random forests (2016); K. Cranmer, J. Brehmer
    and G. Louppe, The frontier of simulation-based inference (2020).
    """
    library = Library.shipped() if library is None else library
    row = features(measured.part(library.design))
    shares = library.posteriors(row[None])[0]
    best = list(FAMILIES)[int(shares.argmax())]
    misfit = library.misfit(best, row)
    return BasinFit(
        posterior={name: float(p) for name, p in zip(FAMILIES, shares, strict=True)},
        best=best,
        misfit=misfit,
        family=best if misfit >= MISFIT else NONE,
        features=row,
    )


def posterior_predictive(
    fit: BasinFit, library: Library, *, draws: int = 10, seed: int = 10**6
) -> xr.Dataset:
    """
    Simulate again from the parameters nearest to a signature, and compare number by number.

    Parameters
    ----------
    fit : BasinFit
        The best family's.
    library : Library
        It was fitted to.
    draws : int
        Simulations, with seeds of their own.
    seed : int
        Of the first.

    Returns
    -------
    xarray.Dataset
        Over ``feature``: ``observed``, ``low`` and ``high`` (the least and the largest drawn) and
        ``inside``; a family that fits has most inside.
    """
    import xarray as xr

    near = library.nearest(fit.best, fit.features, draws)
    drawn = []
    for i in range(draws):
        params = draw_parameters(fit.best, near[i % len(near)])
        again = simulate(fit.best, seed + i, design=library.design, params=params)
        drawn.append(features(again))
    low, high = np.min(drawn, axis=0), np.max(drawn, axis=0)
    inside = (fit.features >= low - 1e-9) & (fit.features <= high + 1e-9)
    return xr.Dataset(
        {
            "observed": ("feature", fit.features),
            "low": ("feature", low),
            "high": ("feature", high),
            "inside": ("feature", inside),
        },
        coords={"feature": feature_names(library.design)},
        attrs={"family": fit.best, "draws": draws},
    )
