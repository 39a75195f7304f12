"""Loss and error on straight lines: between copies of one parent, and between different seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thalweg.connectivity import barrier
from thalweg.problems import Point
from thalweg.problems.between import States
from thalweg.problems.checkpoints import open_points
from thalweg.risk import EmpiricalRisk
from thalweg.run import Progress, Report, Run, Task, silent, task_result
from thalweg.studies.alike import load_risk
from thalweg.studies.claim import Claim, Control, Rule, Statistic
from thalweg.studies.intervals import cluster_mean
from thalweg.studies.parents import cluster_words, copy_task, has_draws, on_draw, parent_task
from thalweg.studies.preflight import Sizes, too_few_for_a_mean
from thalweg.studies.trainings import UNITS_AN_EPOCH
from thalweg.studies.trajectories import shared_sizes

if TYPE_CHECKING:
    import xarray as xr

# Ends are parents and their copies, trained by the studies of trajectories and of copies, too; a
# parent's pairs are all of its `moments` copies from one moment. `rivals` of the parents are
# paired with a network from another seed on the same samples.
SIZES: dict[str, dict[str, Any]] = {
    "demo": shared_sizes("demo", rivals=8, moments={"early": 2, "middle": 2, "final": 2}, points=7),
    "laptop": shared_sizes(
        "laptop", rivals=3, moments={"early": 2, "middle": 2, "final": 2}, points=7
    ),
    "paper": shared_sizes("paper", rivals=3, moments={"middle": 2, "final": 2}, points=5),
}
LINES, PAIRS, MIDDLES = (f"interpolation/{name}" for name in ("lines", "pairs", "middles"))
SEEDS = "seeds"
# Moments late enough for copies to be in one basin, as the claims say.
_LATE = ("middle", "final")
RULES = {"low": Rule(high=0.1), "mean-not-worse": Rule(high=0.01), "mean-better": Rule(high=0.0)}
# Of two passes forward over training data, statistics and loss, a third of an epoch each, and test.
_EPOCHS_A_POINT = 0.7
_MEASURED = ("loss", "error", "test_loss", "test_error")
_FIGURES = ("barrier", "crossfit", "mean_excess", "mean_over_best")
_SOURCE = "Liao and Poggio (2017): interpolation between end points"


def tasks(config: dict[str, Any]) -> list[Task]:
    """
    List the lines to measure: pairs of copies by parent and moment, then pairs of seeds.

    Each needs the trainings of its two ends.
    """
    study = config["interpolation"]
    within = [
        _line(config, moment, number, pair)
        for number in range(study["parents"])
        for moment, copies in study["moments"].items()
        for pair in itertools.combinations(
            [copy_task(config, study, number, moment, copy) for copy in range(copies)], 2
        )
    ]
    rivals = [
        (parent_task(config, study, number), parent_task(config, study, number, rival=True))
        for number in range(study["rivals"])
    ]
    return within + [_line(config, SEEDS, number, pair) for number, pair in enumerate(rivals)]


def _line(config: dict[str, Any], group: str, number: int, ends: tuple[Task, ...]) -> Task:
    study = config["interpolation"]
    names = [end.arguments["trajectory"] for end in ends]
    return Task(
        "thalweg.studies.interpolation:measure_line",
        {
            "problem": on_draw(config, number)["problem"],
            "evaluation_batch": config.get("evaluation_batch"),
            "ends": names,
            "group": group,
            "draw": number,
            "points": study["points"],
        },
        needs=ends,
        label=f"line from {names[0]} to {names[1]}",
        units=max(1, round(study["points"] * _EPOCHS_A_POINT * UNITS_AN_EPOCH)),
    )


def measure_line(run: Run, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Measure the line between the ends of two trajectories, and its middle sample by sample."""
    risk = load_risk(arguments)
    problem = risk.problem
    files = [run.checkpoints(name)[-1] for name in arguments["ends"]]
    ends = open_points(problem, files, tell=False)
    line = barrier(risk, ends[0], ends[1], points=arguments["points"])
    names = [str(name) for name in line["quantity"].values]
    columns: dict[str, Any] = {"t": line["t"].values, "length": line.attrs["length"]}
    for name in names:
        columns |= {name: line[name].values, f"{name}_stderr": line[f"{name}_stderr"].values}
        of_quantity = line.sel(quantity=name)
        for key in ("barrier_at", *_FIGURES, *(f"{figure}_stderr" for figure in _FIGURES)):
            columns[f"{name}/{key}"] = float(of_quantity[key])
    if problem.test is not None:
        columns |= _middle(risk, ends)
    return columns


