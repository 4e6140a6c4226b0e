"""What is asked of one measured spectrum: numbers, bulk, outliers, and laws fitted and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rmthess.comparison import Comparison, compare
from rmthess.detection import Measured, Outliers, outliers
from rmthess.families import Family
from rmthess.fitting import Fit, fit
from rmthess.instrument import Axis
from rmthess.laws.law import Law
from rmthess.log_axis import log_spectrum
from rmthess.measure import DiscreteMeasure, LanczosMeasure
from rmthess.metrics import Inertia, inertia
from rmthess.one_cut import Bulk
from rmthess.one_cut import bulk as one_cut_bulk

MOST_DRAWN = 4000  # eigenvalues; a random matrix of that side takes a second, and then O(dim²)
WIDE_DECADES = 1.5  # between the 5% and 95% quantiles: a bulk that the linear axis does not show


@dataclass(frozen=True, eq=False)
class LawReading:
    """A fitted law beside the spectrum; ``why_not`` where it could not be fitted."""

    name: str
    fit: Fit | None
    comparison: Comparison | None
    why_not: str = ""


@dataclass(frozen=True, eq=False)
class Reading:
    """One spectrum and all that is said of it; None where it cannot be asked."""

    measure: Measured
    heavy: bool
    bulk: Bulk | None
    outliers: Outliers | str
    inertia: Inertia | None
    laws: Sequence[LawReading]


def read(
    measure: Measured,
    families: Mapping[str, Family],
    *,
    axis: Axis = "linear",
    bootstrap: int = 200,
    seed: int = 0,
    level: float = 0.01,
    progress: Callable[[str, float], object] = lambda stage, share: None,
) -> Reading:
    """Fit each family, compare, count outliers by a law that is not refused, if there is one.

    A list of more than 4000 eigenvalues is fitted without bootstrap, and so without p-value; a
    Lanczos run of any side has one.

    >>> from rmthess import DiscreteMeasure, Semicircle
    >>> from rmthess.families import FAMILIES
    >>> values = Semicircle().sample(100, np.random.default_rng(0))
    >>> found = read(DiscreteMeasure.from_eigenvalues(values),
    ...              {"semicircle": FAMILIES["semicircle"]}, bootstrap=20)
    >>> len(found.laws), len(found.outliers)
    (1, 0)
    """
    if isinstance(measure, DiscreteMeasure) and measure.nodes.size > MOST_DRAWN:
        bootstrap = 0
    laws = []
    for name, family in families.items():
        progress(f"fit: {name}", 0.0)
        laws.append(_law(name, family, measure, axis, bootstrap, seed, level))
    progress("outliers", 0.0)
    holding = [item.fit for item in laws if item.fit is not None and item.fit.accepted()]
    best = min(holding, key=lambda found: found.distance).law if holding else None
    return Reading(
        measure,
        _is_heavy(measure),
        one_cut_bulk(measure) if isinstance(measure, LanczosMeasure) else None,
        _outliers(measure, best, level),
        _inertia(measure),
        tuple(laws),
    )


def _law(
    name: str, family: Family, measure: Measured, axis: Axis, bootstrap: int, seed: int,
    level: float,
) -> LawReading:  # fmt: skip
    try:
        found = fit(family, measure, axis=axis, bootstrap=bootstrap, seed=seed)
        return LawReading(name, found, compare(found.law, measure, level=level))
    except (TypeError, ValueError) as error:  # a TypeError: an axis that this measure has not
        return LawReading(name, None, None, str(error))


def _outliers(measure: Measured, law: Law | None, level: float) -> Outliers | str:
    try:
        return outliers(measure, law if measure.dim is not None else None, level=level)
    except ValueError as error:
        return str(error)


def _inertia(measure: Measured) -> Inertia | None:
    """None for weighted nodes, which count nothing."""
    try:
        return inertia(measure)
    except ValueError:
        return None


def _is_heavy(measure: Measured) -> bool:
    """Whether the positive part spans so many decades that the linear axis shows a spike."""
    try:
        low, high = log_spectrum(measure).measure.quantile(np.array([0.05, 0.95]))
    except ValueError:
        return False
    return bool(high - low > WIDE_DECADES)
