"""Comparisons: what theory leaves unexplained, and how that goes along a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rmthess.comparison import Comparison, Row
from rmthess.plots.axes import axes_or_new, legend_over

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

AGREES = 3.0  # standard errors, as in ``Row.verdict``


def plot_residuals(
    comparison: Comparison, of: Literal["density", "cdf"] = "density", *, ax: Axes | None = None
) -> Axes:
    """Measured minus predicted density or cdf, in a band of ± 3 standard errors over probes.

    Where the band leaves the line 0, theory and measurement differ. Densities are those that the
    instrument resolves: both are convolved with its Gaussian.
    """
    if of not in ("density", "cdf"):
        raise ValueError(f"of must be 'density' or 'cdf', got {of!r}")
    axes = axes_or_new(ax)
    found = comparison.residuals
    middle, error = getattr(found, of), getattr(found, f"{of}_error")
    axes.axhline(0, color="#5c6670", linewidth=0.7)
    (line,) = axes.plot(found.x, middle, label="measured − predicted")
    if np.isfinite(error).any():
        axes.fill_between(
            found.x, middle - AGREES * error, middle + AGREES * error, color=line.get_color(),
            alpha=0.25, linewidth=0, label="± 3 s.e. over probes",
        )  # fmt: skip
    axes.set_xlabel("eigenvalue λ")
    axes.set_ylabel(f"{of}, measured − predicted")
    return axes


def plot_row(
    comparisons: Mapping[str, Comparison], quantity: str, *, ax: Axes | None = None
) -> Axes:
    """One quantity along a sequence: measured with its standard errors, and predicted.

    comparisons: what ``rm.compare_each`` returns, by name: epochs, widths, batch sizes, layers.
        Names that are all numbers are drawn at these numbers.
    quantity: the name of a row, or "wasserstein", which is predicted to be 0.
    """
    rows = [_row(found, quantity) for found in _checked(comparisons).values()]
    axes = axes_or_new(ax)
    x = _places(axes, list(comparisons))
    errors = np.array([row.error for row in rows])
    axes.plot(x, [row.predicted for row in rows], "--", color="C1", label="predicted")
    axes.errorbar(
        x, [row.measured for row in rows], np.where(np.isfinite(errors), errors, 0.0), fmt="o",
        markersize=4.5, capsize=3, color="C0", label="measured ± 1 s.e.",
    )  # fmt: skip
    axes.set_ylabel(quantity)
    axes.legend()
    return axes


def plot_rows(comparisons: Mapping[str, Comparison], *, ax: Axes | None = None) -> Axes:
    """Every quantity along a sequence, as (measured - predicted)/error; a line a quantity.

    Within the grey band, ± 3 standard errors, theory agrees; the axis is linear there and
    logarithmic beyond. Quantities without an error bar are left out.

    >>> from matplotlib.figure import Figure
    >>> from rmthess import Semicircle, compare_each, lanczos
    >>> rng = np.random.default_rng(0)
    >>> values = {str(dim): Semicircle().sample(dim, rng) for dim in (100, 200)}
    >>> runs = {name: lanczos(np.diag(v), steps=20, probes=4) for name, v in values.items()}
    >>> plot_rows(compare_each(runs, Semicircle()), ax=Figure().subplots()).get_yscale()
    'symlog'
    """
    quantities = dict.fromkeys(
        row.quantity for found in _checked(comparisons).values() for row in found.rows
    )
    axes = axes_or_new(ax)
    x = _places(axes, list(comparisons))
    axes.axhspan(-AGREES, AGREES, color="#5c6670", alpha=0.15, linewidth=0)
    axes.axhline(0, color="#5c6670", linewidth=0.7)
    drawn = 0
    for quantity in quantities:
        scores = np.array([_score(found, quantity) for found in comparisons.values()])
        if np.isfinite(scores).any():
            axes.plot(x, scores, marker="osD^vPX*"[drawn % 8], markersize=4.5, label=quantity)
            drawn += 1
    if not drawn:
        raise ValueError("no row has an error bar: measure with at least two probes")
    axes.set_ylabel("(measured − predicted) / s.e.")
    _signed_decades(axes)
    legend_over(axes, 4)
    return axes


def _signed_decades(axes: Axes) -> None:
    """Linear within ± 3, logarithmic beyond, with ticks at 0, ± 3, ± 10, ± 100, ..."""
    furthest = max(2 * AGREES, 1.3 * max(abs(axes.dataLim.y0), abs(axes.dataLim.y1)))
    sizes = [3.0] + [10.0**k for k in range(1, 1 + int(np.log10(furthest)))]
    ticks = [-size for size in sizes[::-1]] + [0.0, *sizes]
    axes.set_yscale("symlog", linthresh=AGREES)
    axes.set_yticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_ylim(-furthest, furthest)


def _checked(comparisons: Mapping[str, Comparison]) -> Mapping[str, Comparison]:
    if not isinstance(comparisons, Mapping) or not comparisons:
        raise ValueError(
            "comparisons must map names to comparisons, as rm.compare_each returns them, got "
            f"{type(comparisons).__name__}"
        )
    return comparisons


def _row(found: Comparison, quantity: str) -> Row:
    if quantity == "wasserstein":
        return Row(quantity, 0.0, found.wasserstein, found.wasserstein_error)
    return found[quantity]


def _score(found: Comparison, quantity: str) -> float:
    for row in found.rows:
        if row.quantity == quantity and np.isfinite(row.error) and row.error > 0:
            return (row.measured - row.predicted) / row.error
    return float("nan")


def _places(axes: Axes, names: list[str]) -> Array:
    """Where the members of the sequence stand: at their numbers, or one after the other."""
    try:
        x = np.array([float(name) for name in names])
    except ValueError:
        x = np.arange(len(names), dtype=float)
        axes.set_xticks(x, names)
        if sum(map(len, names)) > 48:
            axes.tick_params(axis="x", rotation=30)
        return x
    if x.min() > 0 and x.max() > 20 * x.min():
        axes.set_xscale("log")
    return x
