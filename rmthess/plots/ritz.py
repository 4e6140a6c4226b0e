"""What Lanczos saw: Ritz values with their error bounds, a row a probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmthess.measure import LanczosMeasure
from rmthess.plots.axes import axes_or_new, legend_over

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_MOST_TICKS = 1000  # across the axes
CONVERGED = 1e-3  # of the distance to the nearest other Ritz value of the same probe


def plot_ritz(
    measure: LanczosMeasure, *, ax: Axes | None = None, threshold: tuple[float, float] | None = None
) -> Axes:
    """A rug of Ritz values: each a tick, with a bar to ± its error bound, a row a probe.

    Some eigenvalue lies within the bar. Ticks are bold where the bound is below a thousandth of the
    distance to the next Ritz value: that eigenvalue is known. The lowest row, "deflated", holds the
    eigenvalues that were taken out before the run. ``threshold``: the two places beyond which
    eigenvalues count as outliers, drawn as lines.

    >>> from matplotlib.figure import Figure
    >>> run = LanczosMeasure([[0.0, 0.0]], [[1.0]], [0.5], dim=9)
    >>> plot_ritz(run, ax=Figure().subplots()).get_ylabel()
    'probe'
    """
    if not isinstance(measure, LanczosMeasure):
        raise TypeError(f"plot_ritz draws a LanczosMeasure, got {type(measure).__name__}")
    axes = axes_or_new(ax)
    row = np.broadcast_to(np.arange(1.0, measure.probes + 1)[:, None], measure.nodes.shape)
    seen = np.isfinite(measure.nodes)
    x, y, error = measure.nodes[seen], row[seen], measure.errors[seen]
    known = _converged(measure)[seen]
    _segments(axes, (x - error, x + error), (y, y), color="C0", alpha=0.3, linewidth=2.5)
    for kept, style in (
        (~known, {"color": "C0", "linewidth": 0.6, "label": "Ritz value"}),
        (known, {"color": "C1", "linewidth": 1.6, "label": "converged"}),
    ):
        _ticks(axes, x[kept], y[kept], **style)
    places = list(range(1, measure.probes + 1, max(1, measure.probes // 8)))
    names = list(map(str, places))
    if measure.deflated.size:
        places.append(measure.probes + 1)
        names.append("deflated")
        _ticks(
            axes,
            measure.deflated,
            np.full(measure.deflated.size, places[-1]),
            color="C1",
            linewidth=1.6,
        )
    for place in threshold or ():
        axes.axvline(place, color="#5c6670", linewidth=0.9, linestyle="--")
    axes.set_yticks(places, names)
    axes.set_ylim(measure.probes + 0.6 + (measure.deflated.size > 0), 0.4)
    axes.set_xlabel("eigenvalue λ")
    axes.set_ylabel("probe")
    legend_over(axes, 2)
    return axes


def _ticks(axes: Axes, x: Array, row: Array, **style: Any) -> None:
    """A tick for each x; of those that no eye tells apart, one."""
    if x.size > _MOST_TICKS:
        cell = np.round((x - x.min()) / (np.ptp(x) or 1.0) * _MOST_TICKS)
        kept = np.unique(np.stack([cell, row]), axis=1, return_index=True)[1]
        x, row = x[kept], row[kept]
    _segments(axes, (x, x), (row - 0.36, row + 0.36), **style)


def _segments(axes: Axes, x: tuple[Array, Array], y: tuple[Array, Array], **style: Any) -> None:
    """All segments as one broken line, whose drawing is a tenth as long as one path each."""
    gap = np.full(x[0].shape, np.nan)
    pairs = (np.stack([*ends, gap], axis=-1).ravel() for ends in (x, y))
    axes.plot(*pairs, "-", **style)


def _converged(measure: LanczosMeasure) -> NDArray[np.bool_]:
    """Where the bound is far below the distance to the neighbours."""
    gaps = np.diff(measure.nodes, axis=1)
    far = np.full((measure.probes, 1), np.inf)
    nearest = np.fmin(np.hstack([far, gaps]), np.hstack([gaps, far]))
    return np.asarray(measure.errors <= CONVERGED * nearest)
