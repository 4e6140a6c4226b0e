"""``rmthess fit``, ``compare`` and ``report``: what a saved spectrum says of a law."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rmthess.cli_common import (
    fail,
    family,
    law_of,
    progress,
    quoted,
    read_spectrum,
    without_directories,
)

if TYPE_CHECKING:
    from rmthess.instrument import Axis

LAWS = ("marchenko_pastur", "semicircle")

Spectrum = Annotated[
    Path, typer.Argument(help="A spectrum that rmthess saved, or a table .csv of eigenvalues.")
]
LawName = Annotated[
    str, typer.Option(help="Name of the law; a name that is not known lists those that are.")
]
Bootstrap = Annotated[int, typer.Option(min=0, help="Matrices that calibrate the fit.")]
Log = Annotated[bool, typer.Option("--log", help="Fit log10 of the positive eigenvalues.")]
Level = Annotated[float, typer.Option(help="Chance that a pure bulk shows an outlier.")]


def fit(
    spectrum: Spectrum,
    law: LawName = "marchenko_pastur",
    window: Annotated[
        tuple[float, float] | None, typer.Option(help="Fit between these two eigenvalues only.")
    ] = None,
    log: Log = False,
    bootstrap: Bootstrap = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Fit a law to a saved spectrum, and say whether it holds."""
    from rmthess.fitting import fit as fit_law

    wanted = family(law)
    measured = read_spectrum(spectrum)
    axis: Axis = "log" if log else "linear"
    try:
        found = fit_law(wanted, measured, window=window, axis=axis, bootstrap=bootstrap, seed=seed)
    except (TypeError, ValueError) as error:
        fail(error)
    typer.echo(found)


def compare(
    spectrum: Spectrum,
    law: LawName = "marchenko_pastur",
    parameters: Annotated[
        str | None, typer.Option(help="ratio=0.4,variance=1; without them the law is fitted.")
    ] = None,
    level: Level = 0.01,
    bootstrap: Bootstrap = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Set a law beside a saved spectrum: each quantity predicted, measured, with a verdict."""
    from rmthess.comparison import compare as compare_with
    from rmthess.fitting import fit as fit_law

    wanted = family(law)
    theory = None if parameters is None else law_of(law, parameters)
    measured = read_spectrum(spectrum)
    try:
        if theory is None:
            found = fit_law(wanted, measured, bootstrap=bootstrap, seed=seed)
            typer.echo(found)
            theory = found.law
        comparison = compare_with(theory, measured, level=level)
    except ValueError as error:
        fail(error)
    typer.echo(comparison)
    if comparison.outliers is not None:
        typer.echo(f"outliers: {len(comparison.outliers)}")
        typer.echo(comparison.outliers)


def report(
    spectrum: Spectrum,
    law: Annotated[
        list[str] | None,
        typer.Option(help="A law to fit, once or more; default marchenko_pastur and semicircle."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Directory of the report.")] = Path("rmthess-report"),
    log: Log = False,
    level: Level = 0.01,
    bootstrap: Bootstrap = 200,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same page.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Write also into a directory that is no report of ours.")
    ] = False,
) -> None:
    """One page of a saved spectrum: figures, laws held against it, numbers, provenance."""
    families = {name: family(name) for name in law or LAWS}
    measured = read_spectrum(spectrum)
    from rmthess.report.directory import DirectoryError, check_writable, write

    try:
        check_writable(output, force)
    except (DirectoryError, OSError) as error:
        fail(error)
    from rmthess.report import spectrum as page
    from rmthess.report.reading import read

    command = " ".join(
        ["rmthess report", quoted(without_directories(spectrum)),
         *(f"--law {name}" for name in families), *(["--log"] if log else []),
         f"--level {level:g} --bootstrap {bootstrap} --seed {seed}",
         f"--output {quoted(without_directories(output))}"]
    )  # fmt: skip
    try:
        with progress() as said:
            reading = read(
                measured, families, axis="log" if log else "linear", bootstrap=bootstrap,
                seed=seed, level=level, progress=said,
            )  # fmt: skip
            said("page", 0.0)
            path = write(
                page.document(reading, spectrum.stem, command, seed), output,
                page.files(reading, spectrum.stem, seed), force=force,
            )  # fmt: skip
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(path)
