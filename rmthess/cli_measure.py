"""``rmthess measure``: the spectrum of a problem that your own code makes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmthess.cli_common import INTERRUPTED, check_output, fail, named_function, printable, progress

if TYPE_CHECKING:
    from rmthess.measure import LanczosMeasure

TERMINATED = 128 + signal.SIGTERM


def measure(
    problem: Annotated[str, typer.Argument(help="package.module:function, of no arguments.")],
    output: Annotated[Path, typer.Option(help="FILE.safetensors of the spectrum.")],
    steps: Annotated[int, typer.Option(min=1, help="Lanczos steps of each probe.")] = 64,
    probes: Annotated[int, typer.Option(min=1, help="Random start vectors.")] = 8,
    deflate: Annotated[int, typer.Option(min=0, help="Largest eigenvalues to take out.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the start vectors.")] = 0,
    allow_cwd: Annotated[
        bool, typer.Option("--allow-cwd", help="Import from the current directory too.")
    ] = False,
) -> None:
    """Measure a spectrum by Lanczos. Imports and runs the code that you name.

    The function returns (model, loss, data), of which the Hessian is measured, or an operator:
    what rm.gauss_newton(model, loss, data) and its like return, a SciPy LinearOperator, a matrix.
    Ctrl-C keeps what is measured so far beside FILE, as FILE.partial.safetensors.
    """
    check_output(output)
    make = named_function(problem, allow_cwd)
    from rmthess.krylov.errors import LanczosError
    from rmthess.krylov.run import lanczos

    signals: list[int] = []
    try:
        with _as_interrupts(signals), progress() as said:
            said(problem, 0.0)
            operator = _operator(make, problem)
            said("Lanczos", 0.0)
            found = lanczos(
                operator, steps=steps, probes=probes, deflate=deflate, seed=seed,
                progress=lambda done, total: said("Lanczos", done / total),
            )  # fmt: skip
    except KeyboardInterrupt as error:
        kept = _keep(getattr(error, "partial", None), output, problem)
        typer.echo(f"\nrmthess: {printable(f'interrupted; {kept}')}", err=True)
        raise typer.Exit(TERMINATED if signals else INTERRUPTED) from None
    except LanczosError as error:
        fail(f"{error}; {_keep(error.partial, output, problem)}")
    except Exception as error:  # whatever the code of the user may raise in a product
        fail(f"{problem}: {type(error).__name__}: {error}")
    try:
        _save(found, output, problem)
        _partial(output).unlink(missing_ok=True)
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(output)


def _operator(make: Callable[[], Any], problem: str) -> Any:
    from rmthess.operators.hessian import hessian

    made = make()
    if made is None:
        raise TypeError(
            f"{problem} returned None; return an operator, or (model, loss, data) for its Hessian"
        )
    return hessian(*made) if isinstance(made, tuple) and len(made) == 3 else made


@contextmanager
def _as_interrupts(signals: list[int]) -> Iterator[None]:
    """SIGTERM acts as Ctrl-C does, and is noted in ``signals``."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep(partial: LanczosMeasure | None, output: Path, problem: str) -> str:
    """Save what was measured before the end; what was done, in words."""
    if partial is None:
        return "nothing was measured yet"
    place = _partial(output)
    try:
        _save(partial, place, problem)
    except (ValueError, OSError) as error:
        return f"what was measured cannot be kept: {error}"
    return f"{partial.probes} probes of {partial.steps} steps kept in {place}"


def _save(found: LanczosMeasure, place: Path, problem: str) -> None:
    from rmthess.storage import save

    save(replace(found, provenance={"problem": problem, **found.provenance}), place)


def _partial(output: Path) -> Path:
    return output.with_name(f"{output.stem}.partial.safetensors")
