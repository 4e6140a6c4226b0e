"""The arcsine law: the free sum of two fair coins (theory/arcsine.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rmthess.arithmetic import arithmetic, check_finite, is_symbolic, plain
from rmthess.jacobi import Coefficients
from rmthess.laws.law import Interval, Law
from rmthess.laws.uniform import check_interval
from rmthess.measure import SpectralMeasure, check_order, check_probabilities


@dataclass(frozen=True)
class Arcsine(Law):
    """ρ(x) = 1/(π√((x-a)(b-x))) on a, b = left, right;  m(z) = -1/(√(z-a)√(z-b)).

    On -2, 2 the limit spectrum of U + U*, U a random unitary matrix, and of P + QPQ^T for two
    symmetries ±1 in free position. With centre c and half width h,
    R(w) = c + h² w/(1 + √(1 + h² w²)). Nica & Speicher, *Lectures on the Combinatorics of Free
    Probability* (2006), example 12.8.

    >>> Arcsine().cdf(0.0)
    np.float64(0.5)
    """

    left: Any = -2
    right: Any = 2

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "left": (-np.inf, np.inf),
        "right": (-np.inf, np.inf),
    }

    def __post_init__(self) -> None:
        check_interval(self.left, self.right)

    @property
    def _centre(self) -> Any:
        return (self.left + self.right) / 2

    @property
    def _half(self) -> Any:
        return (self.right - self.left) / 2

    @property
    def support(self) -> tuple[Interval, ...]:
        return ((plain(self.left), plain(self.right)),)

    def stieltjes(self, z: Any) -> Any:
        xp = arithmetic(z, self.left, self.right)
        z = xp.point(z)
        return -xp.quotient(1, xp.sqrt(z - self.left) * xp.sqrt(z - self.right))

    def equation(self, m: Any, z: Any) -> Any:
        """(z - a)(z - b) m² - 1."""
        return (z - self.left) * (z - self.right) * m**2 - 1

    def density(self, x: Any) -> Any:
        xp = arithmetic(x, self.left, self.right)
        x = xp.real(x)
        inside = xp.step(x - self.left) * xp.step(self.right - x)
        y = xp.clip(x, self.left, self.right)
        return xp.quotient(inside, xp.pi * xp.sqrt(y - self.left) * xp.sqrt(self.right - y))

    def cdf(self, x: Any) -> Any:
        """(2/π) arctan √((x - a)/(b - x))."""
        xp = arithmetic(x, self.left, self.right)
        y = xp.clip(xp.real(x), self.left, self.right)
        return 2 * xp.arctan2(xp.sqrt(y - self.left), xp.sqrt(self.right - y)) / xp.pi

    def quantile(self, p: Any) -> Any:
        """a + (b - a) sin²(π p/2)."""
        angle = np.pi / 2 * check_probabilities(p)
        left, right = float(self.left), float(self.right)
        return np.clip(left * np.cos(angle) ** 2 + right * np.sin(angle) ** 2, left, right)[()]

    def moment(self, order: int) -> Any:
        """Σ_j binom(order, 2j) binom(2j, j) (h/2)^2j c^(order-2j)."""
        k = check_order("order", order, least=0)
        c, quarter = self._centre, self._half / 2
        return sum(
            comb(k, 2 * j) * comb(2 * j, j) * quarter ** (2 * j) * c ** (k - 2 * j)
            for j in range(k // 2 + 1)
        )

    def free_cumulants(self, order: int) -> list[Any]:
        """c, then κ_2n = 2 (-1)^(n-1) C_(n-1) (h/2)^2n with Catalan numbers, odd ones 0."""
        count = check_order("order", order)
        even = [
            2 * (-1) ** n * (comb(2 * n, n) // (n + 1)) * (self._half / 2) ** (2 * n + 2)
            for n in range(count // 2)
        ]
        return [
            self._centre if n == 1 else even[n // 2 - 1] if n % 2 == 0 else 0
            for n in range(1, count + 1)
        ]

    def r_transform(self, w: Any) -> Any:
        """R(w) = c + h² w/(1 + √(1 + h² w²))."""
        xp = arithmetic(w, self.left, self.right)
        w = w if xp.exact else np.asarray(w)
        return self._centre + self._half**2 * w / (1 + xp.sqrt(1 + self._half**2 * w**2))

    def s_transform(self, w: Any) -> Any:
        """S(w) = (2 + w)/(c (1 + w + √(1 + (h/c)² w (2 + w)))); undefined for a centred law."""
        if self._centre == 0:
            return super().s_transform(w)
        xp = arithmetic(w, self.left, self.right)
        w = xp.point(w)
        root = xp.sqrt(1 + (self._half / self._centre) ** 2 * w * (2 + w))
        return (2 + w) / (self._centre * (1 + w + root))

    def jacobi(self, steps: int) -> Coefficients:
        """a_k = c; b_0 = h/√2, then b_k = h/2: Chebyshev polynomials of the first kind."""
        check_order("steps", steps)
        off_diagonal = np.full(steps - 1, float(self._half) / 2)
        off_diagonal[:1] *= np.sqrt(2)
        return np.full(steps, float(self._centre)), off_diagonal

    def quadrature(self, nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gauss–Chebyshev: equal weights."""
        theta = (np.arange(nodes) + 0.5) * np.pi / nodes
        points = float(self.left) + 2 * float(self._half) * np.sin(theta / 2) ** 2
        return points, np.full(nodes, 1 / nodes)

    @classmethod
    def moment_estimate(cls, measure: SpectralMeasure) -> dict[str, float]:
        """Mean ∓ √2 standard deviations."""
        mean = measure.moment(1)
        half = float(np.sqrt(2 * measure.integrate(lambda x: (x - mean) ** 2)))
        return {"left": mean - half, "right": mean + half}

    def shift(self, c: Any) -> Law:
        check_finite("offset", c, "the shift of the law")
        return Arcsine(self.left + c, self.right + c)

    def dilate(self, c: Any) -> Law:
        if is_symbolic(c) or not c:
            return super().dilate(c)
        check_finite("scale", c, "the factor of the law")
        ends = c * self.left, c * self.right
        return Arcsine(*(ends if c > 0 else ends[::-1]))
