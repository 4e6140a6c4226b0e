"""Laws whose Stieltjes transform is an explicit function of the root ω(z) of a kernel K(ω) = z.

A subclass says what its kernel is, and writes m as a function of (ω, z) and the potential
L(z) = ∫ log(z - x) dμ(x) as a function of ω. From these three lines follow density, support and
cdf: F(x) = 1 - Im L(x + i0)/π, exact on every interval without any integration.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.arithmetic import arithmetic, plain
from rmthess.laws.kernel import Kernel, Terms
from rmthess.laws.law import Interval, Law, rising_root
from rmthess.measure import (
    DiscreteMeasure,
    LanczosMeasure,
    SpectralMeasure,
    check_probabilities,
)

Array = NDArray[np.float64]

_MOST_NODES = 4096


class KernelLaw(Law):
    """A law with m(z) = transform(ω, z), K(ω) = z."""

    @property
    @abstractmethod
    def kernel(self) -> Kernel:
        """The kernel K."""

    @abstractmethod
    def _terms(self) -> Terms:
        """Poles, residues, slope and offset of the kernel, computed in mpmath."""

    @abstractmethod
    def _transform(self, omega: Any, z: Any) -> Any:
        """m(z) where K(ω) = z, in the arithmetic of ω."""

    @abstractmethod
    def _partials(self, omega: Any, z: Any) -> tuple[Any, Any]:
        """∂m/∂ω and ∂m/∂z of that function."""

    @abstractmethod
    def _argument(self, omega: Any, x: Any) -> Any:
        """Im L(x + i0), L(z) = ∫ log(z - t) dμ(t), where K(ω) = x."""

    @cached_property
    def support(self) -> tuple[Interval, ...]:
        edges = [float(edge) for edge in self.kernel.edges]
        return tuple(zip(edges[::2], edges[1::2], strict=True))

    @property
    def cusps(self) -> tuple[float, ...]:
        return tuple(self.kernel.cusps.tolist())

    def _omega(self, z: Any) -> Any:
        xp = arithmetic(z)
        if xp.name == "numpy":
            return self.kernel.solve(z)
        if xp.name == "mpmath":
            terms = self._terms()
            return np.frompyfunc(lambda point: self.kernel.polish(point, terms), 1, 1)(xp.point(z))
        raise TypeError(
            f"{type(self).__name__} has no closed formula in z; its polynomial is .equation(m, z)"
        )

    def stieltjes(self, z: Any) -> Any:
        xp = arithmetic(z)
        points = xp.point(z)
        with np.errstate(divide="ignore", invalid="ignore"):
            m = self._transform(self._omega(z), points)
        if not xp.exact:
            for location, _ in self.atoms:
                m = np.where(points == location, complex(np.inf, 0.0), m)
        return plain(m)

    def stieltjes_and_slope(self, z: Any) -> tuple[Any, Any]:
        """m' = (∂m/∂ω)/K' + ∂m/∂z."""
        z = np.asarray(z, complex)
        omega = self.kernel.solve(z)
        with np.errstate(divide="ignore", invalid="ignore"):
            by_omega, by_z = self._partials(omega, z)
            return self._transform(omega, z), by_omega / self.kernel.rise(omega) + by_z

    @property
    def edge_constants(self) -> Array:
        """a = |∂m/∂ω| √(2/|K''|) at each edge: ω - s ~ √(2 (z - edge)/K''(s)); theory/edges.md.

        Infinite at a hard edge, where m has its pole.
        """
        turns = self.kernel.turning_points
        with np.errstate(divide="ignore", invalid="ignore"):
            by_omega = self._partials(turns, self.kernel.edges)[0]
            return np.asarray(np.abs(by_omega) * np.sqrt(2 / np.abs(self.kernel.bend(turns))))

    def density(self, x: Any) -> Any:
        xp = arithmetic(x)
        if xp.exact:
            return np.frompyfunc(lambda m: m.imag / xp.pi, 1, 1)(self.stieltjes(x))
        points = np.asarray(x, float)
        density = np.where(np.isnan(points), np.nan, 0.0)
        inside = np.searchsorted(self.kernel.edges, points, side="right") % 2 == 1
        density[inside] = np.imag(self.stieltjes(points[inside])) / np.pi
        return density[()]

    def cdf(self, x: Any) -> Any:
        points = np.asarray(x, float)
        finite = self._off_atoms(points)
        value = self._cumulated(points, finite, self.kernel.solve(finite))
        return np.where(np.isnan(points), np.nan, value)[()]

    def quantile(self, p: Any) -> Any:
        """inf{x : cdf(x) >= p}, by Newton's method along the curve ω(x + i0) = s + i h(s).

        There x and cdf are explicit functions of s: no equation K(ω) = x is solved. On each
        interval of the support s = start + width sin²(θ/2), in a bracket of tabulated levels.
        """
        p = check_probabilities(p)
        flat, edges = p.ravel(), self.kernel.edges
        theta, levels = self._levels
        count, ends = theta.size, levels[:, -1]
        found = np.empty(flat.shape)
        j = np.minimum(np.searchsorted(ends, flat), ends.size - 1)
        inside = (flat > levels[j, 0]) & (flat <= ends[j])
        row = np.flatnonzero(inside)
        k = np.searchsorted(levels.ravel(), flat[row])
        k = np.clip(k, j[row] * count + 1, (j[row] + 1) * count - 1)
        found[row] = self._between(flat[row], j[row], k - j[row] * count)
        places = np.sort(np.concatenate([edges[::2], [float(place) for place, _ in self.atoms]]))
        reached = np.maximum.accumulate(np.asarray(self.cdf(places), float))
        at = np.searchsorted(reached, flat[~inside])
        found[~inside] = np.append(places, self.breakpoints[-1])[at]
        found[flat == 0], found[flat == 1] = self.breakpoints[[0, -1]]  # where the cdf rounds to it
        return found.reshape(p.shape)[()]

    @cached_property
    def _levels(self) -> tuple[Array, Array]:
        """θ (count,) from 0 to π, and the cdf there on every interval (intervals, count)."""
        left, right = self.kernel.edges[::2], self.kernel.edges[1::2]
        theta = np.linspace(0, np.pi, int(np.clip(1024 // left.size, 8, 64)) + 1)
        shape = (left.size, theta.size - 2)
        j = np.repeat(np.arange(left.size), shape[1])
        _, inner, _ = self._along(j, np.tile(theta[1:-1], left.size))
        levels = np.column_stack([self.cdf(left), inner.reshape(shape), self.cdf(right)])
        return theta, np.maximum.accumulate(levels.ravel()).reshape(levels.shape)

    def _along(self, j: NDArray[np.intp], theta: Array) -> tuple[Array, Array, Array]:
        """x, cdf and d cdf/dθ at θ on interval j of the support."""
        start = self.kernel.turning_points[2 * j]
        width = self.kernel.turning_points[2 * j + 1] - start
        omega, x, rise = self.kernel.curve(start + width * np.sin(theta / 2) ** 2)
        x = np.clip(x, self.kernel.edges[2 * j], self.kernel.edges[2 * j + 1])
        density = np.imag(self._transform(omega, x)) / np.pi
        return x, self._cumulated(x, x, omega), density * rise * width / 2 * np.sin(theta)

    def _between(self, p: Array, j: NDArray[np.intp], k: NDArray[np.intp]) -> Array:
        """Quantiles on intervals j, between the tabulated θ_{k-1} and θ_k."""
        theta, levels = self._levels
        low, high = theta[k - 1], theta[k]
        share = (p - levels[j, k - 1]) / (levels[j, k] - levels[j, k - 1])
        found = np.empty(p.shape)

        def excess(at: Array, which: NDArray[np.intp]) -> tuple[Array, Array]:
            found[which], reached, slope = self._along(j[which], at)
            return reached - p[which], slope

        rising_root(excess, low, high, low + (high - low) * share, np.inf)
        return found

    def _off_atoms(self, points: Array) -> Array:
        """Points where the cdf is the same: within reach, and to that side of an atom."""
        ends = self.breakpoints[[0, -1]]
        reach = ends[1] - ends[0]  # beyond the ends the cdf is constant
        finite = np.clip(points, ends[0] - reach, ends[1] + reach)
        for location, _ in self.atoms:  # a pole of the transform within a gap: its one-sided limits
            at = np.abs(points - location) <= 1e-14 * np.abs(ends).max()
            sides = np.concatenate([[ends[0] - reach], self.breakpoints, [ends[1] + reach]])
            middles = (sides[sides < location][-1], sides[sides > location][0])
            limit = np.where(points >= location, middles[1], middles[0])
            finite = np.where(at, (location + limit) / 2, finite)
        return np.asarray(finite)

    def _cumulated(self, points: Array, finite: Array, omega: Any) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = 1 - self._argument(omega, finite) / np.pi
        below = points < self.breakpoints[0]
        return np.where(below, 0.0, np.clip(value, 0.0, 1.0))  # 0/0 at 0 below a bulk


def check_algebraic(law: Law, measure: SpectralMeasure) -> None:
    """Refuse a polynomial where the measure behind the law is a law itself."""
    if isinstance(measure, Law):
        raise NotImplementedError(
            f"{type(law).__name__} of a continuous population has no polynomial equation; "
            "give the population as a DiscreteMeasure"
        )


def coefficients(values: Any, *arguments: Any) -> list[Any]:
    """Doubles for an equation: rational for sympy (1/3 for 0.333...), mpmath numbers, doubles."""
    numbers = np.ravel(values).tolist()
    kind = arithmetic(*arguments).name
    if kind == "sympy":
        import sympy

        return [sympy.Rational(_fraction(float(x))) for x in numbers]
    if kind == "mpmath":
        import mpmath

        return [mpmath.mpmathify(x) for x in numbers]
    return [float(x) for x in numbers]


def shares(weights: Any, *arguments: Any) -> list[Any]:
    """Weights as ``coefficients``; of mpmath numbers the sum is 1 to all their digits."""
    found = coefficients(weights, *arguments)
    if arithmetic(*arguments).name == "mpmath":
        total = sum(found)
        return [w / total for w in found]
    return found


def _fraction(x: float) -> Fraction:
    """The fraction of small denominator whose double is x, else the decimal that x prints as."""
    simple = Fraction(x).limit_denominator(10**6)
    return simple if float(simple) == x else Fraction(repr(x))


def cleared(whole: Any, fractions: Sequence[tuple[Any, Any]]) -> Any:
    """whole - Σ n/d, times all the denominators d."""
    total = whole * prod(d for _, d in fractions)
    for j, (numerator, _) in enumerate(fractions):
        total -= numerator * prod(d for i, (_, d) in enumerate(fractions) if i != j)
    return total


def nodes_of(measure: SpectralMeasure, kernel: Callable[[Array, Array], Kernel]) -> tuple[Any, Any]:
    """Nodes and weights that stand for ``measure`` in a kernel.

    Atoms are themselves. A law is replaced by its quadrature with as many nodes as the kernel
    needs: doubled until edges and interior values of ω are stable to 1e-13 of the width; geometric,
    because ω keeps a distance from the law's support.
    """
    if isinstance(measure, LanczosMeasure):
        measure = measure.pooled
    if isinstance(measure, DiscreteMeasure):
        return measure.nodes, measure.weights
    if not isinstance(measure, Law):
        raise TypeError(f"a population is a law or a measure, got {type(measure).__name__}")
    count, old = 64, np.array([np.nan])
    while True:
        nodes, weights = measure.quadrature(count)
        weights = weights / weights.sum()
        trial = kernel(nodes, weights)
        edges = trial.edges
        lengths = edges[1::2] - edges[::2]
        inside = edges[::2, None] + lengths[:, None] * np.linspace(0.02, 0.98, 13)
        new = np.concatenate([edges, np.ravel(np.abs(trial.solve(inside)))])
        scale = edges[-1] - edges[0]
        if new.shape == old.shape and np.all(np.abs(new - old) <= 1e-13 * scale):
            return nodes, weights
        if count >= _MOST_NODES:
            raise ValueError(
                f"{_MOST_NODES} nodes do not resolve the population {measure!r} at this ratio; "
                "give it as a DiscreteMeasure of your choice"
            )
        count, old = 2 * count, new
