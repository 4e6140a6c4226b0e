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
from rmthess.extremes import tracy_widom
from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure, LanczosMeasure, SpectralMeasure

Array = NDArray[np.float64]
Measured = DiscreteMeasure | LanczosMeasure
Side = Literal["left", "right"]

_CLEAR_RATIO = 1.5  # a gap narrower than this between neighbours is not called one


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
    and q is the Tracy–Widom (beta = 1) quantile at 1 - ``level``: the chance that a pure bulk shows
    even one. Eigenvalues at the law's atoms are not counted.
    bulk = (left, right): beyond these edges.
    bulk = None: the gap rule. Among the eigenvalues resolved one by one at each end, those outside
    the widest gap, in ratio of their distances to the median; no gap, no outliers, if that ratio is
    below 1.5.

    Only Ritz values count, never quadrature weights, and only where value and error bound together
    clear the threshold. One probe cannot see a multiplicity: equal eigenvalues count once.

    >>> from rmthess import DiscreteMeasure, Semicircle
    >>> import numpy as np
    >>> values = np.append(Semicircle().sample(200, np.random.default_rng(0)), 4.0)
    >>> outliers(DiscreteMeasure.from_eigenvalues(values), Semicircle()).location
    array([4.])
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; it is the false alarm rate")
    values, errors, probes = _eigenvalue_bounds(measure)
    found = _distinct(values, errors, probes)
    if bulk is None:
        return _beyond_gap(found, float(measure.quantile(0.5)))
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
        left, right = bulk
        if not left <= right:
            raise ValueError(f"bulk edges must be (left, right) with left <= right, got {bulk}")
        rule = f"beyond {left:g} and {right:g}"
    return _beyond(found, left, right, rule)


Found = tuple[float, float, int]  # location, error bound, number of probes


def _eigenvalue_bounds(measure: Measured) -> tuple[Array, Array, NDArray[np.intp]]:
    """Eigenvalues or Ritz values with error bounds and the probe of each."""
    if isinstance(measure, DiscreteMeasure):
        rounding = measure.nodes.size * np.finfo(float).eps * np.abs(measure.nodes).max()
        size = measure.nodes.size
        return measure.nodes, np.full(size, rounding), np.zeros(size, np.intp)
    probe = np.broadcast_to(np.arange(measure.probes)[:, None], measure.nodes.shape)
    kept = np.isfinite(measure.nodes)
    return measure.nodes[kept], measure.errors[kept], probe[kept]


def _distinct(values: Array, errors: Array, probes: NDArray[np.intp]) -> list[Found]:
    """Ritz values of several probes that agree within their bounds are one eigenvalue."""
    order = np.argsort(values)
    rounding = 1e-10 * float(np.abs(values).max())
    groups: list[list[int]] = []
    for index in order:
        if groups:
            last = groups[-1][-1]
            apart = values[index] - values[last]
            fresh = probes[index] not in {probes[member] for member in groups[-1]}
            if fresh and apart <= errors[index] + errors[last] + rounding:
                groups[-1].append(index)
                continue
        groups.append([index])
    found = []
    for group in groups:
        best = min(group, key=lambda member: errors[member])
        found.append((float(values[best]), float(errors[best]), len({probes[m] for m in group})))
    return found


def _beyond(found: list[Found], left: float, right: float, rule: str) -> Outliers:
    items = [
        Outlier(value, error, "left" if value < left else "right", seen)
        for value, error, seen in found
        if value + error < left or value - error > right
    ]
    return Outliers(tuple(items), left, right, rule)


def _beyond_gap(found: list[Found], center: float) -> Outliers:
    edges, notes = {}, []
    for side, ordered in (("left", found), ("right", found[::-1])):
        distances: list[float] = []
        for (value, error, _), (following, _, _) in pairwise(ordered):
            away = center - value if side == "left" else value - center
            if away <= 0 or error > 0.01 * abs(value - following):
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
    quantile = float(tracy_widom(1).quantile(1 - level))
    (left, inner), (outer, right) = law.support[0], law.support[-1]
    lower = _edge_scale(law, float(left), float(inner), dim)
    upper = _edge_scale(law, float(right), float(outer), dim)
    return float(left) - lower * quantile, float(right) + upper * quantile


def _edge_scale(law: Law, edge: float, other: float, dim: int) -> float:
    """(a dim)^(-2/3) with density (a/π)√distance at the edge; 0 at a hard edge.

    √distance times the square root of the density's slope is read off twice, and extrapolated.
    """
    steps = (other - edge) * np.array([1e-6, 2e-6])
    slopes = np.pi * np.asarray(law.density(edge + steps), float) / np.sqrt(np.abs(steps))
    if slopes[0] > 1.5 * slopes[1]:  # density ~ 1/√distance: the eigenvalues pile up, none escapes
        return 0.0
    return float((dim * (2 * slopes[0] - slopes[1])) ** (-2 / 3))


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

    Errors are standard errors over probes, NaN where there are none; the measured edges are a ± 2b
    from the tail of the probe-averaged Jacobi coefficients, NaN where these have not settled (more
    than one cut, heavy tails, outliers).
    """
    rows = [
        _row("mean", law, measure, lambda m: m.moment(1)),
        _row("second moment", law, measure, lambda m: m.moment(2)),
        _row("mass below 0", law, measure, lambda m: m.cdf(np.nextafter(0.0, -1.0))),
    ]
    if isinstance(measure, LanczosMeasure):
        heads = [
            jacobi.leading_block(*pair)
            for pair in zip(measure.diagonals, measure.off_diagonals, strict=True)
        ]
        if min(a.size for a, _ in heads) >= 5:
            tails = [jacobi.tail(a, b) for a, b in heads]
            steady = all(tail.converged for tail in tails)
            ends = np.array([tail.edges if steady else (np.nan, np.nan) for tail in tails])
            error = _over_probes(ends)
            predicted = float(law.support[0][0]), float(law.support[-1][1])
            for side, name in enumerate(("left edge", "right edge")):
                rows.append(Row(name, predicted[side], float(ends[:, side].mean()), error[side]))
    return Comparison(law, wasserstein(law, measure), kolmogorov(law, measure), tuple(rows))


def _over_probes(values: Array) -> Array:
    if values.shape[0] < 2:
        return np.full(values.shape[1:], np.nan)
    return np.asarray(values.std(axis=0, ddof=1) / np.sqrt(values.shape[0]))


def _row(
    quantity: str, law: Law, measure: Measured, functional: Callable[[SpectralMeasure], float]
) -> Row:
    error = (
        float(measure.standard_error(functional)) if isinstance(measure, LanczosMeasure) else np.nan
    )
    return Row(quantity, float(functional(law)), float(functional(measure)), error)
