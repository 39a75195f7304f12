"""The studies by name; a study is a module with ``tasks(config)`` and ``assemble(run, config)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from thalweg.run import Progress, Run, Task
from thalweg.studies import trajectories


class Study(Protocol):
    """What the driver asks of a study."""

    def tasks(self, config: dict[str, Any], /) -> list[Task]:
        """List the work that may run in other processes."""

    def assemble(
        self, run: Run, config: dict[str, Any], /, *, progress: Progress
    ) -> dict[str, Any]:
        """Gather the results of the tasks, and say in JSON what was found."""


STUDIES: Mapping[str, Study] = {"trajectories": cast(Study, trajectories)}
