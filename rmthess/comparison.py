"""Theory beside measurement: outliers of a bulk, and a table of what agrees and what does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from rmthess import jacobi
from rmthess.distance import kolmogorov, wasserstein
from rmthess.edges import edges
from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure

Array = NDArray[np.float64]
Measured = DiscreteMeasure | LanczosMeasure
Side = Literal["left", "right"]

_CLEAR_RATIO = 1.5  # a gap narrower than this between neighbours is not called one
_DRAWS = 32  # random matrices behind the error of an edge: 13 % of it


@dataclass(frozen=True)
class Outlier:
    """An eigenvalue within ``error`` of ``location``, outside the bulk, in ``seen_by`` probes."""

    location: float
    error: float
    side: Side
    seen_by: int


@dataclass(frozen=True)
class Outliers(Sequence[Outlier]):
    """Outliers from left to right, with the thresholds and the rule that made them so."""

    items: tuple[Outlier, ...]
    left: float
    right: float
    rule: str

    @property
    def location(self) -> Array:
        return np.array([item.location for item in self.items])

    @overload
    def __getitem__(self, index: int) -> Outlier: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Outlier]: ...
    def __getitem__(self, index: int | slice) -> Outlier | Sequence[Outlier]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


def outliers(
    measure: Measured,
    bulk: Law | tuple[float, float] | None = None,
    *,
    level: float = 0.01,
) -> Outliers:
    """Eigenvalues that lie outside the bulk with certainty, each with its error bound.

    bulk = a law: beyond edge ± (a dim)^(-2/3) q, where the law's density falls like (a/π)√distance
    and q is the Tracy–Widom (beta = 1) quantile at 1 - ``level``/2: ``level`` is the chance that a
    pure bulk shows even one, on either side. Eigenvalues at the law's atoms are not counted.
    bulk = (left, right): beyond these edges.
    bulk = None: the gap rule. Among the eigenvalues resolved one by one beyond the quartiles, those
    outside the widest gap, in ratio of their distances to the median; no gap, no outliers, if that
    ratio is below 1.5.

    Only Ritz values count, never quadrature weights, and only where value and error bound together
    clear the threshold. Lanczos cannot see a multiplicity, so it counts equal eigenvalues once, and
    of Ritz values whose bounds do not tell them apart the sharpest; a DiscreteMeasure of all
    eigenvalues counts each.

    >>> from rmthess import DiscreteMeasure, Semicircle
    >>> import numpy as np
    >>> values = np.append(Semicircle().sample(200, np.random.default_rng(0)), 4.0)
    >>> outliers(DiscreteMeasure.from_eigenvalues(values), Semicircle()).location
    array([4.])
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; it is the false alarm rate")
    _check_measured(measure)
    found = _eigenvalue_bounds(measure)
    if bulk is None:
        return _beyond_gap(found, measure.quantile(np.array([0.25, 0.5, 0.75])))
    if isinstance(bulk, Law):
        left, right = _thresholds(bulk, measure.dim, level)
        atoms = [float(location) for location, _ in bulk.atoms]
        span = max(abs(left), abs(right), *map(abs, atoms)) if atoms else 0.0
        found = [
            item
            for item in found
            if all(abs(item[0] - atom) > item[1] + 1e-9 * span for atom in atoms)
        ]
        rule = f"beyond the edges of {bulk!r}, Tracy–Widom level {level:g}"
    else:
        if not (isinstance(bulk, (tuple, list)) and len(bulk) == 2 and bulk[0] <= bulk[1]):
            raise ValueError(
                f"bulk must be a law, (left, right) with left <= right, or None, got {bulk!r}"
            )
        left, right = map(float, bulk)
        rule = f"beyond {left:g} and {right:g}"
    return _beyond(found, left, right, rule)


Found = tuple[float, float, int]  # location, error bound, number of probes


def _check_measured(measure: object) -> None:
    if not isinstance(measure, (DiscreteMeasure, LanczosMeasure)):
        raise TypeError(
            f"measure must be a LanczosMeasure or a DiscreteMeasure, got {type(measure).__name__}; "
            "DiscreteMeasure.from_eigenvalues makes one of a list of eigenvalues"
        )


def _eigenvalue_bounds(measure: Measured) -> list[Found]:
    """Eigenvalues, or the distinct Ritz values of all probes, ascending with their error bounds."""
    largest = float(np.nanmax(np.abs(measure.nodes)))
    if isinstance(measure, DiscreteMeasure):
        error = measure.nodes.size * float(np.finfo(float).eps) * largest
        return [(float(value), error, 1) for value in measure.nodes]
    probe = np.broadcast_to(np.arange(measure.probes)[:, None], measure.nodes.shape)
    kept = np.isfinite(measure.nodes)
    double = measure.provenance.get("dtype", "float64") == "float64"
    rounding = (1e-10 if double else 4e-6) * largest
    return _distinct(measure.nodes[kept], measure.errors[kept], probe[kept], rounding)


def _distinct(
    values: Array, errors: Array, probes: NDArray[np.intp], rounding: float
) -> list[Found]:
    """Ritz values of several probes that agree within their bounds are one eigenvalue.

    So are those of one probe that agree within rounding, by which a multiple eigenvalue may show.
    """
    order = np.argsort(values)
    groups: list[list[int]] = []
    for index in order:
        if groups:
            last = groups[-1][-1]
            apart = values[index] - values[last]
            fresh = probes[index] not in {probes[member] for member in groups[-1]}
            bound = errors[index] + errors[last] + rounding if fresh else rounding
            if apart <= bound:
                groups[-1].append(index)
                continue
        groups.append([index])
    found = []
    for group in groups:
        best = min(group, key=lambda member: errors[member])
        found.append((float(values[best]), float(errors[best]), len({probes[m] for m in group})))
    return found


