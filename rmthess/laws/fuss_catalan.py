"""The Fuss–Catalan law: singular values of products of random matrices (theory/fuss_catalan.md)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import factorial, prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import zeta

from rmthess.arithmetic import arithmetic, check_positive, is_symbolic, plain
from rmthess.laws.law import Interval, Law
from rmthess.laws.uniform import Uniform
from rmthess.measure import SpectralMeasure, check_order, check_probabilities

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FussCatalan(Law):
    """x = sin((p+1)φ)^(p+1)/(sin φ sin(pφ)^p),  ρ = sin²φ sin(pφ)^(p-1)/(π sin((p+1)φ)^p).

    0 < φ < π/(p+1), from the right edge (p+1)^(p+1)/p^p down to 0, where ρ ~ x^(-p/(p+1)). The
    limit of the squared singular values of G_1 ... G_p, independent square matrices (dim, dim) with
    entries of variance 1/dim; ``order`` p >= 1 may be real: the p-th free multiplicative power of
    MarchenkoPastur(1). B = -z m solves z (B - 1) = B^(p+1). Penson & Życzkowski, Phys. Rev. E 83
    (2011); Haagerup & Möller, Ann. Inst. Fourier 63 (2013), for φ.

    >>> FussCatalan(2).support
    ((0, 6.75),)
    """

    order: Any

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {"order": (1.0, np.inf)}

    def __post_init__(self) -> None:
        check_positive("order", self.order, "the number of factors")
        if not is_symbolic(self.order) and self.order < 1:
            raise ValueError(
                f"order must be at least 1, got {self.order!r}; it is the number of factors"
            )

    @property
    def support(self) -> tuple[Interval, ...]:
        p = self.order
        if isinstance(p, float) and p > 100:  # p^p overflows
            return ((0 * p, _right_edge(p)),)
        return ((0 * p, plain((p + 1) ** (p + 1) / p**p)),)

    @property
    def _last(self) -> float:
        """The largest φ, where x = 0."""
        return np.pi / (float(self.order) + 1)

    def stieltjes(self, z: Any) -> Any:
        xp = arithmetic(z, self.order)
        z = xp.point(z)
        if not xp.exact:
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                m = -_branch(float(self.order), z) / z
            return np.where(z == 0, np.inf, m)[()]
        return -self._exact_branch(z) / z

    def equation(self, m: Any, z: Any) -> Any:
        """(-m)^(p+1) z^p + z m + 1."""
        return (-m) ** (self.order + 1) * z**self.order + z * m + 1

    def density(self, x: Any) -> Any:
        xp = arithmetic(x, self.order)
        x = xp.real(x)
        if xp.exact:
            return _each(self._exact_density)(x)
        p, (inside, phi, psi) = float(self.order), self._angles(x)
        with np.errstate(divide="ignore", over="ignore"):
            high = np.sin(p * phi) / np.sin((p + 1) * psi)
            rho = np.sin(phi) ** 2 / np.sin(p * phi) * high**p / np.pi
        return np.where(inside, rho, np.where(x == 0, np.inf, 0 * np.clip(x, 0, 1)))[()]

    def cdf(self, x: Any) -> Any:
        """((p+1)ψ + p sin((p+1)ψ) sin φ/sin(pφ))/π, ψ = π/(p+1) - φ."""
        xp = arithmetic(x, self.order)
        x = xp.real(x)
        if xp.exact:
            return _each(self._exact_cdf)(x)
        inside, phi, psi = self._angles(x)
        outside = np.where(x > 0, 1.0, 0 * np.clip(x, 0, 1))
        return np.where(inside, np.clip(self._share(phi, psi), 0, 1), outside)[()]

    def quantile(self, p: Any) -> Any:
        """x(φ) where the cdf, a closed form in φ, is p: Newton's method inside a bracket."""
        share = check_probabilities(p)
        low, high = np.zeros(share.shape), np.full(share.shape, self._last)  # in ψ
        psi = np.minimum(high, np.pi * share / (2 * float(self.order) + 2))
        for _ in range(100):
            error = self._share(self._last - psi, psi) - share
            low, high = np.where(error < 0, psi, low), np.where(error < 0, high, psi)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = psi - error / self._slope(self._last - psi, psi)
            step = np.where((step > low) & (step < high), step, (low + high) / 2)
            done = (np.abs(step - psi) <= 1e-16 * psi) | (high - low <= 2e-16 * high)
            psi = step
            if done.all():
                break
        x = self._at(psi)
        return np.where(share == 0, 0.0, np.where(share == 1, self.support[0][1], x))[()]

    def moment(self, order: int) -> Any:
        """binom((p+1)k, k)/(pk + 1), the Fuss–Catalan numbers."""
        return _fuss_catalan(self.order, check_order("order", order, least=0))

    def free_cumulants(self, order: int) -> list[Any]:
        """The Fuss–Catalan numbers of order p - 1: binom(pn, n)/((p-1)n + 1)."""
        count = check_order("order", order)
        return [_fuss_catalan(self.order - 1, n) for n in range(1, count + 1)]

    def s_transform(self, w: Any) -> Any:
        """S(w) = (1 + w)^(-p)."""
        xp = arithmetic(w, self.order)
        return (1 + xp.point(w)) ** (-self.order)

    def r_transform(self, w: Any) -> Any:
        """R(w) = u/w where u = w (1 + u)^p: the transform of order p - 1, R(w) = -m(1/w)/w.

        Real w up to (p-1)^(p-1)/p^p, complex w anywhere off that ray; NaN and a warning elsewhere.
        """
        xp = arithmetic(w, self.order)
        if xp.name == "sympy":
            raise NotImplementedError(
                "this R-transform has no sympy form; u R(u) = w at u = w S(w)"
            )
        if xp.exact:
            z = xp.real(w)
            return _each(lambda u: _polished(1 / u, self.order - 1) ** self.order if u else 1 + u)(
                z
            )
        w, p = np.asarray(w), float(self.order)
        if p == 1:
            return 1 / (1 - w)
        with np.errstate(divide="ignore"):
            z = 1 / np.where(w == 0, 1, w)
        value = np.where(w == 0, 1, _branch(p - 1, z) ** p)
        if np.iscomplexobj(w):
            return value[()]
        return _checked(value.imag == 0, value.real)[()]

    def quadrature(self, nodes: int) -> tuple[Array, Array]:
        """Fejér's rule in φ, where the law has an analytic density."""
        psi, w = Uniform(0, self._last).quadrature(nodes)
        return self._at(psi), w * self._last * self._slope(self._last - psi, psi)

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        """Squared singular values (dim,) of G_1 ... G_p, entries of variance 1/dim: O(dim³)."""
        check_order("dim", dim)
        if self.order != int(self.order):
            raise ValueError(f"a sample needs an integer order of factors, got {self.order!r}")
        product = np.eye(dim)
        for _ in range(int(self.order)):
            product = product @ rng.normal(scale=dim**-0.5, size=(dim, dim))
        return np.asarray(np.linalg.svd(product, compute_uv=False)[::-1] ** 2)

    @classmethod
    def moment_estimate(cls, measure: SpectralMeasure) -> dict[str, float]:
        """p = m_2/m_1² - 1."""
        return {"order": max(measure.moment(2) / measure.moment(1) ** 2 - 1, 1.0)}

    def _share(self, phi: Array, psi: Array) -> Array:
        """The cdf in terms of φ and ψ = π/(p+1) - φ."""
        p = float(self.order)
        rise = _sine((p + 1) * np.minimum(phi, psi)) / _sine(p * phi) * np.sin(phi)
        return np.asarray(((p + 1) * psi + p * rise) / np.pi)

    def _slope(self, phi: Array, psi: Array) -> Array:
        """Derivative of the cdf by ψ, ρ dx/dψ."""
        p = float(self.order)
        rise = _sine((p + 1) * np.minimum(phi, psi)) / _sine(p * phi) * np.sin(phi)
        return np.asarray(rise * _fall_slope(p, phi, psi) / np.pi)

    def _at(self, psi: Array) -> Array:
        """x(φ)."""
        fall = _fall(float(self.order), self._last - psi, psi)
        return np.asarray(float(self.support[0][1]) * np.exp(-fall))

    def _angles(self, x: Array) -> tuple[NDArray[np.bool_], Array, Array]:
        right = float(self.support[0][1])
        inside = (x > 0) & (x < right)
        return inside, *_angles(float(self.order), np.where(inside, x, right / 2))

    def _exact_branch(self, z: Any) -> Any:
        if arithmetic(z, self.order).name == "sympy":
            raise NotImplementedError("this transform has no sympy form; use equation(m, z)")
        return _each(lambda point: _polished(point, self.order))(z)

    def _exact_density(self, x: Any) -> Any:
        if not 0 < x < self.support[0][1]:
            return 0 * x if x else 1 / abs(x)
        return -self._exact_branch(x).imag / (x * x.context.pi)

    def _exact_cdf(self, x: Any) -> Any:
        if not 0 < x < self.support[0][1]:
            return 0 * x + (x > 0)
        branch = self._exact_branch(x)
        angle = x.context.atan2(-branch.imag, branch.real)
        return 1 - ((self.order + 1) * angle + self.order * branch.imag) / x.context.pi