def _middle(risk: EmpiricalRisk, points: Sequence[Point]) -> dict[str, NDArray[np.float64]]:
    """Compare the mean of two models with both, on each test sample."""
    states, test = States.of(risk, points), risk.on("test")
    w0, w1 = states.weights
    losses = []
    with states.visited(risk):
        for shares, w in (((1, 0), w0), ((0, 1), w1), ((0.5, 0.5), (w0 + w1) / 2)):
            states.go(risk, shares)
            losses.append(test.evaluate_samples(w))
    *ends, middle = losses
    differences = {}
    for name, values in middle.items():
        first, second = (end[name].double().cpu().numpy() for end in ends)
        differences[f"over_mean/{name}"] = values.double().cpu().numpy() - (first + second) / 2
        best = first if first.mean() <= second.mean() else second
        differences[f"over_best/{name}"] = values.double().cpu().numpy() - best
    return differences


def assemble(run: Run, config: dict[str, Any], *, progress: Progress = silent) -> dict[str, Any]:
    """
    Gather the lines, their barriers, and what the mean of two models does on each test sample.

    What is returned is the largest barrier of each group, in loss.
    """
    outcomes = [(task, outcome) for task in tasks(config) if (outcome := task_result(run, task))]
    pairs = _pairs(outcomes, _untrained(run, config))
    run.save_result(LINES, _lines(outcomes))
    run.save_result(PAIRS, pairs)
    if "over_mean/loss" in outcomes[0][1]:
        run.save_result(MIDDLES, _middles(outcomes))
    groups = pairs["group"].values
    high = pairs["barrier"].sel(quantity="loss").values
    return {
        "untrained_loss": float(pairs["untrained_loss"].mean()),
        "largest_barrier": {str(g): float(high[groups == g].max()) for g in dict.fromkeys(groups)},
    }


def _untrained(run: Run, config: dict[str, Any]) -> dict[int, float]:
    """Read the loss of each parent before its training: the unit of barriers on its draw."""
    study = config["interpolation"]
    parents = {number: parent_task(config, study, number) for number in range(study["parents"])}
    return {
        number: float((task_result(run, parent) or {"loss": [np.nan]})["loss"][0])
        for number, parent in parents.items()
    }


def _named(outcomes: list[tuple[Task, dict[str, Any]]]) -> dict[str, tuple[str, list[Any]]]:
    return {
        "pair": ("pair", [" and ".join(task.arguments["ends"]) for task, _ in outcomes]),
        "group": ("pair", [task.arguments["group"] for task, _ in outcomes]),
        "draw": ("pair", [task.arguments["draw"] for task, _ in outcomes]),
    }


