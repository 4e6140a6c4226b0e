"""Subordination: the free convolution of any two measures, at eta = 0 (theory/free_convolution.md).

With F = 1/G, G = -m, and H(w) = F(w) - w, the transform of a free convolution is that of its terms
at shifted points: there are w₁(z), w₂(z) in the upper half-plane with

    sum:      F(z) = F₁(w₁) = F₂(w₂) = w₁ + w₂ - z,      w₂ = z + H₁(w₁),   w₁ = z + H₂(w₂)
    product:  E(z) = E₁(w₁) = E₂(w₂) = w₁ w₂/z,          w₂ = z N₁(w₁),     w₁ = z N₂(w₂)

with N = -1/H and E = w N = G w/(G w - 1). Both are one system: B₁(w₁) = w₂, B₂(w₂) = w₁, where B is
z + H or z N. H and N map the upper half-plane to itself, w₁ is a fixed point of B₂∘B₁, and a
self-map of the half-plane has at most one fixed point that is inside it, or on the real line with
a derivative B₂'B₁' <= 1 (Denjoy–Wolff). That is the certificate: *whatever way a solution has been
found, a small residual together with Im w > 0, or with w real and B₁'B₂' <= 1, proves that it is
the right one.*

So the complement of the support is known: real pairs of one level (F or E) with B₁'B₂' < 1. Each
pair of intervals on which both functions are real and analytic is searched along its levels; an
edge is where B₁'B₂' = 1. For sums each pair holds at most one gap (see the theory page).
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import eigh_tridiagonal

from rmthess import jacobi
from rmthess.measure import DiscreteMeasure, SpectralMeasure

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Mask = NDArray[np.bool_]

_EPS = float(np.finfo(float).eps)
_CHUNK = 1 << 20  # numbers in one temporary
_LOGITS = np.linspace(-32, 32, 105)  # of the position in a gap
_ANGLES = np.linspace(-14, 14, 113)  # logits of θ/π, x = left + width sin²(θ/2)
_FEW = 3  # |logit| up to which an interval is reached from high above it
_QUIET = np.errstate(divide="ignore", invalid="ignore", over="ignore")  # poles and their limits
_TOUCH = 1e-12  # of log B₁'B₂': rounding; a gap of 1e-6 of the width has -1e-4


# ---------------------------------------------------------------------------- one measure


class Excess(ABC):
    """H(w) = 1/G(w) - w of one measure: -H(w) = mean + ∫ dρ(t)/(w - t), ρ positive."""

    mean: float
    radius: float
    ends: Array  # real points where H is not analytic: edges of the support and poles
    walls: Array  # those of them that are edges of the support
    finest: float  # relative distance from an end down to which H' can be trusted

    @abstractmethod
    def both(self, w: Any) -> tuple[Any, Any]:
        """H and H', real for real w outside the support."""

    def gaps(self) -> list[tuple[float, float]]:
        """Open intervals where H is real and analytic."""
        cuts = [-np.inf, *self.ends, np.inf]
        covered = [tuple(pair) for pair in self.walls.reshape(-1, 2)]
        return [
            (a, b)
            for a, b in pairwise(cuts)
            if a < b and not any(left <= a and b <= right for left, right in covered)
        ]

    def gaps_of_reciprocal(self) -> list[tuple[float, float]]:
        """Open intervals where N = -1/H is real and analytic: zeros of H are cut out, not poles."""
        zeros = self._roots(self.gaps(), lambda w: self.both(w)[0])
        walls, found = [-np.inf, *self.walls, np.inf], []
        for a, b in zip(walls[::2], walls[1::2], strict=True):
            cuts = [a, *zeros[(zeros > a) & (zeros < b)], b]
            found += [pair for pair in pairwise(cuts) if pair[0] < pair[1]]
        if found == [(-np.inf, np.inf)]:
            return [(-np.inf, self.mean), (self.mean, np.inf)]
        return found

    def _roots(self, pieces: list[tuple[float, float]], f: Callable[[Array], Array]) -> Array:
        """One zero of the monotone f in each open piece where its ends differ in sign."""
        if not pieces:
            return np.array([])
        low, high = (np.array(ends, float) for ends in zip(*pieces, strict=True))
        low = np.where(np.isinf(low), np.minimum(high, self.mean) - 1e8 * self.radius, low)
        high = np.where(np.isinf(high), np.maximum(low, self.mean) + 1e8 * self.radius, high)
        nudge = 1e-12 * (high - low)
        low, high = low + nudge, high - nudge
        with np.errstate(divide="ignore", invalid="ignore"):
            first = np.sign(f(low))
            crossing = first * np.sign(f(high)) < 0
            low, high, first = low[crossing], high[crossing], first[crossing]
            for _ in range(80 if low.size else 0):
                middle = (low + high) / 2
                same = np.sign(f(middle)) == first
                low, high = np.where(same, middle, low), np.where(same, high, middle)
        return np.asarray((low + high) / 2)


