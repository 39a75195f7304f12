"""Write the page of a run: its sections, still figures beside it, and nothing fetched."""

from __future__ import annotations

import base64
import gzip
import io
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from thalweg.measurements.parts import Picture, Section, Table
from thalweg.report.about import about, progress_table
from thalweg.report.ledger import ledger
from thalweg.report.paper import PAPER
from thalweg.report.stated_rules import told_rules
from thalweg.report.stills import embedded, thumbnail
from thalweg.run import Run
from thalweg.run.box import check_name
from thalweg.run.files import write_atomic, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from jinja2 import Environment

_DPI = 160
_SHOWN = {claim.picture for claim in PAPER}
_CONFIG = {"displaylogo": False, "responsive": True, "displayModeBar": "hover"}


def write_report(run: Run) -> Path:
    """
    Write ``report.html`` into a run, and its figures as PNG files into ``figures/``.

    The page stands alone: scripts and figures are inside, and it fetches nothing. A run that is
    not finished gets a page that says so and shows what there is.

    Parameters
    ----------
    run : Run
        As `thalweg.open_run` gives it; only its directory is read.

    Returns
    -------
    Path
        Of the page. Page and figures are each written in one step.
    """
    from thalweg.report.sections.registry import SECTIONS  # they draw with matplotlib

    sections = [section for entry in SECTIONS if (section := entry.section(run)) is not None]
    shown = {section.name for section in sections}
    studies = set(run.config.get("studies", []))
    absent = [entry for entry in SECTIONS if entry.study in studies - shown]
    blocks = [(section, _blocks(run, section)) for section in sections]
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            about=about(run),
            claims=ledger(run, {section.name: section.title for section in sections}),
            thumbnails=_thumbnails(blocks),
            rules=told_rules(run),
            progress=progress_table(run),
            sections=blocks,
            absent=absent,
            plotly=_plotly() if any(map(_is_interactive, sections)) else "",
        )
    )
    path = run.inside("report.html")
    run.cover("report.html", content=page.encode())
    write_text(path, page)
    return path


def _is_interactive(section: Section) -> bool:
    return any(isinstance(p, Picture) and p.interactive is not None for p in section.parts)


def _blocks(run: Run, section: Section) -> list[dict[str, Any]]:
    return [
        {"table": content} if isinstance(content, Table) else _picture_block(run, content)
        for content in section.parts
    ]


def _picture_block(run: Run, picture: Picture) -> dict[str, Any]:
    png = _save(run, picture)
    return {
        "picture": picture,
        "still": embedded(png),
        "small": thumbnail(png) if picture.name in _SHOWN else "",
        "interactive": _interactive(picture),
    }


def _thumbnails(sections: list[tuple[Section, list[dict[str, Any]]]]) -> dict[str, str]:
    pictures = [block for _, blocks in sections for block in blocks if "picture" in block]
    return {block["picture"].name: block["small"] for block in pictures if block["small"]}


@cache
def _plotly() -> str:
    """Give plotly.js compressed, in base64: 2 MB in place of 5; the page's script unpacks it."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode("ascii")


def _save(run: Run, picture: Picture) -> bytes:
    drawn = io.BytesIO()
    picture.still.savefig(drawn, format="png", dpi=_DPI, facecolor="white")
    png = drawn.getvalue()
    name = f"{check_name('figure', picture.name)}.png"
    path = run.inside("figures", name)
    run.cover("figures", name, content=png)
    write_atomic(path, lambda temporary: temporary.write_bytes(png))
    return png


def _interactive(picture: Picture) -> str:
    if picture.interactive is None:
        return ""
    # The page brings plotly.js along once, and runs the scripts when it has unpacked it; the name
    # keeps the page the same from run to run.
    html: str = picture.interactive.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"plot-{picture.name}",
        config=_CONFIG,
    )
    return re.sub(r'<script( type="text/javascript")?>', '<script type="text/plotly">', html)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("thalweg.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
