"""``rmthess law``: a law at given parameters, as numbers or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmthess.cli_common import check_output, fail, law_of


def law(
    name: Annotated[str, typer.Argument(help="Name of the law; an unknown one lists the known.")],
    parameters: Annotated[str, typer.Option(help="ratio=0.43,variance=1.7")],
    points: Annotated[int, typer.Option(min=2, help="Rows of the table of densities.")] = 21,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the density: FILE.svg, .pdf or .png.")
    ] = None,
) -> None:
    """Edges, atoms, moments and density of a law."""
    import numpy as np

    found = law_of(name, parameters)
    if plot is not None:
        check_output(plot)
        if plot.suffix.lower() not in (".svg", ".pdf", ".png"):
            fail(f"--plot draws FILE.svg, FILE.pdf or FILE.png, got {plot}")
    intervals = "  ".join(f"{float(a):.10g} to {float(b):.10g}" for a, b in found.support)
    typer.echo(f"support   {intervals}")
    for location, mass in found.atoms:
        typer.echo(f"atom      {float(mass):.10g} at {float(location):.10g}")
    typer.echo("moments   " + "  ".join(f"{float(found.moment(k)):.10g}" for k in range(1, 5)))
    ends = found.breakpoints[[0, -1]]
    x = np.linspace(ends[0], ends[1], points)
    typer.echo(f"{'x':>14}{'density':>14}{'cdf':>14}")
    for row in zip(x, np.asarray(found.density(x)), np.asarray(found.cdf(x)), strict=True):
        typer.echo("".join(f"{float(value):>14.6g}" for value in row))
    if plot is not None:
        _draw(found, plot)
        typer.echo(f"figure: {plot}")


def _draw(found: object, path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from rmthess.plots import plot

    figure = Figure(layout="constrained")
    plot(found, ax=figure.subplots())  # type: ignore[arg-type]
    undated = {"Date": None} if path.suffix.lower() == ".svg" else None
    with rc_context({"svg.hashsalt": "rmthess"}):
        figure.savefig(path, metadata=undated)
