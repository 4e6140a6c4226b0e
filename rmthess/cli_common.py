"""What the commands share: one sentence for an error, progress, files, laws by name."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rmthess.families import Family
    from rmthess.laws.law import Law
    from rmthess.measure import DiscreteMeasure, LanczosMeasure

INTERRUPTED = 130  # the shell's status for Ctrl-C


def fail(message: object) -> NoReturn:
    """One sentence on standard error, exit status 1."""
    typer.echo(f"rmthess: {printable(str(message))}", err=True)
    raise typer.Exit(1)


def printable(text: str) -> str:
    """Without the control characters that a file name may carry into a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


@contextmanager
def progress() -> Iterator[Callable[[str, float], object]]:
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


def quoted(path: Path) -> str:
    return shlex.quote(str(path))


def without_directories(path: Path) -> Path:
    """What of ``path`` may stand in a page: an absolute one tells of the machine."""
    return Path(path.name) if path.is_absolute() else path


def named_function(problem: str, allow_cwd: bool) -> Callable[[], Any]:
    """The function that ``problem`` names, from what is installed or on the path."""
    from importlib import import_module

    module, colon, function = problem.partition(":")
    if not (colon and module and function.isidentifier()):
        fail(f"the problem must be named package.module:function, got {problem!r}")
    here = os.path.realpath(os.curdir)
    sys.path[:] = [place for place in sys.path if os.path.realpath(place or os.curdir) != here]
    if allow_cwd:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            fail(f"{module} cannot be imported: {error}")
        hint = "" if allow_cwd else "; --allow-cwd looks into the current directory too"
        fail(f"there is no module {error.name!r} on the path{hint}")
    except AttributeError:
        fail(f"the module {module!r} has no {function!r}")
    except Exception as error:
        fail(f"{module} cannot be imported: {type(error).__name__}: {error}")
    if not callable(found):
        fail(f"{problem} is a {type(found).__name__}; name a function of no arguments")
    made: Callable[[], Any] = found
    return made


def check_output(path: Path) -> None:
    """Fail, before any work, unless a file can be written at ``path``."""
    if path.is_dir():
        fail(f"{str(path)!r}: is a directory; give the name of a file")
    place = path.parent
    if not place.is_dir():
        fail(f"{str(path)!r}: there is no directory {str(place)!r}; create it first")
    if not os.access(place, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        fail(f"{str(path)!r}: cannot be written; choose another place")


def read_spectrum(path: Path) -> DiscreteMeasure | LanczosMeasure:
    """A saved spectrum, or a table .csv of eigenvalues, weights and probes."""
    from rmthess.storage import load

    try:
        if path.suffix.lower() != ".csv":
            return load(path)
        from rmthess.adapters import from_csv

        measure: DiscreteMeasure | LanczosMeasure = from_csv(path)
        return measure
    except OSError as error:
        fail(f"{str(path)!r}: cannot be read: {error.strerror}")
    except ValueError as error:
        said = str(error)
        fail(said if repr(str(path)) in said else f"{str(path)!r}: {said}")


def family(name: str) -> Family:
    from rmthess.families import FAMILIES

    if name not in FAMILIES:
        fail(f"unknown law {name!r}; the laws that can be fitted are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def law_of(name: str, parameters: str) -> Law:
    """The law of that family with parameters "ratio=0.4,variance=1.7", each given once."""
    known = family(name)
    given: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in parameters.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals or key in given:
            fail(f"--parameters are given as name=number, each once, separated by commas: {part!r}")
        given[key] = number
    if set(given) != set(known.parameters):
        fail(f"{name} needs the parameters {', '.join(known.parameters)}; got {', '.join(given)}")
    try:
        return known(**given)
    except ValueError as error:
        fail(error)
