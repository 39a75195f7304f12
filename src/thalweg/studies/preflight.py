"""Say before the first task what a run could not decide, and which setting to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from thalweg.errors import InvalidArgument
from thalweg.problems import Problem
from thalweg.studies.intervals import clusters_to_decide

# The soonest that digits came to zero error was after 105 steps: what has fewer than half as many
# is not one epoch short, but far off.
_LEAST_STEPS = 50
# Studies that compare trained networks, whether they reach zero error or not.
_COMPARE = ("polynomial_activations", "interpolation")


@dataclass(frozen=True)
class Sizes:
    """
    Of the problem of a run.

    Parameters
    ----------
    weights, samples : int
        W and N.
    """

    weights: int
    samples: int

    @classmethod
    def of(cls, problem: Problem) -> Sizes:
        """Count them."""
        trained = (weight for weight in problem.model.parameters() if weight.requires_grad)
        return cls(sum(weight.numel() for weight in trained), len(problem.samples("train")))


Faults = Callable[[dict[str, Any], Sizes], list[str]]


def refuse_undecidable(config: dict[str, Any], sizes: Sizes, checks: Mapping[str, Faults]) -> None:
    """
    Refuse a run of which a study cannot succeed.

    Parameters
    ----------
    config : dict
        As `thalweg.studies.configure` writes it.
    sizes : Sizes
        Of its problem.
    checks : mapping
        Of the studies by name: what each finds wrong with a configuration, a sentence a fault.

    Raises
    ------
    InvalidArgument
        With all that is wrong, and for each what to write instead.
    """
    faults = [
        f"  {name}: {fault}"
        for name in config["studies"]
        if name in checks
        for fault in [*checks[name](config, sizes), *_hardly_trained(name, config, sizes)]
    ]
    if faults:
        raise InvalidArgument(
            "Nothing has been started, for this run could not decide what it is for:\n"
            + "\n".join(faults)
            + "\nWrite sizes of a study as --size zero_error.draws=3; --set and --train-size change"
            " the problem, and --study names the studies to run."
        )


def _hardly_trained(name: str, config: dict[str, Any], sizes: Sizes) -> list[str]:
    """Say that networks are compared which hardly left their initial weights: all are alike."""
    if name not in _COMPARE:
        return []
    batch = config["training"]["batch_size"]
    return too_few_steps(f"{name}.epochs", config[name]["epochs"], sizes.samples, batch)


def too_few_for_a_share(setting: str, count: int, threshold: float) -> list[str]:
    """Say that clusters which all do the same would decide nothing."""
    least = clusters_to_decide(threshold)
    if count >= least:
        return []
    return [
        f"{setting} = {count}: even if all of so few do the same, the 95 % interval of their share"
        f" holds {threshold:g}; write {setting} = {least} or more."
    ]


def too_few_for_a_mean(setting: str, count: int, *, least: int = 2) -> list[str]:
    """
    Say that a mean over one cluster has no interval.

    Where clusters are known to differ by a tenth or more, a mean over two has none that decides:
    ``least`` is then 3.
    """
    if count >= least:
        return []
    why = (
        "the 95 % interval of a mean of two is 12.7 standard errors to either side"
        if count == 2
        else "one does not say how they differ"
    )
    return [f"{setting} = {count}: {why}; write {setting} = 3 or more."]


def too_few_steps(setting: str, epochs: int, samples: int, batch_size: int) -> list[str]:
    """Say that a training is over before it comes to anything."""
    an_epoch = -(-samples // batch_size)
    if epochs * an_epoch >= _LEAST_STEPS:
        return []
    least = -(-_LEAST_STEPS // an_epoch)
    return [
        f"{setting} = {epochs}: {epochs * an_epoch} steps of SGD on {samples:,} samples, of which"
        f" no trained network comes; write {setting} = {least} or more, or take more samples."
    ]


def not_overparametrized(sizes: Sizes) -> list[str]:
    """Say that a claim of networks with more weights than samples is not of this one."""
    if sizes.weights > sizes.samples:
        return []
    return [
        f"its claims are of networks with more weights than training samples, and this one has"
        f" W = {sizes.weights:,} for N = {sizes.samples:,}: write --train-size"
        f" {sizes.weights - 1} or fewer, or a larger --set width=..."
    ]


def set_by_hand(config: dict[str, Any], name: str, why: str, *, but: object = None) -> list[str]:
    """Say that a setting of the problem collides with what a study sets itself."""
    value = config["problem"]["settings"].get(name, but)
    if value == but:
        return []
    return [f"--set {name}={value} collides: {why}; leave it out, or leave out this study."]