class AtomicExcess(Excess):
    """Of finitely many atoms: rational, with the eigenvalues of the stripped Jacobi matrix."""

    def __init__(self, measure: DiscreteMeasure):
        a, b = jacobi.leading_block(*measure.jacobi(int(np.unique(measure.nodes).size)))
        if a.size < 2:
            raise ValueError(
                "the measure is one atom; a convolution with it is a shift or a dilation"
            )
        self.mean = float(a[0])
        if a.size == 2:
            poles, weights = a[1:], np.ones(1)
        else:
            poles, vectors = eigh_tridiagonal(a[1:], b[1:])
            weights = vectors[0] ** 2
        self.ends, self.residues = poles, b[0] ** 2 * weights
        self.walls, self.finest = np.array([]), 0.0
        self.radius = float(np.abs(measure.nodes - self.mean).max())

    def both(self, w: Any) -> tuple[Any, Any]:
        flat = np.ravel(w)
        value, slope = np.empty_like(flat), np.empty_like(flat)
        block = max(1, _CHUNK // self.ends.size)
        with np.errstate(divide="ignore", invalid="ignore"):
            for start in range(0, flat.size, block):
                part = slice(start, start + block)
                inverse = 1 / (flat[part, None] - self.ends)
                value[part] = -self.mean - inverse @ self.residues
                slope[part] = np.square(inverse) @ self.residues
        return value.reshape(np.shape(w)), slope.reshape(np.shape(w))


class SmoothExcess(Excess):
    """Of a law: from m(z) near its support, from its Jacobi coefficients far from it.

    The slope is a difference quotient. It steers Newton's method and places the edge's level, in
    which the edge is stationary: neither carries its error to the result.
    """

    def __init__(self, measure: SpectralMeasure):
        self._stieltjes = measure.stieltjes
        self._a, self._b = jacobi.leading_block(*measure.jacobi(8))
        self.mean = float(self._a[0])
        edges = sorted(tuple(float(x) for x in pair) for pair in getattr(measure, "support", ()))
        merged: list[float] = []
        for left, right in edges:
            if merged and left <= merged[-1]:
                merged[-1] = right
            else:
                merged += [left, right]
        self.walls, self.finest = np.array(merged), 1e-9
        every = np.asarray(measure.breakpoints, float)
        self.radius = float(np.abs(every - self.mean).max())
        pieces = []
        for a, b in pairwise(every):
            if not any(left <= a and b <= right for left, right in edges):
                pieces.append((float(a), float(b)))
        poles = self._roots(pieces, lambda w: np.real(self._stieltjes(w)))
        self.ends = np.sort(np.concatenate([self.walls, poles]))

    def both(self, w: Any) -> tuple[Any, Any]:
        w = np.asarray(w)
        value, slope = np.empty_like(w), np.empty_like(w)
        far = np.abs(w - self.mean) > 10 * self.radius
        if far.any():
            value[far], slope[far] = self._far(w[far])
        near = ~far
        if near.any():
            value[near], slope[near] = self._near(w[near])
        return value, slope

    def _near(self, w: Any) -> tuple[Any, Any]:
        distance = np.abs(w[:, None] - self.ends).min(axis=1)
        if np.iscomplexobj(w):
            h = 1e-3 * distance
            value = self._value(np.stack([w, w - h, w + h]))
            return value[0], (value[2] - value[1]) / (2 * h)
        h = 2e-3 * distance
        value = self._value(w + h * np.array([[0], [-2], [-1], [1], [2]]))
        with np.errstate(invalid="ignore"):
            return value[0], (value[1] - 8 * value[2] + 8 * value[3] - value[4]) / (12 * h)

    def _value(self, w: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            m = np.asarray(self._stieltjes(w))
            m = m if np.iscomplexobj(w) else m.real
            return np.where(np.isinf(np.abs(m)), -w, -1 / m - w)  # F = 0 at an atom

    def _far(self, w: Any) -> tuple[Any, Any]:
        """-H = a₀ + b₀²/(w - a₁ - b₁²/(w - ...)) and its derivative: -1/m - w would cancel."""
        tail, slope = np.zeros_like(w), np.zeros_like(w)
        for a, b in zip(self._a[:0:-1], self._b[::-1], strict=True):
            inverse = 1 / (w - a - tail)
            tail, slope = b**2 * inverse, -(b**2) * (1 - slope) * inverse**2
        return -self.mean - tail, -slope


def excess(measure: SpectralMeasure) -> Excess:
    """H of any measure."""
    return AtomicExcess(measure) if isinstance(measure, DiscreteMeasure) else SmoothExcess(measure)


# ---------------------------------------------------------------------------- the real line


class Pieces:
    """Real intervals of one measure on which its level (F or E) is monotone, tabulated.

    ``level`` runs over all reals on most of them, so it is kept as φ = 1/2 + arctan(level/scale)/π.
    """

    def __init__(
        self,
        gaps: list[tuple[float, float]],
        values: Callable[[Array], Any],
        term: Excess,
        unit: float,
        folds: bool,
    ):
        self._values, self.unit = values, unit
        tables = []
        for a, b in gaps:
            w = _positions(a, b, term.radius)
            for end in (a, b):  # H' is sampled next to a wall, H cancels next to its zeros
                near = term.finest * abs(end) if end in term.walls else 1e-8 * term.radius
                w = w[np.abs(w - end) > near]
            level, slope, _ = values(w)
            sound = (np.abs(level) < 1e13 * unit) & np.isfinite(slope)  # φ is 0 or 1 beyond
            w, slope = w[sound], slope[sound]
            turned = self._turned(w, slope) if folds else np.array([])
            for low, high in pairwise([-np.inf, *turned, np.inf]):
                part = np.concatenate([[low], w[(w > low) & (w < high)], [high]])
                part = part[np.isfinite(part)]
                level, _, strain = values(part)
                if part.size < 2:
                    continue
                if level[-1] < level[0]:
                    part, level, strain = part[::-1], level[::-1], strain[::-1]
                phi = self.squeeze(level)
                rising = np.concatenate([[True], np.diff(np.maximum.accumulate(phi)) > 0])
                tables.append((phi[rising], part[rising], strain[rising]))
        self.tables = [table for table in tables if table[0].size > 1]
        self.keys = np.concatenate([2.0 * k + t[0] for k, t in enumerate(self.tables)])
        self.points = np.concatenate([t[1] for t in self.tables])
        self.starts = np.cumsum([0] + [t[0].size for t in self.tables])

    def _turned(self, w: Array, slope: Array) -> Array:
        """Where the level has an extremum, by bisection on the sign of its slope."""
        sign = np.sign(slope)
        k = np.flatnonzero(sign[:-1] * sign[1:] < 0)
        low, high, first = w[k], w[k + 1], sign[k]
        for _ in range(60 if k.size else 0):
            middle = (low + high) / 2
            same = np.sign(self._values(middle)[1]) == first
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        return np.asarray((low + high) / 2)

    def limit(self, piece: int, phi: float) -> Array:
        """w on that piece, at an end of its table the end itself."""
        at, w, _ = self.tables[piece]
        for end in (0, -1):
            if phi == at[end]:
                return np.asarray(w[[end]])
        return self.invert(np.array([piece]), np.array([phi]))

    def squeeze(self, level: Any) -> Any:
        return 0.5 + np.arctan(level / self.unit) / np.pi

    def unsqueeze(self, phi: Any) -> Any:
        return self.unit * np.tan(np.pi * (phi - 0.5))

    def invert(self, piece: NDArray[np.intp], phi: Array) -> Array:
        """w on that piece with that level: Newton's method in the bracket that the table gives."""
        level = self.unsqueeze(phi)
        k = np.searchsorted(self.keys, 2.0 * piece + phi, side="right")
        k = np.clip(k, self.starts[piece] + 1, self.starts[piece + 1] - 1)
        below, above = self.points[k - 1].copy(), self.points[k].copy()
        share = (2.0 * piece + phi - self.keys[k - 1]) / (self.keys[k] - self.keys[k - 1])
        w = below + np.clip(share, 0.0, 1.0) * (above - below)
        active = np.arange(w.size)
        for _ in range(60):
            at = w[active]
            value, slope, _ = self._values(at)
            error = value - level[active]
            low = error < 0
            below[active] = np.where(low, at, below[active])
            above[active] = np.where(low, above[active], at)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = at - error / slope
            left = np.minimum(below[active], above[active])
            right = np.maximum(below[active], above[active])
            inside = (step > left) & (step < right)
            new = np.where(inside, step, (left + right) / 2)
            moved = np.abs(new - at) > 4 * _EPS * np.abs(at)
            moved &= np.abs(error) > 8 * _EPS * np.abs(level[active])
            w[active] = np.where(moved, new, at)
            active = active[moved]
            if not active.size:
                break
        return np.asarray(w)


def _positions(a: float, b: float, size: float) -> Array:
    """Points in (a, b), ever denser towards finite ends, ever sparser towards infinite ones."""
    if np.isfinite(a) and np.isfinite(b):
        share = 1 / (1 + np.exp(np.abs(_LOGITS)))  # of the way from the nearer end
        w = np.where(_LOGITS < 0, a + (b - a) * share, b - (b - a) * share)
    elif np.isfinite(a):
        w = a + size * np.exp(_LOGITS)
    else:
        w = b - size * np.exp(-_LOGITS)
    w = np.unique(w)
    return np.asarray(w[(w > a) & (w < b)])


def _runs(mask: Mask) -> list[slice]:
    """Maximal slices on which the mask is true."""
    steps = np.diff(np.concatenate([[False], mask, [False]]).astype(int))
    starts, stops = np.flatnonzero(steps > 0), np.flatnonzero(steps < 0)
    return [slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]


class Edge(NamedTuple):
    """A point x of the real line at the end of a gap, with w₁ and w₂ there."""

    x: float
    first: float
    second: float
    hard: bool  # the gap runs up to here although B₁'B₂' stays below 1


class Gap(NamedTuple):
    left: Edge
    right: Edge


# ---------------------------------------------------------------------------- two measures


@dataclass(frozen=True, eq=False)
class Subordination(ABC):
    """w₁(z), w₂(z) for two measures; subclasses say what B is."""

    first: Excess
    second: Excess
    signed: bool = field(default=False, kw_only=True)  # the second measure, in a product

    @abstractmethod
    def _map(self, term: Excess, w: Any, z: Any) -> tuple[Any, Any]:
        """B and B'."""

    @abstractmethod
    def _level(self, term: Excess) -> Callable[[Array], Any]:
        """w -> level, its slope and log of the term's share of B₁'B₂', all real."""

    @abstractmethod
    def _gaps(self, term: Excess) -> list[tuple[float, float]]:
        """Where B is real and analytic."""

    @abstractmethod
    def _location(self, w1: Array, w2: Array) -> Array:
        """z from two points of one level."""

    @abstractmethod
    def transform(self, w1: Any, w2: Any, z: Any) -> Any:
        """m(z)."""

    @property
    @abstractmethod
    def width(self) -> float:
        """A length of the order of the support."""

    # ------------------------------------------------------------------ gaps and edges

    @cached_property
    def gaps(self) -> list[Gap]:
        """The complement of the support, ascending; the outer two reach to infinity."""
        one, two = (
            Pieces(self._gaps(term), self._level(term), term, unit, folds)
            for term, unit, folds in zip(
                (self.first, self.second), self._units, (False, self.signed), strict=True
            )
        )
        pieces = self._search(one, two)
        found: list[Gap] = []
        for gap in _joined(pieces, self.width):
            if found and found[-1].right.hard and gap.left.hard:
                left, right = found[-1].right.x, gap.left.x
                between = np.array([0.63 * left + 0.37 * right], complex)
                w2 = self._descend(between)[1]
                if right - left < 1e-3 * self.width and abs(w2.imag[0]) <= 1e-9 * abs(w2[0]):
                    found[-1] = Gap(found[-1].left, gap.right)  # levels too small to be told apart
                    continue
            found.append(gap)
        return found

    _blind: ClassVar[float] = 0.0  # around φ = 1/2

    @property
    def _units(self) -> tuple[float, float]:
        size = self.width
        return size, size

    def _search(self, one: Pieces, two: Pieces) -> list[Gap]:
        """Maximal runs of levels with B₁'B₂' < 1 on every pair of pieces."""
        found: list[Gap] = []
        brackets: list[tuple[int, int, float, float]] = []  # a level inside the gap comes first
        spans: list[list[Any]] = []
        pairs: list[tuple[int, int, Array]] = []
        for i, (phi1, _, strain1) in enumerate(one.tables):
            for j, (phi2, _, strain2) in enumerate(two.tables):
                low, high = max(phi1[0], phi2[0]), min(phi1[-1], phi2[-1])
                if low < high and strain1.min() + strain2.min() < 1:
                    phi = np.union1d(phi1, phi2)
                    seen = (phi >= low) & (phi <= high) & (np.abs(phi - 0.5) >= self._blind)
                    pairs.append((i, j, phi[seen]))
        if not pairs:
            return found
        sizes = [phi.size for _, _, phi in pairs]
        every = self._strain(
            one,
            two,
            np.repeat([i for i, _, _ in pairs], sizes),
            np.repeat([j for _, j, _ in pairs], sizes),
            np.concatenate([phi for _, _, phi in pairs]),
        )[0]
        parts = np.split(every, np.cumsum(sizes)[:-1])
        for (i, j, phi), strain in zip(pairs, parts, strict=True):
            phi, strain = self._zoom(one, two, i, j, phi, strain)
            inner = strain[1:-1]
            touch = (inner <= strain[:-2]) & (inner <= strain[2:]) & (np.abs(inner) <= _TOUCH)
            for k in np.flatnonzero(touch) + 1:
                spans.append([(i, j, phi[k]), (i, j, phi[k])])
            for run in _runs(strain < -_TOUCH):
                ends: list[Any] = []
                for inner, outer in ((run.start, run.start - 1), (run.stop - 1, run.stop)):
                    if 0 <= outer < phi.size:
                        ends.append(len(brackets))
                        brackets.append((i, j, phi[inner], phi[outer]))
                    else:
                        ends.append((i, j, phi[inner]))
                spans.append(ends)
        edges = self._refine(one, two, brackets)
        for ends in spans:
            pair = [
                edges[end] if isinstance(end, int) else self._limit(one, two, *end) for end in ends
            ]
            if ends[0] == ends[1]:  # two intervals that touch
                pair = [edge._replace(hard=False) for edge in pair]
            if pair[0].x > pair[1].x:
                pair = pair[::-1]
            found.append(Gap(*pair))
        return sorted(found, key=lambda gap: (gap.left.x, gap.right.x))

    def _strain(
        self, one: Pieces, two: Pieces, i: Any, j: Any, phi: Array
    ) -> tuple[Array, Array, Array]:
        """log B₁'B₂' and w₁, w₂ at levels of pairs of pieces."""
        i, j = (np.broadcast_to(np.asarray(k), phi.shape) for k in (i, j))
        w1, w2 = one.invert(i, phi), two.invert(j, phi)
        return one._values(w1)[2] + two._values(w2)[2], w1, w2

    def _zoom(
        self, one: Pieces, two: Pieces, i: int, j: int, phi: Array, strain: Array
    ) -> tuple[Array, Array]:
        """Levels added around each local minimum that is not far above 0: narrow gaps."""
        for _ in range(4):
            strain = np.where(np.isnan(strain), 60.0, strain)
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
            value = self._strain(one, two, i, j, new)[0]
            order = np.argsort(np.concatenate([phi, new]), kind="stable")
            phi = np.concatenate([phi, new])[order]
            strain = np.concatenate([strain, value])[order]
        return phi, strain

    def _refine(
        self, one: Pieces, two: Pieces, brackets: list[tuple[int, int, float, float]]
    ) -> list[Edge]:
        """The edges in brackets of levels: Illinois' rule, every third step a bisection."""
        if not brackets:
            return []
        i, j = (np.array([b[k] for b in brackets]) for k in (0, 1))
        inner, outer = (np.array([b[k] for b in brackets]) for k in (2, 3))
        at_inner = np.minimum(self._strain(one, two, i, j, inner)[0], -1e-300)
        at_outer = np.maximum(self._strain(one, two, i, j, outer)[0], 1e-300)
        side = np.zeros(inner.size)
        middle = inner
        for step in range(60):
            with np.errstate(invalid="ignore"):
                middle = outer - at_outer * (outer - inner) / (at_outer - at_inner)
            between = (middle - inner) * (middle - outer) < 0
            middle = np.where(between & (step % 3 < 2), middle, (inner + outer) / 2)
            value = self._strain(one, two, i, j, middle)[0]
            gap = value <= 0
            at_outer = np.where(gap & (side < 0), at_outer / 2, np.where(gap, at_outer, value))
            at_inner = np.where(gap, value, np.where(side > 0, at_inner / 2, at_inner))
            side = np.where(gap, -1.0, 1.0)
            inner, outer = np.where(gap, middle, inner), np.where(gap, outer, middle)
            if np.all((np.abs(value) < 1e-10) | (np.abs(outer - inner) < 1e-13)):
                break
        _, w1, w2 = self._strain(one, two, i, j, middle)
        x = self._location(w1, w2)
        return [Edge(float(p), float(q), float(r), False) for p, q, r in zip(x, w1, w2)]

    def _limit(self, one: Pieces, two: Pieces, i: int, j: int, phi: float) -> Edge:
        """Where a gap runs to the end of a pair of pieces."""
        w1, w2 = one.limit(i, phi), two.limit(j, phi)
        x = float(self._location(w1, w2)[0])
        if abs(x) > 1e6 * self.width:
            x = float(np.copysign(np.inf, x))
        return Edge(x, float(w1[0]), float(w2[0]), True)

    @cached_property
    @_QUIET
    def support(self) -> tuple[tuple[Edge, Edge], ...]:
        """The intervals of the support between the gaps; they may touch."""
        if self._pair is not None:
            return self._moebius_support
        gaps = self.gaps
        return tuple((a.right, b.left) for a, b in pairwise(gaps))

    @cached_property
    def edges(self) -> Array:
        return np.array([edge.x for pair in self.support for edge in pair])

    # ------------------------------------------------------------------ two atoms and two atoms

    @cached_property
    def _pair(self) -> tuple[Array, Array] | None:
        """(mean, residue, pole) of each measure if each has two atoms: then B₁ and B₂ are Möbius.

        Such maps are automorphisms of the half-plane at real z, the one case that Denjoy and Wolff
        exclude: B₂∘B₁ can be the identity, and Newton's method is at a loss.
        """
        one, two = self.first, self.second
        if not (isinstance(one, AtomicExcess) and isinstance(two, AtomicExcess)):
            return None
        if one.ends.size > 1 or two.ends.size > 1:
            return None
        return (
            np.array([one.mean, one.residues[0], one.ends[0]]),
            np.array([two.mean, two.residues[0], two.ends[0]]),
        )

    @abstractmethod
    def _matrix(self, triple: Array, z: Complex) -> Any:
        """B as a matrix (2, 2, ...), of a measure with two atoms."""

    @abstractmethod
    def _image(self, one: Array, two: Array) -> tuple[float, float] | None:
        """(c, s) if the second measure is that of c X + s, X of the first, as the map can tell."""

    @abstractmethod
    def _turns(self, one: Array, two: Array) -> Array:
        """Real z where B₂∘B₁ is parabolic: (trace)² = 4 det, two quadratic equations."""

    def _moebius(self, z: Complex) -> tuple[Complex, Complex]:
        """w₁ and w₂: the fixed point in the half-plane, on the real line the attracting one."""
        assert self._pair is not None
        one, two = self._pair
        z = np.where(z.imag < 0, np.conjugate(z), z)
        image = self._image(one, two)
        if image is not None:
            scale, offset = image
            w1 = _fixed_point(self._matrix(one, (z - offset) / scale))
            return w1, scale * w1 + offset
        first, second = self._matrix(one, z), self._matrix(two, z)
        w2 = _fixed_point(np.einsum("ijn,jkn->ikn", first, second))
        with np.errstate(divide="ignore", invalid="ignore"):
            w1 = (second[0, 0] * w2 + second[0, 1]) / (second[1, 0] * w2 + second[1, 1])
        return w1, w2

    @cached_property
    def _moebius_support(self) -> tuple[tuple[Edge, Edge], ...]:
        assert self._pair is not None
        turns = np.sort(self._turns(*self._pair))
        lone = np.diff(turns) <= 1e-14 * self.width
        keep = np.ones(turns.size, bool)
        keep[:-1] &= ~lone
        keep[1:] &= ~lone
        turns = turns[keep]
        middle = ((turns[:-1] + turns[1:]) / 2).astype(complex)
        filled = self._moebius(middle)[1].imag > 0
        w1, w2 = self._moebius(turns.astype(complex))
        edges = [
            Edge(float(x), float(p.real), float(q.real), False)
            for x, p, q in zip(turns, w1, w2, strict=True)
        ]
        return tuple((edges[k], edges[k + 1]) for k in np.flatnonzero(filled))

    # ------------------------------------------------------------------ solving

    @_QUIET
    def solve(self, z: Any) -> tuple[Complex, Complex]:
        """w₁ and w₂ at Im z >= 0, at real z the limits from above; NaN and a warning on failure."""
        points = np.asarray(z, complex)
        flat = points.ravel()
        w1, w2 = (np.full(flat.shape, np.nan + 1j * np.nan) for _ in range(2))
        finite = np.flatnonzero(np.isfinite(flat))
        if self._pair is not None:
            w1[finite], w2[finite] = self._moebius(flat[finite])
            below = flat.imag < 0
            w1[below], w2[below] = np.conjugate(w1[below]), np.conjugate(w2[below])
            return w1.reshape(points.shape), w2.reshape(points.shape)
        real = flat.imag == 0
        where = np.searchsorted(self.edges, flat.real, side="right")
        left_to_do = np.ones(flat.shape, bool)
        for k, (left, right) in enumerate(self.support):
            ours = finite[(real & (where == 2 * k + 1))[finite]]
            for edge in (left, right):
                near = np.abs(flat - edge.x) <= (0.0 if edge.hard else 2 * _EPS * self.width)
                on = finite[near[finite]]
                w1[on], w2[on], left_to_do[on] = edge.first, edge.second, False
            ours = ours[left_to_do[ours]]
            if ours.size:
                guess = self._guess(k, flat[ours].real)
                a, b, good = self._newton(flat[ours], *guess, 12)
                good &= self._certified(a, b, flat[ours])
                w1[ours[good]], w2[ours[good]] = a[good], b[good]
                left_to_do[ours[good]] = False
        rest = finite[left_to_do[finite]]
        if rest.size:
            w1[rest], w2[rest] = self._descend(flat[rest])
            bad = np.count_nonzero(np.isnan(w1[rest]))
            if bad:
                warnings.warn(
                    f"free convolution: no certified solution at {bad} of {flat.size} points; "
                    "they are NaN",
                    stacklevel=3,
                )
        return w1.reshape(points.shape), w2.reshape(points.shape)

    def _newton(
        self, z: Complex, w1: Complex, w2: Complex, rounds: int
    ) -> tuple[Complex, Complex, Mask]:
        """Newton's method on B₁(w₁) = w₂, B₂(w₂) = w₁, each point until its step is of rounding."""
        w1, w2 = np.array(w1, complex), np.array(w2, complex)
        done = np.zeros(z.shape, bool)
        active = np.arange(z.size)
        scale = self.width
        for _ in range(rounds):
            a, b, at = w1[active], w2[active], z[active]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                image1, slope1 = self._map(self.first, a, at)
                image2, slope2 = self._map(self.second, b, at)
                off1, off2 = b - image1, a - image2
                step1 = -(off2 + slope2 * off1) / (1 - slope1 * slope2)
                step2 = slope1 * step1 - off1
            w1[active], w2[active] = a + step1, b + step2
            finite = np.isfinite(step1) & np.isfinite(step2)
            arrived = finite.copy()
            noise = 8 * _EPS * (scale + self._noise(a, b, at))
            gap = np.abs(1 - slope1 * slope2)  # to the other root, relatively
            for w, step, off, push in (
                (a, step1, off1, np.abs(slope1 * a)),
                (b, step2, off2, np.abs(slope2 * b)),
            ):
                height, size = np.abs(w.imag), np.abs(step)
                # the quotient for the slope is good to 1e-6: a step of 1e-9 leaves rounding errors
                small = size <= 1e-9 * np.minimum(height, scale) + 4 * _EPS * np.abs(w)
                exact = np.abs(off) <= noise + 8 * _EPS * push
                room = np.maximum(height, gap * (np.abs(w) + scale))
                arrived &= small | (exact & (size <= 0.1 * room))
            done[active[arrived]] = True
            active = active[~arrived & finite]
            if not active.size:
                break
        return w1, w2, done

    def _guess(self, k: int, x: Array) -> tuple[Complex, Complex]:
        """w₁ and w₂ inside interval k by splines in the logit of the angle."""
        left, right = self.support[k]
        share = np.clip((x - left.x) / (right.x - left.x), 0.0, 1.0)
        other = np.clip((right.x - x) / (right.x - left.x), 0.0, 1.0)
        theta, rest = 2 * np.arcsin(np.sqrt(share)), 2 * np.arcsin(np.sqrt(other))
        with np.errstate(divide="ignore"):
            logit = np.log(theta) - np.log(rest)
        inner = np.clip(logit, _ANGLES[0], _ANGLES[-1])
        found = []
        for spline, ends in zip(self._splines[k], zip(left[1:3], right[1:3]), strict=True):
            w = spline(inner)
            for edge, beyond in zip(ends, (logit - inner < 0, logit - inner > 0), strict=True):
                shrink = np.exp(-np.abs(logit[beyond] - inner[beyond]))
                w[beyond] = edge + (w[beyond] - edge) * shrink
            found.append(w)
        return found[0], found[1]

    @cached_property
    def _splines(self) -> list[tuple[CubicSpline, CubicSpline]]:
        """w₁ and w₂ on each interval, solved from above in the middle and outwards from there."""
        theta = np.pi / (1 + np.exp(-_ANGLES))
        rest = np.pi / (1 + np.exp(_ANGLES))
        middle = np.abs(_ANGLES) <= _FEW
        found = []
        for left, right in self.support:
            length = right.x - left.x
            x = np.where(
                _ANGLES < 0,
                left.x + length * np.sin(theta / 2) ** 2,
                right.x - length * np.sin(rest / 2) ** 2,
            )
            z = x.astype(complex)
            w = np.full((2, z.size), np.nan + 1j * np.nan)
            w[:, middle] = self._descend(z[middle])
            first, last = np.flatnonzero(middle)[[0, -1]]
            for edge, start, ours, angle in (
                (left, first, np.flatnonzero(_ANGLES < -_FEW), theta),
                (right, last, np.flatnonzero(_ANGLES > _FEW), rest),
            ):
                at = np.array([[edge.first], [edge.second]])
                guess = at + (w[:, [start]] - at) * angle[ours] / angle[start]
                a, b, good = self._newton(z[ours], guess[0], guess[1], 20)
                good &= self._certified(a, b, z[ours])
                w[:, ours] = np.where(good, [a, b], guess)
                missing = ours[~good]
                if missing.size:
                    again = np.array(self._descend(z[missing]))
                    w[:, missing] = np.where(np.isnan(again), w[:, missing], again)
            usable = np.isfinite(w).all(axis=0)
            if np.count_nonzero(usable) < 4:
                usable, w = np.ones(z.size, bool), np.full(w.shape, 1j * self.width)
            s = _ANGLES[usable]
            found.append((CubicSpline(s, w[0, usable]), CubicSpline(s, w[1, usable])))
        return found

    def _descend(self, z: Complex) -> tuple[Complex, Complex]:
        """Newton along z + iη from large η down to 0, the step halved where needed.

        On the path Im w > 0 and |B₁'B₂'| < 1 (Schwarz–Pick): no branch point is met before η = 0.
        """
        conjugate = z.imag < 0
        z = np.where(conjugate, np.conjugate(z), z)
        lift = 2 * self.width + np.abs(z)
        shrink = np.full(z.shape, 0.25)
        top = z + 1j * lift
        w1, w2 = self._start(top)
        for _ in range(6):
            w2 = self._map(self.first, w1, top)[0]
            w1 = self._map(self.second, w2, top)[0]
        w1, w2, done = self._newton(top, w1, w2, 30)
        lost = ~done
        active = np.flatnonzero(done)
        floor = 1e-13 * self.width
        for _ in range(1000):
            if not active.size:
                break
            now, a, b = lift[active], w1[active], w2[active]
            goal = now * shrink[active]
            goal = np.where(goal < np.maximum(1e-2 * z[active].imag, floor), 0.0, goal)
            above = z[active] + 1j * goal
            rate1, rate2 = self._rates(a, b, z[active] + 1j * now)
            change = 1j * (goal - now)
            p, q, done = self._newton(above, a + rate1 * change, b + rate2 * change, 7)
            good = done & self._certified(p, q, above)
            step = active[good]
            w1[step], w2[step], lift[step] = p[good], q[good], goal[good]
            faster = np.where(shrink[active] < 0.02, 0.0, shrink[active] ** 2)
            shrink[active] = np.where(good, faster, (0.4 + shrink[active]) / 1.4)
            stuck = shrink[active] > 0.999
            lost[active[stuck]] = True
            active = active[(lift[active] > 0) & ~stuck]
        lost[active] = True
        w1[lost] = w2[lost] = np.nan + 1j * np.nan
        w1[conjugate], w2[conjugate] = np.conjugate(w1[conjugate]), np.conjugate(w2[conjugate])
        return w1, w2

    def _certified(self, w1: Complex, w2: Complex, z: Complex) -> Mask:
        """Inside the half-plane, or real with B₁'B₂' <= 1."""
        _, slope1 = self._map(self.first, w1, z)
        _, slope2 = self._map(self.second, w2, z)
        with np.errstate(invalid="ignore"):
            attracts = np.abs(slope1 * slope2) <= 1 + 1e-6
        tiny = 1e-10 * (np.abs(w2) + 1e-3 * self.width)
        inside = w2.imag > tiny
        edge = (np.abs(w2.imag) <= tiny) & attracts
        if not self.signed:
            tiny = 1e-10 * (np.abs(w1) + 1e-3 * self.width)
            inside &= w1.imag > tiny
            edge = (w2.imag >= -tiny) & (w1.imag >= -tiny) & attracts
        return np.asarray(inside | edge)

    @abstractmethod
    def _noise(self, w1: Complex, w2: Complex, z: Complex) -> Array:
        """Size of the numbers that cancel in B₁(w₁) - w₂ and B₂(w₂) - w₁."""

    @abstractmethod
    def _rates(self, w1: Complex, w2: Complex, z: Complex) -> tuple[Complex, Complex]:
        """dw₁/dz and dw₂/dz."""

    @abstractmethod
    def _start(self, z: Complex) -> tuple[Complex, Complex]:
        """w₁ and w₂ far up, roughly."""


def _fixed_point(matrix: Any) -> Complex:
    """Of w -> (a w + b)/(c w + d): the one with the larger |c w + d|, else with Im w > 0."""
    (a, b), (c, d) = matrix
    half, centre = (a - d) / 2, (a + d) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(half**2 + b * c)
        real = (half.imag == 0) & (b.imag == 0) & (c.imag == 0)
        root = np.where(real & (np.abs(root.imag) > np.abs(root.real)), 1j * root.imag, root)
        root = np.where((root * np.conjugate(centre)).real < 0, -root, root)
        # (w, 1) is the eigenvector (b, λ - a) or (λ - d, c), λ = centre + root: the larger one
        up, down = half + root, root - half
        upper = np.abs(up) + np.abs(c) >= np.abs(b) + np.abs(down)
        w = np.where(upper, up / c, b / down)
        return np.asarray(np.where(real & (w.imag != 0), w.real + 1j * np.abs(w.imag), w))


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


class SumSubordination(Subordination):
    """B = z + H, level F = w + H."""

    @property
    def width(self) -> float:
        return self.first.radius + self.second.radius

    def _map(self, term: Excess, w: Any, z: Any) -> tuple[Any, Any]:
        value, slope = term.both(w)
        return z + value, slope

    def _gaps(self, term: Excess) -> list[tuple[float, float]]:
        return term.gaps()

    def _level(self, term: Excess) -> Callable[[Array], Any]:
        def values(w: Array) -> Any:
            value, slope = term.both(w)
            with np.errstate(divide="ignore", invalid="ignore"):
                return w + value, 1 + slope, np.log(slope)

        return values

    def _location(self, w1: Array, w2: Array) -> Array:
        """z = w₂ - H₁(w₁) = w₁ - H₂(w₂): from the larger w, whose H is the smaller."""
        large = np.abs(w1) > np.abs(w2)
        return np.asarray(
            np.where(large, w2 - self.first.both(w1)[0], w1 - self.second.both(w2)[0])
        )

    def transform(self, w1: Any, w2: Any, z: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return -1 / np.asarray(w1 + w2 - z)

    def _matrix(self, triple: Array, z: Complex) -> Any:
        m, r, p = triple
        one = np.ones_like(z)
        return np.array([[z - m, -(z - m) * p - r], [one, -p * one]])

    def _image(self, one: Array, two: Array) -> tuple[float, float] | None:
        shift = two[0] - one[0]
        same = abs(two[2] - one[2] - shift) + abs(two[1] - one[1]) / self.width
        return (1.0, float(shift)) if same <= 8 * _EPS * self.width else None

    def _turns(self, one: Array, two: Array) -> Array:
        """(z - a)(z - b) = (√r₁ ± √r₂)², a = m₁ + p₂, b = m₂ + p₁."""
        a, b = one[0] + two[2], two[0] + one[2]
        roots = [np.sqrt(one[1]) + sign * np.sqrt(two[1]) for sign in (1, -1)]
        half = [np.hypot((a - b) / 2, root) for root in roots]
        return np.array([(a + b) / 2 + sign * h for h in half for sign in (1, -1)])

    def _rates(self, w1: Complex, w2: Complex, z: Complex) -> tuple[Complex, Complex]:
        slope1, slope2 = self.first.both(w1)[1], self.second.both(w2)[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return (1 + slope2) / (1 - slope1 * slope2), (1 + slope1) / (1 - slope1 * slope2)

    def _noise(self, w1: Complex, w2: Complex, z: Complex) -> Array:
        return np.asarray(np.abs(w1) + np.abs(w2) + np.abs(z))

    def _start(self, z: Complex) -> tuple[Complex, Complex]:
        return z - self.second.mean, z - self.first.mean


class ProductSubordination(Subordination):
    """B = z N, level E = w N; the first measure lives on [0, ∞)."""

    @property
    def width(self) -> float:
        return (self.first.radius + abs(self.first.mean)) * (
            self.second.radius + abs(self.second.mean)
        )

    @property
    def _units(self) -> tuple[float, float]:
        return 1.0, 1.0

    _blind: ClassVar[float] = 1e-10  # E is 0 at a pole of H, to which w cannot be told any closer

    def _map(self, term: Excess, w: Any, z: Any) -> tuple[Any, Any]:
        value, slope = term.both(w)
        inverse = -1 / value
        return z * inverse, z * slope * inverse**2

    def _gaps(self, term: Excess) -> list[tuple[float, float]]:
        return term.gaps_of_reciprocal()

    def _level(self, term: Excess) -> Callable[[Array], Any]:
        def values(w: Array) -> Any:
            value, slope = term.both(w)
            with np.errstate(divide="ignore", invalid="ignore"):
                level = -w / value
                strain = np.log(np.abs(w * slope / value))
                return level, -1 / value + w * slope / value**2, np.maximum(strain, -60.0)

        return values

    def _location(self, w1: Array, w2: Array) -> Array:
        """z = -w₂ H₁(w₁) = -w₁ H₂(w₂)."""
        with np.errstate(invalid="ignore"):
            one, two = -w2 * self.first.both(w1)[0], -w1 * self.second.both(w2)[0]
        return np.asarray(np.where(np.abs(w1) > np.abs(w2), one, two))

    def transform(self, w1: Any, w2: Any, z: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return w1 * w2 / np.asarray(z * (z - w1 * w2))

    def _limit(self, one: Pieces, two: Pieces, i: int, j: int, phi: float) -> Edge:
        """At the end of a piece next to 0 the edge is 0: w₁ or w₂ is 0 there."""
        edge = super()._limit(one, two, i, j, phi)
        return edge._replace(x=0.0) if abs(edge.x) < 1e-7 * self.width else edge

    def _matrix(self, triple: Array, z: Complex) -> Any:
        m, r, p = triple
        one = np.ones_like(z)
        return np.array([[z, -z * p], [m * one, (r - m * p) * one]])

    def _image(self, one: Array, two: Array) -> tuple[float, float] | None:
        if one[0] == 0 or two[0] == 0:
            return None
        c = two[0] / one[0]
        same = abs(two[2] - c * one[2]) + abs(two[1] - c**2 * one[1]) / abs(two[0])
        return (float(c), 0.0) if same <= 8 * _EPS * self.second.radius else None

    def _turns(self, one: Array, two: Array) -> Array:
        """z² - z (p₂m₁ + p₁m₂ ± 2√(r₁r₂)) + (r₁ - m₁p₁)(r₂ - m₂p₂) = 0."""
        (m1, r1, p1), (m2, r2, p2) = one, two
        last = (r1 - m1 * p1) * (r2 - m2 * p2)
        found = []
        for sign in (1, -1):
            half = (p2 * m1 + p1 * m2) / 2 + sign * np.sqrt(r1 * r2)
            inside = half**2 - last
            if inside > -1e-14 * half**2:
                far = half + np.copysign(np.sqrt(max(inside, 0.0)), half)
                found += [far, last / far] if far else [0.0, 0.0]
        return np.array(found)

    def _rates(self, w1: Complex, w2: Complex, z: Complex) -> tuple[Complex, Complex]:
        slope1, slope2 = self._map(self.first, w1, z)[1], self._map(self.second, w2, z)[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            rate1 = (w1 + slope2 * w2) / z / (1 - slope1 * slope2)
            return rate1, w2 / z + slope1 * rate1

    def _noise(self, w1: Complex, w2: Complex, z: Complex) -> Array:
        # H = F - w has lost |w/H| and |mean/H|, where 1/H₁ = -w₂/z and 1/H₂ = -w₁/z
        one, two = np.abs(w1) + abs(self.first.mean), np.abs(w2) + abs(self.second.mean)
        lost = 1 + (one * np.abs(w2) + two * np.abs(w1)) / np.abs(z)
        return np.asarray((np.abs(w1) + np.abs(w2)) * lost)

    def _start(self, z: Complex) -> tuple[Complex, Complex]:
        w2 = z / self.first.mean
        return self._map(self.second, w2, z)[0], w2
