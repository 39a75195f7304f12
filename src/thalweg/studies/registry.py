"""The studies by name, in the order in which they run and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Protocol, cast

from thalweg.run import Progress, Run, Task
from thalweg.studies import (
    basins,
    basins_claims,
    basins_task,
    bezout,
    bezout_claims,
    bezout_statistics,
    claim,
    connectivity,
    connectivity_claims,
    connectivity_task,
    degeneracy,
    degeneracy_claims,
    displacement,
    displacement_task,
    equal_loss,
    flow_copies,
    interpolation,
    intervals,
    invariant_measures,
    known_landscapes,
    limits,
    overparametrization,
    overparametrization_claims,
    overparametrization_task,
    perturb_and_return,
    perturb_and_return_claims,
    polynomial_activations,
    polynomial_activations_claims,
    returns,
    selection_claims,
    selection_landscapes,
    selection_task,
    sgd_selection,
    shares,
    small_network,
    spectrum,
    squared_returns,
    surface,
    trajectories,
    trends,
    zero_error,
    zero_error_claims,
)
from thalweg.studies.claim import Claim, Rule
from thalweg.studies.plugins import PLUGINS
from thalweg.studies.preflight import Faults


class Study(Protocol):
    """What a module must have to be a study; its own docstrings say only what is peculiar to it."""

    SIZES: Mapping[str, dict[str, Any]]
    """Its numbers in each preset; the chosen ones stand in the configuration under its name."""

    def tasks(self, config: dict[str, Any], /) -> list[Task]:
        """
        List the work that may run in other processes.

        Parameters
        ----------
        config : dict
            As `thalweg.studies.configure` writes it.

        Returns
        -------
        list of Task
            None where the problem is one that the study cannot be made on.
        """

    def assemble(
        self, run: Run, config: dict[str, Any], /, *, progress: Progress
    ) -> dict[str, Any]:
        """
        Gather the results of the tasks, and save them in the run.

        Parameters
        ----------
        run : Run
            Whose tasks are done.
        config : dict
            The one that `tasks` was given.
        progress : callable
            Shows how far it is, where there is much to do.

        Returns
        -------
        dict
            What was found, in JSON values.
        """

    def claims(self, run: Run, config: dict[str, Any], /) -> list[Claim]:
        """
        Judge the study's claims.

        Parameters
        ----------
        run : Run
            With what `assemble` saved.
        config : dict
            The one that `tasks` was given.

        Returns
        -------
        list of Claim
            Each with its statistic, its rule and its controls; none where nothing is judged.
        """


STUDIES: Mapping[str, Study] = {
    "trajectories": cast(Study, trajectories),
    "zero_error": cast(Study, zero_error),
    "polynomial_activations": cast(Study, polynomial_activations),
    "perturb_and_return": cast(Study, perturb_and_return),
    "interpolation": cast(Study, interpolation),
    "bezout": cast(Study, bezout),
    "surface": cast(Study, surface),
    "spectrum": cast(Study, spectrum),
    "degeneracy": cast(Study, degeneracy),
    "sgd_selection": cast(Study, sgd_selection),
    "overparametrization": cast(Study, overparametrization),
    "connectivity": cast(Study, connectivity),
    "basins": cast(Study, basins),
    **{name: cast(Study, module) for name, module in PLUGINS.items()},
}

RULES: Mapping[str, Callable[[dict[str, Any]], Mapping[str, Rule]]] = {
    "zero_error": zero_error.rules,
    "polynomial_activations": polynomial_activations.rules,
    "perturb_and_return": perturb_and_return.rules,
    "interpolation": interpolation.rules,
    "bezout": bezout.rules,
    "degeneracy": degeneracy.rules,
    "sgd_selection": sgd_selection.rules,
    "overparametrization": overparametrization.rules,
    "connectivity": connectivity.rules,
    "basins": basins.rules,
    **{name: module.rules for name, module in PLUGINS.items() if hasattr(module, "rules")},
}
"""For each study that judges, the rule of every claim, by the claim's own name."""

_ALL = (claim, intervals)
_FLATNESS = (
    perturb_and_return,
    perturb_and_return_claims,
    displacement,
    displacement_task,
    equal_loss,
    flow_copies,
    known_landscapes,
    limits,
    returns,
    shares,
    squared_returns,
)
_MEASURED = (selection_task, small_network, equal_loss, invariant_measures, trends)
_SELECTION = (sgd_selection, selection_claims, selection_landscapes, *_MEASURED)
JUDGES: Mapping[str, tuple[ModuleType, ...]] = {
    "zero_error": (zero_error, zero_error_claims, *_ALL),
    "polynomial_activations": (polynomial_activations, polynomial_activations_claims, *_ALL),
    "perturb_and_return": (*_FLATNESS, *_ALL),
    "interpolation": (interpolation, *_ALL),
    "bezout": (bezout, bezout_claims, bezout_statistics, *_ALL),
    "degeneracy": (degeneracy, degeneracy_claims, *_ALL),
    "sgd_selection": (*_SELECTION, *_ALL),
    "overparametrization": (
        overparametrization,
        overparametrization_claims,
        overparametrization_task,
        *_MEASURED,
        *_ALL,
    ),
    "connectivity": (connectivity, connectivity_claims, connectivity_task, *_ALL),
    "basins": (basins, basins_claims, basins_task, *_ALL),
    **{name: (module, *_ALL) for name, module in PLUGINS.items()},
}
"""The modules whose code takes a study's statistics; it is hashed with the rules."""

CHECKS: Mapping[str, Faults] = {
    "zero_error": zero_error.faults,
    "polynomial_activations": polynomial_activations.faults,
    "perturb_and_return": perturb_and_return.faults,
    "interpolation": interpolation.faults,
    "degeneracy": degeneracy.faults,
    "sgd_selection": sgd_selection.faults,
    "overparametrization": overparametrization.faults,
    "connectivity": connectivity.faults,
    "basins": basins.faults,
    **{name: module.faults for name, module in PLUGINS.items() if hasattr(module, "faults")},
}
"""What each study finds wrong with a configuration before anything is started."""
