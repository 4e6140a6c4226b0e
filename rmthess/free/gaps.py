"""Gaps of the support and its edges, from real pairs of one level.

The complement of the support is known from the certificate: it holds the real pairs w₁, w₂ of one
level (F or E) with B₁'B₂' < 1. Each pair of intervals on which both functions are real and analytic
is searched along its levels for log B₁'B₂' < 0; an edge is where B₁'B₂' = 1. For sums each pair
holds at most one gap, by the concavity of (H')^(-1/2): theory/free_convolution.md, "Gaps", where
that is derived. On the number of intervals Moreillon & Schnelli (2022).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmthess.free.continuation import Continuation
from rmthess.free.equations import Equations
from rmthess.free.pieces import Pieces

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_TOUCH = 1e-12  # of log B₁'B₂': rounding; a gap of 1e-6 of the width has -1e-4


class Edge(NamedTuple):
    """A point x of the real line at the end of a gap, with w₁ and w₂ there."""

    x: float
    first: float
    second: float
    hard: bool  # the gap runs up to here although B₁'B₂' stays below 1


class Gap(NamedTuple):
    left: Edge
    right: Edge


def gaps(equations: Equations, continuation: Continuation) -> list[Gap]:
    """The complement of the support, ascending; the outer two reach to infinity."""
    one, two = (
        Pieces(equations.intervals(term), equations.level(term), term, unit, folds)
        for term, unit, folds in zip(
            (equations.first, equations.second),
            equations.units,
            (False, equations.signed),
            strict=True,
        )
    )
    pieces = _search(equations, one, two)
    found: list[Gap] = []
    for gap in _joined(pieces, equations.width):
        if found and found[-1].right.hard and gap.left.hard:
            left, right = found[-1].right.x, gap.left.x
            between = np.array([0.63 * left + 0.37 * right], complex)
            w2 = continuation.descend(between)[1]
            if right - left < 1e-3 * equations.width and abs(w2.imag[0]) <= 1e-9 * abs(w2[0]):
                found[-1] = Gap(found[-1].left, gap.right)  # levels too small to be told apart
                continue
        found.append(gap)
    return found


def _joined(pieces: list[Gap], size: float) -> list[Gap]:
    """Gaps that meet at a point which neither ends by B₁'B₂' = 1 are one."""
    found: list[Gap] = []
    tolerance = 1e-6 * size
    for gap in sorted(pieces, key=lambda gap: gap.left.x):
        if found:
            left, right = found[-1].right, gap.left
            if left.hard and right.hard and abs(left.x - right.x) <= tolerance:
                found[-1] = Gap(found[-1].left, gap.right)
                continue
            if gap.right.x - left.x <= 1e-13 * size and left.x - right.x <= tolerance:
                continue  # a point where intervals touch, met again as the end of a gap
            if right.x < left.x - tolerance:
                raise RuntimeError(
                    f"free convolution: gaps overlap at {right.x:g} and {left.x:g}; "
                    "please report these two measures"
                )
        found.append(gap)
    return found


def _search(equations: Equations, one: Pieces, two: Pieces) -> list[Gap]:
    """Maximal runs of levels with B₁'B₂' < 1 on every pair of pieces."""
    found: list[Gap] = []
    brackets: list[Array] = []
    spans: list[list[Any]] = []
    pairs: list[tuple[int, int, Array]] = []
    for i, (phi1, _, strain1) in enumerate(one.tables):
        for j, (phi2, _, strain2) in enumerate(two.tables):
            low, high = max(phi1[0], phi2[0]), min(phi1[-1], phi2[-1])
            if low < high and strain1.min() + strain2.min() < 1:
                phi = np.union1d(phi1, phi2)
                seen = (phi >= low) & (phi <= high) & (np.abs(phi - 0.5) >= equations.blind)
                pairs.append((i, j, phi[seen]))
    if not pairs:
        return found
    sizes = [phi.size for _, _, phi in pairs]
    every = _levels(
        one,
        two,
        np.repeat([i for i, _, _ in pairs], sizes),
        np.repeat([j for _, j, _ in pairs], sizes),
        np.concatenate([phi for _, _, phi in pairs]),
    )
    parts = np.split(every, np.cumsum(sizes)[:-1], axis=1)
    for (i, j, _), part in zip(pairs, parts, strict=True):
        levels = _zoom(one, two, i, j, part)
        phi, strain = levels[:2]
        inner = strain[1:-1]
        touch = (inner <= strain[:-2]) & (inner <= strain[2:]) & (np.abs(inner) <= _TOUCH)
        for k in np.flatnonzero(touch) + 1:
            spans.append([(i, j, phi[k]), (i, j, phi[k])])
        for run in _runs(strain < -_TOUCH):
            ends: list[Any] = []
            for inside, outside in ((run.start, run.start - 1), (run.stop - 1, run.stop)):
                if 0 <= outside < phi.size:
                    ends.append(len(brackets))
                    brackets.append(levels[:, [inside, outside]])
                else:
                    ends.append((i, j, phi[inside]))
            spans.append(ends)
    edges = _refine(equations, one, two, brackets)
    for ends in spans:
        pair = [
            edges[end] if isinstance(end, int) else _limit(equations, one, two, *end)
            for end in ends
        ]
        if ends[0] == ends[1]:  # two intervals that touch
            pair = [edge._replace(hard=False) for edge in pair]
        if pair[0].x > pair[1].x:
            pair = pair[::-1]
        found.append(Gap(*_snapped(equations, *pair)))
    return sorted(found, key=lambda gap: (gap.left.x, gap.right.x))


def _levels(one: Pieces, two: Pieces, i: Any, j: Any, phi: Array) -> Array:
    """Rows φ, log B₁'B₂', w₁, w₂ at levels of pairs of pieces."""
    i, j = (np.broadcast_to(np.asarray(k), phi.shape) for k in (i, j))
    w1, w2 = one.invert(i, phi), two.invert(j, phi)
    strain = one.values(w1)[2] + two.values(w2)[2]
    return np.array([phi, np.where(np.isnan(strain), 60.0, strain), w1, w2])


def _zoom(one: Pieces, two: Pieces, i: int, j: int, levels: Array) -> Array:
    """Levels added around each local minimum that is not far above 0: narrow gaps."""
    for _ in range(4):
        phi, strain = levels[:2]
        inner = strain[1:-1]
        rise = np.minimum(strain[:-2], strain[2:]) - inner
        depth = np.maximum(strain[:-2], strain[2:]) - inner  # a parabola falls by less
        low = (rise >= 0) & (inner > _TOUCH) & (inner < np.minimum(4 * depth, 1.0))
        extra = [np.linspace(phi[k], phi[k + 2], 33)[1:-1] for k in np.flatnonzero(low)]
        if not extra:
            break
        new = np.setdiff1d(np.concatenate(extra), phi)
        if not new.size:
            break
        levels = np.concatenate([levels, _levels(one, two, i, j, new)], axis=1)
        levels = levels[:, np.argsort(levels[0], kind="stable")]
    return levels


def _refine(equations: Equations, one: Pieces, two: Pieces, brackets: list[Array]) -> list[Edge]:
    """Edges between a level in a gap and one outside: Illinois' rule on the strain along w₁.

    A bracket has the rows φ, log B₁'B₂', w₁, w₂ and the columns inside, outside.
    """
    if not brackets:
        return []
    phi, strain, first, second = np.moveaxis(np.array(brackets), 0, -1)
    rising = phi[0] < phi[1]
    at_inner, at_outer = np.minimum(strain[0], -1e-300), np.maximum(strain[1], 1e-300)
    inner, outer = first
    low, high = second  # w₂ lies between, as the level does
    side = np.zeros(inner.size)
    w1, w2 = inner, low
    level, slope, _ = two.values(low)
    for step in range(60):
        with np.errstate(invalid="ignore"):
            w1 = outer - at_outer * (outer - inner) / (at_outer - at_inner)
        between = (w1 - inner) * (w1 - outer) < 0
        w1 = np.where(between & ((step < 6) | (step % 3 < 2)), w1, (inner + outer) / 2)
        before, (level, _, strain1) = level, one.values(w1)
        below, above = np.where(rising, low, high), np.where(rising, high, low)
        start = w2 + (level - before) / slope  # from the last point
        start = np.where((start - low) * (start - high) < 0, start, (low + high) / 2)
        w2, slope, strain2 = two.solve(level, below, above, start)
        value = strain1 + strain2
        gap = value <= 0
        at_outer = np.where(gap & (side < 0), at_outer / 2, np.where(gap, at_outer, value))
        at_inner = np.where(gap, value, np.where(side > 0, at_inner / 2, at_inner))
        side = np.where(gap, -1.0, 1.0)
        inner, outer = np.where(gap, w1, inner), np.where(gap, outer, w1)
        low, high = np.where(gap, w2, low), np.where(gap, high, w2)
        if np.all((np.abs(value) < 1e-10) | (np.abs(outer - inner) < 1e-15 * np.abs(w1))):
            break
    x = equations.location(w1, w2)
    return [Edge(float(p), float(q), float(r), False) for p, q, r in zip(x, w1, w2)]


def _limit(equations: Equations, one: Pieces, two: Pieces, i: int, j: int, phi: float) -> Edge:
    """Where a gap runs to the end of a pair of pieces."""
    w1, w2 = one.limit(i, phi), two.limit(j, phi)
    return Edge(float(equations.location(w1, w2)[0]), float(w1[0]), float(w2[0]), True)


def _snapped(equations: Equations, left: Edge, right: Edge) -> tuple[Edge, Edge]:
    """x to rounding where the gap runs to the end of a piece; no end passes the other."""
    first = equations.snapped(left.x) if left.hard else left.x
    second = equations.snapped(right.x) if right.hard else right.x
    return (
        left._replace(x=first if first <= right.x else left.x),
        right._replace(x=second if second >= left.x else right.x),
    )


def _runs(mask: Mask) -> list[slice]:
    """Maximal slices on which the mask is true."""
    steps = np.diff(np.concatenate([[False], mask, [False]]).astype(int))
    starts, stops = np.flatnonzero(steps > 0), np.flatnonzero(steps < 0)
    return [slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]
