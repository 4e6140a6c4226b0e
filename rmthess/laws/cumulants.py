"""Moments and free cumulants, each from the other, in any arithmetic.

With M(z) = 1 + Σ m_n z^n and C(z) = 1 + Σ κ_n z^n:  C(z M(z)) = M(z), so that
m_n = Σ_{s=1..n} κ_s [z^{n-s}] M(z)^s   (Nica & Speicher, *Lectures on the
Combinatorics of Free Probability*, lecture 10).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def moments_from_free_cumulants(cumulants: Sequence[Any]) -> list[Any]:
    """m_1, ..., m_n from κ_1, ..., κ_n.

    >>> moments_from_free_cumulants([0, 1, 0, 0])
    [0, 1, 0, 2]
    """
    series: list[Any] = [1]
    for n in range(1, len(cumulants) + 1):
        series.append(_nested(cumulants, series, n))
    return series[1:]


def free_cumulants_from_moments(moments: Sequence[Any]) -> list[Any]:
    """κ_1, ..., κ_n from m_1, ..., m_n.

    >>> free_cumulants_from_moments([1, 2, 5, 14])
    [1, 1, 1, 1]
    """
    series = [1, *moments]
    cumulants: list[Any] = []
    for n in range(1, len(moments) + 1):
        cumulants.append(moments[n - 1] - _nested(cumulants, series[:n], n))
    return cumulants


def _nested(cumulants: Sequence[Any], series: Sequence[Any], n: int) -> Any:
    """Σ_{s=1..n} κ_s [z^{n-s}] M(z)^s over the cumulants that are there."""
    total: Any = 0
    power: list[Any] = [1, *[0] * (n - 1)]
    for s, cumulant in enumerate(cumulants[:n], start=1):
        power = [
            sum(power[j] * series[i - j] for j in range(i + 1) if i - j < len(series))
            for i in range(n)
        ]
        total += cumulant * power[n - s]
    return total
