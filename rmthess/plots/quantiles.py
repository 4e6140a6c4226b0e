"""Quantile against quantile: every part of the spectrum at once, and no bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rmthess.instrument import Axis
from rmthess.laws.law import Law
from rmthess.log_axis import log_spectrum
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure
from rmthess.plots.axes import (
    axes_or_new,
    check_labels,
    check_measures,
    mean_and_error,
    name_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_LEVELS = 199


def plot_quantiles(
    measure: DiscreteMeasure | LanczosMeasure,
    *theories: SpectralMeasure,
    ax: Axes | None = None,
    labels: tuple[str, ...] | None = None,
    axis: Axis = "linear",
    floor: float | None = None,
) -> Axes:
    """Measured against predicted quantiles at the levels k/200; on the diagonal they agree.

    A measured rule is read at its own cdf in the middle of each step, F(x-) + w/2, which for a
    Gauss rule is the cdf itself to higher order than the step; between nodes it is interpolated,
    and beyond the outermost nothing is drawn. Probes are averaged in the cdf; the band is ± 1
    standard error of it, carried to the predicted quantile.

    axis: "log" compares λ > ``floor`` only, each side conditioned on that, on logarithmic axes.

    A law describes a bulk: of a deflated run it is held against the rest.

    >>> from matplotlib.figure import Figure
    >>> from rmthess import Semicircle
    >>> values = Semicircle().sample(200, np.random.default_rng(0))
    >>> eigenvalues = DiscreteMeasure.from_eigenvalues(values)
    >>> len(plot_quantiles(eigenvalues, Semicircle(), ax=Figure().subplots()).lines)
    2
    """
    check_measures(measure, *theories)
    if not theories:
        raise ValueError("plot_quantiles needs at least one theory beside the measure")
    check_labels(labels, len(theories), f"{len(theories)} theories")
    if isinstance(measure, LanczosMeasure) and all(isinstance(t, Law) for t in theories):
        measure = measure.bulk
    if axis == "log":
        floor = log_spectrum(measure, floor).floor
    rules = measure.quadratures() if isinstance(measure, LanczosMeasure) else [measure]
    p, error, y = _levels([_on(axis, rule, floor) for rule in rules])
    axes = axes_or_new(ax)
    ends = [y[0], y[-1]]
    for index, theory in enumerate(theories):
        predicted = _on(axis, theory, floor)
        x = np.asarray(predicted.quantile(p), float)
        ends += [x[0], x[-1]]
        name = labels[index] if labels else name_of(theory)
        (line,) = axes.plot(_back(axis, x), _back(axis, y), ".", markersize=4, label=name)
        if error is not None:
            low, high = (predicted.quantile(np.clip(p + e, 0, 1)) for e in (-error, error))
            axes.fill_betweenx(
                _back(axis, y), _back(axis, low), _back(axis, high), color=line.get_color(),
                alpha=0.25, linewidth=0,
            )  # fmt: skip
    diagonal = _back(axis, np.array([min(ends), max(ends)]))
    axes.plot(diagonal, diagonal, "-", color="#5c6670", linewidth=0.8, zorder=1)
    if axis == "log":
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlabel("predicted quantile")
    axes.set_ylabel("measured quantile")
    if len(theories) > 1 or labels:
        axes.legend()
    return axes


def _on(axis: Axis, measure: SpectralMeasure, floor: float | None) -> SpectralMeasure:
    return log_spectrum(measure, floor).measure if axis == "log" else measure


def _back(axis: Axis, values: Array) -> Array:
    return np.asarray(10.0**values) if axis == "log" else values


def _levels(rules: list[SpectralMeasure]) -> tuple[Array, Array | None, Array]:
    """Levels k/200 that the rules reach, their standard errors, and the places that have them."""
    nodes, middles = [], []
    for rule in rules:
        assert isinstance(rule, DiscreteMeasure)
        nodes.append(rule.nodes)
        middles.append(np.cumsum(rule.weights) - rule.weights / 2)

    def cdfs(x: Array) -> Array:
        pairs = zip(nodes, middles, strict=True)
        return np.array([np.interp(x, n, m, left=0, right=1) for n, m in pairs])

    x = np.unique(np.concatenate(nodes))
    level = cdfs(x).mean(axis=0)
    inside = (x >= max(n[0] for n in nodes)) & (x <= min(n[-1] for n in nodes))
    p = np.arange(1, _LEVELS + 1) / (_LEVELS + 1)
    if inside.any():
        p = p[(p >= level[inside][0]) & (p <= level[inside][-1])]
    if p.size == 0:  # a single atom
        p = np.array([0.5])
    y = np.interp(p, level, x)
    return p, mean_and_error(cdfs(y))[1], y
