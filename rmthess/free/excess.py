"""The excess H of one measure: 1/G(w) less w, a self-map of the upper half-plane.

With G(w) = ∫ dμ(t)/(w - t), F = 1/G and H(w) = F(w) - w (theory/free_convolution.md),

    -H(w) = mean + ∫ dρ(t)/(w - t)

with a positive ρ whose mass is the variance of μ: Nevanlinna's representation. H is real and
analytic outside the support of ρ, with H' > 0, and so is N = -1/H once the zeros of H are left out.
Atoms have a rational H, its poles the eigenvalues of the Jacobi matrix without its first row and
column; of a law H comes from its Stieltjes transform m = -G.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from rmthess import jacobi
from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure

Array = NDArray[np.float64]

_CHUNK = 1 << 20  # numbers in one temporary


class Excess(ABC):
    """H(w) = 1/G(w) - w of one measure: -H(w) = mean + ∫ dρ(t)/(w - t), ρ positive."""

    mean: float
    radius: float
    ends: Array  # real points where H is not analytic: edges of the support and poles
    walls: Array  # those of them that are edges of the support
    finest: float  # relative distance from a wall down to which H can be trusted

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
        nudge = np.minimum(1e-14 * self.radius + 4e-16 * abs(self.mean), 1e-3 * (high - low))
        low, high = low + nudge, high - nudge
        with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where m = 0, w₁ or w₂ of a nested law is infinite
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
    """Of a law: from m(z) and m'(z) near its support, from its Jacobi coefficients far from it."""

    def __init__(self, measure: Law):
        self._law = measure
        self._atoms = [(float(x), float(p)) for x, p in measure.atoms]
        self._a, self._b = jacobi.leading_block(*measure.jacobi(8))
        self.mean = float(self._a[0])
        edges = sorted(tuple(float(x) for x in pair) for pair in measure.support)
        merged: list[float] = []
        for left, right in edges:
            if merged and left <= merged[-1]:
                merged[-1] = right
            else:
                merged += [left, right]
        self.walls, self.finest = np.array(merged), measure.finest
        every = np.asarray(measure.breakpoints, float)
        self.radius = float(np.abs(every - self.mean).max())
        pieces = []
        for a, b in pairwise(every):
            if not any(left <= a and b <= right for left, right in edges):
                pieces.append((float(a), float(b)))
        poles = self._roots(pieces, lambda w: np.real(measure.stieltjes(w)))
        self.ends = np.sort(np.concatenate([self.walls, poles]))

    def both(self, w: Any) -> tuple[Any, Any]:
        w = np.asarray(w)
        far = np.abs(w - self.mean) > 10 * self.radius
        if not far.any():
            return self._near(w)
        value, slope = np.empty_like(w), np.empty_like(w)
        value[far], slope[far] = self._far(w[far])
        value[~far], slope[~far] = self._near(w[~far])
        return value, slope

    def _near(self, w: Any) -> tuple[Any, Any]:
        m, slope = self._law.stieltjes_and_slope(w.astype(complex))
        value, slope = -1 / m - w, slope / m**2 - 1
        for place, mass in self._atoms:  # there F = 0 and F' = 1/mass
            value, slope = np.where(w == place, [-w, 0 * w + 1 / mass - 1], [value, slope])
        return (value, slope) if np.iscomplexobj(w) else (value.real, slope.real)

    def _far(self, w: Any) -> tuple[Any, Any]:
        """-H = a₀ + b₀²/(w - a₁ - b₁²/(w - ...)) and its derivative: -1/m - w would cancel."""
        tail, slope = np.zeros_like(w), np.zeros_like(w)
        for a, b in zip(self._a[:0:-1], self._b[::-1], strict=True):
            inverse = 1 / (w - a - tail)
            tail, slope = b**2 * inverse, -(b**2) * (1 - slope) * inverse**2
        return -self.mean - tail, -slope


def excess(measure: Law | DiscreteMeasure) -> Excess:
    """H of any measure."""
    return AtomicExcess(measure) if isinstance(measure, DiscreteMeasure) else SmoothExcess(measure)
