"""Commands on systems of polynomial equations: count, solve, critical."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from thalweg.algebra import CriticalPoints, Solutions, ZeroSystem

app = typer.Typer(
    name="algebra",
    help="Zero training error as polynomial equations: count, solve, and find critical points.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Widths = Annotated[
    str, typer.Option(help="Inputs, hidden units of each layer, outputs, e.g. 2,3,1.")
]
Activation = Annotated[
    str, typer.Option(help="Coefficients from the constant up: 0,0,0,1 is the cube, 0,1 linear.")
]
Bias = Annotated[bool, typer.Option("--bias/--no-bias", help="Give hidden units a bias.")]
Samples = Annotated[int, typer.Option(min=1, help="Number of random samples.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the samples and of the method.")]
Exact = Annotated[
    bool | None,
    typer.Option(
        "--exact/--no-exact",
        help="Ask msolve for the exact degree; by default where it is installed.",
        show_default=False,
    ),
]
Seconds = Annotated[float, typer.Option(min=0, help="Time that msolve is given.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.command()
def count(
    widths: Widths,
    activation: Activation,
    samples: Samples,
    bias: Bias = False,
    seed: Seed = 0,
    exact: Exact = None,
    seconds: Seconds = 30.0,
    as_json: Json = False,
) -> None:
    """Count the weights with zero error: bounds, rank, dimension, degree, solutions."""
    from thalweg.algebra import count as perform
    from thalweg.run.progress import on_screen

    system = _system(widths, activation, bias, samples, seed)
    found = perform(system, seed=seed, exact=exact, seconds=seconds, progress=on_screen)
    answer = found.to_dict()
    if as_json:
        typer.echo(json.dumps(answer))
        return
    _table(answer | {"bezout": str(found.bezout)})


@app.command()
def solve(
    widths: Widths,
    activation: Activation,
    samples: Samples,
    bias: Bias = False,
    seed: Seed = 0,
    exact: Exact = None,
    seconds: Seconds = 30.0,
    as_json: Json = False,
) -> None:
    """Find all complex weights with zero error modulo symmetry, and the real ones among them."""
    from thalweg.algebra import count_solutions
    from thalweg.algebra import solve as perform
    from thalweg.run.progress import on_screen

    system = _system(widths, activation, bias, samples, seed)
    found = perform(system, seed=seed, exact=exact, seconds=seconds, progress=on_screen)
    counted = count_solutions(found)
    answer = counted.to_dict() | _solutions(found, seed)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    shown = {k: v for k, v in answer.items() if k not in ("solutions", "real_solutions")}
    _table(shown | {"bezout": str(counted.bezout)})
    _real_table(answer)


@app.command()
def critical(
    widths: Widths,
    activation: Activation,
    samples: Samples,
    bias: Bias = False,
    penalty: Annotated[
        str,
        typer.Option(
            help="'generic', a different weight decay for each weight, or one number for all."
        ),
    ] = "generic",
    solver: Annotated[
        str | None,
        typer.Option(
            help="'monodromy' over positive penalties, or 'homotopy' from general equations; by "
            "default monodromy where all penalties are positive.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    exact: Exact = None,
    seconds: Seconds = 30.0,
    as_json: Json = False,
) -> None:
    """Find and classify all critical points of sum r²/2 + sum penalty w²/2."""
    from thalweg.algebra import critical_points
    from thalweg.run.progress import on_screen

    system = _system(widths, activation, bias, samples, seed)
    found = critical_points(
        system,
        penalty=_penalty(penalty),
        solver=solver,
        seed=seed,
        exact=exact,
        seconds=seconds,
        progress=on_screen,
    )
    answer = _critical(found)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    lists = ("critical_points", "penalties", "strata")
    _table({k: v for k, v in answer.items() if k not in lists})
    _strata_table(found)
    _critical_table(found)


def _system(widths: str, activation: str, bias: bool, samples: int, seed: int) -> ZeroSystem:
    from thalweg.algebra import network, random_system

    try:
        counts = [int(width) for width in widths.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--widths {widths!r}: expected integers, e.g. 2,3,1.") from None
    return random_system(network(counts, activation, bias=bias), samples=samples, seed=seed)


def _penalty(text: str) -> str | float:
    if text == "generic":
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"--penalty {text!r}: expected 'generic' or a number from 0 up."
        ) from None


def _solutions(found: Solutions, seed: int) -> dict[str, Any]:
    from thalweg.algebra import sample_real

    real, signs = found.real_weights, found.real_signs
    if found.dimension:
        points = sample_real(found.system, 10, seed=seed)
        real, signs = points.weights, points.signs
    return {
        "real": None if found.dimension else int(found.real.sum()),
        "lost": found.lost,
        "solutions": [
            {
                "weights": [[w.real, w.imag] for w in weights.tolist()],
                "real": None if found.dimension else bool(is_real),
                "residual": float(residual),
            }
            for weights, is_real, residual in zip(
                found.weights, found.real, found.residuals, strict=True
            )
        ],
        "real_solutions": [
            {"weights": w.tolist(), "fixed_weights": s.tolist()}
            for w, s in zip(real, signs, strict=True)
        ],
    }


def _critical(found: CriticalPoints) -> dict[str, Any]:
    return {
        "weights": found.system.weights,
        "critical_complex": len(found.complex_points),
        "critical_real": len(found.real_points),
        "singular": found.singular,
        "paths": found.paths,
        "bound": found.bound,
        "complete": found.complete,
        "method": found.method,
        "penalties": [float(p) for p in found.penalties],
        "strata": [stratum.to_dict() for stratum in found.strata],
        "critical_points": [point.to_dict() for point in found.real_points],
    }


def _table(answer: dict[str, Any]) -> None:
    width = max(len(key) for key in answer)
    for key, value in answer.items():
        typer.echo(f"{key.replace('_', ' '):<{width}}  {_cell(value)}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and value > 10**15:
        return f"10^{math.log10(value):.6g}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _real_table(answer: dict[str, Any]) -> None:
    kind = "real points on the solution set" if answer["dimension"] else "real solutions"
    typer.echo(f"\n{kind}, modulo symmetry: free weights | fixed weights")
    for row in answer["real_solutions"]:
        weights = " ".join(f"{w:>11.6g}" for w in row["weights"])
        typer.echo(f"{weights} | {' '.join(f'{s:>2.0f}' for s in row['fixed_weights'])}")
    if not answer["real_solutions"]:
        typer.echo("none found")


def _strata_table(found: CriticalPoints) -> None:
    if not found.strata:
        return
    typer.echo("\npoints by the hidden units that are switched on, layer by layer")
    typer.echo("complex points  trace test  units")
    for stratum in found.strata:
        layers = [" ".join(str(k + 1) for k in layer) or "-" for layer in stratum.switched_on]
        typer.echo(f"{stratum.points:>14}  {stratum.status:<10}  {' | '.join(layers)}")


def _critical_table(found: CriticalPoints) -> None:
    typer.echo("\nreal critical points; nullity = symmetry + dead inputs + unexplained")
    typer.echo("      value  kind          index  nullity  symmetry  dead  unexplained  weights")
    for p in found.real_points:
        weights = " ".join(f"{w if abs(w) > 1e-12 else 0:.4g}" for w in p.weights)
        typer.echo(
            f"{p.value:>11.6g}  {p.kind:<12}  {p.index:>5}  {p.nullity:>7}  {p.nullity_symmetry:>8}"
            f"  {p.nullity_dead:>4}  {p.nullity_unexplained:>11}  {weights}"
        )
