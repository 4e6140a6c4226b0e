"""What the pictures share: axes, names, error bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


def axes_or_new(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots()[1]


def legend_over(axes: Axes, columns: int) -> None:
    """A legend above the axes, where it hides nothing."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, borderaxespad=0.2
    )


def check_measures(*measures: object) -> None:
    for measure in measures:
        if not isinstance(measure, SpectralMeasure):
            raise TypeError(
                f"plot draws measures, got {type(measure).__name__}; "
                "DiscreteMeasure.from_eigenvalues makes one of a list of eigenvalues"
            )


def check_labels(labels: tuple[str, ...] | None, count: int, what: str) -> None:
    if labels is not None and len(labels) != count:
        raise ValueError(f"{what} need as many labels, got {len(labels)}")


def name_of(measure: SpectralMeasure) -> str:
    """Lanczos, 8 × 64 steps; 150 eigenvalues; Semicircle(variance 0.25, mean 0)."""
    if isinstance(measure, LanczosMeasure):
        return f"Lanczos, {measure.probes} × {measure.steps} steps"
    if isinstance(measure, DiscreteMeasure):
        return f"{measure.nodes.size} eigenvalues"
    values = ", ".join(
        f"{name} {_short(value)}"
        for name, value in vars(measure).items()
        if not name.startswith("_")
    )
    return f"{type(measure).__name__}({values})"


def _short(value: object) -> str:
    if isinstance(value, (int, float)):
        return f"{value:.4g}"
    if isinstance(value, DiscreteMeasure):
        return f"of {value.nodes.size} atoms"
    return name_of(value) if isinstance(value, SpectralMeasure) else str(value)


def mean_and_error(each: Array) -> tuple[Array, Array | None]:
    """Average over the first axis and its standard error; None where there is one row."""
    middle = np.asarray(each.mean(axis=0))
    if each.shape[0] < 2:
        return middle, None
    return middle, np.asarray(each.std(axis=0, ddof=1) / np.sqrt(each.shape[0]))


def draw_band(axes: Axes, x: Array, middle: Array, error: Array | None, color: Any) -> None:
    """A band of ± 1 standard error."""
    if error is not None:
        axes.fill_between(
            x, middle - error, middle + error,
            color=color, alpha=0.25, linewidth=0,
        )  # fmt: skip
