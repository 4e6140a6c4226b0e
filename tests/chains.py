"""Lanczos runs made of the coefficients of a random matrix, for tests."""

from __future__ import annotations

import rmthess as rm


def run_of(a, b, dim):
    """The run of all steps but the last, which says what would have followed.

    Diagonals (probes, steps + 1) and off-diagonals (probes, steps).
    """
    return rm.LanczosMeasure(a[:, :-1], b[:, :-1], b[:, -1], dim)
