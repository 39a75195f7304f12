"""Checks of Hessian products, eigenvalues, densities and traces, against closed forms."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from conformance import tasks
from conformance.adapter import Adapter, Array, Density, Failure, NotOffered, Task

SEEDS = 200
PROBES, STEPS = 10, 50


def _matrix(adapter: Adapter, task: Task) -> Tensor:
    size = sum(p.numel() for p in task.model.parameters())
    return adapter.products(task, torch.eye(size)).double()


def _off(found: Array, true: Array) -> float:
    """Largest error relative to the largest eigenvalue."""
    return float(np.abs(np.sort(found) - np.sort(true)).max() / np.abs(true).max())


def linear_layer_products(adapter: Adapter) -> str:
    """One linear layer, 200 weights, planted spectrum: the matrix of all products."""
    spectrum = tasks.planted("decay")
    frame = tasks.rotation(len(spectrum))
    true = (frame * spectrum) @ frame.T
    worst = float((_matrix(adapter, tasks.quadratic(spectrum)) - true).abs().max())
    if not worst <= 1e-5:
        raise Failure(f"an entry of the Hessian is off by {worst:.2g} of its largest eigenvalue")
    return f"off by {worst:.0e}"


def deep_linear_products(adapter: Adapter) -> str:
    """Two linear layers: the matrix of all products against its Kronecker form."""
    task = tasks.deep_linear()
    true = tasks.deep_linear_hessian(task)
    worst = float((_matrix(adapter, task) - true).abs().max() / true.abs().max())
    if not worst <= 1e-5:
        raise Failure(f"an entry of the Hessian is off by {worst:.2g} of its largest")
    return f"off by {worst:.0e}"


def all_eigenvalues(adapter: Adapter) -> str:
    """All 638 eigenvalues of a convolutional network against a dense float64 Hessian."""
    task = tasks.convolutional()
    true = tasks.convolutional_spectrum().numpy()
    matrix = _matrix(adapter, task)
    worst = _off(torch.linalg.eigvalsh((matrix + matrix.T) / 2).numpy(), true)
    if not worst <= 1e-5:
        raise Failure(f"an eigenvalue is off by {worst:.2g} of the largest")
    return f"off by {worst:.0e} of the largest"


def uneven_batches_change_no_product(adapter: Adapter) -> str:
    """A Hessian of 60 + 4 samples, the last of which are ten times as large."""
    task = tasks.deep_linear(samples=64)
    x, y = task.whole
    task = Task(task.model, task.criterion, [(torch.cat([x[:60], 10 * x[60:]]), y)])
    true = tasks.deep_linear_hessian(task)
    found = _matrix(adapter, task.split(60, 4))
    worst = float((found - true).abs().max() / true.abs().max())
    if not worst <= 1e-4:
        raise Failure(f"products off by {100 * worst:.0f}% with batches of 60 and 4")
    return f"off by {worst:.0e}"


def _top(adapter: Adapter, task: Task, true: Array, k: int = 5) -> str:
    found = adapter.eigenvalues(task, k)
    values = np.sort(found.values)[::-1]
    if len(values) != k:
        raise Failure(f"{len(values)} eigenvalues where {k} were asked for")
    if found.stated is None:
        raise Failure("not converged with default settings")
    worst = float(np.abs(values / true[:k] - 1).max())
    # Products are in float32, so that an error of 0 may be stated and not be had.
    if not worst <= max(found.stated, 1e-5):
        raise Failure(f"off by {100 * worst:.2g}% where {100 * found.stated:.2g}% is stated")
    return f"off by {worst:.0e}, stated {found.stated:.0e}"


def top_eigenvalues_of_a_network(adapter: Adapter) -> str:
    """The five largest of a convolutional network against a dense float64 Hessian."""
    task = tasks.convolutional()
    true = tasks.convolutional_spectrum().flip(0).numpy()
    return _top(adapter, task, true)


def close_eigenvalues(adapter: Adapter) -> str:
    """The five largest of a planted spectrum where each is 3% below the last."""
    spectrum = tasks.planted("close")
    return _top(adapter, tasks.quadratic(spectrum), spectrum.numpy())


def eigenvalues_across_a_gap(adapter: Adapter) -> str:
    """The five largest are 100, 80, 50 and the edge of a bulk at 1: no copy of the first three."""
    spectrum = tasks.planted("outliers")
    return _top(adapter, tasks.quadratic(spectrum), spectrum.numpy())


def repeated_eigenvalues(adapter: Adapter) -> str:
    """9, 9, 7, 7, 5: each is counted as often as it occurs."""
    spectrum = tasks.planted("repeated")
    return _top(adapter, tasks.quadratic(spectrum), spectrum.numpy())


def _shares(density: Density, edges: Array) -> Array:
    """Share of the spectrum between edges, mean over probes."""
    _check_shape(density)
    bins = (density.nodes[..., None] > edges[:-1]) & (density.nodes[..., None] <= edges[1:])
    shares: Array = (density.weights[..., None] * bins).sum(1).mean(0)
    return shares


def _check_shape(density: Density) -> None:
    if density.weights.shape != density.nodes.shape:
        raise Failure(f"weights {density.weights.shape} for nodes {density.nodes.shape}")


def _need_nodes(density: Density) -> None:
    if density.curve:
        raise NotOffered("gives a smoothed curve, no nodes")


def density_integrates_to_the_histogram(adapter: Adapter) -> str:
    """Two bulks of 300 eigenvalues each, in bins of half a bulk: shares within 0.05."""
    spectrum = tasks.planted("two bulks")
    edges = np.array([-0.5, 0.5, 2.5, 4.5, 5.5])
    true = np.histogram(spectrum.numpy(), edges)[0] / len(spectrum)
    found = adapter.density(tasks.quadratic(spectrum), probes=PROBES, steps=STEPS)
    return _compare(_shares(found, edges), true)


def density_of_a_network(adapter: Adapter) -> str:
    """A convolutional network: shares in four bins with edges in gaps of its dense spectrum."""
    task = tasks.convolutional()
    true = tasks.convolutional_spectrum().numpy()
    edges = _edges(true)
    shares = np.histogram(true, edges)[0] / len(true)
    return _compare(_shares(adapter.density(task, probes=PROBES, steps=STEPS), edges), shares)


def _edges(values: Array) -> Array:
    """Around all, at plus and minus a twentieth of the largest, and below the largest."""
    top = values.max()
    return np.array([values.min() - top, -0.05 * top, 0.05 * top, 0.3 * top, 2 * top])


def _compare(found: Array, true: Array, tolerance: float = 0.05) -> str:
    worst = float(np.abs(found - true).max())
    if not worst <= tolerance:
        raise Failure(f"a bin holds {worst:.2g} of the spectrum too much or too little")
    return f"bins off by {worst:.0e} at most"


def weights_are_a_quadrature(adapter: Adapter) -> str:
    """In every probe the weights are one per node, none negative, and sum to one."""
    found = adapter.density(tasks.quadratic(tasks.planted("two bulks")), probes=3, steps=20)
    _need_nodes(found)
    _check_shape(found)
    sums = found.weights.sum(1)
    if not np.allclose(sums, 1, atol=1e-3) or found.weights.min() < 0:
        raise Failure(f"weights of a probe sum to {sums.max():.3g}")
    return f"sums off by {np.abs(sums - 1).max():.0e}"


def no_ghosts(adapter: Adapter) -> str:
    """Eigenvalues 100, 80 and 50 above a bulk: no probe of 100 steps shows one of them twice."""
    spectrum = tasks.planted("outliers")
    found = adapter.density(tasks.quadratic(spectrum), probes=2, steps=100)
    _need_nodes(found)
    seen = int((found.nodes > 2).sum(1).max())
    if seen > 3:
        raise Failure(f"{seen} nodes beyond the bulk, where there are 3 eigenvalues")
    return f"{seen} nodes beyond the bulk"


def trace_has_the_stated_error(adapter: Adapter) -> str:
    """Planted spectra, decaying and flat: within the stated error in 95% of 200 seeds."""
    lowest = SEEDS
    for name in ("decay", "flat"):
        spectrum = tasks.planted(name)
        task, true = tasks.quadratic(spectrum), float(spectrum.sum())
        if adapter.trace(task).error is None:
            raise NotOffered("states no error")
        found = [adapter.trace(task, seed=seed) for seed in range(SEEDS)]
        hits = sum(abs(f.value - true) <= (f.error or 0) + 1e-5 * true for f in found)
        lowest = min(lowest, hits)
    if lowest < 0.95 * SEEDS:
        raise Failure(f"within the stated error in {100 * lowest / SEEDS:.0f}% of {SEEDS} seeds")
    return f"within the stated error in {100 * lowest / SEEDS:.0f}%"


def trace_is_unbiased(adapter: Adapter) -> str:
    """The mean over 25 seeds on a decaying spectrum lies within four standard errors."""
    spectrum = tasks.planted("decay")
    task, true = tasks.quadratic(spectrum), float(spectrum.sum())
    values = np.array([adapter.trace(task, seed=seed).value for seed in range(25)])
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    score = abs(float(values.mean()) - true) / max(error, 1e-5 * true)
    if not score <= 4:
        raise Failure(f"biased by {100 * (values.mean() / true - 1):.2g}%, {score:.0f} errors")
    return f"mean within {score:.1f} standard errors"
