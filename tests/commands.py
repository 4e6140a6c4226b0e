"""The command line inside the process, and what a refusal looks like."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from rmthess.cli import app


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Any, *words: str) -> None:
    """One line on stderr with these words, nothing on stdout, exit status 1."""
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("rmthess: ")
    for word in words:
        assert word in line