def _beyond(found: list[Found], left: float, right: float, rule: str) -> Outliers:
    outside = [item for item in found if item[0] + item[1] < left or item[0] - item[1] > right]
    values, errors = (np.array([item[k] for item in outside]) for k in (0, 1))
    sharpest = errors.min(initial=np.inf)
    items = [
        Outlier(value, error, "left" if value < left else "right", seen)
        for value, error, seen in outside
        # one whose bound reaches a sharper one may be the same eigenvalue, not yet converged
        if error == sharpest or not np.any((errors < error) & (np.abs(values - value) <= error))
    ]
    return Outliers(tuple(items), left, right, rule)


def _beyond_gap(found: list[Found], quartiles: Array) -> Outliers:
    first, center, third = map(float, quartiles)
    edges, notes = {}, []
    for side, ordered in (("left", found), ("right", found[::-1])):
        distances: list[float] = []
        for (value, error, _), (following, _, _) in pairwise(ordered):
            # towards the median every ratio of distances grows: there is no bulk left inside
            inside = value >= first if side == "left" else value <= third
            away = abs(value - center)
            if inside or error > max(0.01 * abs(value - following), 1e-9 * away):
                break
            distances.append(away)
        ratios = [outer / inner for outer, inner in pairwise(distances)]
        count = int(np.argmax(ratios)) + 1 if ratios and max(ratios) >= _CLEAR_RATIO else 0
        edges[side] = ordered[count][0]
        if count:
            notes.append(f"{side}: ratio {max(ratios):.2g} after {count}")
        else:
            widest = f"widest ratio {max(ratios):.2g}" if ratios else "nothing resolved"
            notes.append(f"{side}: no clear gap ({widest} of {len(distances)} resolved)")
    rule = f"widest gap, at least {_CLEAR_RATIO} in ratio of distances to the median; " + "; ".join(
        notes
    )
    return _beyond(found, edges["left"], edges["right"], rule)


def _thresholds(law: Law, dim: int | None, level: float) -> tuple[float, float]:
    if dim is None:
        raise ValueError(
            "the edge test needs the side of the matrix: pass a measure with dim, or edges"
        )
    found = edges(law)
    # two sides share the false alarms
    left, right = (edge.threshold(dim, level / 2) for edge in (found[0], found[-1]))
    # an edge that is soft only nearer than 2e-5 of its interval looks hard, and may be crossed
    (start, inner), (outer, end) = law.support[0], law.support[-1]
    left -= 0.0 if found[0].soft else 2e-5 * float(inner - start)
    right += 0.0 if found[-1].soft else 2e-5 * float(end - outer)
    return left, right


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


@dataclass(frozen=True)
class Comparison:
    """A law beside a measurement: distances, then one row a quantity."""

    law: Law
    wasserstein: float
    kolmogorov: float
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        head = f"{self.law!r}: W1 {self.wasserstein:.3g}, Kolmogorov {self.kolmogorov:.3g}"
        lines = [f"{'quantity':<16}{'predicted':>12}{'measured':>12}{'error':>11}  verdict"]
        lines += [
            f"{row.quantity:<16}{row.predicted:>12.5g}{row.measured:>12.5g}{row.error:>11.2g}  "
            f"{row.verdict}"
            for row in self.rows
        ]
        return "\n".join([head, *lines])


def compare(law: Law, measure: Measured) -> Comparison:
    """A law beside a measured spectrum: W_1 and Kolmogorov distance, moments, mass below 0, edges.

    Errors are standard errors over probes, NaN where there are none. The measured edges are a ± 2b
    from the tail of the probe-averaged Jacobi coefficients, NaN where these have not settled (more
    than one cut, heavy tails, outliers). At this side and these steps the coefficients of a matrix
    close in by about step/dim, and those of all probes scatter together: so for a law with a matrix
    ensemble the predicted edges are that ensemble's average, read in the same way, and their errors
    its scatter from matrix to matrix. For any other law they are its own edges.
    """
    _check_measured(measure)
    if not isinstance(law, Law):
        raise TypeError(f"law must be a law, got {type(law).__name__}")
    # below zero by more than rounding
    zero = -1e-12 * float(np.nanmax(np.abs(measure.nodes))) or np.nextafter(0.0, -1.0)
    rows = [
        _row("mean", law, measure, lambda m: m.moment(1)),
        _row("second moment", law, measure, lambda m: m.moment(2)),
        _row("mass below 0", law, measure, lambda m: m.cdf(zero)),
    ]
    if isinstance(measure, LanczosMeasure):
        rows += _edge_rows(law, measure)
    return Comparison(law, wasserstein(law, measure), kolmogorov(law, measure), tuple(rows))


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


def _row(
    quantity: str, law: Law, measure: Measured, functional: Callable[[SpectralMeasure], float]
) -> Row:
    error = (
        float(measure.standard_error(functional)) if isinstance(measure, LanczosMeasure) else np.nan
    )
    return Row(quantity, float(functional(law)), float(functional(measure)), error)