def _each(function: Callable[[Any], Any]) -> Any:
    return np.frompyfunc(function, 1, 1)


def _fuss_catalan(p: Any, k: int) -> Any:
    """(1/k!) Π_{j=0}^{k-2} ((p+1)k - j), exact for exact p."""
    product = prod(((p + 1) * k - j for j in range(k - 1)), start=p**0)
    return product // factorial(k) if isinstance(product, int) else product / factorial(k)


def _sine(t: Any) -> Any:
    return np.sin(np.maximum(t, 1e-300))


_ZETA = zeta(2 * np.arange(1, 13))


def _log_sinc(t: Array) -> Array:
    """log(sin t/t) = -Σ ζ(2k)/k (t/π)^2k for 0 <= t < π, to full relative accuracy."""
    small = t < 0.7
    series = np.polynomial.Polynomial([0, *(_ZETA / np.arange(1, 13))])
    power = (np.where(small, t, 0.0) / np.pi) ** 2
    large = np.where(small, 1.0, t)
    return np.asarray(np.where(small, -series(power), np.log(np.sin(large) / large)))


def _log_sinc_slope(t: Array) -> Array:
    """cot t - 1/t."""
    small = t < 0.7
    power = (np.where(small, t, 0.0) / np.pi) ** 2
    series = -2 * np.where(small, t, 0.0) / np.pi**2 * np.polynomial.Polynomial(_ZETA)(power)
    large = np.where(small, 1.0, t)
    return np.asarray(np.where(small, series, 1 / np.tan(large) - 1 / large))


