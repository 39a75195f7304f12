"""Results as one family: short in the prompt, a table in a notebook, drawn and explained."""

from __future__ import annotations

import json
from dataclasses import fields

import matplotlib
import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.display.words import meanings
from thalweg.geometry import average_sharpness, noise_level, worst_sharpness
from thalweg.landscape import Quadratic
from thalweg.result import Result

matplotlib.use("Agg")
BOWL = Quadratic(torch.linspace(1, 4, 30, dtype=torch.float64))
W = BOWL.centre


@pytest.fixture(scope="module")
def results():
    problem = tw.load_problem("digits", network="mlp", width=4, train_size=30, test_size=20)
    risk = tw.EmpiricalRisk(problem)
    w = risk.space.pack(problem.model)
    trained = tw.train(risk, w, epochs=3, lr=0.1, batch_size=10)
    line = tw.barrier(risk, w, trained.w, points=3)
    return {
        "top": tw.top_eigenvalues(BOWL.hessian(W), 3),
        "trace": tw.trace(BOWL.hessian(W)),
        "flatness": tw.flatness(BOWL, W, radius=0.1, noise=0.1, rise=4.0, pairs=4, copies=6),
        "noise": noise_level(BOWL, W, rise=1.0, copies=6),
        "average": average_sharpness(BOWL, W, pairs=4),
        "worst": worst_sharpness(BOWL, W, radius=0.1),
        "basin": tw.one_basin(line),
        "degeneracy": tw.degeneracy(risk, trained.w, probes=2, steps=4),
        "flow": tw.gradient_flow(BOWL, W + 1.0, time=1.0),
        "training": trained,
        "line": line,
        "density": tw.spectral_density(BOWL.hessian(W), probes=2, steps=5),
        "surface": tw.surface(risk, w, directions=tw.random_directions(risk.space, w, 2), points=3),
        "embedding": tw.embed(np.random.default_rng(0).normal(size=(6, 8))),
    }


def test_every_result_is_drawn_and_explained(results):
    for name, result in results.items():
        axes = tw.plot(result)
        drawn = axes.lines or axes.collections or axes.patches or axes.containers
        assert drawn, name
        words = tw.explain(result)
        assert len(words.splitlines()) >= 3, name
        matplotlib.pyplot.close("all")


def test_results_are_short_in_the_prompt_and_whole_in_a_notebook(results):
    for name, result in results.items():
        if isinstance(result, Result):
            assert len(repr(result)) < 800, (name, repr(result))
            assert repr(result).startswith(type(result).__name__ + "(")
            page = result._repr_html_()
            assert all(f">{field.name}<" in page for field in fields(result)), name
            assert json.loads(json.dumps(result.to_dict()))
            data = result.to_xarray()
            assert data.attrs["result"] == type(result).__name__
    assert results["trace"].to_xarray()["value"].item() == pytest.approx(75.0)
    assert "_repr_html_" in dir(results["line"]), "data sets show themselves"


def test_a_result_draws_and_explains_itself(results):
    assert results["top"].plot().get_ylabel() == "eigenvalue"
    assert results["top"].explain() == tw.explain(results["top"])
    assert "status = 'exact'" in results["trace"].explain()


def of_the_family():
    """All classes of results there are."""
    import thalweg.algebra
    import thalweg.certificates
    import thalweg.connectivity
    import thalweg.dynamics
    import thalweg.measurements.checkup

    assert thalweg.algebra and thalweg.certificates and thalweg.connectivity
    assert thalweg.dynamics and thalweg.measurements.checkup
    return [kind for kind in Result.__subclasses__() if kind.__module__.startswith("thalweg.")]


def test_every_field_of_every_result_is_documented():
    kinds = of_the_family()
    assert len(kinds) >= 20
    for kind in kinds:
        missing = {field.name for field in fields(kind)} - set(meanings(kind))
        assert not missing, (kind.__name__, missing)


@pytest.mark.parametrize("wrong", [3, "text", None, {"a": 1}, torch.zeros(3)])
def test_what_is_no_result_is_refused_in_words(wrong):
    for name in ("plot", "explain"):
        with pytest.raises(tw.ThalwegError, match=f"{name}: got a .*; expected what an instrument"):
            getattr(tw, name)(wrong)
