"""The subordination equations: all in which the free sum and the free product differ.

With F = 1/G, G = -m, and H(w) = F(w) - w, the transform of a free convolution is that of its terms
at shifted points: there are w₁(z), w₂(z) in the upper half-plane with

    sum:      F(z) = F₁(w₁) = F₂(w₂) = w₁ + w₂ - z,      w₂ = z + H₁(w₁),   w₁ = z + H₂(w₂)
    product:  E(z) = E₁(w₁) = E₂(w₂) = w₁ w₂/z,          w₂ = z N₁(w₁),     w₁ = z N₂(w₂)

with N = -1/H and E = w N = G w/(G w - 1). Both are one system: B₁(w₁) = w₂, B₂(w₂) = w₁, where B is
z + H or z N. F and E are the levels. Biane, Math. Z. 227 (1998); theory/free_convolution.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rmthess.free.excess import Excess

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Equations(ABC):
    """The system of two measures; subclasses say what B and the level are."""

    first: Excess
    second: Excess
    signed: bool = field(default=False, kw_only=True)  # the second measure, in a product

    blind: ClassVar[float] = 0.0  # half a width around φ = 1/2 in which levels are not told apart

    @abstractmethod
    def map(self, term: Excess, w: Any, z: Any) -> tuple[Any, Any]:
        """B and B'."""

    @abstractmethod
    def level(self, term: Excess) -> Callable[[Array], Any]:
        """w -> level, its slope and log of the term's share of B₁'B₂', all real."""

    @abstractmethod
    def intervals(self, term: Excess) -> list[tuple[float, float]]:
        """Where B is real and analytic."""

    @abstractmethod
    def location(self, w1: Array, w2: Array) -> Array:
        """z from two points of one level."""

    @abstractmethod
    def transform(self, w1: Any, w2: Any, z: Any) -> Any:
        """m(z)."""

    @property
    @abstractmethod
    def width(self) -> float:
        """A length of the order of the support."""

    @property
    def units(self) -> tuple[float, float]:
        """The scale of either term's levels, for φ."""
        size = self.width
        return size, size

    def snapped(self, x: float) -> float:
        """z where a gap runs to the end of a pair of pieces: infinite if it is far out."""
        return float(np.copysign(np.inf, x)) if abs(x) > 1e6 * self.width else x

    @abstractmethod
    def noise(self, w1: Complex, w2: Complex, z: Complex) -> Array:
        """Size of the numbers that cancel in B₁(w₁) - w₂ and B₂(w₂) - w₁."""

    @abstractmethod
    def rates(
        self, w1: Complex, w2: Complex, z: Complex, slopes: Complex
    ) -> tuple[Complex, Complex]:
        """dw₁/dz and dw₂/dz, from B₁' and B₂'."""

    @abstractmethod
    def start(self, z: Complex) -> tuple[Complex, Complex]:
        """w₁ and w₂ far up, roughly."""

    @abstractmethod
    def matrix(self, triple: Array, z: Complex) -> Any:
        """B as a matrix (2, 2, ...) of two atoms, from the mean, the residue and the pole of H."""

    @abstractmethod
    def image(self, one: Array, two: Array) -> tuple[float, float] | None:
        """(c, s) if the second measure is that of c X + s, X of the first, as the map can tell."""

    @abstractmethod
    def turns(self, one: Array, two: Array) -> Array:
        """Real z where B₂∘B₁ is parabolic: (trace)² = 4 det, two quadratic equations."""


