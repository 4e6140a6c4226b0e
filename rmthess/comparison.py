"""Theory beside measurement: a table of what agrees and what does not, with error bars."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess import jacobi
from rmthess.detection import Measured, Outliers, check_measured, outliers
from rmthess.distance import kolmogorov, wasserstein
from rmthess.instrument import Window, checked, within
from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure
from rmthess.metrics import inertia
from rmthess.predictions.prediction import Prediction
from rmthess.sampling import limit_chain
from rmthess.smoothing import smooth

Array = NDArray[np.float64]

_DRAWS = 100  # random matrices behind the error of an edge: 7% of it
_GRID = 201  # points of the residuals


@dataclass(frozen=True)
class Row:
    """One quantity, predicted and measured; they agree within 3 standard errors or differ."""

    quantity: str
    predicted: float
    measured: float
    error: float

    @property
    def verdict(self) -> str:
        if not (np.isfinite(self.error) and np.isfinite(self.measured)):
            return "no error bar"
        return "agrees" if abs(self.measured - self.predicted) <= 3 * self.error else "differs"


@dataclass(frozen=True, eq=False)
class Residuals:
    """Measured minus predicted at the points ``x``, both convolved with a Gaussian of ``width``.

    ``density`` and ``cdf`` differences, each with its standard error over probes (NaN without).
    ``width`` is the resolution of the measurement. The cdf is not convolved: of a Lanczos run it is
    the broken line through the middles of a Gauss rule's steps, of theory too, by its own rule of
    as many nodes; of eigenvalues the step function itself.
    """

    x: Array
    width: float
    density: Array
    density_error: Array
    cdf: Array
    cdf_error: Array


@dataclass(frozen=True, eq=False)
class Comparison:
    """A law or prediction beside a measurement: distances, a row a quantity, residuals."""

    theory: Law | Prediction
    wasserstein: float
    wasserstein_error: float
    kolmogorov: float
    rows: tuple[Row, ...]
    outliers: Outliers | None
    residuals: Residuals

    @property
    def law(self) -> SpectralMeasure:
        return self.theory.bulk if isinstance(self.theory, Prediction) else self.theory

    @property
    def agrees(self) -> bool:
        """Whether no row differs."""
        return all(row.verdict != "differs" for row in self.rows)

    def __getitem__(self, quantity: str) -> Row:
        for row in self.rows:
            if row.quantity == quantity:
                return row
        raise KeyError(f"no row {quantity!r}; there are {[row.quantity for row in self.rows]}")

    def __str__(self) -> str:
        lines = [f"{'quantity':<22}{'predicted':>12}{'measured':>12}{'error':>11}  verdict"]
        lines += [
            f"{row.quantity:<22}{row.predicted:>12.5g}{row.measured:>12.5g}{row.error:>11.2g}  "
            f"{row.verdict}"
            for row in self.rows
        ]
        return "\n".join([self._head(), *lines])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("", "predicted", "measured", "error", ""))
        body = "".join(
            f"<tr><th>{html.escape(row.quantity)}</th><td>{row.predicted:.5g}</td>"
            f"<td>{row.measured:.5g}</td><td>{row.error:.2g}</td><td>{row.verdict}</td></tr>"
            for row in self.rows
        )
        caption = html.escape(self._head())
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table>"

    def _head(self) -> str:
        error = f" ± {self.wasserstein_error:.1g}" if np.isfinite(self.wasserstein_error) else ""
        name = "prediction" if isinstance(self.theory, Prediction) else repr(self.theory)
        return f"{name}: W1 {self.wasserstein:.3g}{error}, Kolmogorov {self.kolmogorov:.3g}"


def compare(
    theory: Law | Prediction,
    measure: Measured,
    *,
    level: float = 0.01,
    window: Window | None = None,
) -> Comparison:
    """A law or a Prediction beside a measured spectrum: what agrees within its error, what differs.

    Rows: mean, second moment, mass below 0 and, where theory has one, at 0; edges; the number of
    outliers (rule of ``rm.outliers`` at ``level``) and each one's place; the rank, where a
    Prediction bounds it. A law describes a bulk: of a deflated run it is compared with the rest,
    and with ``window`` (left, right) with what lies in between, as in a fit; outliers are those of
    all.

    Errors are standard errors over probes, NaN where there are none; of a mass they include half of
    what the steps leave open, of W_1 they are the jackknife's, of a predicted outlier its
    fluctuation. Measured edges are a ± 2b from the tail of the probe-averaged Jacobi coefficients,
    NaN where these have not settled (more than one cut, heavy tails, outliers). At this side and
    these steps the coefficients of a matrix close in by about step/dim, and those of all probes
    scatter together: so for a law with a tridiagonal ensemble the predicted edges are that
    ensemble's average, read in the same way, and their errors its scatter from matrix to matrix.
    For any other law they are its own edges.

    >>> from rmthess import Semicircle
    >>> values = Semicircle().sample(200, np.random.default_rng(0))
    >>> compare(Semicircle(), DiscreteMeasure.from_eigenvalues(values))["mean"].predicted
    0.0
    """
    check_measured(measure)
    if not isinstance(theory, (Law, Prediction)):
        raise TypeError(f"theory must be a law or a Prediction, got {type(theory).__name__}")
    if isinstance(theory, Prediction):
        if window is not None:
            raise ValueError(
                f"window={window} is for a law; a Prediction says itself which eigenvalues are "
                "outliers: compare its bulk, theory.bulk"
            )
        if measure.dim is not None and measure.dim != theory.dim:
            raise ValueError(
                f"the prediction is for a matrix of side {theory.dim}, the measured one has "
                f"{measure.dim}"
            )
        whole: SpectralMeasure = theory.measure()
        law = theory.bulk if isinstance(theory.bulk, Law) else None
        seen = measure
    else:
        whole = law = theory
        seen = measure.bulk if isinstance(measure, LanczosMeasure) else measure
        if window is not None:
            if isinstance(seen, LanczosMeasure):
                seen, _ = within(seen, window)
            else:
                seen = seen.restrict(checked(window))
    rows = _mass_rows(whole, law, seen)
    if law is not None and isinstance(seen, LanczosMeasure):
        rows += _edge_rows(law, seen.bulk)
    found = outliers(measure, law, level=level) if law and measure.dim else None
    if isinstance(theory, Prediction):
        rows += _outlier_rows(theory, found)
        rows += _rank_rows(theory, measure)
    return Comparison(
        theory,
        wasserstein(whole, seen),
        _jackknife(seen, lambda part: wasserstein(whole, part)),
        kolmogorov(whole, seen),
        tuple(rows),
        found,
        _residuals(whole, seen),
    )


def _mass_rows(whole: SpectralMeasure, law: Law | None, measure: Measured) -> list[Row]:
    # below zero by more than rounding
    top = float(np.nanmax(np.abs(measure.breakpoints)))
    zero = 1e-12 * top or float(np.nextafter(0.0, 1.0))
    rows = [
        _row("mean", whole, measure, lambda m: m.moment(1)),
        _row("second moment", whole, measure, lambda m: m.moment(2)),
        _mass_row("mass below 0", whole, measure, (-np.inf, -zero)),
    ]
    at_zero = law is not None and any(abs(float(x)) <= zero for x, _ in law.atoms)
    if at_zero:
        near = max(zero, 1e-6 * top)
        rows.append(_mass_row("mass at 0", whole, measure, (-near, near)))
    return rows


def _mass_row(
    quantity: str, whole: SpectralMeasure, measure: Measured, between: tuple[float, float]
) -> Row:
    """The mass between two points; of a Lanczos run the middle of what its steps leave open.

    Half of what they leave open (Markov–Stieltjes) counts as an error beside that of the probes:
    steps that do not tell small eigenvalues from zero do not tell their signs.
    """
    left, right = between

    def mass(m: SpectralMeasure) -> float:
        return float(m.cdf(right) - m.cdf(left))

    if not isinstance(measure, LanczosMeasure):
        return Row(quantity, mass(whole), mass(measure), float("nan"))
    (low_left, low_right), (high_left, high_right) = measure.cdf_bounds(np.array([left, right]))
    least, most = max(0.0, low_right - high_left), high_right - low_left
    error = float(np.hypot(measure.standard_error(mass), (most - least) / 2))
    return Row(quantity, mass(whole), float(least + most) / 2, error)


def _edge_rows(law: Law, measure: LanczosMeasure) -> list[Row]:
    """Both edges; none from fewer than 5 steps."""
    pairs = zip(measure.diagonals, measure.off_diagonals, strict=True)
    steps = min(jacobi.leading_block(*pair)[0].size for pair in pairs)
    if steps < 5:
        return []
    a, b = measure.diagonals[:, :steps], measure.off_diagonals[:, : steps - 1]
    average = jacobi.tail(a.mean(axis=0), b.mean(axis=0))
    measured, predicted = average.edges, (float(law.support[0][0]), float(law.support[-1][1]))
    errors = np.full(2, np.nan)
    if not average.converged:
        measured = (np.nan, np.nan)
    elif law.ensemble is not None and steps < measure.dim:
        predicted = jacobi.tail(*law.mean_jacobi(steps, measure.dim)).edges
        draws = []
        for child in np.random.SeedSequence(0).spawn(_DRAWS):
            rng = np.random.default_rng(child)
            one, two = law.sample_jacobi(steps, measure.dim, rng, measure.probes)
            draws.append(jacobi.tail(one.mean(axis=0), two.mean(axis=0)).edges)
        errors = np.std(draws, axis=0, ddof=1)
    elif measure.probes > 1:
        each = np.array([jacobi.tail(*pair).edges for pair in zip(a, b, strict=True)])
        errors = each.std(axis=0, ddof=1) / np.sqrt(measure.probes)
    return [
        Row(f"{side} edge", predicted[k], measured[k], float(errors[k]))
        for k, side in enumerate(("left", "right"))
    ]


def _outlier_rows(theory: Prediction, found: Outliers | None) -> list[Row]:
    """Their number, then each predicted one beside the nearest that was found."""
    if found is None:
        return []
    rows = [Row("outliers", float(theory.locations.size), float(len(found)), 0.0)]
    left = list(found)
    placed = [spike for spike in theory.spikes if spike.location is not None]
    for spike in sorted(placed, key=lambda item: float(item.location or 0.0)):
        place = float(spike.location or 0.0)
        nearest = min(left, key=lambda item: abs(item.location - place), default=None)
        if nearest is None:
            rows.append(Row(f"outlier at {place:.4g}", place, np.nan, np.nan))
            continue
        left.remove(nearest)
        error = float(np.hypot(spike.std(theory.dim), nearest.error))
        rows.append(Row(f"outlier at {place:.4g}", place, nearest.location, error))
    return rows


def _rank_rows(theory: Prediction, measure: Measured) -> list[Row]:
    if theory.rank is None:
        return []
    counted = inertia(measure)
    if counted.null is None:
        return [Row("nullity", float(theory.rank.nullity), np.nan, np.nan)]
    return [Row("nullity", float(theory.rank.nullity), counted.null, counted.errors[1])]


def _residuals(whole: SpectralMeasure, measure: Measured) -> Residuals:
    ends = np.array([*whole.breakpoints[[0, -1]], *measure.breakpoints[[0, -1]]], float)
    left, right = float(ends.min()), float(ends.max())
    width = measure.resolution or (right - left) / 50 or 1.0
    x = np.linspace(left - 2 * width, right + 2 * width, _GRID)
    rules = measure.quadratures() if isinstance(measure, LanczosMeasure) else [measure]
    densities = np.array([smooth(rule, x, width) for rule in rules])
    if isinstance(measure, LanczosMeasure):
        cdfs = np.array([_broken_line(rule, x) for rule in rules])
        dim = measure.dim
        chain = (
            limit_chain(whole, measure.steps, dim)
            if isinstance(whole, Law)
            else whole.jacobi(measure.steps)
        )
        expected = _broken_line(DiscreteMeasure(*jacobi.gauss_quadrature(*chain)), x)
    else:
        cdfs, expected = np.array([measure.cdf(x)]), np.asarray(whole.cdf(x), float)
    count = len(rules)
    errors = [
        part.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(x.shape, np.nan)
        for part in (densities, cdfs)
    ]
    return Residuals(
        x, width, densities.mean(axis=0) - smooth(whole, x, width), errors[0],
        cdfs.mean(axis=0) - expected, errors[1],
    )  # fmt: skip


def _broken_line(rule: DiscreteMeasure, x: Array) -> Array:
    """The cdf at the middle of each step, and straight in between: 0 and 1 beyond the nodes.

    A Gauss rule's cdf crosses that of its measure at every step, near the middle.
    """
    total = np.cumsum(rule.weights)
    return np.interp(x, rule.nodes, total - rule.weights / 2, 0.0, 1.0)


def _jackknife(measure: Measured, functional: Callable[[DiscreteMeasure], float]) -> float:
    """Standard error over probes of a functional of the average, which need not be linear."""
    if not isinstance(measure, LanczosMeasure) or measure.probes < 3:
        return float("nan")
    rules, count = measure.quadratures(), measure.probes
    parts = []
    for left_out in range(count):
        kept = [rule for probe, rule in enumerate(rules) if probe != left_out]
        nodes = np.concatenate([rule.nodes for rule in kept])
        weights = np.concatenate([rule.weights for rule in kept]) / (count - 1)
        parts.append(functional(DiscreteMeasure(nodes, weights / weights.sum())))
    return float(np.sqrt(count - 1) * np.std(parts))


def _row(
    quantity: str, whole: SpectralMeasure, measure: Measured, functional: Callable[[Any], float]
) -> Row:
    error = (
        float(measure.standard_error(functional)) if isinstance(measure, LanczosMeasure) else np.nan
    )
    return Row(quantity, float(functional(whole)), float(functional(measure)), error)


def compare_each(
    measured: Mapping[str, Measured] | Sequence[Measured],
    theory: Callable[[Measured], Law | Prediction] | Law | Prediction,
) -> dict[str, Comparison]:
    """One comparison for each of a sequence of measurements: along training, widths, layers.

    ``theory``: one law for all, or a function that makes (fits, predicts) it from a measurement.
    The result prints as tables and is what ``rm.plots.plot_rows`` draws, a line a quantity.
    """
    named = (
        dict(measured)
        if isinstance(measured, Mapping)
        else {str(place): item for place, item in enumerate(measured)}
    )
    if not named:
        raise ValueError("measured is empty: nothing to compare")
    return {
        name: compare(theory(item) if not isinstance(theory, (Law, Prediction)) else theory, item)
        for name, item in named.items()
    }
