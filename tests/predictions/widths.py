"""Rows of ``tests/reference/widths.json``: wide networks and noisy batches, by other code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).parent.parent / "reference" / "widths.json"


def rows(*predictions: str) -> list[Any]:
    """The rows of these predictions as parameters of a test."""
    found = [
        pytest.param(row, id=f"{row['quantity'][:16]}-{index}")
        for index, row in enumerate(json.loads(TABLE.read_text(encoding="utf-8")))
        if row["prediction"].startswith(predictions)
    ]
    assert found, f"no row of {predictions} in {TABLE.name}"
    return found


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"(?<==)\d*\.?\d+", text)]
