"""``rmthess rank``: bounds from widths alone, and the exact rank beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rmthess.cli_common import fail

if TYPE_CHECKING:
    from rmthess.ranks.network import RankBound


def rank(
    widths: Annotated[list[int], typer.Argument(help="Input, hidden layers, output: 25 5 10 10.")],
    loss: Annotated[str, typer.Option(help="mse or cross_entropy.")] = "mse",
    part: Annotated[str, typer.Option(help="hessian, outer_product or functional.")] = "hessian",
    input_rank: Annotated[int | None, typer.Option(help="Rank of the data; default full.")] = None,
    bias: Annotated[bool, typer.Option("--bias", help="A bias in every layer.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Count the rank exactly, at a random point.")
    ] = False,
    sweep: Annotated[
        Path | None,
        typer.Option(help="A table (FILE.csv, figure FILE.svg) against hidden width and depth."),
    ] = None,
) -> None:
    """Bound the rank of a deep linear network's Hessian from its widths."""
    from rmthess.ranks.exact import exact_rank
    from rmthess.ranks.linear_network import linear_network_rank

    def of(sizes: list[int], exact: bool = False) -> RankBound:
        route = exact_rank if exact else linear_network_rank
        return route(sizes, input_rank=input_rank, bias=bias, loss=loss, part=part)

    try:
        bound = of(widths)
        counted = of(widths, exact=True) if verify else None
        if sweep is not None:
            _sweep(sweep, widths, of)
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(bound)
    if counted is not None:
        typer.echo(f"exact: {counted}")
    if sweep is not None:
        typer.echo(f"table: {sweep}\nfigure: {sweep.with_suffix('.svg')}")


def _sweep(path: Path, widths: list[int], rank_of: Callable[[list[int]], RankBound]) -> None:
    """Rank against hidden width, from 1 to twice the largest, and depth, up to 4 hidden layers."""
    import csv

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if path.suffix != ".csv":
        raise ValueError(f"--sweep writes a table, FILE.csv, and a figure beside it, got {path}")
    most = 2 * max(widths)
    hidden = sorted({max(1, round(most ** (step / 15))) for step in range(16)})
    inputs, outputs = widths[0], widths[-1]
    axes = (figure := Figure(layout="constrained")).subplots()
    with path.open("w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["depth", "hidden_width", "parameters", "rank", "nullity", "status"])
        for depth in range(2, 6):
            found = [rank_of([inputs, *[width] * (depth - 1), outputs]) for width in hidden]
            for width, at in zip(hidden, found, strict=True):
                rows.writerow([depth, width, at.parameters, at.value, at.nullity, at.status])
            (line,) = axes.loglog(hidden, [at.value for at in found], ".-", label=f"depth {depth}")
            axes.loglog(hidden, [at.parameters for at in found], ":", color=line.get_color())
    axes.set(
        xlabel="width of the hidden layers",
        ylabel="rank (solid), parameters (dotted)",
        title=f"{inputs} inputs, {outputs} outputs",
    )
    axes.legend()
    with rc_context({"svg.hashsalt": "rmthess"}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
