"""Parents: trainings on draws of the data, each with an initialization and an order of its own."""

from __future__ import annotations

from typing import Any

from thalweg.run import Task
from thalweg.studies.trainings import branch_task, trunk_task

# Problems whose samples are drawn from ``data_seed``.
_DRAWN = ("digits", "cifar10", "teacher")


def has_draws(config: dict[str, Any]) -> bool:
    """
    Say whether another draw has other samples: CIFAR-10 as a whole, or a problem of one's own, not.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.
    """
    problem = config["problem"]
    whole = problem["entry"] == "cifar10" and "train_size" not in problem["settings"]
    return problem["entry"] in _DRAWN and not whole


def on_draw(config: dict[str, Any], draw: int) -> dict[str, Any]:
    """
    Give the configuration on a draw of samples of its own, where the problem has draws.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it. Its base seed shifts the draws, too.
    draw : int
        From 0 on.

    Examples
    --------
    >>> digits = {"entry": "digits", "settings": {"width": 8}}
    >>> on_draw({"seed": 100, "problem": digits}, 2)["problem"]["settings"]
    {'width': 8, 'data_seed': 102}
    """
    problem = config["problem"]
    shift = config["seed"] + draw
    if not has_draws(config) or not shift:
        return config
    drawn = {"data_seed": problem["settings"].get("data_seed", 0) + shift}
    return config | {"problem": problem | {"settings": problem["settings"] | drawn}}


def parent_task(
    config: dict[str, Any], study: dict[str, Any], number: int, *, rival: bool = False
) -> Task:
    """
    Specify the training of a parent, on the draw of its number.

    Parents are the clusters of every interval: what is measured on copies of one, or on pairs of
    copies, are not independent observations.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.
    study : dict
        With ``parents``, how many there are, ``epochs`` and ``checkpoints``.
    number : int
        Of the parent, from 0 on. Its seed is the base seed plus the number.
    rival : bool
        Rather the network trained on the same samples from another seed, no parent's.

    Returns
    -------
    Task
        Its trajectory is called after the seed, as it is where there is but one draw.
    """
    seed = config["seed"] + number + (study["parents"] if rival else 0)
    on = on_draw(config, number)
    elsewhere = number > 0 and has_draws(config)
    return trunk_task(
        on,
        seed,
        epochs=study["epochs"],
        checkpoints=study["checkpoints"],
        name=f"draw{config['seed'] + number}-seed{seed}" if elsewhere else f"seed{seed}",
    )


def copy_task(
    config: dict[str, Any], study: dict[str, Any], number: int, moment: str, copy: int
) -> Task:
    """
    Specify a perturbed copy of a parent, trained on by the run's own recipe.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.
    study : dict
        As of `parent_task`, with ``scale``, ``branch_epochs`` and ``branch_checkpoints``.
    number : int
        Of the parent.
    moment : {"early", "middle", "final"}
        Where it leaves it.
    copy : int
        Its number; it decides the noise and the order of the data.
    """
    return branch_task(
        on_draw(config, number),
        parent_task(config, study, number),
        moment,
        copy,
        scale=study["scale"],
        epochs=study["branch_epochs"],
        checkpoints=study["branch_checkpoints"],
    )


def cluster_words(config: dict[str, Any], count: int) -> str:
    """
    Say what the clusters of an interval are.

    Examples
    --------
    >>> cluster_words({"problem": {"entry": "cifar10", "settings": {}}}, 3)
    '3 networks from initial weights of their own, all on the same training samples'
    """
    of = "networks" if count != 1 else "network"
    where = (
        "each on its own draw of samples"
        if has_draws(config)
        else "all on the same training samples"
    )
    return f"{count} {of} from initial weights of their own, {where}"
