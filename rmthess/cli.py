"""The command line: ``rmthess demo``, ``fit``, ``rank`` and ``doctor``."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rmthess.demo.study import Study
    from rmthess.laws.law import Law
    from rmthess.ranks.network import RankBound

app = typer.Typer(
    help="Random-matrix theory of loss-surface Hessians: predict, measure, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130  # the shell's status for Ctrl-C


def main() -> None:
    """Entry point: an error is one sentence, a closed pipe is no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it was closed
            stream.reconfigure(errors="backslashreplace")  # ± in an ASCII locale is no error either
    try:
        app()
    except BrokenPipeError:
        # what reads us, such as `| head`, has seen enough; nothing may be flushed to it any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def fail(message: object) -> NoReturn:
    """One sentence on standard error, exit status 1."""
    typer.echo(f"rmthess: {_printable(str(message))}", err=True)
    raise typer.Exit(1)


def _printable(text: str) -> str:
    """Without the control characters that a file name may carry into a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Directory of the report.")] = Path("rmthess-report"),
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same numbers.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Write also into a directory that is no report of ours.")
    ] = False,
) -> None:
    """Theory beside measurement on a real network: trains, measures, fits, writes a report."""
    command = f"rmthess demo --seed {seed} --output {_quoted(output)}"
    done: Study | None = None
    try:
        from rmthess.report.directory import DirectoryError, check_writable, write

        try:
            check_writable(output, force)
        except (DirectoryError, OSError) as error:
            fail(error)
        typer.echo(
            "Trains a small classifier on 1797 digits, measures its Hessian by Lanczos and "
            "exactly, fits two laws, bounds a rank. About a minute on two cores.",
            err=True,
        )
        from rmthess.demo import page, problems, study

        done = study.Study(seed)
        try:
            with _progress() as progress:
                study.run(done, progress)
            report = write(page.document(done, command), output, page.files(done), force=force)
        except (problems.DemoUnavailable, DirectoryError, OSError) as error:
            fail(error)
    except KeyboardInterrupt:
        _keep(done, output, command)
        raise typer.Exit(INTERRUPTED) from None
    _forget(output)
    _say_results(done)
    typer.echo(report)


@app.command()
def fit(
    spectrum: Annotated[Path, typer.Argument(help="A spectrum that rmthess saved.")],
    law: Annotated[str, typer.Option(help="semicircle or marchenko_pastur.")] = "marchenko_pastur",
    window: Annotated[
        tuple[float, float] | None, typer.Option(help="Fit between these two eigenvalues only.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Matrices that calibrate the fit.")] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Fit a law to a saved spectrum, and say whether it holds."""
    from rmthess.fitting import fit as fit_law
    from rmthess.storage import StorageError, load

    family = _family(law)
    try:
        measured = load(spectrum)
        found = fit_law(family, measured, window=window, bootstrap=bootstrap, seed=seed)
    except (StorageError, ValueError) as error:
        fail(error)
    typer.echo(found)


@app.command()
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


@app.command()
def doctor() -> None:
    """What this machine offers: versions, device, threads."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    import rmthess

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    cuda = torch.cuda.is_available()
    rows = {
        "rmthess": rmthess.__version__,
        "python": platform.python_version(),
        **{name: installed(name) for name in ("numpy", "scipy", "torch", "sympy", "scikit-learn")},
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": str(torch.get_num_threads()),
    }
    for name, value in rows.items():
        typer.echo(f"{name:<14}{value}")


def _family(name: str) -> type[Law]:
    from rmthess.fitting import FAMILIES

    if name not in FAMILIES:
        fail(f"unknown law {name!r}; the laws that can be fitted are {', '.join(FAMILIES)}")
    return FAMILIES[name]


@contextmanager
def _progress() -> Iterator[Callable[[str, float], object]]:
    """A line that is rewritten on a terminal, a line a stage elsewhere; both on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda stage, share: typer.echo(f"  {stage}", err=True) if share == 0 else None
        return
    columns = TextColumn("{task.description:<36}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda stage, share: bar.update(task, description=stage, completed=share)


def _say_results(done: Study) -> None:
    from rmthess.demo.study import verdict

    for name, network in done.networks.items():
        typer.echo(
            f"{name}: W1 between Lanczos and exact, {network.w1_over_range:.1e} of the range"
        )
    for name, spectrum in done.spectra.items():
        for law, found in spectrum.fits.items():
            typer.echo(f"{name}: {law} {verdict(found)}, p = {found.p_value:.2g}")
    assert done.rank is not None
    typer.echo(f"linear network: {done.rank.numerical.explain(done.rank.bound)}")


def _partial(output: Path) -> Path:
    place = output if output.name not in ("", "..") else Path(os.path.abspath(output))
    return Path(f"{place}.partial")


def _keep(done: Study | None, output: Path, command: str) -> None:
    """Save what was measured before Ctrl-C, and say how to start again."""
    from rmthess.storage import StorageError, save

    place = _partial(output)
    kept = []
    what = "nothing was measured yet"
    try:
        for name, measured in done.measured.items() if done else ():
            place.mkdir(exist_ok=True)
            save(measured, place / f"{name}.safetensors")
            kept.append(name)
            what = f"{', '.join(kept)} kept in {place}"
    except (StorageError, OSError) as error:
        what = f"what was measured cannot be kept: {error}"
    message = _printable(f"{what}. To run it again: {command}")
    typer.echo(f"\nrmthess: interrupted; {message}", err=True)


def _forget(output: Path) -> None:
    """Drop what an interrupted run kept, now that the report holds it all."""
    from rmthess.demo.page import NAMES

    place = _partial(output)
    if place.is_dir() and not place.is_symlink():
        for name in NAMES:
            (place / f"{name}.safetensors").unlink(missing_ok=True)
        if not any(place.iterdir()):
            place.rmdir()


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
