"""Densities, on the linear axis, each as far as it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rmthess.fitting import Fit
from rmthess.instrument import Axis
from rmthess.laws.law import Law
from rmthess.log_axis import log_spectrum
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure
from rmthess.plots.axes import (
    axes_or_new,
    check_labels,
    check_measures,
    draw_band,
    mean_and_error,
    name_of,
)
from rmthess.plots.log_density import draw_log, finish_log, log_width
from rmthess.predictions.prediction import Prediction
from rmthess.smoothing import smooth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_POINTS = 1201
_MOST_POINTS = 40001
_REACH = 4.0  # half-widths of the Gaussian that are drawn beyond the outermost node


def plot(
    *measures: SpectralMeasure,
    ax: Axes | None = None,
    width: float | None = None,
    labels: tuple[str, ...] | None = None,
    axis: Axis = "linear",
    floor: float | None = None,
) -> Axes:
    """Densities of the measures, each as far as it is known.

    A law is drawn exactly, its atoms as stems. A LanczosMeasure is drawn at its resolution: its
    Gauss rules convolved with a Gaussian of standard deviation ``width`` (default: its resolution),
    in a band of ± 1 standard error over probes. A DiscreteMeasure is drawn as a histogram, with
    stems for atoms. With ``width`` given, every measure is convolved with that Gaussian: like
    beside like.

    axis: "log" draws the mass per decade of λ > ``floor``, and that of λ < -``floor`` below the
        axis, at |λ|; ``width`` is then in decades. What lies between is stated in the legend.
        The default ``floor`` is that of ``rm.fit``: rounding, or where a Lanczos run resolves the
        cdf.

    >>> from matplotlib.figure import Figure
    >>> from rmthess import Semicircle
    >>> len(plot(Semicircle(), ax=Figure().subplots()).lines)
    1
    """
    if not measures:
        raise ValueError("plot needs at least one measure")
    check_measures(*measures)
    if width is not None and not width > 0:
        raise ValueError(f"width must be positive, got {width}; it is a standard deviation")
    check_labels(labels, len(measures), f"{len(measures)} measures")
    names = labels or tuple(map(name_of, measures))
    axes = axes_or_new(ax)
    for measure, name in zip(measures, names, strict=True):
        if axis == "log":
            draw_log(axes, measure, name, width, floor)
        else:
            _draw(axes, measure, name, width)
    if axis == "log":
        finish_log(axes)
        return axes
    axes.set_xlabel("eigenvalue λ")
    axes.set_ylabel("density ρ(λ)")
    if width is None and all(isinstance(measure, Law) for measure in measures):
        _cut(axes, max(_ceiling(measure) for measure in measures))
    if len(measures) > 1 or labels:
        axes.legend()
    return axes


def plot_fit(
    measure: DiscreteMeasure | LanczosMeasure,
    theory: Law | Prediction | Fit,
    *,
    ax: Axes | None = None,
    width: float | None = None,
    axis: Axis = "linear",
    floor: float | None = None,
) -> Axes:
    """A measurement, theory as the instrument would show it, and theory itself (dotted).

    Measured and expected curve are convolved with the same Gaussian, ``width`` by default the
    resolution of the measurement; where they differ by more than the band, theory does not hold.
    The dotted curve is the law at infinite resolution. A list of eigenvalues has no resolution:
    it is a histogram, beside the law itself. Outliers of a Prediction are marked on the axis.

    A law describes a bulk: of a deflated run it is drawn beside the rest.

    >>> from matplotlib.figure import Figure
    >>> from rmthess import Semicircle
    >>> values = Semicircle().sample(200, np.random.default_rng(0))
    >>> eigenvalues = DiscreteMeasure.from_eigenvalues(values)
    >>> len(plot_fit(eigenvalues, Semicircle(), ax=Figure().subplots(), width=0.1).lines)
    3
    """
    check_measures(measure)
    whole, bulk, share = _theory(theory)
    seen = measure
    if isinstance(measure, LanczosMeasure) and not isinstance(theory, Prediction):
        seen = measure.bulk
    if axis == "log":
        floor = log_spectrum(seen, floor).floor
    if width is None and isinstance(seen, LanczosMeasure):
        width = log_width(seen, floor) if axis == "log" else seen.resolution
    axes = plot(seen, ax=ax, width=width, labels=("measured",), axis=axis, floor=floor)
    if width is not None:
        _add(axes, whole, "theory, as resolved", width, axis, floor)
    top = axes.dataLim.y1
    if isinstance(bulk, Law):
        _add_exact(axes, bulk, share, axis, floor, alone=width is None)
    places = theory.locations if isinstance(theory, Prediction) else np.empty(0)
    if axis == "log":
        places = places[places > (floor or 0.0)]
    if places.size:
        axes.plot(
            places, np.zeros(places.size), "v", markersize=5, color="C3", clip_on=False,
            label="predicted outliers", zorder=3,
        )  # fmt: skip
    if axis == "log":
        finish_log(axes)
        return axes
    _cut(axes, 1.06 * top if width is not None else max(1.3 * top, _ceiling(bulk)))
    axes.legend()
    return axes


def _ceiling(measure: SpectralMeasure) -> float:
    """Height that shows a density and not its peak at an edge, where it may be infinite."""
    if not isinstance(measure, Law):
        return 0.0
    width = sum(float(right) - float(left) for left, right in measure.support)
    atoms = [float(mass) for _, mass in measure.atoms]
    return max([8 * (1 - sum(atoms)) / width if width > 0 else 0.0, *(1.1 * m for m in atoms)])


def _cut(axes: Axes, ceiling: float) -> None:
    if axes.get_ylim()[1] > ceiling > 0:
        axes.set_ylim(0, ceiling)


def _theory(theory: Law | Prediction | Fit) -> tuple[SpectralMeasure, SpectralMeasure, float]:
    """All of it, its bulk, and the share that the bulk has of the whole."""
    if isinstance(theory, Fit):
        return theory.law, theory.law, 1.0
    if isinstance(theory, Prediction):
        share = 1 - theory.locations.size / theory.dim
        return theory.measure(), theory.bulk, share
    if not isinstance(theory, Law):
        raise TypeError(f"theory must be a law, a Prediction or a Fit, got {type(theory).__name__}")
    return theory, theory, 1.0


def _add(
    axes: Axes, whole: SpectralMeasure, label: str, width: float, axis: Axis, floor: float | None
) -> None:
    if axis == "log":
        draw_log(axes, whole, label, width, floor, say_unresolved=False)
    else:
        _draw_smoothed(axes, whole, width, label)


def _add_exact(
    axes: Axes, bulk: Law, share: float, axis: Axis, floor: float | None, alone: bool
) -> None:
    name = "theory" if alone else "theory, exact"
    style = {} if alone else {"linestyle": ":", "linewidth": 1.0, "color": "C2"}
    if axis == "log":
        draw_log(axes, bulk, name, None, floor, share=share, say_unresolved=False, **style)
    else:
        _draw_law(axes, bulk, name, share, **style)


def _draw(axes: Axes, measure: SpectralMeasure, label: str, width: float | None) -> None:
    if width is None and isinstance(measure, Law):
        _draw_law(axes, measure, label)
    elif width is None and isinstance(measure, DiscreteMeasure):
        _draw_eigenvalues(axes, measure, label)
    else:
        _draw_smoothed(axes, measure, width or measure.resolution or 1e-3, label)


def _draw_law(axes: Axes, law: Law, label: str, share: float = 1.0, **style: object) -> None:
    ends = law.breakpoints
    margin = 0.05 * (ends[-1] - ends[0])
    pieces = [np.array([ends[0] - margin])]
    for left, right in law.support:  # Chebyshev points: the edges are square roots
        theta = np.linspace(0, np.pi, _POINTS)
        pieces.append(float(left) + (float(right) - float(left)) * np.sin(theta / 2) ** 2)
    x = np.concatenate([*pieces, [ends[-1] + margin]])
    density = share * np.asarray(law.density(x), float)
    shown = np.where(np.isfinite(density), density, np.nan)
    (line,) = axes.plot(x, shown, label=label, **style)  # type: ignore[arg-type]
    for location, mass in law.atoms:
        axes.plot(
            [float(location)] * 2, [0, share * float(mass)], "-o", markevery=[1],
            color=line.get_color(),
        )  # fmt: skip


def _draw_smoothed(axes: Axes, measure: SpectralMeasure, width: float, label: str) -> None:
    ends = measure.breakpoints
    left, right = ends[0] - _REACH * width, ends[-1] + _REACH * width
    # two points a width, so that no peak falls between them
    x = np.linspace(left, right, int(np.clip(2 * (right - left) / width, _POINTS, _MOST_POINTS)))
    rules = measure.quadratures() if isinstance(measure, LanczosMeasure) else [measure]
    middle, error = mean_and_error(np.array([smooth(rule, x, width) for rule in rules]))
    (line,) = axes.plot(x, middle, label=label)
    draw_band(axes, x, middle, error, line.get_color())


def _draw_eigenvalues(axes: Axes, measure: DiscreteMeasure, label: str) -> None:
    """A histogram of what is spread out, a stem for each location that holds a twentieth or more.

    Eigenvalues repel, so bins may be much finer than for independent points: 20 in each on average.
    The histogram's area is the mass that is not in stems.
    """
    nodes, weights = measure.nodes, measure.weights
    total = float(np.ptp(nodes))
    group = np.concatenate([[0], np.cumsum(np.diff(nodes) > 1e-9 * total)])
    masses = np.bincount(group, weights)
    heavy = masses >= 0.05
    rest = nodes[~heavy[group]]
    if rest.size and np.ptp(rest) == 0:
        heavy[:], rest = True, rest[:0]
    color, names = None, iter([label])
    if rest.size:
        bins = np.linspace(rest[0], rest[-1], int(np.clip(rest.size // 20, 10, 200)) + 1)
        heights = weights[~heavy[group]] / (bins[1] - bins[0])
        _, _, patches = axes.hist(
            rest, bins=list(bins), weights=heights, histtype="step", label=next(names)
        )
        color = patches[0].get_edgecolor()  # type: ignore[union-attr, index]
    for stem in np.flatnonzero(heavy):
        location = float(nodes[group == stem].mean())
        (line,) = axes.plot(
            [location] * 2, [0, masses[stem]], "-o", markevery=[1], color=color,
            label=next(names, None),
        )  # fmt: skip
        color = line.get_color()
