"""Figures of a finished run, drawn again in another format."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from thalweg.errors import InvalidArgument
from thalweg.measurements.parts import Picture
from thalweg.run import Run
from thalweg.run.box import check_name
from thalweg.run.files import write_atomic

_DPI = 160
# Endings of animations, and what Pillow calls their formats.
ANIMATED = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG"}


def formats() -> Collection[str]:
    """List the formats that figures may have."""
    suffixes: Collection[str] = FigureCanvasBase.get_supported_filetypes()
    return suffixes


def redraw_figures(
    run: Run,
    folder: str | os.PathLike[str],
    *,
    format: str = "pdf",
    names: Sequence[str] = (),
) -> list[Path]:
    """
    Draw the figures of a run's report into files.

    Parameters
    ----------
    run : Run
        Only its directory is read; nothing is measured.
    folder : path
        Where; made where it is missing.
    format : str
        ``"pdf"``, ``"svg"``, ``"png"``, or another that matplotlib writes.
    names : sequence of str
        Of figures, by default all.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InvalidArgument
        For an unknown format or figure, or a run without any.
    """
    if format not in formats():
        raise InvalidArgument(f"format={format!r}; write one of {', '.join(sorted(formats()))}.")
    from thalweg.report.sections.registry import SECTIONS

    sections = [section for entry in SECTIONS if (section := entry.section(run)) is not None]
    pictures = {p.name: p for s in sections for p in s.parts if isinstance(p, Picture)}
    if not pictures:
        raise InvalidArgument(f"{run.path} holds no figures; its results have tables alone.")
    if unknown := [name for name in names if name not in pictures]:
        raise InvalidArgument(
            f"no figure is called {unknown[0]!r}; write one of {', '.join(pictures)}."
        )
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names or pictures:
        path = place / f"{check_name('figure', name)}.{format}"
        write_atomic(path, partial(_draw, pictures[name].still, format))
        written.append(path)
    return written


def _draw(still: Figure, format: str, path: Path) -> None:
    still.savefig(path, format=format, dpi=_DPI, facecolor="white")


def animate_path(run: Run, file: str | os.PathLike[str], *, seconds: float = 6.0) -> Path:
    """
    Draw a trajectory as it goes over the surface of a run, as an animation.

    Parameters
    ----------
    run : Run
        That holds a surface of two dimensions with the checkpoints of a trajectory.
    file : path
        Ends in ``.gif``, ``.webp`` or ``.apng``.
    seconds : float
        How long it takes; then it begins anew.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InvalidArgument
        If the run holds no such surface, or the file another ending.
    """
    from thalweg.plots import path_animation

    path = Path(file)
    if path.suffix not in ANIMATED:
        raise InvalidArgument(f"{path}: write a name that ends in {', '.join(ANIMATED)}.")
    if not run.has_result("surface/surface"):
        raise InvalidArgument(
            f"{run.path} holds no surface; thalweg surface ENTRY --run FOLDER makes one through the"
            " checkpoints of a trajectory."
        )
    drawn = path_animation(run.result("surface/surface"), run.result("surface/points"))
    frames = drawn.frames
    pause = max(20, round(1000 * seconds / frames))

    def write(temporary: Path) -> None:
        images = [drawn.image(i) for i in range(frames)]
        how = {"save_all": True, "append_images": images[1:], "duration": pause, "loop": 0}
        images[0].save(temporary, format=ANIMATED[path.suffix], **how)

    write_atomic(path, write)
    return path
