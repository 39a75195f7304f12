"""Which family of landscapes a signature is of: model choice by simulation, and its checks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
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
MISFIT = 0.01
_TREES, _NEIGHBOURS, _FOLDS = 300, 5, 5


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

    @cached_property
    def classifier(self) -> Any:
        """Give the calibrated classifier: an ensemble of trees, its shares by isotonic folds."""
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.ensemble import ExtraTreesClassifier

        trees = ExtraTreesClassifier(_TREES, min_samples_leaf=2, random_state=0)
        found = CalibratedClassifierCV(trees, method="sigmoid", cv=_FOLDS)
        return found.fit(self.features, self.families)

    def posteriors(self, table: Floats) -> Floats:
        """Give the probability of each family, in `FAMILIES`' order, for rows of features."""
        shares = self.classifier.predict_proba(table)
        places = [list(self.classifier.classes_).index(name) for name in FAMILIES]
        answer: Floats = shares[:, places]
        return answer

    def misfit(self, family: str, row: Floats) -> float:
        """Give the share of a family's own signatures that lie as far from their neighbours."""
        mine = self.features[self.families == family]
        scale = mine.std(0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        own = np.sort(np.linalg.norm((mine[:, None] - mine) / scale, axis=2), axis=1)
        away = np.sort(np.linalg.norm((mine - row) / scale, axis=1))
        near = min(_NEIGHBOURS, len(mine) - 1)
        # A signature's first neighbour among its own is itself.
        usual, distance = own[:, 1 : near + 1].mean(1), away[:near].mean()
        return float((1 + (usual >= distance).sum()) / (1 + len(mine)))

    def nearest(self, family: str, row: Floats, count: int) -> list[int]:
        """Give the seeds of the simulations of a family that are nearest to a signature."""
        mine = np.flatnonzero(self.families == family)
        scale = self.features[mine].std(0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        away = np.linalg.norm((self.features[mine] - row) / scale, axis=1)
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
    if per_family < 2 * _FOLDS:
        raise InvalidArgument(f"per_family={per_family}; write {2 * _FOLDS} or more.")
    design = design or Design()
    rows = []
    with progress(per_family * len(FAMILIES), "signatures") as bar:
        for number in range(seed, seed + per_family):
            for family in FAMILIES:
                rows.append((family, number, features(simulate(family, number, design=design))))
                bar.update(1)
    return Library.of(design, rows)


def fit_basins(found: Signature, library: Library) -> BasinFit:
    """
    Choose the family of landscapes that a signature is of, or none.

    Simulated signatures stand for likelihoods that cannot be written down. A classifier, calibrated
    on folds, gives the posterior; whether the best family fits at all is a question of its own,
    answered by the distance to its nearest signatures against that of its own among themselves.

    Parameters
    ----------
    found : Signature
        Of a network, or of anything.
    library : Library
        Simulated by the same design.

    Raises
    ------
    InvalidArgument
        If the designs differ.

    References
    ----------
    P. Pudlo et al., Reliable ABC model choice via random forests (2016); K. Cranmer, J. Brehmer
    and G. Louppe, The frontier of simulation-based inference (2020).
    """
    if found.design != library.design:
        raise InvalidArgument(
            f"a signature by {found.design}, and a library by {library.design}; write one design"
            " for both: signature(..., design=library.design)."
        )
    row = features(found)
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
    found: BasinFit, library: Library, *, draws: int = 10, seed: int = 10**6
) -> xr.Dataset:
    """
    Simulate again from the parameters nearest to a signature, and compare number by number.

    Parameters
    ----------
    found : BasinFit
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

    near = library.nearest(found.best, found.features, draws)
    drawn = []
    for i in range(draws):
        params = draw_parameters(found.best, near[i % len(near)])
        made = simulate(found.best, seed + i, design=library.design, params=params)
        drawn.append(features(made))
    low, high = np.min(drawn, axis=0), np.max(drawn, axis=0)
    inside = (found.features >= low - 1e-9) & (found.features <= high + 1e-9)
    return xr.Dataset(
        {
            "observed": ("feature", found.features),
            "low": ("feature", low),
            "high": ("feature", high),
            "inside": ("feature", inside),
        },
        coords={"feature": feature_names(library.design)},
        attrs={"family": found.best, "draws": draws},
    )
