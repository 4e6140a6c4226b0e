"""``rmthess demo``: theory beside measurement on a real network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rmthess.cli_common import INTERRUPTED, fail, printable, progress, quoted

if TYPE_CHECKING:
    from rmthess.demo.study import Study


def demo(
    output: Annotated[Path, typer.Option(help="Directory of the report.")] = Path("rmthess-report"),
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same numbers.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Write also into a directory that is no report of ours.")
    ] = False,
) -> None:
    """Theory beside measurement on a real network: trains, measures, fits, writes a report."""
    command = f"rmthess demo --seed {seed} --output {quoted(output)}"
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
            with progress() as report_progress:
                study.run(done, report_progress)
            report = write(page.document(done, command), output, page.files(done), force=force)
        except (problems.DemoUnavailable, DirectoryError, OSError) as error:
            fail(error)
    except KeyboardInterrupt:
        _keep(done, output, command)
        raise typer.Exit(INTERRUPTED) from None
    _forget(output)
    _say_results(done)
    typer.echo(report)


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
    message = printable(f"{what}. To run it again: {command}")
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
