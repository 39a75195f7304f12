"""Loss and error on straight lines: between copies of one parent, and between different seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.connectivity import barrier
from thalweg.problems import Point, load_stored
from thalweg.problems.between import States
from thalweg.problems.checkpoints import open_points
from thalweg.risk import EmpiricalRisk
from thalweg.run import Progress, Report, Run, Task, silent, task_result
from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.intervals import LEVEL, mean
from thalweg.studies.trainings import UNITS_AN_EPOCH, branch_task, trunk_task
from thalweg.studies.trajectories import shared_sizes

if TYPE_CHECKING:
    import xarray as xr

# Ends are trunks and branches of the study of trajectories; pairs are all of `copies` from one
# moment, and all of `seeds`.
SIZES: dict[str, dict[str, Any]] = {
    "demo": shared_sizes(
        "demo", seeds=[0, 1, 2], moments={"early": 2, "middle": 3, "final": 3}, points=11
    ),
    "laptop": shared_sizes(
        "laptop", seeds=[0, 1, 2], moments={"early": 2, "middle": 2, "final": 3}, points=11
    ),
    "paper": shared_sizes(
        "paper", seeds=[0, 1], moments={"early": 2, "middle": 2, "final": 2}, points=11
    ),
}
LINES, PAIRS, MIDDLES = (f"interpolation/{name}" for name in ("lines", "pairs", "middles"))
SEEDS = "seeds"
# Moments late enough for copies to be in one basin, as the claims say.
_LATE = ("middle", "final")
_LOW = Rule(high=0.1)
_NOT_WORSE = Rule(high=0.01)
_BETTER = Rule(high=0.0)
# Of two passes forward over training data, statistics and loss, a third of an epoch each, and test.
_EPOCHS_A_POINT = 0.7
_MEASURED = ("loss", "error", "test_loss", "test_error")
_FIGURES = ("barrier", "crossfit", "mean_excess", "mean_over_best")
_SOURCE = "Liao and Poggio (2017): interpolation between end points"


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the lines to measure; each needs the trainings of its two ends.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.

    Returns
    -------
    list of Task
        Pairs of copies by moment, then pairs of seeds.
    """
    study = config["interpolation"]
    trunks = [
        trunk_task(
            config, config["seed"] + seed, epochs=study["epochs"], checkpoints=study["checkpoints"]
        )
        for seed in study["seeds"]
    ]
    length = {"epochs": study["branch_epochs"], "checkpoints": study["branch_checkpoints"]}
    lines = [
        _line(config, moment, pair)
        for moment, copies in study["moments"].items()
        for pair in itertools.combinations(
            [
                branch_task(config, trunks[0], moment, copy, scale=study["scale"], **length)
                for copy in range(copies)
            ],
            2,
        )
    ]
    return lines + [_line(config, SEEDS, pair) for pair in itertools.combinations(trunks, 2)]


def _line(config: dict[str, Any], group: str, ends: tuple[Task, ...]) -> Task:
    study = config["interpolation"]
    names = [end.arguments["trajectory"] for end in ends]
    return Task(
        "thalweg.studies.interpolation:measure_line",
        {
            "problem": config["problem"],
            "evaluation_batch": config.get("evaluation_batch"),
            "ends": names,
            "group": group,
            "points": study["points"],
        },
        needs=ends,
        label=f"line from {names[0]} to {names[1]}",
        units=max(1, round(study["points"] * _EPOCHS_A_POINT * UNITS_AN_EPOCH)),
    )


