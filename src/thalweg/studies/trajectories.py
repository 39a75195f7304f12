"""The paper's global picture: runs and perturbed branches of training in one embedding."""

from __future__ import annotations

from typing import Any

import numpy as np

from thalweg.embedding import embed
from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.claim import Claim
from thalweg.studies.curves import gather_curves
from thalweg.studies.parents import on_draw
from thalweg.studies.trainings import branch_task, trunk_task

# `parents` and lengths are shared by the studies of copies and lines, so that all train the same
# networks. Of a network's checkpoints each is measured in full, which costs two thirds of an epoch:
# at 50,000 images one every other epoch, so that measuring takes a quarter of the time.
SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "seeds": [0, 1, 2],
        "parents": 8,
        "epochs": 12,
        "checkpoints": 12,
        "branch_at": ["early", "middle", "final"],
        "copies": 3,
        "scale": 0.25,
        "branch_epochs": 8,
        "branch_checkpoints": 8,
    },
    "laptop": {
        "seeds": [0, 1, 2],
        "parents": 3,
        "epochs": 20,
        "checkpoints": 20,
        "branch_at": ["early", "middle", "final"],
        "copies": 3,
        "scale": 0.25,
        "branch_epochs": 8,
        "branch_checkpoints": 4,
    },
    "paper": {
        "seeds": [0, 1, 2],
        "parents": 3,
        "epochs": 20,
        "checkpoints": 10,
        "branch_at": ["early", "middle", "final"],
        "copies": 2,
        "scale": 0.25,
        "branch_epochs": 6,
        "branch_checkpoints": 3,
    },
}
SHARED = ("parents", "epochs", "checkpoints", "scale", "branch_epochs", "branch_checkpoints")


def shared_sizes(preset: str, **own: Any) -> dict[str, Any]:
    """Give another study the sizes of trunks and branches, so that they are trained only once."""
    return {key: SIZES[preset][key] for key in SHARED} | own


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the trainings of the study, trunks first.

    Trunks come from every seed; the first seed's is branched at each moment.
    """
    study = config["trajectories"]
    # One picture is of one landscape: all on the first parent's samples.
    drawn, length = on_draw(config, 0), {key: study[key] for key in ("epochs", "checkpoints")}
    trunks = [trunk_task(drawn, config["seed"] + seed, **length) for seed in study["seeds"]]
    branches = [
        branch_task(
            drawn,
            trunks[0],
            moment,
            copy,
            scale=study["scale"],
            epochs=study["branch_epochs"],
            checkpoints=study["branch_checkpoints"],
        )
        for moment in study["branch_at"]
        for copy in range(study["copies"])
    ]
    return trunks + branches


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Embed all trajectories and gather their curves into the run's results.

    What is returned is for each trajectory its status, steps and final train and test figures, and
    the stress of the embedding.
    """
    outcomes = {
        task.arguments["trajectory"]: (task, task_result(run, task)) for task in tasks(config)
    }
    paths = [path for name in outcomes for path in run.checkpoints(name)]
    embedding = embed(paths, progress=progress)
    run.save_result("trajectories/embedding", embedding)
    trained = [(task, outcome) for task, outcome in outcomes.values() if outcome]
    run.save_result("trajectories/curves", gather_curves(trained))
    finals = {name: _final(outcome) for name, (_, outcome) in outcomes.items() if outcome}
    trunks = [name for name, (task, _) in outcomes.items() if not task.needs]
    errors = [finals[name]["error"] for name in trunks if "error" in finals[name]]
    return {
        "trajectories": finals,
        "checkpoints": len(paths),
        # A regression has no classification error.
        **({"zero_error_seeds": errors.count(0.0)} if errors else {}),
        "stress": dict(
            zip(
                embedding["layer"].values.tolist(),
                embedding["stress"].values.tolist(),
                strict=True,
            )
        ),
    }


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge nothing: a picture is to be looked at, and decides no claim."""
    return []


def _final(outcome: dict[str, Any]) -> dict[str, Any]:
    last = {key: float(outcome[key][-1]) for key in ("loss", "error", "test_loss", "test_error")}
    finite = {key: value for key, value in last.items() if np.isfinite(value)}
    return {"status": outcome["status"], "steps": int(outcome["steps"]), **finite}
