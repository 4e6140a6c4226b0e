"""The command line ``rmthess``: one file a family of commands, and the entry point."""

from __future__ import annotations

import io
import os
import signal
import sys

import typer

from rmthess.cli_demo import demo
from rmthess.cli_doctor import doctor
from rmthess.cli_law import law
from rmthess.cli_measure import measure
from rmthess.cli_predict import predict
from rmthess.cli_rank import rank
from rmthess.cli_spectrum import compare, fit, report

app = typer.Typer(
    help="Random-matrix theory of loss-surface Hessians: predict, measure, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, measure, fit, compare, report, law, rank, doctor):
    app.command()(command)
app.add_typer(predict, name="predict")


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