def measure_line(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Measure the line between the ends of two trajectories, and its middle sample by sample."""
    problem = load_stored(arguments["problem"])
    risk = EmpiricalRisk(problem, batch_size=arguments["evaluation_batch"])
    files = [run.checkpoints(name)[-1] for name in arguments["ends"]]
    ends = open_points(problem, files, tell=False)
    found = barrier(risk, ends[0], ends[1], points=arguments["points"])
    names = [str(name) for name in found["quantity"].values]
    answer: dict[str, Any] = {"t": found["t"].values, "length": found.attrs["length"]}
    for name in names:
        answer |= {name: found[name].values, f"{name}_stderr": found[f"{name}_stderr"].values}
        here = found.sel(quantity=name)
        for key in ("barrier_at", *_FIGURES, *(f"{figure}_stderr" for figure in _FIGURES)):
            answer[f"{name}/{key}"] = float(here[key])
    if problem.test is not None:
        answer |= _middle(risk, ends)
    return answer


def _middle(risk: EmpiricalRisk, points: Sequence[Point]) -> dict[str, NDArray[np.float64]]:
    """Compare the mean of two models with both, on each test sample."""
    states, test = States.of(risk, points), risk.on("test")
    w0, w1 = states.weights
    found = []
    with states.visited(risk):
        for shares, w in (((1, 0), w0), ((0, 1), w1), ((0.5, 0.5), (w0 + w1) / 2)):
            states.go(risk, shares)
            found.append(test.evaluate_samples(w))
    *ends, middle = found
    answer = {}
    for name, values in middle.items():
        one, other = (end[name].double().numpy() for end in ends)
        answer[f"over_mean/{name}"] = values.double().numpy() - (one + other) / 2
        best = one if one.mean() <= other.mean() else other
        answer[f"over_best/{name}"] = values.double().numpy() - best
    return answer


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather the lines, their barriers, and what the mean of two models does on each test sample.

    Parameters
    ----------
    run : Run
        Whose tasks are done.
    config : dict
        The one that `tasks` was given.
    progress : callable
        Not used: there is little to do.

    Returns
    -------
    dict
        The largest barrier of each group, in loss.
    """
    done = [(task, outcome) for task in tasks(config) if (outcome := task_result(run, task))]
    study = config["interpolation"]
    trunk = trunk_task(
        config, config["seed"], epochs=study["epochs"], checkpoints=study["checkpoints"]
    )
    untrained = float((task_result(run, trunk) or {"loss": [np.nan]})["loss"][0])
    run.save_result(LINES, _lines(done))
    pairs = _pairs(done).assign_attrs(untrained_loss=untrained)
    run.save_result(PAIRS, pairs)
    if "over_mean/loss" in done[0][1]:
        run.save_result(MIDDLES, _middles(done))
    groups = pairs["group"].values
    high = pairs["barrier"].sel(quantity="loss").values
    return {
        "untrained_loss": untrained,
        "largest_barrier": {str(g): float(high[groups == g].max()) for g in dict.fromkeys(groups)},
    }


def _named(done: list[tuple[Task, dict[str, Any]]]) -> dict[str, tuple[str, list[str]]]:
    return {
        "pair": ("pair", [" and ".join(task.arguments["ends"]) for task, _ in done]),
        "group": ("pair", [task.arguments["group"] for task, _ in done]),
    }


def _lines(done: list[tuple[Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    names = [name for name in _MEASURED if name in done[0][1]]
    columns = [*names, *(f"{name}_stderr" for name in names)]
    return xr.Dataset(
        {key: (("pair", "t"), np.stack([outcome[key] for _, outcome in done])) for key in columns},
        coords={"t": ("t", done[0][1]["t"], {"units": "share of the way"}), **_named(done)},
        attrs={"units": "losses: mean per sample; errors: share of samples"},
    )


def _pairs(done: list[tuple[Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    names = [name for name in _MEASURED if name in done[0][1]]
    keys = ("barrier_at", *_FIGURES, *(f"{figure}_stderr" for figure in _FIGURES))
    variables: dict[str, Any] = {
        key: (
            ("pair", "quantity"),
            np.array([[outcome[f"{name}/{key}"] for name in names] for _, outcome in done]),
        )
        for key in keys
    }
    lengths = np.array([outcome["length"] for _, outcome in done])
    variables["length"] = ("pair", lengths, {"units": "Euclidean distance of weights"})
    return xr.Dataset(variables, coords={"quantity": names, **_named(done)})


def _middles(done: list[tuple[Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    keys = [key for key in done[0][1] if key.startswith(("over_mean/", "over_best/"))]
    return xr.Dataset(
        {
            key.replace("/", "_"): (
                ("pair", "sample"),
                np.stack([outcome[key] for _, outcome in done]),
            )
            for key in keys
        },
        coords=_named(done),
        attrs={"what": "test samples; value at the mean of two models minus that of the ends"},
    )


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """
    Judge whether lines within a basin stay low, and whether the mean of two models is as good.

    Parameters
    ----------
    run : Run
        With what `assemble` saved.
    config : dict
        The one that `tasks` was given.

    Returns
    -------
    list of Claim
        ``interpolation/low``, ``interpolation/mean-not-worse`` and ``interpolation/mean-better``.
    """
    return [_low(run.result(PAIRS)), *_means(run)]


def _low(pairs: xr.Dataset) -> Claim:
    return Claim(
        name="interpolation/low",
        statement="On the line between two copies of one network, perturbed in the middle or at "
        "the end of its training and trained on, the training loss stays low: it rises above the "
        "line through its ends by at most a tenth of the loss before training.",
        source=_SOURCE,
        protocol="For every pair the training loss at equally spaced points, batch-norm statistics "
        "re-estimated at each; the barrier is the largest excess over the chord. The statistic is "
        "the highest barrier of all pairs. Its interval is about samples: the pairs are these.",
        statistic=_highest(pairs, _LATE),
        rule=_LOW,
        controls=(Control("pairs trained from different seeds", _highest(pairs, (SEEDS,))),),
        section="interpolation",
    )


def _highest(pairs: xr.Dataset, groups: tuple[str, ...]) -> Statistic | None:
    """Bound the largest barrier by intervals that hold for all pairs at once."""
    from scipy.stats import norm

    mine = pairs.isel(pair=np.isin(pairs["group"].values, groups)).sel(quantity="loss")
    count = mine.sizes["pair"]
    scale = float(pairs.attrs["untrained_loss"])
    if not count or not np.isfinite(scale):
        return None
    value = mine["barrier"].values / scale
    half = norm.ppf(1 - (1 - LEVEL) / 2 / count) * mine["barrier_stderr"].values / scale
    return Statistic(
        "highest barrier",
        float(value.max()),
        float((value - half).max()),
        float((value + half).max()),
        "loss before training",
        f"largest of {count} normal intervals over paired samples, Bonferroni",
        count,
        LEVEL,
    )


def _means(run: Run) -> list[Claim]:
    middles = run.result(MIDDLES) if run.has_result(MIDDLES) else None
    protocol = (
        "Batch-norm statistics are re-estimated at the mean. The difference is averaged over the "
        "pairs for each test sample; test samples are the sample."
    )
    missing = "" if middles is not None else "The problem has no test data."
    return [
        Claim(
            name="interpolation/mean-not-worse",
            statement="The mean of two such copies misclassifies at most one test image in a "
            "hundred more than the two do on average.",
            source=_SOURCE,
            protocol=protocol,
            statistic=_over(middles, "over_mean_error", _LATE),
            rule=_NOT_WORSE,
            controls=_different_seeds(middles, "over_mean_error"),
            section="interpolation",
            why=missing,
        ),
        Claim(
            name="interpolation/mean-better",
            statement="The mean of two such copies has a lower test loss than the better of both.",
            source="Liao and Poggio (2017): the mean of two models can be better than both",
            protocol=protocol,
            statistic=_over(middles, "over_best_loss", _LATE),
            rule=_BETTER,
            controls=_different_seeds(middles, "over_best_loss"),
            section="interpolation",
            why=missing,
        ),
    ]


def _different_seeds(middles: xr.Dataset | None, name: str) -> tuple[Control, ...]:
    return (Control("the mean of networks of different seeds", _over(middles, name, (SEEDS,))),)


def _over(middles: xr.Dataset | None, name: str, groups: tuple[str, ...]) -> Statistic | None:
    if middles is None or name not in middles:
        return None
    mine = middles[name].values[np.isin(middles["group"].values, groups)]
    if not len(mine):
        return None
    what, units = (
        ("test error of the mean minus that of both", "share of test samples")
        if name.endswith("error")
        else ("test loss of the mean minus that of the better", "mean loss per sample")
    )
    return mean(what, mine.mean(0), units=units)