def _lines(outcomes: list[tuple[Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    names = [name for name in _MEASURED if name in outcomes[0][1]]
    columns = [*names, *(f"{name}_stderr" for name in names)]
    return xr.Dataset(
        {
            key: (("pair", "t"), np.stack([outcome[key] for _, outcome in outcomes]))
            for key in columns
        },
        coords={"t": ("t", outcomes[0][1]["t"], {"units": "share of the way"}), **_named(outcomes)},
        attrs={"units": "losses: mean per sample; errors: share of samples"},
    )


def _pairs(outcomes: list[tuple[Task, dict[str, Any]]], untrained: dict[int, float]) -> xr.Dataset:
    import xarray as xr

    names = [name for name in _MEASURED if name in outcomes[0][1]]
    keys = ("barrier_at", *_FIGURES, *(f"{figure}_stderr" for figure in _FIGURES))
    variables: dict[str, Any] = {
        key: (
            ("pair", "quantity"),
            np.array([[outcome[f"{name}/{key}"] for name in names] for _, outcome in outcomes]),
        )
        for key in keys
    }
    lengths = np.array([outcome["length"] for _, outcome in outcomes])
    variables["length"] = ("pair", lengths, {"units": "Euclidean distance of weights"})
    before = [untrained[task.arguments["draw"]] for task, _ in outcomes]
    variables["untrained_loss"] = ("pair", before, {"units": "mean loss a sample, of the parent"})
    return xr.Dataset(variables, coords={"quantity": names, **_named(outcomes)})


def _middles(outcomes: list[tuple[Task, dict[str, Any]]]) -> xr.Dataset:
    import xarray as xr

    keys = [key for key in outcomes[0][1] if key.startswith(("over_mean/", "over_best/"))]
    return xr.Dataset(
        {
            key.replace("/", "_"): (
                ("pair", "sample"),
                np.stack([outcome[key] for _, outcome in outcomes]),
            )
            for key in keys
        },
        coords=_named(outcomes),
        attrs={"what": "test samples; value at the mean of two models minus that of the ends"},
    )


def claims(run: Run, config: dict[str, Any]) -> list[Claim]:
    """Judge whether lines within a basin stay low, and whether two models' mean is as good."""
    middles = run.result(MIDDLES) if run.has_result(MIDDLES) else None
    return [_low(run.result(PAIRS), config), *_means(middles, config)]


def rules(config: dict[str, Any]) -> dict[str, Rule]:
    """Give the rules, which no configuration changes."""
    return RULES


def faults(config: dict[str, Any], sizes: Sizes) -> list[str]:
    """Find why claims about lines could not be decided: too few parents, rivals or copies."""
    study = config["interpolation"]
    late = {moment: study["moments"].get(moment, 0) for moment in _LATE}
    messages = [
        *too_few_for_a_mean("interpolation.parents", study["parents"]),
        *too_few_for_a_mean("interpolation.rivals", study["rivals"], least=3),
    ]
    if study["rivals"] > study["parents"]:
        messages.append(
            f"interpolation.rivals = {study['rivals']} of interpolation.parents ="
            f" {study['parents']}: each is of a parent; write as many at most."
        )
    if max(late.values()) < 2:
        messages.append(
            f"interpolation.moments has {late} copies: a line joins two; write"
            " {'final': 2} or more of a moment."
        )
    if study["points"] < 3 or study["points"] % 2 == 0:
        messages.append(
            f"interpolation.points = {study['points']}: the middle of a line is none of them;"
            f" write {max(3, study['points'] + 1)}."
        )
    return messages


def _low(pairs: xr.Dataset, config: dict[str, Any]) -> Claim:
    return Claim(
        name="interpolation/low",
        statement="On the lines between copies of one network, perturbed in the middle or at the "
        "end of its training and trained on, the training loss stays low: the highest barrier of a "
        "network's pairs is at most a tenth of its loss before training, in the mean of networks.",
        source=_SOURCE,
        protocol="For every pair the training loss at equally spaced points, batch-norm statistics "
        "re-estimated at each; the barrier is the largest excess over the chord. "
        + _clusters(config),
        statistic=_highest(pairs, _LATE),
        rule=RULES["low"],
        controls=(
            Control(
                "networks trained from different seeds on the same samples",
                _highest(pairs, (SEEDS,)),
            ),
        ),
        section="interpolation",
    )


def _clusters(config: dict[str, Any]) -> str:
    parents = cluster_words(config, config["interpolation"]["parents"])
    return f"Parents are the sample: {parents}; their pairs are not independent."


def _highest(pairs: xr.Dataset, groups: tuple[str, ...]) -> Statistic | None:
    """Average over parents the highest of a parent's barriers, in losses before its training."""
    within = pairs.isel(pair=np.isin(pairs["group"].values, groups)).sel(quantity="loss")
    high = (within["barrier"] / within["untrained_loss"]).groupby(within["draw"]).max()
    if high.size < 2 or not np.isfinite(high.values).all():
        return None
    return cluster_mean(
        "highest barrier of a parent",
        high.values,
        high["draw"].values,
        units="loss before training",
    )


def _means(middles: xr.Dataset | None, config: dict[str, Any]) -> list[Claim]:
    protocol = (
        "Batch-norm statistics are re-estimated at the mean; the difference is averaged over test "
        "samples and a parent's pairs. " + _clusters(config)
    )
    missing = "" if middles is not None else "The problem has no test data."

    def claim(name: str, statement: str, source: str, measured: str) -> Claim:
        control = "the mean of networks of different seeds on the same samples"
        return Claim(
            name=f"interpolation/{name}",
            statement=statement,
            source=source,
            protocol=protocol,
            statistic=_over(middles, measured, _LATE, config),
            rule=RULES[name],
            controls=(Control(control, _over(middles, measured, (SEEDS,), config)),),
            section="interpolation",
            why=missing,
        )

    return [
        claim(
            "mean-not-worse",
            "The mean of two such copies misclassifies at most one test image in a hundred more "
            "than the two do on average.",
            _SOURCE,
            "over_mean_error",
        ),
        claim(
            "mean-better",
            "The mean of two such copies has a lower test loss than the better of both.",
            "Liao and Poggio (2017): the mean of two models can be better than both",
            "over_best_loss",
        ),
    ]


def _over(
    middles: xr.Dataset | None, name: str, groups: tuple[str, ...], config: dict[str, Any]
) -> Statistic | None:
    if middles is None or name not in middles:
        return None
    of_groups = middles[name].isel(pair=np.isin(middles["group"].values, groups))
    of_parents = of_groups.groupby(of_groups["draw"]).mean() if of_groups.size else of_groups
    if of_parents.sizes.get("draw", 0) < 2:
        return None
    difference, units = (
        ("test error of the mean minus that of both", "share of test samples")
        if name.endswith("error")
        else ("test loss of the mean minus that of the better", "mean loss per sample")
    )
    # Where draws have test samples of their own, parents differ by them, too.
    shared = 0.0 if has_draws(config) else float(of_parents.mean("draw").var(ddof=1))
    return cluster_mean(
        difference,
        of_parents.mean("sample").values,
        of_parents["draw"].values,
        units=units,
        shared_variance=shared / of_parents.sizes["sample"],
    )
