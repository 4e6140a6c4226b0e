"""Where a page comes from: how the spectrum was measured, and what to type for the same page."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rmthess import __version__
from rmthess.report.reading import Reading

SPECTRUM = "spectrum.safetensors"


def provenance(reading: Reading, command: str, seed: int) -> dict[str, str]:
    given = getattr(reading.measure, "provenance", {})
    measured = {
        f"measured: {_words(key)}": _told(value) for key, value in _flat(given) if value is not None
    }
    return {
        **(measured or {"measured": "no record of how"}),
        "command": command,
        "seed of the fits": str(seed),
        "rmthess": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "numbers": "every number of this page stands in `summary.json` beside it",
        "spectrum": f"`{SPECTRUM}`",
    }


def _flat(given: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Nested records as "versions torch", "stopped steps"."""
    rows: list[tuple[str, Any]] = []
    for key, value in given.items():
        if isinstance(value, Mapping):
            rows += [(f"{key} {inner}", item) for inner, item in value.items()]
        else:
            rows.append((key, value))
    return rows


def _words(key: str) -> str:
    return key.replace("_", " ")


def _told(value: object) -> str:
    """A value in words: a long list by its ends, and no path of the machine that measured."""
    if isinstance(value, (list, tuple)) and len(value) > 8:
        return f"{len(value)} values, {value[0]} to {value[-1]}"
    return without_directories(str(value))


def without_directories(text: str) -> str:
    """``text`` with absolute paths cut to the name of the file.

    >>> without_directories("read from /home/someone/runs/a.pt, C:\\\\data\\\\b.pt and x/y")
    'read from a.pt, b.pt and x/y'
    """
    return re.sub(r"(?<![\w/\\.:])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\",;]+[/\\])+", "", text)
