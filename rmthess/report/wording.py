"""How numbers are said: six digits, two of an error, null where there is none."""

from __future__ import annotations

import numpy as np


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".")


def number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−") if np.isfinite(value) else "—"


def error_bar(value: float) -> str:
    if value == 0:
        return "exact"
    return f"{value:.2g}".replace("-", "−") if np.isfinite(value) else "—"


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