class SumEquations(Equations):
    """B = z + H, level F = w + H."""

    @property
    def width(self) -> float:
        return self.first.radius + self.second.radius

    def map(self, term: Excess, w: Any, z: Any) -> tuple[Any, Any]:
        value, slope = term.both(w)
        return z + value, slope

    def intervals(self, term: Excess) -> list[tuple[float, float]]:
        return term.gaps()

    def level(self, term: Excess) -> Callable[[Array], Any]:
        def values(w: Array) -> Any:
            value, slope = term.both(w)
            with np.errstate(divide="ignore", invalid="ignore"):
                return w + value, 1 + slope, np.log(slope)

        return values

    def location(self, w1: Array, w2: Array) -> Array:
        """z = w₂ - H₁(w₁) = w₁ - H₂(w₂): from the H of the smaller slope."""
        (one, slope1), (two, slope2) = self.first.both(w1), self.second.both(w2)
        return np.asarray(np.where(slope1 < slope2, w2 - one, w1 - two))

    def transform(self, w1: Any, w2: Any, z: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return -1 / np.asarray(w1 + w2 - z)

    def matrix(self, triple: Array, z: Complex) -> Any:
        m, r, p = triple
        one = np.ones_like(z)
        return np.array([[z - m, -(z - m) * p - r], [one, -p * one]])

    def image(self, one: Array, two: Array) -> tuple[float, float] | None:
        shift = two[0] - one[0]
        same = abs(two[2] - one[2] - shift) + abs(two[1] - one[1]) / self.width
        return (1.0, float(shift)) if same <= 8 * _EPS * self.width else None

    def turns(self, one: Array, two: Array) -> Array:
        """(z - a)(z - b) = (√r₁ ± √r₂)², a = m₁ + p₂, b = m₂ + p₁."""
        a, b = one[0] + two[2], two[0] + one[2]
        roots = [np.sqrt(one[1]) + sign * np.sqrt(two[1]) for sign in (1, -1)]
        half = [np.hypot((a - b) / 2, root) for root in roots]
        return np.array([(a + b) / 2 + sign * h for h in half for sign in (1, -1)])

    def rates(
        self, w1: Complex, w2: Complex, z: Complex, slopes: Complex
    ) -> tuple[Complex, Complex]:
        slope1, slope2 = slopes
        with np.errstate(divide="ignore", invalid="ignore"):
            return (1 + slope2) / (1 - slope1 * slope2), (1 + slope1) / (1 - slope1 * slope2)

    def noise(self, w1: Complex, w2: Complex, z: Complex) -> Array:
        return np.asarray(np.abs(w1) + np.abs(w2) + np.abs(z))

    def start(self, z: Complex) -> tuple[Complex, Complex]:
        return z - self.second.mean, z - self.first.mean


class ProductEquations(Equations):
    """B = z N, level E = w N; the first measure lives on [0, ∞)."""

    @property
    def width(self) -> float:
        return (self.first.radius + abs(self.first.mean)) * (
            self.second.radius + abs(self.second.mean)
        )

    @property
    def units(self) -> tuple[float, float]:
        return 1.0, 1.0

    blind: ClassVar[float] = 1e-10  # E is 0 at a pole of H, to which w cannot be told any closer

    def map(self, term: Excess, w: Any, z: Any) -> tuple[Any, Any]:
        value, slope = term.both(w)
        inverse = -1 / value
        return z * inverse, z * slope * inverse**2

    def intervals(self, term: Excess) -> list[tuple[float, float]]:
        return term.gaps_of_reciprocal()

    def level(self, term: Excess) -> Callable[[Array], Any]:
        def values(w: Array) -> Any:
            value, slope = term.both(w)
            with np.errstate(divide="ignore", invalid="ignore"):
                level = -w / value
                strain = np.log(np.abs(w * slope / value))
                return level, -1 / value + w * slope / value**2, np.maximum(strain, -60.0)

        return values

    def location(self, w1: Array, w2: Array) -> Array:
        """z = -w₂ H₁(w₁) = -w₁ H₂(w₂): from the H of the smaller relative slope."""
        (one, slope1), (two, slope2) = self.first.both(w1), self.second.both(w2)
        with np.errstate(divide="ignore", invalid="ignore"):
            flatter = np.abs(w1 * slope1 / one) < np.abs(w2 * slope2 / two)
            return np.asarray(np.where(flatter, -w2 * one, -w1 * two))

    def transform(self, w1: Any, w2: Any, z: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return w1 * w2 / np.asarray(z * (z - w1 * w2))

    def snapped(self, x: float) -> float:
        """At the end of a piece next to 0 the edge is 0: w₁ or w₂ is 0 there."""
        x = super().snapped(x)
        return 0.0 if abs(x) < 1e-7 * self.width else x

    def matrix(self, triple: Array, z: Complex) -> Any:
        m, r, p = triple
        one = np.ones_like(z)
        return np.array([[z, -z * p], [m * one, (r - m * p) * one]])

    def image(self, one: Array, two: Array) -> tuple[float, float] | None:
        if one[0] == 0 or two[0] == 0:
            return None
        c = two[0] / one[0]
        same = abs(two[2] - c * one[2]) + abs(two[1] - c**2 * one[1]) / abs(two[0])
        return (float(c), 0.0) if same <= 8 * _EPS * self.second.radius else None

    def turns(self, one: Array, two: Array) -> Array:
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

    def rates(
        self, w1: Complex, w2: Complex, z: Complex, slopes: Complex
    ) -> tuple[Complex, Complex]:
        slope1, slope2 = slopes
        with np.errstate(divide="ignore", invalid="ignore"):
            rate1 = (w1 + slope2 * w2) / z / (1 - slope1 * slope2)
            return rate1, w2 / z + slope1 * rate1

    def noise(self, w1: Complex, w2: Complex, z: Complex) -> Array:
        # H = F - w has lost |w/H| and |mean/H|, where 1/H₁ = -w₂/z and 1/H₂ = -w₁/z
        one, two = np.abs(w1) + abs(self.first.mean), np.abs(w2) + abs(self.second.mean)
        lost = 1 + (one * np.abs(w2) + two * np.abs(w1)) / np.abs(z)
        return np.asarray((np.abs(w1) + np.abs(w2)) * lost)

    def start(self, z: Complex) -> tuple[Complex, Complex]:
        w2 = z / self.first.mean
        return self.map(self.second, w2, z)[0], w2
