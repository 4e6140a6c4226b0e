"""Pictures of spectral measures: each function draws on ``ax``, returns it and shows nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure, check_order
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
) -> Axes:
    """Densities of the measures, each as far as it is known.

    A law is drawn exactly, its atoms as stems. A LanczosMeasure is drawn at its resolution: its
    Gauss rules convolved with a Gaussian of standard deviation ``width`` (default: its resolution),
    in a band of ± 1 standard error over probes. A DiscreteMeasure is drawn as a histogram, with
    stems for atoms. With ``width`` given, every measure is convolved with that Gaussian: like
    beside like.

    >>> from matplotlib.figure import Figure
    >>> from rmthess import Semicircle
    >>> len(plot(Semicircle(), ax=Figure().subplots()).lines)
    1
    """
    if not measures:
        raise ValueError("plot needs at least one measure")
    for measure in measures:
        if not isinstance(measure, SpectralMeasure):
            raise TypeError(
                f"plot draws measures, got {type(measure).__name__}; "
                "DiscreteMeasure.from_eigenvalues makes one of a list of eigenvalues"
            )
    if width is not None and not width > 0:
        raise ValueError(f"width must be positive, got {width}; it is a standard deviation")
    if labels is not None and len(labels) != len(measures):
        raise ValueError(f"{len(measures)} measures need as many labels, got {len(labels)}")
    axes = _axes(ax)
    for index, measure in enumerate(measures):
        label = labels[index] if labels else _label(measure)
        if width is None and isinstance(measure, Law):
            _draw_law(axes, measure, label)
        elif width is None and isinstance(measure, DiscreteMeasure):
            _draw_eigenvalues(axes, measure, label)
        else:
            _draw_smoothed(axes, measure, width or measure.resolution or 1e-3, label)
    axes.set_xlabel("eigenvalue λ")
    axes.set_ylabel("density ρ(λ)")
    if len(measures) > 1 or labels:
        axes.legend()
    return axes


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
    at the side of the measured matrix, where the lines close in by about step/dim.
    """
    if steps is not None:
        check_order("steps", steps, least=2)
    if labels is not None and len(labels) != 1 + len(laws):
        raise ValueError(
            f"the measure and {len(laws)} laws need {1 + len(laws)} labels, got {len(labels)}"
        )
    axes = _axes(ax)
    if isinstance(measure, LanczosMeasure):
        depth = steps or measure.steps
        a, b = measure.diagonals[:, : depth - 1], measure.off_diagonals[:, : depth - 1]
    else:
        depth = steps or min(64, measure.nodes.size)
        diagonal, off_diagonal = measure.jacobi(depth)
        a, b = diagonal[None, :-1], off_diagonal[None, :]
    k = np.arange(a.shape[1])
    names = labels or ("measured", *map(_label, laws))
    for sign, name in ((1, names[0]), (-1, None)):
        edge = a + sign * 2 * b
        middle = edge.mean(axis=0)
        (line,) = axes.plot(k, middle, "o", markersize=2.5, color="C0", label=name)
        if edge.shape[0] > 1:
            error = edge.std(axis=0, ddof=1) / np.sqrt(edge.shape[0])
            axes.fill_between(
                k, middle - error, middle + error, color=line.get_color(), alpha=0.25, linewidth=0
            )
    for index, law in enumerate(laws, start=1):
        finite = law.ensemble is not None and measure.dim is not None
        length = a.shape[1] + 1
        diagonal, off_diagonal = (
            law.mean_jacobi(length, float(measure.dim or 0)) if finite else law.jacobi(length)
        )
        dashes = ("-", "--", "-.", ":")[(index - 1) % 4]
        for sign, name in ((1, names[index]), (-1, None)):
            edge = diagonal[:-1] + sign * 2 * off_diagonal
            axes.plot(k, edge, dashes, color=f"C{index}", label=name)
    axes.set_xlabel("Lanczos step k")
    axes.set_ylabel("local edges aₖ ± 2bₖ")
    axes.legend()
    return axes


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots()[1]


def _label(measure: SpectralMeasure) -> str:
    if isinstance(measure, LanczosMeasure):
        return f"Lanczos, {measure.probes} × {measure.steps} steps"
    if isinstance(measure, DiscreteMeasure):
        return f"{measure.nodes.size} eigenvalues"
    values = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, (int, float)) else f"{name} {value}"
        for name, value in vars(measure).items()
        if not name.startswith("_")
    )
    return f"{type(measure).__name__}({values})"


def _draw_law(axes: Axes, law: Law, label: str) -> None:
    ends = law.breakpoints
    margin = 0.05 * (ends[-1] - ends[0])
    pieces = [np.array([ends[0] - margin])]
    for left, right in law.support:  # Chebyshev points: the edges are square roots
        theta = np.linspace(0, np.pi, _POINTS)
        pieces.append(float(left) + (float(right) - float(left)) * np.sin(theta / 2) ** 2)
    x = np.concatenate([*pieces, [ends[-1] + margin]])
    density = np.asarray(law.density(x), float)
    (line,) = axes.plot(x, np.where(np.isfinite(density), density, np.nan), label=label)
    for location, mass in law.atoms:
        axes.plot(
            [float(location)] * 2, [0, float(mass)], "-o", markevery=[1], color=line.get_color()
        )


def _draw_smoothed(axes: Axes, measure: SpectralMeasure, width: float, label: str) -> None:
    ends = measure.breakpoints
    left, right = ends[0] - _REACH * width, ends[-1] + _REACH * width
    # two points a width, so that no peak falls between them
    x = np.linspace(left, right, int(np.clip(2 * (right - left) / width, _POINTS, _MOST_POINTS)))
    if isinstance(measure, LanczosMeasure) and measure.probes > 1:
        each = np.array([smooth(rule, x, width) for rule in measure.quadratures()])
        middle = each.mean(axis=0)
        error = each.std(axis=0, ddof=1) / np.sqrt(measure.probes)
        (line,) = axes.plot(x, middle, label=label)
        axes.fill_between(
            x, middle - error, middle + error, color=line.get_color(), alpha=0.25, linewidth=0
        )
    else:
        axes.plot(x, smooth(measure, x, width), label=label)


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
