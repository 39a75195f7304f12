"""The commands ``thalweg certify``: prove a zero next to a checkpoint, verify a proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from thalweg.cli.outputs import check_output
from thalweg.cli.points import FORMS, Allow, FileEntry, Partial, opening
from thalweg.cli.runs import Json, parse_settings
from thalweg.run.progress import on_screen

if TYPE_CHECKING:
    from torch import Tensor

    from thalweg.risk import EmpiricalRisk

_ADAM = {"optimizer": "adam", "lr": 1e-3, "batch_size": 50}
_SHOWN = (
    "verdict",
    "equations",
    "weights",
    "residual",
    "singular_value",
    "lipschitz",
    "radius",
    "distance",
    "dimension",
    "nullity",
)


class _WithDefault(TyperGroup):
    """A group whose first word may be left out: ``certify ENTRY`` is ``certify zero ENTRY``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command in front of what names none."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["zero", *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


app = typer.Typer(
    name="certify",
    cls=_WithDefault,
    help="Prove an exact zero of the training error next to a checkpoint: certify ENTRY"
    " [OPTIONS], as certify zero ENTRY. Or verify a proof.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def zero(
    entry: Annotated[
        str, typer.Argument(help="Problem: digits, cifar10, teacher, path/file.py:make.")
    ],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help=f"Weights: {FORMS}; without them the problem's own initialization."),
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the problem; repeatable."),
    ] = None,
    train: Annotated[
        bool,
        typer.Option(
            "--train",
            help="First train: by Adam where there is no checkpoint, then by Gauss-Newton.",
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of Adam.")] = 30,
    steps: Annotated[int, typer.Option(min=1, help="Steps of Gauss-Newton, at most.")] = 40,
    strict: Annotated[
        bool, typer.Option("--strict", help="Trust only verified products: about six times slower.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the certificate here (.json) and its numbers beside it."),
    ] = None,
    part: FileEntry = None,
    partial: Partial = False,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Prove that an exact zero of the squared training error lies next to a checkpoint."""
    import thalweg as tw
    from thalweg.certificates.store import write_certificate

    if checkpoint is None and not train:
        raise typer.BadParameter("nothing is trained: give --checkpoint A, or --train.")
    if out is not None:
        check_output("--out", out, ("json",))
    settings = parse_settings(assign or [])
    problem = tw.load_problem(entry, progress=on_screen, **settings)
    risk, point = _risk(problem), None
    if checkpoint is not None:
        point = tw.open_point(problem, checkpoint, **opening(part, partial, allow))
        w = point.load_into(risk).double()
    else:
        w = _by_adam(problem, epochs)
    if train:
        options: Any = {"optimizer": "gauss-newton", "steps": steps, "progress": on_screen}
        w = tw.train(risk, w, **options).w
    found = tw.certify_zero(risk, w, strict=strict, progress=on_screen)
    answer = found.to_dict()
    if point is not None:
        from thalweg.measurements.point import about_point

        answer["checkpoint"] = about_point(point)
    written = None
    if out is not None and found.statement is not None:
        named = {"entry": entry, "settings": settings}
        # A point from which training went on is not the one that is certified.
        state = point.sha256 if point is not None and not train else None
        content = write_certificate(found, out, problem=named, state=state, progress=on_screen)
        written = {"file": str(out), **{k: content["claim"][k] for k in ("verdict", "reasons")}}
        answer["written"] = written
    typer.echo(json.dumps(answer) if as_json else "\n".join(_lines(answer)))
    if not as_json and out is not None:
        typer.echo("\n".join(_about_file(out, found.verdict, written)))
    if found.verdict != "certified" or (written or found.to_dict())["verdict"] == "refused":
        raise typer.Exit(1)


def _about_file(out: Path, verdict: str, written: dict[str, Any] | None) -> list[str]:
    """Say what was written, and what the checker makes of it."""
    if written is None:
        return [f"nothing is written to {out}: the network's structure is none that files hold"]
    if written["verdict"] == "certified":
        return [f"{out} is written, and verified: thalweg certify verify {out}"]
    if verdict != "certified":
        return [f"{out} is written and says that the certificate is refused: it will not verify"]
    return [
        f"{out} is written and refused, although the proof above holds: the checker, whose bounds"
        " are others, does not prove it, or the problem that it names is another:",
        *(f"  - {reason}" for reason in written["reasons"]),
    ]


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="A certificate (.json).")],
    problem: Annotated[
        str | None,
        typer.Option(
            help="Your own problem, to compare network and data with; what the file names is never"
            " loaded."
        ),
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the problem; repeatable."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Your own checkpoint of --problem: the digest of its whole state is compared."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Trust no library's matrix products or factorization: ten to a hundred times"
            " slower.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Prove a stored certificate anew from its stored weights and data; exit code 1 if refused."""
    from thalweg.certificates.store import verify as perform

    own = None if problem is None else (problem, parse_settings(assign or []))
    if checkpoint is not None and own is None:
        raise typer.BadParameter("--checkpoint is opened with your problem: give --problem, too.")
    state = None if own is None or checkpoint is None else _state(own, checkpoint)
    found = perform(certificate, problem=own, state=state, strict=strict, progress=on_screen)
    answer = found.to_dict()
    proved = answer["certificate"]
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        typer.echo(found.verdict)
        for reason in found.reasons:
            typer.echo(f"  {reason}")
        if proved is not None:
            typer.echo(
                "\n".join(f"{k.replace('_', ' '):<15} {_cell(v)}" for k, v in proved.items())
            )
        typer.echo("\n".join(["assumptions:", *(f"  - {text}" for text in found.assumptions)]))
    if found.verdict != "verified":
        raise typer.Exit(1)


def _state(own: tuple[str, dict[str, Any]], checkpoint: Path) -> str:
    """Digest the whole state of a checkpoint."""
    import thalweg as tw

    return tw.open_point(tw.load_problem(own[0], **own[1]), checkpoint).sha256


def _by_adam(problem: Any, epochs: int) -> Tensor:
    """Train from the problem's own initialization, and give the weights in float64."""
    import thalweg as tw

    single = tw.EmpiricalRisk(problem)
    options: Any = _ADAM | {"epochs": epochs, "progress": on_screen}
    return tw.train(single, single.space.pack(problem.model), **options).w.double()


def _risk(problem: Any) -> EmpiricalRisk:
    import torch

    import thalweg as tw

    return tw.EmpiricalRisk(problem, batchnorm="frozen", dtype=torch.float64)


def _lines(answer: dict[str, Any]) -> list[str]:
    lines = [f"{name.replace('_', ' '):<15} {_cell(answer[name])}" for name in _SHOWN]
    for title in ("reasons", "notes", "assumptions"):
        lines += [f"{title}:"] * bool(answer[title]) + [f"  - {text}" for text in answer[title]]
    return lines


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