def _fall(p: float, phi: Array, psi: Array) -> Array:
    """log(right edge/x(φ)) >= 0."""
    right = phi < psi  # the half next to the right edge
    near, far = (
        np.where(right, phi, 0.1 * psi),
        np.where(right, 0.1 / (p + 1), np.maximum(psi, 1e-300)),
    )
    top = _log_sinc((p + 1) * near)
    low = np.log(np.sin((p + 1) * far) / ((p + 1) * np.where(right, 1.0, phi)))
    return np.asarray(_log_sinc(phi) + p * _log_sinc(p * phi) - (p + 1) * np.where(right, top, low))


def _fall_slope(p: float, phi: Array, psi: Array) -> Array:
    """Derivative of ``_fall`` by φ: cot φ + p² cot pφ - (p+1)² cot (p+1)φ."""
    right = phi < psi
    near, far = (
        np.where(right, phi, 0.1 * psi),
        np.where(right, 0.1 / (p + 1), np.maximum(psi, 1e-300)),
    )
    top = _log_sinc_slope((p + 1) * near)
    low = -1 / np.tan((p + 1) * far) - 1 / ((p + 1) * np.where(right, 1.0, phi))
    slope = _log_sinc_slope(phi) + p**2 * _log_sinc_slope(p * phi)
    return np.asarray(slope - (p + 1) ** 2 * np.where(right, top, low))


def _right_edge(p: float) -> float:
    return float((p + 1) * ((p + 1) / p) ** p)


def _angles(p: float, x: Array) -> tuple[Array, Array]:
    """φ and ψ = π/(p+1) - φ with x(φ) = x, for 0 < x < right edge.

    Newton's method in φ on √fall and in log ψ on fall, which are nearly straight lines.
    """
    last, right = np.pi / (p + 1), _right_edge(p)
    with np.errstate(divide="ignore"):
        fall = np.where(x > right / 2, -np.log1p((x - right) / right), np.log(right) - np.log(x))
    fall = np.maximum(fall, 1e-17)  # the edge itself is rounded
    middle = np.array(last / 2)
    upper = fall < _fall(p, middle, middle)
    phi = np.minimum(np.sqrt(2 * fall / (p * (p + 1))), last / 2)
    psi = np.minimum(x ** (1 / (p + 1)) * np.sin(last) / (p + 1), last / 2)
    phi, psi = np.where(upper, phi, last - psi), np.where(upper, last - phi, psi)
    for _ in range(20):
        found, slope = _fall(p, phi, psi), _fall_slope(p, phi, psi)
        root, goal = np.sqrt(np.maximum(found, 1e-300)), np.sqrt(fall)
        step = np.where(upper, phi - (root - goal) * 2 * root / slope, 0.0)
        factor = np.exp(np.where(upper, 0.0, (found - fall) / (slope * psi)))
        below = np.minimum(psi * np.minimum(factor, 1e3), 0.6 * last)
        phi = np.where(upper, np.clip(step, phi / 4, 0.6 * last), last - below)
        psi = np.where(upper, last - phi, below)
    return _checked(np.abs(_fall(p, phi, psi) - fall) <= 1e-12 * (1 + fall), phi), psi


def _checked(good: NDArray[np.bool_], value: Any) -> Any:
    good = np.asarray(good)
    if not np.all(good):
        warnings.warn(
            f"the Fuss–Catalan branch was not found at {np.count_nonzero(~good)} of {good.size} "
            "points",
            stacklevel=4,
        )
    return np.where(good, value, np.nan)


