"""Jacobi coefficients: what Lanczos reads, what laws say, and what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure, LanczosMeasure, check_order
from rmthess.plots.axes import (
    axes_or_new,
    check_labels,
    draw_band,
    legend_over,
    mean_and_error,
    name_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_DRAWS = 40  # random matrices behind the expected scatter: 11% of it


def plot_jacobi(
    measure: LanczosMeasure | DiscreteMeasure,
    *laws: Law,
    ax: Axes | None = None,
    steps: int | None = None,
    labels: tuple[str, ...] | None = None,
) -> Axes:
    """Local band edges a_k ± 2 b_k against the step k: what Lanczos reads, and what laws say.

    The probe average of a LanczosMeasure carries a band of ± 1 standard error; a one-cut bulk shows
    as two level lines, its edges. A law with a matrix ensemble is drawn as that ensemble's average
    at the side of the measured matrix (without what was deflated), where the lines close in by
    about step/dim.
    """
    check_labels(labels, 1 + len(laws), f"the measure and {len(laws)} laws")
    a, b, dim = _measured(measure, steps)
    axes = axes_or_new(ax)
    k = np.arange(a.shape[1], dtype=float)
    names = labels or ("measured", *map(name_of, laws))
    for sign, name in ((1, names[0]), (-1, None)):
        middle, error = mean_and_error(a + sign * 2 * b)
        (line,) = axes.plot(k, middle, "o", markersize=2.5, color="C0", label=name)
        draw_band(axes, k, middle, error, line.get_color())
    for index, law in enumerate(laws, start=1):
        diagonal, off_diagonal = _expected(law, a.shape[1], dim)
        dashes = ("-", "--", "-.", ":")[(index - 1) % 4]
        for sign, name in ((1, names[index]), (-1, None)):
            edge = diagonal + sign * 2 * off_diagonal
            axes.plot(k, edge, dashes, color=f"C{index}", label=name)
    axes.set_xlabel("Lanczos step k")
    axes.set_ylabel("local edges aₖ ± 2bₖ")
    axes.legend()
    return axes


def plot_jacobi_residuals(
    measure: LanczosMeasure | DiscreteMeasure,
    law: Law,
    *,
    ax: Axes | None = None,
    steps: int | None = None,
) -> Axes:
    """a_k - E a_k and b_k - E b_k, E the law's average, with ± 1 standard error over probes.

    The grey band is ± 2 standard deviations of a_k between matrices for which the law is true, at
    this side and with as many probes; that of b_k is half as wide. No band for a law without a
    tridiagonal ensemble, or where the side is not known.
    """
    if not isinstance(law, Law):
        raise TypeError(f"law must be a law, got {type(law).__name__}")
    a, b, dim = _measured(measure, steps)
    axes = axes_or_new(ax)
    k = np.arange(a.shape[1], dtype=float)
    expected = _expected(law, a.shape[1], dim)
    if law.ensemble is not None and dim is not None and a.shape[1] < dim:
        scatter = 2 * _scatter(law, a.shape[1], dim, a.shape[0])
        axes.fill_between(
            k, -scatter, scatter, color="#5c6670", alpha=0.18, linewidth=0,
            label="± 2 s.d. of aₖ if true",
        )  # fmt: skip
    axes.axhline(0, color="#5c6670", linewidth=0.7)
    for place, (part, mean, name) in enumerate(((a, expected[0], "aₖ"), (b, expected[1], "bₖ"))):
        middle, error = mean_and_error(part - mean)
        axes.errorbar(
            k + 0.3 * place, middle, error, fmt="os"[place], markersize=2.8, linewidth=0.8,
            color=f"C{place}", label=name,
        )  # fmt: skip
    axes.set_xlabel("Lanczos step k")
    axes.set_ylabel("measured − expected")
    legend_over(axes, 3)
    return axes


def _measured(
    measure: LanczosMeasure | DiscreteMeasure, steps: int | None
) -> tuple[Array, Array, int | None]:
    """a_k and b_k (probes, steps - 1) of what was not deflated, and the side of that."""
    if steps is not None:
        check_order("steps", steps, least=2)
    if isinstance(measure, LanczosMeasure):
        depth = steps or measure.steps
        a, b = measure.diagonals[:, : depth - 1], measure.off_diagonals[:, : depth - 1]
        return a, b, measure.bulk.dim
    diagonal, off_diagonal = measure.jacobi(steps or min(64, measure.nodes.size))
    return diagonal[None, :-1], off_diagonal[None, :], measure.dim


def _expected(law: Law, length: int, dim: int | None) -> tuple[Array, Array]:
    if law.ensemble is not None and dim is not None:
        diagonal, off_diagonal = law.mean_jacobi(length + 1, float(dim))
    else:
        diagonal, off_diagonal = law.jacobi(length + 1)
    return diagonal[:-1], off_diagonal


def _scatter(law: Law, length: int, dim: int, probes: int) -> Array:
    """Standard deviation of the probe average of a_k from matrix to matrix."""
    draws = [
        law.sample_jacobi(length, float(dim), np.random.default_rng(child), probes)[0].mean(axis=0)
        for child in np.random.SeedSequence(0).spawn(_DRAWS)
    ]
    return np.asarray(np.std(draws, axis=0, ddof=1))
