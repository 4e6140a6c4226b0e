"""Mass per decade on the logarithmic axis: λ > floor upwards, λ < -floor downwards at |λ|."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rmthess.laws.law import Law
from rmthess.log_axis import LogLaw, LogSpectrum, log_spectrum
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure
from rmthess.plots.axes import draw_band, mean_and_error
from rmthess.smoothing import smooth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_POINTS = 1201
_FAINT = 1e-4  # mass: less than this on the negative axis is not drawn


def log_width(measure: LanczosMeasure, floor: float | None = None) -> float:
    """Twice the average distance, in decades, of the Ritz values of one probe above the floor."""
    nodes = log_spectrum(measure, floor).measure.breakpoints
    each = max(1.0, nodes.size / measure.probes)
    return max(0.02, 2 * float(np.ptp(nodes)) / each)


def draw_log(
    axes: Axes,
    measure: SpectralMeasure,
    label: str,
    width: float | None,
    floor: float | None,
    share: float = 1.0,
    say_unresolved: bool = True,
    **style: object,
) -> None:
    """Both sides of one measure; the label says what mass is on neither."""
    sides = {sign: _side(measure, sign, floor) for sign in (1, -1)}
    kept = {sign: side for sign, side in sides.items() if side is not None}
    if not kept:
        log_spectrum(measure, floor)  # says why not
        raise ValueError(f"{label} has no mass on the logarithmic axis")
    missing = 1 - sum(side.above for side in kept.values())
    if say_unresolved and missing > _FAINT:
        lowest = max(side.floor for side in kept.values())
        label += f" ({missing:.2g} of it within ±{lowest:.1g})"
    for sign, side in kept.items():
        drawn = width
        if drawn is None and isinstance(measure, LanczosMeasure):
            drawn = log_width(measure if sign > 0 else _reflected_run(measure), side.floor)
        name = label if sign == next(iter(kept)) else None
        style = _draw_side(axes, _rules(measure, sign), side, sign, drawn, share, name, style)


def finish_log(axes: Axes) -> None:
    """Scales and names; room above the curves for the legend, whose lines are long."""
    axes.set_xscale("log")
    low, high = axes.dataLim.y0, axes.dataLim.y1
    room = (0.05 + 0.08 * len(axes.get_legend_handles_labels()[1])) * (high - min(low, 0.0))
    if low < 0:
        from matplotlib.ticker import FuncFormatter

        axes.axhline(0, color="#5c6670", linewidth=0.7)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{abs(y):g}"))
        axes.set_ylim(1.1 * low, high + room)
        axes.set_xlabel("|λ|, of λ > 0 above and of λ < 0 below the line")
    else:
        axes.set_ylim(0, high + room)
        axes.set_xlabel("eigenvalue λ")
    axes.set_ylabel("mass per decade")
    axes.legend(loc="upper left")


def _reflected(measure: SpectralMeasure) -> SpectralMeasure:
    """The measure of -λ."""
    if isinstance(measure, LanczosMeasure):
        return _reflected_run(measure)
    if isinstance(measure, Law):
        return measure.dilate(-1)
    assert isinstance(measure, DiscreteMeasure)
    return DiscreteMeasure(-measure.nodes, measure.weights, measure.dim)


def _reflected_run(measure: LanczosMeasure) -> LanczosMeasure:
    return LanczosMeasure(
        -measure.diagonals, measure.off_diagonals, measure.residuals, measure.dim,
        measure.provenance, -measure.deflated,
    )  # fmt: skip


def _side(measure: SpectralMeasure, sign: int, floor: float | None) -> LogSpectrum | None:
    """None where that side has no mass, or none that is resolved."""
    ends = measure.breakpoints[[0, -1]]
    if not sign * float(ends[(1 + sign) // 2]) > (floor or 0.0):
        return None
    with suppress(ValueError):
        found = log_spectrum(measure if sign > 0 else _reflected(measure), floor)
        return found if found.above > _FAINT else None
    return None


def _rules(measure: SpectralMeasure, sign: int) -> list[DiscreteMeasure]:
    """Each probe's rule, turned so that this side is the positive one."""
    if not isinstance(measure, LanczosMeasure):
        return []
    return [DiscreteMeasure(sign * rule.nodes, rule.weights) for rule in measure.quadratures()]


def _draw_side(
    axes: Axes,
    rules: list[DiscreteMeasure],
    side: LogSpectrum,
    sign: int,
    width: float | None,
    share: float,
    label: str | None,
    style: dict[str, object],
) -> dict[str, object]:
    """The style that was used, for the other side."""
    inner = side.measure
    if width is None and isinstance(inner, DiscreteMeasure):
        return _draw_bins(axes, inner, sign * share * side.above, label, style)
    y = _grid(inner, side.floor, width)
    if width is None:
        assert isinstance(inner, LogLaw)
        middle, error = side.above * np.asarray(inner.density(y), float), None
    elif rules:
        middle, error = mean_and_error(
            np.array([_smoothed(rule, side.floor, y, width) for rule in rules])
        )
    else:
        middle, error = side.above * _convolved(inner, y, width), None
    x, signed = 10.0**y, sign * share * middle
    (line,) = axes.plot(x, signed, label=label, **style)  # type: ignore[arg-type]
    draw_band(axes, x, signed, error, line.get_color())
    return {**style, "color": line.get_color(), "linestyle": line.get_linestyle()}


def _grid(inner: SpectralMeasure, floor: float, width: float | None) -> Array:
    ends = inner.breakpoints[[0, -1]]
    reach = 4 * (width or 0.0)
    low = ends[0] - reach
    if floor > 0:  # below it nothing is resolved
        low = max(low, np.log10(floor))
    return np.linspace(low, ends[1] + reach, _POINTS)


def _smoothed(rule: DiscreteMeasure, floor: float, y: Array, width: float) -> Array:
    """Mass per decade of one rule, which may have none above the floor."""
    kept = rule.nodes > floor
    if not kept.any():
        return np.zeros(y.shape)
    mass = float(rule.weights[kept].sum())
    logs = DiscreteMeasure(np.log10(rule.nodes[kept]), rule.weights[kept] / mass)
    return mass * smooth(logs, y, width)


def _convolved(inner: SpectralMeasure, y: Array, width: float) -> Array:
    if isinstance(inner, LogLaw):
        # quantiles: a law over many decades has no quadrature that is fine on all of them
        count = 4 * _POINTS
        nodes = np.asarray(inner.quantile((np.arange(count) + 0.5) / count), float)
        inner = DiscreteMeasure(nodes, np.full(count, 1 / count))
    return smooth(inner, y, width)


def _draw_bins(
    axes: Axes, inner: DiscreteMeasure, mass: float, label: str | None, style: dict[str, object]
) -> dict[str, object]:
    """A histogram in log10 λ, 20 eigenvalues a bin on average."""
    nodes = inner.nodes
    low, high = float(nodes[0]), float(nodes[-1])
    if high - low < 1e-6:
        low, high = low - 0.05, high + 0.05
    bins = np.linspace(low, high, int(np.clip(nodes.size // 20, 10, 120)) + 1)
    weights = mass * inner.weights / (bins[1] - bins[0])
    _, _, patches = axes.hist(
        10.0**nodes, bins=list(10.0**bins), weights=weights, histtype="step", label=label,
        **style,  # type: ignore[arg-type]
    )  # fmt: skip
    drawn = patches[0]  # type: ignore[index]
    return {
        **style,
        "edgecolor": drawn.get_edgecolor(),  # type: ignore[union-attr]
        "linestyle": drawn.get_linestyle(),  # type: ignore[union-attr]
    }