def _branch(p: float, z: Any) -> Any:
    """B(z) with z (B - 1) = B^(p+1) and B -> 1 at infinity, for p > 0; real z means z + i0.

    For z in the upper half-plane B is the only root in {r e^{-iφ}: 0 < φ < π/(p+1),
    0 < r < sin((p+1)φ)/sin(pφ)}, which certifies it.
    """
    z = np.asarray(z, complex)
    lower = np.signbit(z.imag)
    point = np.where(lower, z.conj(), z)
    right, size = _right_edge(p), np.abs(point)
    branch = np.full(z.shape, np.nan, complex)

    far = size > 1e4 * right
    with np.errstate(divide="ignore"):
        inverse = 1 / point[far]
    branch[far] = 1 + inverse * (
        1 + inverse * (p + 1 + inverse * (_fuss_catalan(p, 3) + inverse * _fuss_catalan(p, 4)))
    )
    near = ~far & (size > 0)
    inside = near & (point.imag == 0) & (point.real > 0) & (point.real < right)
    phi, psi = _angles(p, point.real[inside])
    radius = _sine((p + 1) * np.minimum(phi, psi)) / _sine(p * phi)
    branch[inside] = radius * np.exp(-1j * phi)

    above = near & (point.imag == 0) & (point.real >= right)
    branch[above] = _monotone(p, point.real[above], np.ones(np.count_nonzero(above)))
    below = near & (point.imag == 0) & (point.real < 0)
    start = np.minimum(1.0, size[below] ** (1 / (p + 1)))
    branch[below] = _monotone(p, point.real[below], start)
    rest = near & ~inside & ~above & ~below
    branch[rest] = _rotated(p, point[rest])
    return np.where(lower, branch.conj(), branch)


def _monotone(p: float, x: Array, b: Array) -> Array:
    """Newton's method on the convex B^(p+1) - x (B - 1), from where it is positive."""
    for _ in range(100):
        with np.errstate(divide="ignore", invalid="ignore"):
            step = (b ** (p + 1) - x * (b - 1)) / ((p + 1) * b**p - x)
        step = np.where(np.isfinite(step) & ((step < 0) | (x < 0)), step, 0.0)
        b = b - step
        if np.all(np.abs(step) <= 1e-16 * b):
            break
    return np.asarray(b)


def _rotated(p: float, z: Any) -> Any:
    """From the negative axis, where B is the root in (0, 1), along a circle to z."""
    size, angle = np.abs(z), np.angle(z)
    start = _monotone(p, -size, np.minimum(1.0, size ** (1 / (p + 1)))).astype(complex)
    branch, good = start, np.zeros(z.shape, bool)
    for steps in (8, 64, 512):
        todo = ~good
        branch[todo] = _follow(p, size[todo], angle[todo], start[todo], steps)
        good = _certified(p, z, branch)
        if good.all():
            break
    return _checked(good, branch)


def _follow(p: float, size: Array, angle: Array, b: Any, steps: int) -> Any:
    for k in range(1, steps + 1):
        turn = (angle - np.pi) / steps
        z = size * np.exp(1j * (np.pi + k * turn))
        with np.errstate(all="ignore"):
            b = b * np.exp(1j * turn * (b - 1) / (p * b - p - 1))  # d log B/d log z
            for _ in range(3 if k < steps else 50):
                step = (b ** (p + 1) - z * (b - 1)) / ((p + 1) * b**p - z)
                b = b - step
                if not np.any(np.abs(step) > 4e-16 * np.abs(b)):
                    break
    return b


def _certified(p: float, z: Any, b: Any) -> NDArray[np.bool_]:
    with np.errstate(all="ignore"):
        phi = -np.angle(b)
        room = 1e-7  # the mirror image of a root is farther, but at the edge, where they meet
        reach = np.sin((p + 1) * np.clip(phi, 1e-9, np.pi / (p + 1)))
        reach /= np.sin(p * np.clip(phi, 1e-9, np.pi / (p + 1)))
        good = (phi > -room) & (phi < np.pi / (p + 1) + room) & (np.abs(b) < reach + room)
        error = np.abs(b ** (p + 1) - z * (b - 1))
        return np.asarray(good & (error <= 1e-12 * np.abs(z)))


def _polished(z: Any, p: Any) -> Any:
    """B(z) in the digits of mpmath, by Newton's method from the double."""
    mp = z.context
    b, tiny = mp.mpc(complex(_branch(float(p), complex(z)))), +mp.eps
    with mp.workprec(2 * mp.prec + 20):  # at an edge two roots meet, and half the digits go
        for _ in range(100):
            step = (b ** (p + 1) - z * (b - 1)) / ((p + 1) * b**p - z)
            b -= step
            if abs(step) <= tiny * abs(b) / 1024:
                return b
    return mp.mpc(mp.nan, mp.nan)
