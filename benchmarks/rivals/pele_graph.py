"""pele: its disconnectivity graph of an analytic landscape, in its own environment.

python -m rivals.pele_graph NAME OUT: NAME is one of tests/analytic_landscapes.py, without torch;
OUT gets JSON with the minima found, the level at which each two are joined, and all such levels.
pele is under the GPL: it is called here, in a process of its own, and no part of Thalweg.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path

import numpy as np
from pele.landscape import database2graph
from pele.potentials import BasePotential
from pele.systems import BaseSystem
from pele.utils.disconnectivity_graph import DisconnectivityGraph

from analytic_landscapes import ANALYTIC_LANDSCAPES, AnalyticLandscape

_SAME = 1e-3  # distance below which two points are one minimum
_HOPS, _RUNS = 10, 40
# How far above a transition state the level lies at which it is looked for, as a share of the span.
_ABOVE = 1e-9


class Potential(BasePotential):
    """A function of plain arithmetic; its gradient by a complex step, exact to rounding."""

    def __init__(self, function):
        self.function = function

    def getEnergy(self, coords):
        return float(self.function(*coords))

    def getEnergyGradient(self, coords):
        steps = 1e-30j * np.eye(len(coords))
        slopes = [self.function(*(coords + step)).imag / 1e-30 for step in steps]
        return self.getEnergy(coords), np.array(slopes)


class System(BaseSystem):
    """Plain coordinates: no symmetries, no zero modes."""

    def __init__(self, landscape: AnalyticLandscape):
        super().__init__()
        self.potential = Potential(landscape.function)
        self.low, self.high = np.array(landscape.box).T
        self.params.structural_quench_params.tol = 1e-8
        # Values alone do not tell minima apart: those of Himmelblau's function are all zero.
        self.params.database.accuracy = 1e-5
        self.params.takestep.stepsize = float((self.high - self.low).mean()) / 4

    def get_potential(self):
        return self.potential

    def get_random_configuration(self):
        return np.random.uniform(self.low, self.high)

    def get_compare_exact(self):
        return lambda one, other: bool(np.linalg.norm(one - other) < _SAME)

    def get_mindist(self):
        return lambda one, other: (float(np.linalg.norm(one - other)), one, other)

    def get_orthogonalize_to_zero_eigenvectors(self):
        return None


def explored(landscape: AnalyticLandscape):
    """Find minima by basin hopping, and transition states by connecting each two from both ends."""
    system = System(landscape)
    database = system.create_database()
    for _ in range(_RUNS):
        system.get_basinhopping(database, outstream=None).run(_HOPS)
    for one, other in itertools.combinations(database.minima(), 2):
        system.get_double_ended_connect(one, other, database, fresh_connect=True).connect()
    return database


def tree_of(database):
    """Let pele make its disconnectivity graph, with a level just above each transition state."""
    lowest = database.minima()[0].energy
    energies = sorted(state.energy for state in database.transition_states())
    above = _ABOVE * (energies[-1] - lowest)
    levels = [lowest, *(energy + above for energy in energies)]
    graph = DisconnectivityGraph(
        database2graph(database), nlevels=len(levels), include_gmin=False, center_gmin=False
    )
    graph.set_energy_levels(levels)
    graph.calculate()
    return graph.tree_graph


def joins(tree):
    """Yield each level at which branches join, and the minima of these branches."""
    for node in tree.get_all_trees():
        branches = [branch.get_minima() for branch in node.get_branches()]
        if len(branches) > 1 and not node.data.get("children_not_connected"):
            yield node.data["ethresh"], branches


def joined_at(tree, minima):
    """Read the level at which each two minima are joined; infinite where they never are."""
    place = {minimum.id(): i for i, minimum in enumerate(minima)}
    levels = np.full((len(minima),) * 2, np.inf)
    np.fill_diagonal(levels, [minimum.energy for minimum in minima])
    for level, branches in joins(tree):
        parts = [[place[minimum.id()] for minimum in branch] for branch in branches]
        for left, right in itertools.permutations(parts, 2):
            levels[np.ix_(left, right)] = level
    return levels


def main() -> None:
    name, out = sys.argv[1:]
    np.random.seed(0)
    random.seed(0)
    database = explored(ANALYTIC_LANDSCAPES[name])
    tree = tree_of(database)
    minima = database.minima()
    found = {
        "minima": [minimum.coords.tolist() for minimum in minima],
        "levels": joined_at(tree, minima).tolist(),
        "merges": sorted(level for level, branches in joins(tree) for _ in branches[1:]),
        "transition states": len(database.transition_states()),
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
