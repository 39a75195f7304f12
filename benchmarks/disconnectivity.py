"""Disconnectivity graphs beside pele's on five analytic landscapes.

pele finds minima by basin hopping and transition states by connecting minima from both ends; its
graph says at what level each two are joined. `tw.disconnectivity_graph` has lines and elastic bands
between the known minima. Levels are compared pair by pair, as shares of the span from the lowest
minimum to the highest level; so are ours with the known ones. As a control, so is a graph of
straight lines alone, which has to be too high somewhere. Exits with 1 if a level is off by more
than 1 %, if pele finds other minima, or if the control is not told apart.

With `--rivals` pele (GPL) is installed into an environment of its own, and never into this one;
without it pele runs if that environment is there.

    python benchmarks/disconnectivity.py [--rivals]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import torch
from rivals import environments

import thalweg as tw
from analytic_landscapes import ANALYTIC_LANDSCAPES, AnalyticLandscape
from function_landscape import FunctionLandscape

torch.set_num_threads(1)
_LIMIT = 0.01
_NEAR = 0.01  # distance from a known minimum, which has four digits


def graph_of(landscape: AnalyticLandscape, *by: str) -> tw.DisconnectivityGraph:
    function = FunctionLandscape(landscape.function, len(landscape.box))
    minima = torch.tensor(landscape.minima, dtype=torch.float64)
    return tw.disconnectivity_graph(function, minima, by=by, steps=150)


def by_pele(name: str) -> dict[str, Any]:
    """Let pele explore a landscape in its environment."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "graph.json"
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = environments.run("pele", "rivals.pele_graph", name, str(out), **streams)
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"pele ended with {process.returncode}: {said[-2000:]}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def order_of(minima: list[list[float]], known: list[tuple[float, ...]]) -> list[int]:
    """Say which of pele's minima is each known one; an empty list if they are not the same."""
    distances = np.linalg.norm(np.array(known)[:, None] - np.array(minima)[None], axis=2)
    order = [int(i) for i in distances.argmin(1)]
    same = len(minima) == len(known) == len(set(order)) and distances.min(1).max() < _NEAR
    return order if same else []


def farthest(levels: np.ndarray, others: np.ndarray, span: float) -> float:
    return float(np.abs(levels - others).max() / span)


def from_known(landscape: AnalyticLandscape, graph: tw.DisconnectivityGraph) -> float:
    pairs = landscape.passes.items()
    return max(abs(graph.heights[pair] - level) for pair, level in pairs) / landscape.span


def from_pele(
    landscape: AnalyticLandscape, found: dict[str, Any], graph: tw.DisconnectivityGraph
) -> float:
    """Give the largest difference of levels by pairs, or of merges; infinite for other minima."""
    order = order_of(found["minima"], landscape.minima)
    merges = np.array([level for level, _, _ in graph.merges])
    if not order or len(found["merges"]) != len(merges):
        return np.inf
    theirs = np.array(found["levels"])[np.ix_(order, order)]
    return max(
        farthest(graph.heights, theirs, landscape.span),
        farthest(merges, np.array(found["merges"]), landscape.span),
    )


def words_of_levels(levels: list[float]) -> str:
    return " ".join(f"{level:.4f}" for level in levels)


def compare(name: str, pele: bool) -> tuple[float, float]:
    """Print levels; return how far ours and those of straight lines are off, as shares."""
    landscape = ANALYTIC_LANDSCAPES[name]
    graph, lines = graph_of(landscape, "line", "band"), graph_of(landscape, "line")
    off, control = from_known(landscape, graph), from_known(landscape, lines)
    print(f"{name}: {len(landscape.minima)} minima")
    print(f"  ours   {words_of_levels([level for level, _, _ in graph.merges])}")
    print(f"  lines  {words_of_levels([level for level, _, _ in lines.merges])}")
    print(f"  from known levels: ours {off:.2%}, lines {control:.2%}", flush=True)
    if pele:
        found = by_pele(name)
        counts = f"{len(found['minima'])} minima, {found['transition states']} transition states"
        print(f"  pele   {words_of_levels(found['merges'])}   ({counts})")
        ours, control = (from_pele(landscape, found, each) for each in (graph, lines))
        print(f"  from pele's: ours {ours:.3%}, lines {control:.3%}", flush=True)
        off = max(off, ours)
    return off, control


def prepared(install: bool) -> bool:
    """Say whether pele's environment is there; make it, if that is wanted."""
    wrong = "not installed; write --rivals"
    if install:
        wrong = environments.make("pele", torch=False)
    if not environments.made("pele"):
        print(f"pele: left out: {wrong}.")
        return False
    print(f"pele {environments.version('pele')}")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rivals", action="store_true", help="install pele")
    pele = prepared(parser.parse_args().rivals)
    shares = np.array([compare(name, pele) for name in ANALYTIC_LANDSCAPES])
    off = shares[:, 0].max()
    told = int((shares[:, 1] > _LIMIT).sum())
    print(f"ours: at most {off:.3%} off; lines alone are told apart on {told} of {len(shares)}.")
    return int(off > _LIMIT or not told)


if __name__ == "__main__":
    sys.exit(main())
