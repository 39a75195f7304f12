"""Which model of basins networks fit: one valley, basins side by side, inside one another, none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.basins import FAMILIES, Signature, memory, pooled, without_structure
from thalweg.run import Progress, Run, Task, silent, task_result
from thalweg.studies.basins_claims import NETWORKS, RULES, SHUFFLED, judge
from thalweg.studies.basins_task import PLAIN, signature_of
from thalweg.studies.claim import Claim, Rule
from thalweg.studies.intervals import clusters_to_decide
from thalweg.studies.preflight import Sizes, set_by_hand
from thalweg.studies.sgd_selection import problem_of
from thalweg.studies.trainings import UNITS_AN_EPOCH

if TYPE_CHECKING:
    import xarray as xr

FITS, PROFILES, MEMORIES, PREDICTIVE = (
    f"basins/{name}" for name in ("fits", "profiles", "memories", "predictive")
)
_CIFAR: dict[str, Any] = {
    "draws": 3,
    "settings": {"network": "mlp", "train_size": 300, "test_size": 300},
    "widths": [[8], [16]],
    "training": {"lr": 0.02, "batch_size": 30},
    "steps": 60,
    "parents": 4,
    "copies": 4,
    "predictive": 5,
    "cost": 6.0,
}
# A signature of each of the `widths` on each of the `draws` of samples, every one of so many
# `parents` and `copies` at each scale, trained for so many `steps`, and half of them after each
# perturbation; `settings` change the run's problem where its networks are built-in, `training` its
# recipe. `predictive` simulations check the best family on the first draw of each width. A
# signature `cost`s so many epochs of the run's own.
SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "draws": 3,
        "settings": {"network": "mlp", "train_size": 100},
        "widths": [[8], [16]],
        "training": {"lr": 0.1, "batch_size": 25},
        "steps": 30,
        "parents": 4,
        "copies": 4,
        "predictive": 3,
        "cost": 2.0,
    },
    "laptop": _CIFAR,
    "paper": _CIFAR | {"steps": 400, "parents": 8, "copies": 8, "cost": 100.0},
}
_TASK = "thalweg.studies.basins_task"
# Seeds of known landscapes: those of the library and of the tries are below.
_HELD_OUT = 10**5
# The parents and copies of the library that signatures are fitted to.
_LEAST = 4


def tasks(config: dict[str, Any]) -> list[Task]:
    """List the signatures: of networks, every width on every draw, and of known landscapes."""
    return [task for _, task in _placed(config)]


def _placed(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Task]]:
    study, widths = config["basins"], _widths(config)
    for (rung, width), draw in itertools.product(enumerate(widths), range(study["draws"])):
        place = {"kind": NETWORKS, "rung": rung, "draw": draw}
        yield place, _network_task(config, rung, width, draw)
    for kind, rung, draw in itertools.product(
        (*FAMILIES, PLAIN), range(len(study["widths"])), range(study["draws"])
    ):
        yield {"kind": kind, "rung": rung, "draw": draw}, _known_task(config, kind, rung, draw)


def _widths(config: dict[str, Any]) -> list[list[int] | None]:
    """List the widths; a problem of one's own has one network."""
    built_in = config["problem"]["entry"] in ("digits", "cifar10")
    return list(config["basins"]["widths"]) if built_in else [None]


def _network_task(config: dict[str, Any], rung: int, width: list[int] | None, draw: int) -> Task:
    study = config["basins"]
    # Each signature is of samples of its own: they are the clusters.
    number = rung * study["draws"] + draw
    settings = study["settings"] | ({} if width is None else {"widths": width})
    arguments = {
        "problem": problem_of(config, settings, number),
        "evaluation_batch": config.get("evaluation_batch"),
        "training": config["training"] | study["training"],
        "seed": config["seed"] + number,
        "predictive": study["predictive"] if draw == 0 else 0,
        **{key: study[key] for key in ("steps", "parents", "copies")},
    }
    units = max(1, round(study["cost"] * UNITS_AN_EPOCH))
    shown = "" if width is None else f", widths {'-'.join(map(str, width))}"
    return Task(
        f"{_TASK}:measure_networks", arguments, label=f"signature {draw}{shown}", units=units
    )


