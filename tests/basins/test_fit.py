"""Model choice: the family that was planted, none where none was, and what is calibrated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from thalweg.basins.families import FAMILIES, feature_names, features, simulate
from thalweg.basins.fit import NONE, Library, fit_basins, posterior_predictive
from thalweg.basins.signature import Design, signature
from thalweg.errors import InvalidArgument
from thalweg.landscape.synthetic import FlatBasins


@pytest.fixture(scope="module")
def library():
    return Library.shipped()


@pytest.fixture(scope="module")
def planted(library):
    return {family: simulate(family, 7, design=library.design) for family in FAMILIES}


def test_the_planted_family_is_found(library, planted):
    for family, made in planted.items():
        found = fit_basins(made, library)
        assert found.posterior[family] > 0.5 and found.family == family
        assert sum(found.posterior.values()) == pytest.approx(1.0)


def test_the_library_is_what_the_code_simulates(library):
    assert len(feature_names(library.design)) == library.features.shape[1]
    for family in ("bowl", "tree"):
        row = features(simulate(family, 1001, design=library.design))
        mine = (library.families == family) & (library.seeds == 1001)
        assert library.features[mine][0] == pytest.approx(row, abs=0.02)


def test_what_is_of_no_family_fits_none(library):
    """Basins on a plain, where descents stop: every family's come down again."""
    plain = FlatBasins(60, count=4, flat=20, height=1.0)
    noise = torch.randn(4, 60, generator=torch.Generator().manual_seed(0)).double()
    recipe = {"lr": 0.05, "steps": 80, "batch_size": None}
    starts = plain.centres + 0.1 * noise
    found = fit_basins(signature(plain, starts, training=recipe, design=library.design), library)
    assert found.family == NONE and found.misfit < 0.05


def test_a_larger_design_is_fitted_by_its_part(library):
    large = replace(library.design, parents=5, copies=6)
    made = simulate("basins", 3, design=large)
    assert fit_basins(made, library).family == "basins"
    part = made.part(library.design)
    assert len(part.pairs("child")["kind"]) == 4 * 4 * 6
    assert len(part.pairs("parents")["kind"]) == 6
    with pytest.raises(InvalidArgument, match="as many parents and copies or fewer"):
        fit_basins(simulate("bowl", 3, design=Design(parents=2, copies=2)), library)


@pytest.mark.slow
def test_what_is_drawn_from_the_posterior_looks_alike(library, planted):
    found = fit_basins(planted["basins"], library)
    drawn = posterior_predictive(found, library, draws=6)
    assert float(drawn.inside.mean()) > 0.6
    wrong = posterior_predictive(replace(found, best="rugged"), library, draws=6)
    assert float(wrong.inside.mean()) < float(drawn.inside.mean()) - 0.2


@pytest.mark.slow
def test_recovery_and_calibration(library):
    """240 signatures, 40 a family: 95 % with more than half of the posterior; shares that hold."""
    made = [(f, simulate(f, seed, design=library.design)) for seed in range(40) for f in FAMILIES]
    fits = [(family, fit_basins(one, library)) for family, one in made]
    assert np.mean([found.posterior[family] > 0.5 for family, found in fits]) >= 0.95
    for family in FAMILIES:
        misfits = [found.misfit for name, found in fits if name == family]
        assert np.mean(np.array(misfits) < 0.1) <= 0.25
    stated = np.mean([max(found.posterior.values()) for _, found in fits])
    right = np.mean([found.best == family for family, found in fits])
    assert abs(stated - right) < 0.05
