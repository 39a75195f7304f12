"""Fit signatures that no library holds, 40 a family, and draw stated against found shares."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import binomtest
from tqdm import tqdm

from thalweg.basins import FAMILIES, Library, features, simulate

IMAGE = Path(__file__).parent.parent / "docs" / "images" / "basin_calibration.png"
EDGES = np.array([0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0])


def held_out(library: Library, per_family: int) -> tuple[np.ndarray, np.ndarray]:
    names, rows = [], []
    for seed in tqdm(range(per_family)):
        for family in FAMILIES:
            names.append(family)
            rows.append(features(simulate(family, seed, design=library.design)))
    return np.array(names), np.stack(rows)


def draw(stated: np.ndarray, true: np.ndarray, out: Path) -> None:
    """Draw each family's stated shares, in bins, and how often it is that family."""
    figure, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
    place = np.clip(np.digitize(stated, EDGES) - 1, 0, len(EDGES) - 2)
    names = []
    for i in range(len(EDGES) - 1):
        mine = place == i
        n, hits = int(mine.sum()), int(true[mine].sum())
        names.append(f"{EDGES[i]:g} to {EDGES[i + 1]:g}\nn = {n}")
        if not n:
            continue
        found = binomtest(hits, n).proportion_ci()
        said = float(stated[mine].mean())
        axes.plot([i, i], [found.low, found.high], color="C0", linewidth=2)
        axes.plot(i, hits / n, "o", color="C0", label="found, 95 % interval" if not i else None)
        axes.plot(i, said, "_", color="C1", markersize=26, label="stated" if not i else None)
    axes.set_xticks(range(len(names)), names, fontsize="small")
    axes.set_xlabel("stated probability of a family")
    axes.set_ylabel("share that is of it")
    axes.legend(frameon=False, loc="center left")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-family", type=int, default=40)
    parser.add_argument("--held", type=Path, help="features already simulated: X and y of an npz")
    parser.add_argument("--out", type=Path, default=IMAGE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    library = Library.shipped()
    if arguments.held:
        data = np.load(arguments.held)
        names, rows = data["y"], data["X"]
    else:
        names, rows = held_out(library, arguments.per_family)
    posteriors = library.posteriors(rows)
    true = names[:, None] == np.array(list(FAMILIES))
    own = posteriors[true]
    print(f"{len(names)} signatures; right with more than half: {np.mean(own > 0.5):.4f}")
    largest, loss = posteriors.max(1).mean(), -np.log(own).mean()
    print(f"mean largest probability {largest:.4f}; log loss {loss:.4f}")
    misfits = [library.misfit(name, row) for name, row in zip(names, rows, strict=True)]
    print(f"own family called none of them: {np.mean(np.array(misfits) < 0.05):.4f}")
    draw(posteriors.ravel(), true.ravel(), arguments.out)
