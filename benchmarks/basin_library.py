"""Make src/thalweg/basins/library.npz: 30 signatures of each family, by 4 parents and 4 copies."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from thalweg.basins.families import FAMILIES, features, simulate
from thalweg.basins.signature import Design

FIRST, DESIGN = 1000, Design(parents=4, copies=4)
FILE = Path(__file__).parent.parent / "src" / "thalweg" / "basins" / "library.npz"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-family", type=int, default=30)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names, seeds, rows = [], [], []
    for seed in tqdm(range(FIRST, FIRST + arguments.per_family)):
        for family in FAMILIES:
            names.append(family)
            seeds.append(seed)
            rows.append(features(simulate(family, seed, design=DESIGN)).astype(np.float32))
    np.savez_compressed(arguments.out, families=names, seeds=seeds, features=np.stack(rows))
