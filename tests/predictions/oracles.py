"""Rows of ``tests/reference/oracles.json``: values of closed forms, computed by other code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).parent.parent / "reference" / "oracles.json"


def rows(*predictions: str) -> list[Any]:
    """The rows of these predictions as parameters of a test."""
    found = [
        pytest.param(row, id=f"{row['quantity'][:24]}-{index}")
        for index, row in enumerate(json.loads(TABLE.read_text(encoding="utf-8")))
        if row["prediction"].startswith(predictions)
    ]
    assert found, f"no row of {predictions} in {TABLE.name}"
    return found
