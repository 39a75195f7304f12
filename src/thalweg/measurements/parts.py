"""What a section of the report is made of; the page decides how it looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Fact:
    """A figure that is read first: what it is, its value, and what qualifies it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """
    A picture, still and, where there is one, interactive.

    Parameters
    ----------
    name : str
        Of the PNG file, without its ending; one for the whole report.
    title, caption : str
        Plain text; the caption says what is drawn, in which units, and how to read it.
    still : matplotlib Figure
        What is printed and written beside the page.
    interactive : plotly Figure, optional
        What is shown on a screen instead.
    """

    name: str
    title: str
    caption: str
    still: Figure
    interactive: go.Figure | None = None


@dataclass(frozen=True)
class Table:
    """
    A table; after ``words`` columns of text come figures, set to the right.

    ``note`` says below it what cannot be said in a title.
    """

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    words: int = 1
    note: str = ""


Part: TypeAlias = Picture | Table


@dataclass(frozen=True)
class Section:
    """
    What one study or instrument found.

    Parameters
    ----------
    name : str
        Its anchor in the page.
    title : str
        Its heading.
    lead : str
        What it shows, in a sentence or two.
    facts : list of Fact
        Headline figures.
    parts : list of Picture or Table
        In the order of reading.
    missing : list of str
        Results it would have shown and the run does not hold.
    """

    name: str
    title: str
    lead: str
    facts: list[Fact] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
