"""The uniform law on an interval (theory/uniform.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from rmthess.arithmetic import arithmetic, check_finite, is_symbolic, plain
from rmthess.jacobi import Coefficients
from rmthess.laws.law import Interval, Law
from rmthess.measure import SpectralMeasure, check_order, check_probabilities

_DEPTH = 40  # of the continued fraction of coth: 40 digits at |t| < 1, and far more than 16


def check_interval(left: Any, right: Any) -> None:
    """Refuse ends that are not finite or not ascending; symbols pass."""
    check_finite("left", left, "the left end of the law")
    check_finite("right", right, "the right end of the law")
    if not (is_symbolic(left) or is_symbolic(right)) and not left < right:
        raise ValueError(f"left must be less than right, got {left!r} and {right!r}")


@dataclass(frozen=True)
class Uniform(Law):
    """ρ(x) = 1/(b - a) on a, b = left, right;  m(z) = log((z - b)/(z - a))/(b - a).

    With centre c and half width h, R(w) = c + h coth(h w) - 1/w. A population spectrum spread
    evenly. Nica & Speicher, *Lectures on the Combinatorics of Free Probability* (2006), lecture 12,
    for R.

    >>> Uniform(1.0, 3.0).moment(2)
    4.333333333333333
    """

    left: Any = 0
    right: Any = 1

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "left": (-np.inf, np.inf),
        "right": (-np.inf, np.inf),
    }

    def __post_init__(self) -> None:
        check_interval(self.left, self.right)

    @property
    def _width(self) -> Any:
        return self.right - self.left

    @property
    def support(self) -> tuple[Interval, ...]:
        return ((plain(self.left), plain(self.right)),)

    def stieltjes(self, z: Any) -> Any:
        xp = arithmetic(z, self.left, self.right)
        z = xp.point(z)
        if xp.name == "sympy":  # two logarithms: their quotient's would cut outside the support
            return (xp.log(z - self.right) - xp.log(z - self.left)) / self._width
        if xp.exact:
            return _elementwise(self._exact_stieltjes)(z)
        half = self._width / 2
        y = (z - self.left - half) / half
        far = np.abs(y) > 2  # there the logarithms nearly cancel
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithm = np.asarray(np.log((z - self.right) / half) - np.log((z - self.left) / half))
            if far.any():
                logarithm[far] = -2 * np.arctanh(1 / y[far])
            return logarithm[()] / (2 * half)

    def stieltjes_and_slope(self, z: Any) -> tuple[Any, Any]:
        """m' = 1/((z - a)(z - b))."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.stieltjes(z), 1 / ((z - self.left) * (z - self.right))

    def _exact_stieltjes(self, z: Any) -> Any:
        mp = z.context
        extra = max(0, int(mp.mag(z) - mp.mag(self._width)))  # far away the logarithms cancel
        with mp.extraprec(extra + 10):
            u, v = mp.mpc(z - self.right), mp.mpc(z - self.left)
            return (mp.log(u) - mp.log(v)) / self._width

    def density(self, x: Any) -> Any:
        xp = arithmetic(x, self.left, self.right)
        x = xp.real(x)
        inside = xp.step(x - self.left) * xp.step(self.right - x)
        return (inside + 0 * xp.clip(x, self.left, self.right)) / self._width  # NaN stays NaN

    def cdf(self, x: Any) -> Any:
        """(x - a)/(b - a)."""
        xp = arithmetic(x, self.left, self.right)
        return (xp.clip(xp.real(x), self.left, self.right) - self.left) / self._width

    def quantile(self, p: Any) -> Any:
        """a + (b - a) p."""
        p = check_probabilities(p)
        left, right = float(self.left), float(self.right)
        return np.clip(left * (1 - p) + right * p, left, right)[()]

    def moment(self, order: int) -> Any:
        """Σ_j a^j b^(k-j)/(k + 1)."""
        k = check_order("order", order, least=0)
        return sum(self.left**j * self.right ** (k - j) for j in range(k + 1)) / (k + 1)

    def r_transform(self, w: Any) -> Any:
        """R(w) = c + h L(h w), L(t) = coth t - 1/t = t/(3 + t²/(5 + t²/(7 + ...)))."""
        xp = arithmetic(w, self.left, self.right)
        half = self._width / 2
        if xp.name == "sympy":
            return (self.left + self.right) / 2 + half / xp.tanh(half * w) - 1 / xp.point(w)
        t = half * (xp.real(w) if xp.exact else np.asarray(w))
        if xp.exact:
            langevin = _elementwise(_exact_langevin)(t)
        else:
            small = np.abs(t) < 1
            with np.errstate(over="ignore"):
                large = 1 / np.tanh(np.where(small, 1, t)) - 1 / np.where(small, 1, t)
            langevin = np.where(small, _fraction(np.where(small, t, 0)), large)[()]
        return (self.left + self.right) / 2 + half * langevin

    def jacobi(self, steps: int) -> Coefficients:
        """a_k = c, b_{k-1} = h k/√(4k² - 1): Legendre polynomials."""
        k = np.arange(1, check_order("steps", steps))
        centre, half = (float(self.left) + float(self.right)) / 2, float(self._width) / 2
        return np.full(steps, centre), half * k / np.sqrt(4 * k**2 - 1)

    def quadrature(self, nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Fejér's first rule: Chebyshev points with weights that make polynomials exact.

        The generic rule asks for edges like √x. Waldvogel, BIT 46 (2006).
        """
        theta = (np.arange(nodes) + 0.5) * np.pi / nodes
        k = np.arange(1, (nodes + 1) // 2)
        coefficients = np.zeros(nodes)
        coefficients[0] = 1
        coefficients[2 * k] = -1 / (4 * k**2 - 1)
        left, width = float(self.left), float(self._width)
        return left + width * np.sin(theta / 2) ** 2, dct(coefficients, type=3) / nodes

    @classmethod
    def moment_estimate(cls, measure: SpectralMeasure) -> dict[str, float]:
        """Mean ∓ √3 standard deviations."""
        mean = measure.moment(1)
        half = float(np.sqrt(3 * measure.integrate(lambda x: (x - mean) ** 2)))
        return {"left": mean - half, "right": mean + half}

    def shift(self, c: Any) -> Law:
        check_finite("offset", c, "the shift of the law")
        return Uniform(self.left + c, self.right + c)

    def dilate(self, c: Any) -> Law:
        if is_symbolic(c) or not c:
            return super().dilate(c)
        check_finite("scale", c, "the factor of the law")
        ends = c * self.left, c * self.right
        return Uniform(*(ends if c > 0 else ends[::-1]))


def _fraction(t: Any) -> Any:
    """coth t - 1/t by its continued fraction (Lambert)."""
    tail = 2 * _DEPTH + 1
    for k in range(_DEPTH - 1, 0, -1):
        tail = 2 * k + 1 + t**2 / tail
    return t / tail


def _exact_langevin(t: Any) -> Any:
    if abs(t) < 1:
        return _fraction(t)
    return t.context.coth(t) - 1 / t


def _elementwise(function: Any) -> Any:
    return np.frompyfunc(function, 1, 1)
