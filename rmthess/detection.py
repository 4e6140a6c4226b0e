"""Outliers: eigenvalues that a bulk cannot explain, by three rules side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from rmthess import spikes
from rmthess.edges import edges
from rmthess.extremes import tracy_widom
from rmthess.laws.law import Law
from rmthess.laws.marchenko_pastur import MarchenkoPastur
from rmthess.log_axis import without_zeros
from rmthess.measure import DiscreteMeasure, LanczosMeasure
from rmthess.one_cut import Bulk
from rmthess.one_cut import bulk as one_cut_bulk

Array = NDArray[np.float64]
Measured = DiscreteMeasure | LanczosMeasure
Side = Literal["left", "right"]

_CLEAR_RATIO = 1.5  # a gap narrower than this between neighbours is not called one
_FOLLOWING = 5  # distances after a gap that say how wide one is there by chance


@dataclass(frozen=True)
class Outlier:
    """An eigenvalue within ``error`` of ``location``, outside the bulk, in ``seen_by`` probes.

    ``strength`` of the spike that would put it there, and the squared ``overlap`` of its
    eigenvector with that spike: a population eigenvalue where the bulk is a Marchenko–Pastur law,
    the eigenvalue of an added rank-one matrix for any other; NaN where no law is given, unless the
    outliers were deflated and the rest has told its transform (``rm.bulk``).
    """

    location: float
    error: float
    side: Side
    seen_by: int
    strength: float = float("nan")
    overlap: float = float("nan")


@dataclass(frozen=True)
class Rule:
    """One way to tell outliers: ``count`` beyond ``left`` and ``right``, or ``because`` why not."""

    name: str
    left: float
    right: float
    count: int | None
    because: str

    def __str__(self) -> str:
        if self.count is None:
            return f"{self.name}: does not apply, {self.because}"
        return (
            f"{self.name}: {self.count} beyond {self.left:.4g} and {self.right:.4g}, {self.because}"
        )


@dataclass(frozen=True)
class Outliers(Sequence[Outlier]):
    """Outliers from left to right by the rule that applies, and what the other rules say.

    ``rules`` holds all that were asked, the one that was followed first.
    """

    items: tuple[Outlier, ...]
    rules: tuple[Rule, ...]

    @property
    def left(self) -> float:
        return self.rules[0].left

    @property
    def right(self) -> float:
        return self.rules[0].right

    @property
    def rule(self) -> str:
        return f"{self.rules[0].name}: {self.rules[0].because}"

    def __str__(self) -> str:
        found = [
            f"{item.location:.6g} ± {item.error:.1g}"
            + (
                f", strength {item.strength:.4g}, overlap {item.overlap:.3f}"
                if np.isfinite(item.strength)
                else ""
            )
            for item in self.items
        ]
        return "\n".join([*(found or ["no outliers"]), *map(str, self.rules)])

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

    Three rules answer side by side (``.rules``); the first that applies is followed:

    * edge: ``bulk`` is a law (a Prediction's too). Beyond edge ± (a dim)^(-2/3) q, where the law's
      density falls like (a/π)√distance and q is the Tracy–Widom (beta = 1) quantile at
      1 - ``level``/2: ``level`` is the chance that a pure bulk shows even one, on either side.
      Eigenvalues at the law's atoms are not counted. With ``bulk`` = (left, right): beyond these.
    * tail: a Lanczos run whose coefficients settle (``rm.bulk``). Beyond the edges that they tell,
      three of their standard errors, and the Tracy–Widom reach of the density they tell.
    * gap: among the eigenvalues resolved one by one beyond the quartiles, those outside the widest
      gap, in ratio of their distances to the median; none if that ratio is below 1.5, or if a tail
      as heavy as the five distances that follow would show such a gap by chance, at ``level``.
      Zeros are no part of the bulk, nor outliers: quartiles and median are those of the rest.

    Only Ritz values count, never quadrature weights, and only where value and error bound together
    clear the threshold; deflated eigenvalues count as they are. Lanczos cannot see a multiplicity,
    so it counts equal eigenvalues once, and of Ritz values whose bounds do not tell them apart the
    sharpest; a DiscreteMeasure of all eigenvalues counts each. A run without reorthogonalisation
    is refused: it finds an outlier many times.

    A small matrix with a mildly heavy tail can look settled: of the logarithms' standard deviation
    .5, at side 300, the tail rule called the largest of a log-normal bulk outliers in 5 to 10 of 30
    runs, at side 1000 in 1 or 2; of heavier tails in 0 to 4 (24 to 64 steps). Give ``bulk`` where
    it is known.

    The tail rule is that of Abi Younes, Ding & Trogdon (2025) but for the Tracy–Widom reach.

    >>> from rmthess import DiscreteMeasure, Semicircle
    >>> import numpy as np
    >>> values = np.append(Semicircle().sample(200, np.random.default_rng(0)), 4.0)
    >>> outliers(DiscreteMeasure.from_eigenvalues(values), Semicircle()).location
    array([4.])
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; it is the false alarm rate")
    check_measured(measure)
    found = _eigenvalue_bounds(measure)
    rules, settled = [], None
    if bulk is not None:
        rules.append(_edge_rule(found, bulk, measure.dim, level))
    if isinstance(measure, LanczosMeasure):
        settled = one_cut_bulk(measure)
        rules.append(_tail_rule(found, settled, measure.bulk.dim, level))
    rules.append(_gap_rule(found, measure, level))
    followed = next(rule for rule in rules if rule.count is not None)
    ordered = (followed, *(rule for rule in rules if rule is not followed))
    items = _beyond(_not_at_atoms(found, bulk), followed.left, followed.right)
    source: Law | Bulk | None = bulk if isinstance(bulk, Law) else None
    if isinstance(measure, LanczosMeasure) and measure.deflated.size and followed.name == "tail":
        source = settled  # undeflated, the outliers are part of what has been read
    return Outliers(tuple(_explained(item, source) for item in items), ordered)


Found = tuple[float, float, int]  # location, error bound, number of probes


def check_measured(measure: object) -> None:
    if not isinstance(measure, (DiscreteMeasure, LanczosMeasure)):
        raise TypeError(
            f"measure must be a LanczosMeasure or a DiscreteMeasure, got {type(measure).__name__}; "
            "DiscreteMeasure.from_eigenvalues makes one of a list of eigenvalues"
        )


def _eigenvalue_bounds(measure: Measured) -> list[Found]:
    """Eigenvalues, or the distinct Ritz values of all probes, ascending with their error bounds."""
    if isinstance(measure, LanczosMeasure) and measure.deflated.size:
        error = float(np.nanmin(measure.errors))
        known = [(float(value), error, measure.probes) for value in measure.deflated]
        return sorted(_eigenvalue_bounds(measure.bulk) + known)
    largest = float(np.nanmax(np.abs(measure.nodes)))
    if isinstance(measure, DiscreteMeasure):
        error = measure.nodes.size * float(np.finfo(float).eps) * largest
        return [(float(value), error, 1) for value in measure.nodes]
    if measure.provenance.get("reorthogonalize") == "none":
        raise ValueError(
            "this run was made without reorthogonalisation, so it may hold one eigenvalue many "
            "times; measure again with reorthogonalize='full'"
        )
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


def _beyond(found: list[Found], left: float, right: float) -> list[Outlier]:
    outside = [item for item in found if item[0] + item[1] < left or item[0] - item[1] > right]
    values, errors = (np.array([item[k] for item in outside]) for k in (0, 1))
    sharpest = errors.min(initial=np.inf)
    return [
        Outlier(value, error, "left" if value < left else "right", seen)
        for value, error, seen in outside
        # one whose bound reaches a sharper one may be the same eigenvalue, not yet converged
        if error == sharpest or not np.any((errors < error) & (np.abs(values - value) <= error))
    ]


def _not_at_atoms(found: list[Found], bulk: object) -> list[Found]:
    if not (isinstance(bulk, Law) and bulk.atoms):
        return found
    atoms = [float(location) for location, _ in bulk.atoms]
    span = max(map(abs, (float(bulk.support[0][0]), float(bulk.support[-1][1]), *atoms)))
    return [item for item in found if all(abs(item[0] - x) > item[1] + 1e-9 * span for x in atoms)]


def _explained(item: Outlier, bulk: Law | Bulk | None) -> Outlier:
    """The outlier with the strength and the overlap of the spike behind it, if there can be one."""
    x = item.location
    if bulk is None:
        return item
    ends = np.asarray(bulk.edges if isinstance(bulk, Bulk) else bulk.breakpoints[[0, -1]], float)
    if ends[0] <= x <= ends[1]:
        return item
    if isinstance(bulk, MarchenkoPastur):
        v, ratio = float(bulk.variance), float(bulk.ratio)
        strength = spikes.covariance_strength(x / v, ratio)
        if strength <= 0:
            return item
        overlap = spikes.covariance(strength, ratio).overlap
        return replace(item, strength=v * strength, overlap=overlap)
    step = 1e-6 * float(np.min(np.abs(x - ends)))
    m, slope = complex(bulk.stieltjes(x)).real, complex(bulk.stieltjes(x + 1j * step)).imag / step
    return replace(item, strength=-1 / m, overlap=m**2 / slope)


def _edge_rule(
    found: list[Found], bulk: Law | tuple[float, float], dim: int | None, level: float
) -> Rule:
    if isinstance(bulk, Law):
        left, right = _thresholds(bulk, dim, level)
        because = f"edges of {bulk!r}, Tracy–Widom level {level:g}"
    else:
        if not (isinstance(bulk, (tuple, list)) and len(bulk) == 2 and bulk[0] <= bulk[1]):
            raise ValueError(
                f"bulk must be a law, (left, right) with left <= right, or None, got {bulk!r}"
            )
        left, right = map(float, bulk)
        because = f"{left:g} and {right:g} as given"
    return Rule("edge", left, right, len(_beyond(_not_at_atoms(found, bulk), left, right)), because)


def _tail_rule(found: list[Found], settled: Bulk, dim: int, level: float) -> Rule:
    if not settled.converged:
        return Rule("tail", float("nan"), float("nan"), None, settled.message)
    (left, right), (one, two) = settled.edges, settled.errors
    reach = [3 * error + _soft_reach(settled, dim, level, k) for k, error in enumerate((one, two))]
    left, right = left - reach[0], right + reach[1]
    count = len(_beyond(found, left, right))
    return Rule("tail", left, right, count, f"coefficients settle after {settled.depth} steps")


def _soft_reach(settled: Bulk, dim: int, level: float, side: int) -> float:
    """(a dim)^(-2/3) q for a density that falls like (a/π)√distance."""
    inward = 1e-6 * settled.half
    at = settled.edges[side] + (inward if side == 0 else -inward)
    constant = np.pi * float(settled.density(at)) / np.sqrt(inward)
    return float((constant * dim) ** (-2 / 3) * tracy_widom(1).quantile(1 - level / 2))


def _gap_rule(found: list[Found], measure: Measured, level: float) -> Rule:
    bulk = measure.bulk if isinstance(measure, LanczosMeasure) else measure
    rest, zeros = without_zeros(bulk)
    quartiles = rest.quantile(np.array([0.25, 0.5, 0.75]))
    center = float(quartiles[1])
    # towards the median every ratio of distances grows: there is no bulk left inside
    low, high = float(quartiles[0]), float(quartiles[2])
    if zeros:
        low, high = min(low, 0.0), max(high, 0.0)
    ends, notes = {}, []
    for side, ordered in (("left", found), ("right", found[::-1])):
        distances: list[float] = []
        for (value, error, _), (following, _, _) in pairwise(ordered):
            inside = value >= low if side == "left" else value <= high
            away = abs(value - center)
            if inside or error > max(0.01 * abs(value - following), 1e-9 * away):
                break
            distances.append(away)
        sign = -1 if side == "left" else 1
        limit = low if side == "left" else high
        count, ratio, chance = _widest_gap(
            np.array(distances), _further(bulk, center, limit, sign, distances), level / 2
        )
        ends[side] = ordered[count][0]
        if count:
            notes.append(f"{side}: ratio {ratio:.2g} after {count}")
        elif not distances:
            notes.append(f"{side}: no clear gap (nothing resolved)")
        else:
            notes.append(
                f"{side}: no clear gap (widest ratio {ratio:.2g} of {len(distances)} resolved"
                + (f", by chance {chance:.0%})" if ratio >= _CLEAR_RATIO else ")")
            )
    return Rule(
        "gap", ends["left"], ends["right"],
        len(_beyond(found, ends["left"], ends["right"])),
        f"widest ratio of distances to the median, at least {_CLEAR_RATIO} and wider than a heavy "
        f"tail shows; {'; '.join(notes)}",
    )  # fmt: skip


def _further(
    bulk: Measured, center: float, limit: float, sign: int, distances: list[float]
) -> Array:
    """Distances, descending, of what follows those resolved: of Ritz values of one probe.

    They lie no denser than the eigenvalues there.
    """
    if isinstance(bulk, DiscreteMeasure) or not distances:
        return np.zeros(0)
    nodes, errors = bulk.nodes[0], bulk.errors[0]
    away = np.where(sign * (nodes - limit) > 0, np.abs(nodes - center), np.nan)
    return np.sort(away[away + errors < distances[-1]])[::-1]


def _widest_gap(distances: Array, further: Array, level: float) -> tuple[int, float, float]:
    """How many lie outside the widest clear gap of descending ``distances``, its ratio and chance.

    If none is clear, 0 with ratio and chance of the widest. ``further`` distances have no gap
    between them, but help to say how wide one is by chance. In a Pareto tail k log(d_k/d_{k+1})
    are independent exponentials of one mean (Rényi, Acta Math. Acad. Sci. Hung. 4, 1953). So with
    Σ the sum of i log(d_{k+i}/d_{k+i+1}) over the m that follow a gap, one as wide is seen with
    chance (1 + k log(d_k/d_{k+1})/Σ)^-m; times k(k + 1), because there are many gaps to look at.
    """
    if distances.size < 2:
        return 0, 1.0, 1.0
    both = np.concatenate([distances, further])
    with np.errstate(divide="ignore", invalid="ignore"):
        every = np.log(both[:-1] / both[1:])
    logs = every[: distances.size - 1]
    chances = np.ones(logs.size)
    for k in np.flatnonzero(logs > 0):
        after = every[k + 1 : k + 1 + _FOLLOWING]
        size = float(np.arange(1, after.size + 1) @ after)
        chances[k] = (size / (size + (k + 1) * logs[k])) ** after.size
    chances *= np.arange(1, logs.size + 1) * np.arange(2, logs.size + 2)
    clear = (logs >= np.log(_CLEAR_RATIO)) & (chances <= level)
    widest = int(np.argmax(np.where(clear, logs, -np.inf) if clear.any() else logs))
    count = widest + 1 if clear.any() else 0
    return count, float(np.exp(logs[widest])), min(float(chances[widest]), 1.0)


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