def _known_task(config: dict[str, Any], kind: str, rung: int, draw: int) -> Task:
    study = config["basins"]
    first = _HELD_OUT + config["seed"]
    arguments = {
        "family": kind,
        # Those of one set, like networks of one width, have one set of parameters.
        "parameters": first + rung,
        "seed": first + rung * study["draws"] + draw,
        **{key: study[key] for key in ("parents", "copies")},
    }
    return Task(f"{_TASK}:measure_known", arguments, label=f"{kind} {rung}.{draw}")


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather fits, profiles over scales, predictive checks, and test each set for basins in basins.

    What is returned is the families given to networks, the mean posterior by width, and sets with
    two sizes of basins.
    """
    done = [
        (place, outcome) for place, task in _placed(config) if (outcome := task_result(run, task))
    ]
    if not done:
        return {}
    size = {key: config["basins"][key] for key in ("parents", "copies")}
    fits = _fits(done)
    run.save_result(FITS, fits)
    sets = _sets([(place, signature_of(outcome, **size)) for place, outcome in done])
    run.save_result(PROFILES, _profiles(sets))
    memories = _memories(sets, config["seed"])
    run.save_result(MEMORIES, memories)
    checked = [(place, drawn) for place, outcome in done if (drawn := outcome.get("predictive"))]
    if checked:
        run.save_result(PREDICTIVE, _predictive(checked))
    own = fits.isel(signature=fits["kind"].values == NETWORKS)
    answers = own["family"].values.tolist()
    return {
        "families": {family: answers.count(family) for family in dict.fromkeys(answers)},
        "posterior": {
            str(name): round(float(own["posterior"].sel(among=name).mean()), 4)
            for name in own["among"].values
        },
        "nested": {
            f"{kind} {rung}": bool(nested)
            for kind, rung, nested in zip(
                memories["kind"].values,
                memories["rung"].values,
                memories["nested"].values,
                strict=True,
            )
        },
    }


def _fits(done: list[tuple[dict[str, Any], dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    shares = np.array([[outcome["posterior"][name] for name in FAMILIES] for _, outcome in done])
    columns: dict[str, Any] = {
        key: ("signature", np.array([place[key] for place, _ in done]))
        for key in ("kind", "rung", "draw")
    }
    for key in ("best", "family", "misfit", "unit"):
        columns[key] = ("signature", np.array([outcome[key] for _, outcome in done]))
    columns["posterior"] = (("signature", "among"), shares, {"units": "probability"})
    return xr.Dataset(columns, coords={"among": list(FAMILIES)})


def _sets(signatures: list[tuple[dict[str, Any], Signature]]) -> dict[tuple[str, int], Signature]:
    """Put the signatures of a kind and a width together."""
    groups: dict[tuple[str, int], list[Signature]] = {}
    for place, signature in signatures:
        groups.setdefault((place["kind"], place["rung"]), []).append(signature)
    return {key: pooled(group) for key, group in groups.items()}


def _profiles(sets: dict[tuple[str, int], Signature]) -> xr.Dataset:
    import xarray as xr

    profiles = [signature.profile().drop_attrs() for signature in sets.values()]
    whole = xr.concat(profiles, "set")
    return whole.assign_coords(
        kind=("set", [kind for kind, _ in sets]), rung=("set", [rung for _, rung in sets])
    )


def _memories(sets: dict[tuple[str, int], Signature], seed: int) -> xr.Dataset:
    """Test every set, and the networks' without structure."""
    import xarray as xr

    null = {
        (SHUFFLED, rung): without_structure(signature, seed=seed)
        for (kind, rung), signature in sets.items()
        if kind == NETWORKS
    }
    tested = {key: memory(signature, seed=seed) for key, signature in (sets | null).items()}
    memories = list(tested.values())
    remembered = [[scale in seen.remembered for scale in seen.scales] for seen in memories]
    return xr.Dataset(
        {
            "nested": ("set", [seen.nested for seen in memories]),
            "difference": (
                ("set", "scale"),
                [seen.difference for seen in memories],
                {"units": "of the loss taken away"},
            ),
            "p": (("set", "scale"), [seen.p for seen in memories]),
            "remembered": (("set", "scale"), remembered),
        },
        coords={
            "kind": ("set", [kind for kind, _ in tested]),
            "rung": ("set", [rung for _, rung in tested]),
            "scale": list(memories[0].scales),
        },
    )


def _predictive(checked: list[tuple[dict[str, Any], dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    names = ("observed", "low", "high", "inside")
    variables = {
        name: (("rung", "feature"), np.array([drawn[name] for _, drawn in checked]))
        for name in names
    }
    coords = {"rung": [place["rung"] for place, _ in checked], "feature": checked[0][1]["feature"]}
    return xr.Dataset(variables, coords=coords)


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge which model of basins holds."""
    return judge(*(run.result(name) if run.has_result(name) else None for name in (FITS, MEMORIES)))


def rules(config: dict[str, Any]) -> Mapping[str, Rule]:
    """Give the rules, which no configuration changes."""
    return RULES


def faults(config: dict[str, Any], sizes: Sizes) -> list[str]:
    """Find why signatures could not be judged: too few, or too small for the library."""
    study = config["basins"]
    faulty = set_by_hand(config, "widths", "the study varies widths itself", but=None)
    widths = len(_widths(config))
    least = -(-clusters_to_decide(RULES["described"].low) // widths)
    if study["draws"] < least:
        faulty.append(
            f"basins.draws = {study['draws']}: even if all signatures are given one family, the"
            f" 95 % interval of their share holds 0.5; write basins.draws = {least} or more."
        )
    faulty += [
        f"basins.{key} = {study[key]}: the library of simulated signatures has {_LEAST}; write"
        f" basins.{key} = {_LEAST} or more."
        for key in ("parents", "copies")
        if study[key] < _LEAST
    ]
    return faulty
