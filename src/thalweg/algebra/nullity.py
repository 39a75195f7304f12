"""Directions in which a loss cannot change: continuous symmetries and dead input directions.

A zero eigenvalue of the Hessian at a critical point is *explained* where its eigenvector is tangent
to such a family of networks with the same loss.
"""

from __future__ import annotations

import itertools

import numpy as np

from thalweg.algebra.arithmetic import Array
from thalweg.algebra.network import Network
from thalweg.algebra.system import ZeroSystem
from thalweg.curvature.ranks import singular_cutoff


def symmetry_directions(network: Network, full: Array) -> Array:
    """Tangents, shape (size, m), of one-parameter families with the same outputs everywhere.

    For the activation ``c z**d``: rescaling of each hidden channel; for d = 1 any mixing of the
    channels of a layer; for d = 2 rotations of two channels that are summed by one output.
    """
    columns: list[Array] = []
    if network.monomial:
        for layer in range(len(network.layers) - 1):
            columns += _rescalings(network, full, layer)
            if network.degree == 1:
                columns += _mixings(network, full, layer)
            if network.degree == 2:
                columns += _rotations(network, full, layer)
    return _stacked(columns, network.size)


def dead_directions(system: ZeroSystem) -> Array:
    """Directions, shape (size, m), of the first layer's weights that no sample reads."""
    from scipy.linalg import null_space

    network, layer = system.network, system.network.layers[0]
    reads = network.evaluate(np.zeros((1, network.size)), system.inputs)[0][0]
    reads = reads.reshape(-1, layer.reads)
    if layer.bias:
        reads = np.concatenate([reads, np.ones((len(reads), 1))], axis=1)
    unseen = null_space(reads, rcond=singular_cutoff(reads.shape))
    columns: list[Array] = []
    for channel, direction in itertools.product(range(layer.channels_out), unseen.T):
        column = np.zeros(network.size)
        kernel, bias = network.parts(column)[0]
        kernel[channel] = direction[: layer.reads].reshape(layer.kernel_shape[1:])
        if bias is not None:
            bias[channel] = direction[-1]
        columns.append(column)
    return _stacked(columns, network.size)


def invariant_directions(system: ZeroSystem, full: Array, penalties: Array) -> tuple[Array, Array]:
    """Orthonormal directions along which the penalized loss is constant to first order everywhere.

    A penalty breaks most families; what is left are the combinations, with constant coefficients,
    that leave it unchanged at random points too.

    Returns
    -------
    symmetric, dead
        Shapes (size, s) and (size, k): tangents of symmetries, and dead directions not among them.
    """
    rng = np.random.default_rng(0)
    elsewhere = rng.normal(size=(4 * (full.size + 4), full.size))
    rows = [(w * penalties) @ symmetry_directions(system.network, w) for w in elsewhere]
    symmetric = symmetry_directions(system.network, full) @ _kernel(np.array(rows))
    dead = dead_directions(system)
    dead = dead @ _kernel(penalties[:, None] * dead)
    basis = _span(symmetric)
    return basis, _span(dead - basis @ (basis.T @ dead))


def _rescalings(network: Network, full: Array, layer: int) -> list[Array]:
    tangents = []
    for channel in range(network.layers[layer].channels_out):
        tangent = np.zeros_like(full)
        parts, new = network.parts(full), network.parts(tangent)
        _add_incoming(new[layer], parts[layer], channel, channel, 1.0)
        new[layer + 1][0][:, channel] -= network.degree * parts[layer + 1][0][:, channel]
        tangents.append(tangent)
    return tangents


def _mixings(network: Network, full: Array, layer: int) -> list[Array]:
    tangents = []
    for into, source in itertools.permutations(range(network.layers[layer].channels_out), 2):
        tangent = np.zeros_like(full)
        parts, new = network.parts(full), network.parts(tangent)
        _add_incoming(new[layer], parts[layer], into, source, 1.0)
        new[layer + 1][0][:, source] -= parts[layer + 1][0][:, into]
        tangents.append(tangent)
    return tangents


def _rotations(network: Network, full: Array, layer: int) -> list[Array]:
    outgoing = network.parts(full)[layer + 1][0]
    if outgoing.shape[0] * outgoing.shape[2] != 1:
        return []
    tangents = []
    for a, b in itertools.combinations(range(network.layers[layer].channels_out), 2):
        tangent = np.zeros_like(full)
        parts, new = network.parts(full), network.parts(tangent)
        _add_incoming(new[layer], parts[layer], a, b, float(outgoing[0, b, 0]))
        _add_incoming(new[layer], parts[layer], b, a, -float(outgoing[0, a, 0]))
        tangents.append(tangent)
    return tangents


def _add_incoming(
    tangent: tuple[Array, Array | None],
    part: tuple[Array, Array | None],
    into: int,
    source: int,
    factor: float,
) -> None:
    tangent[0][into] += factor * part[0][source]
    if tangent[1] is not None and part[1] is not None:
        tangent[1][into] += factor * part[1][source]


def _stacked(columns: list[Array], size: int) -> Array:
    return np.array(columns).reshape(-1, size).T


def _kernel(matrix: Array) -> Array:
    """Orthonormal null space; the identity for a matrix of zeros."""
    from scipy.linalg import null_space

    if not matrix.size or not matrix.any():
        return np.eye(matrix.shape[1])
    kernel: Array = null_space(matrix, rcond=singular_cutoff(matrix.shape))
    return kernel


def _span(columns: Array) -> Array:
    """Orthonormal basis of a span; empty where all columns are zero to rounding."""
    from scipy.linalg import orth

    if not columns.size or np.abs(columns).max() < 1e-10:
        return np.zeros((len(columns), 0))
    basis: Array = orth(columns, rcond=1e-8)
    return basis
