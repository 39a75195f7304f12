from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from thalweg.curvature.ranks import EPS, singular_cutoff


@pytest.mark.parametrize("seed", range(5))
def test_ranks_of_a_matrix_and_of_its_gram_matrix_are_one(seed):
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((80, 40)))[0] for _ in range(2))
    sizes = np.concatenate([10.0 ** rng.uniform(-5, 0, 25), 10.0 ** rng.uniform(-14, -9, 15)])
    matrix = (left * sizes) @ right.T
    least = singular_cutoff(matrix.shape)
    singular = np.linalg.svd(matrix, compute_uv=False)
    squares = np.linalg.eigvalsh(matrix @ matrix.T)
    assert (singular > least * singular.max()).sum() == 25
    assert (squares > least**2 * squares.max()).sum() == 25


def test_a_cutoff_of_the_matrix_alone_counts_rounding_of_its_gram_matrix():
    """The control: numpy's, max(shape) eps on singular values, is finer than J J^T can tell."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((60, 30)) @ rng.standard_normal((30, 60))
    squares = np.linalg.eigvalsh(matrix @ matrix.T)
    fine = (60 * EPS) ** 2
    assert (squares > fine * squares.max()).sum() > 30
    assert (squares > singular_cutoff((60, 60)) ** 2 * squares.max()).sum() == 30


def test_it_grows_with_size_and_rounding():
    assert singular_cutoff((100, 400)) == math.sqrt(400 * EPS)
    assert singular_cutoff((4,), rounding=1e-6) == pytest.approx(2e-3)


def test_no_other_rule_for_ranks_is_written_anywhere():
    """Whoever counts singular values above a share of the largest asks for the share here."""
    source = Path(__file__).parents[2] / "src" / "thalweg"
    counted = re.compile(r"matrix_rank|rank = int\(\((sizes|(eigen)?values) >")
    texts = {file: file.read_text() for file in source.rglob("*.py")}
    ranks = {file: text for file, text in texts.items() if counted.search(text)}
    assert len(ranks) >= 4
    assert [file for file, text in ranks.items() if "singular_cutoff" not in text] == []
