"""A law: a Stieltjes transform together with its support.

Everything else has a generic definition here: density, cdf, quantile, moments, free cumulants,
Jacobi coefficients. A closed form is an override, and one test battery checks every override of
every law against the generic definition.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.linalg import eigvalsh_tridiagonal

from rmthess import jacobi
from rmthess.arithmetic import arithmetic, check_finite
from rmthess.jacobi import Coefficients
from rmthess.laws.cumulants import free_cumulants_from_moments
from rmthess.measure import SpectralMeasure, check_order, check_probabilities

Array = NDArray[np.float64]
Interval = tuple[Any, Any]

_MOST_NODES = 8192


class Law(SpectralMeasure):
    """A probability law given by m(z) = ∫ dμ(x)/(x - z) and its support.

    ``ensemble`` names the matrices that ``sample`` draws, or is None where the law has no canonical
    ensemble. ``bounds`` are the open ranges of the parameters, for fits. ``finest`` is the distance
    from an edge, relative to the edge, down to which the transform is computed.
    """

    resolution = 0.0
    ensemble: ClassVar[str | None] = None
    finest: ClassVar[float] = 1e-14
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {}

    @property
    @abstractmethod
    def support(self) -> tuple[Interval, ...]:
        """The intervals (left, right) that carry the density, ascending; atoms excluded."""

    @property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        """Pairs (location, mass)."""
        return ()

    @property
    def cusps(self) -> tuple[float, ...]:
        """Points inside the support where two intervals touch and the density is a cube root."""
        return ()

    @property
    def breakpoints(self) -> Array:
        edges = [float(x) for interval in self.support for x in interval]
        return np.unique(edges + [float(location) for location, _ in self.atoms])

    @abstractmethod
    def r_transform(self, w: Any) -> Any:
        """R(w) = G⁻¹(w) - 1/w with G = -m; it adds under free convolution."""

    def s_transform(self, w: Any) -> Any:
        """S(w) = u/w where u R(u) = w; it multiplies under free multiplicative convolution.

        Solved by Newton's method from u = w/mean; a point that does not converge is NaN.
        """
        mean = self.moment(1)
        if mean == 0:
            raise ValueError(
                "the S-transform needs a law with non-zero mean, and this one is centred; "
                "shift it first, or use free additive convolution"
            )
        w = np.asarray(w)
        u = w / mean
        for _ in range(60):
            step = 1e-6 * np.maximum(np.abs(u), 1e-6)
            value = u * self.r_transform(u) - w
            slope = (u + step) * self.r_transform(u + step) - (u - step) * self.r_transform(
                u - step
            )
            u = u - value * 2 * step / slope
        value = u * self.r_transform(u) - w
        good = np.abs(value) <= 1e-12 * np.maximum(np.abs(w), 1e-12)
        if not np.all(good):
            warnings.warn(
                f"S-transform did not converge at {np.count_nonzero(~good)} of {good.size} points",
                stacklevel=2,
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(good, np.where(w == 0, 1 / mean, u / w), np.nan)[()]

    def stieltjes_and_slope(self, z: Any) -> tuple[Any, Any]:
        """m(z) and m'(z), shape (n,) like ``z``; the slope by differences, to about 1e-10.

        The steps are horizontal and 1/100 of the way to the next end of the support or atom.
        """
        z = np.asarray(z, complex)
        h = np.abs(z[:, None] - self.breakpoints).min(axis=1) / 100
        m = np.asarray(self.stieltjes(z + h * np.arange(-3, 4)[:, None]))
        with np.errstate(divide="ignore", invalid="ignore"):
            return m[3], (np.array([-1, 9, -45, 0, 45, -9, 1]) / 60) @ m / h

    def equation(self, m: Any, z: Any) -> Any:
        """P(m, z), the polynomial that the Stieltjes transform solves: P(m(z), z) = 0."""
        raise NotImplementedError(f"{type(self).__name__} has no polynomial equation here")

    def density(self, x: Any) -> Any:
        """Im m(x + i0)/π, the absolutely continuous part. Same shape as ``x``."""
        x = np.asarray(x, float)
        inside = np.zeros(x.shape, bool)
        for left, right in self.support:
            inside |= (x > left) & (x < right)
        density = np.where(np.isnan(x), np.nan, 0.0)
        density[inside] = np.imag(self.stieltjes(x[inside])) / np.pi
        return density[()]

    def quadrature(self, nodes: int) -> tuple[Array, Array]:
        """Nodes and weights: ``nodes`` Chebyshev points on each interval, then the atoms.

        With x = middle - half cos θ a density with square-root edges becomes an even, smooth,
        periodic function of θ, and the midpoint rule converges geometrically.
        """
        theta = (np.arange(nodes) + 0.5) * np.pi / nodes
        x, w = [], []
        for left, right in self.support:
            half = (float(right) - float(left)) / 2
            points = float(left) + 2 * half * np.sin(theta / 2) ** 2
            x.append(points)
            w.append(np.pi / nodes * half * np.sin(theta) * np.asarray(self.density(points), float))
        x.append(np.array([float(location) for location, _ in self.atoms]))
        w.append(np.array([float(mass) for _, mass in self.atoms]))
        return np.concatenate(x), np.concatenate(w)

    def integrate(self, f: Callable[[Array], Array]) -> Any:
        """∫ f dμ; warns where twice as many nodes still change the result by more than 1e-9."""
        nodes, old = 64, np.asarray(np.nan)
        while True:
            x, w = self.quadrature(nodes)
            values = np.asarray(f(x))
            new, size = values @ w, np.abs(values) @ w
            if abs(new - old) <= 1e-14 * size or nodes >= _MOST_NODES:
                break
            nodes, old = 2 * nodes, new
        if not abs(new - old) <= 1e-9 * size:
            warnings.warn(f"integral not converged: {old} then {new}", stacklevel=2)
        return new

    @cached_property
    def _cumulatives(self) -> list[tuple[float, float, Array]]:
        """For each interval (left, half width, cosine coefficients of density dx/dθ)."""
        found = []
        for left, right in self.support:
            left, half, nodes = float(left), (float(right) - float(left)) / 2, 64
            while True:
                theta = (np.arange(nodes) + 0.5) * np.pi / nodes
                x = left + 2 * half * np.sin(theta / 2) ** 2
                series = dct(half * np.sin(theta) * np.asarray(self.density(x), float)) / nodes
                series[0] /= 2
                tail = np.abs(series[-nodes // 8 :]).max()
                if tail <= 1e-15 * np.abs(series).max() or nodes >= _MOST_NODES:
                    break
                nodes *= 2
            if tail > 1e-9 * np.abs(series).max():
                warnings.warn(f"cdf of {self!r} resolved to {tail:.0e} only", stacklevel=3)
            kept = np.flatnonzero(np.abs(series) > 1e-17 * np.abs(series).max())[-1] + 1
            found.append((left, half, series[:kept]))
        mass = sum(np.pi * float(series[0]) for _, _, series in found)
        mass += sum(float(mass) for _, mass in self.atoms)
        if not abs(mass - 1) <= 1e-7:
            warnings.warn(
                f"cdf of {self!r}: density and atoms have mass {mass:.8g}; an interval of the "
                "support too narrow to be resolved is missing",
                stacklevel=3,
            )
        return found

    def cdf(self, x: Any) -> Any:
        """μ((-∞, x]) by termwise integration of the density's cosine series on each interval."""
        x = np.asarray(x, float)
        total = np.zeros(x.shape)
        for left, half, series in self._cumulatives:
            theta = 2 * np.arcsin(np.sqrt(np.clip((x - left) / (2 * half), 0.0, 1.0)))
            total += series[0] * theta + _sines(series[1:] / np.arange(1, series.size), theta)
        for location, mass in self.atoms:
            total += float(mass) * (x >= float(location))
        return np.clip(total, 0.0, 1.0)[()]

    @cached_property
    def _brackets(self) -> tuple[Array, Array]:
        """Breakpoints, up to 64 points on each interval, ascending, and the cdf there."""
        count = int(np.clip(1024 // len(self.support), 16, 64))
        share = np.sin(np.linspace(0, np.pi / 2, count + 1)) ** 2
        arcs = [float(a) + (float(b) - float(a)) * share for a, b in self.support]
        x = np.unique(np.concatenate([self.breakpoints, *arcs]))
        x = x[(x >= self.breakpoints[0]) & (x <= self.breakpoints[-1])]
        return x, np.maximum.accumulate(np.asarray(self.cdf(x), float))

    def _cdf_and_density(self, x: Array) -> tuple[Array, Array]:
        """For a step of Newton's method; a law may have both from one solution."""
        return np.asarray(self.cdf(x), float), np.asarray(self.density(x), float)

    def quantile(self, p: Any) -> Any:
        """inf{x : cdf(x) >= p}: Newton's method in a bracket, of tabulated points at first."""
        p = check_probabilities(p)
        flat = p.ravel()
        points, table = self._brackets
        k = np.minimum(np.searchsorted(table, flat), points.size - 1)
        low, high = points[np.maximum(k - 1, 0)], points[k]

        def excess(x: Array, which: NDArray[np.intp]) -> tuple[Array, Array]:
            reached, density = self._cdf_and_density(x)
            return reached - flat[which], density

        x = rising_root(excess, low, high, (low + high) / 2, 1e-13 * float(np.ptp(points)))
        x = np.where(flat == 1, points[-1], x)  # the cdf rounds to 1 before the end
        return x.reshape(p.shape)[()]

    def moment(self, order: int) -> Any:
        """∫ x^order dμ."""
        check_order("order", order, least=0)
        return self.integrate(lambda x: x**order)

    def free_cumulants(self, order: int) -> list[Any]:
        """κ_1, ..., κ_order, the coefficients of R(w) = Σ κ_n w^{n-1}."""
        moments = [self.moment(k) for k in range(1, check_order("order", order) + 1)]
        return free_cumulants_from_moments(moments)

    def jacobi(self, steps: int) -> Coefficients:
        """First Jacobi coefficients by Lanczos on ever finer quadratures (Gautschi)."""
        check_order("steps", steps)
        nodes, old = max(64, 4 * steps), None
        while True:
            new = jacobi.from_quadrature(*self.quadrature(nodes), steps)
            if old is not None:
                change = max(np.abs(p - q).max(initial=0) for p, q in zip(new, old, strict=True))
                if change <= 1e-13 * np.abs(new[0]).max() + 1e-13 * np.abs(new[1]).max(initial=0):
                    return new
                if nodes >= _MOST_NODES:
                    if change > 1e-9 * (np.abs(new[0]).max() + np.abs(new[1]).max(initial=0)):
                        warnings.warn(
                            f"Jacobi coefficients converged to {change:.0e}", stacklevel=2
                        )
                    return new
            nodes, old = 2 * nodes, new

    def sample_jacobi(
        self, steps: int, dim: float, rng: np.random.Generator, probes: int = 1
    ) -> Coefficients:
        """What Lanczos from uniformly random vectors finds in ``steps`` steps on one such matrix.

        Shapes (probes, steps) and (probes, steps - 1). The matrix has side ``dim``, any positive
        number, and is never formed.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no canonical matrix ensemble to draw from"
        )

    def mean_jacobi(self, steps: int, dim: float) -> Coefficients:
        """Expectation of one probe of ``sample_jacobi``: off ``jacobi`` by O(steps/dim)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no canonical matrix ensemble to average over"
        )

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        """Eigenvalues (dim,), ascending, of one random matrix of this law: O(dim²)."""
        a, b = self.sample_jacobi(check_order("dim", dim), dim, rng)
        return np.asarray(eigvalsh_tridiagonal(a[0], b[0], lapack_driver="sterf"))

    @classmethod
    def moment_estimate(cls, measure: SpectralMeasure) -> dict[str, float]:
        """Parameters by the method of moments: the start of a fit."""
        raise NotImplementedError(f"{cls.__name__} has no moment estimate")

    def shift(self, c: Any) -> Law:
        """The law of X + c."""
        return AffineLaw(self, 1.0, c)

    def dilate(self, c: Any) -> Law:
        """The law of c X, c != 0; c < 0 reflects it."""
        return AffineLaw(self, c, 0.0)


def rising_root(
    excess: Callable[[Array, NDArray[np.intp]], tuple[Array, Array]],
    low: Array,
    high: Array,
    start: Array,
    reach: float,
) -> Array:
    """Where cdfs reach their levels, (n,): Newton's method in the brackets ``low`` to ``high``.

    ``excess(points, which)``: by how much, and its slope, for the roots of these indices. Last
    called at the points returned. ``reach``: how long a step may still be at an excess of rounding
    size. Where the roundings of a cdf are larger, the step that comes no nearer is the last.
    """
    found, active = np.where(low < high, start, high), np.flatnonzero(low < high)
    a, b, last = low[active], high[active], np.full(active.size, np.inf)
    for _ in range(100):
        if not active.size:
            break
        at = found[active]
        error, slope = excess(at, active)
        a, b = np.where(error < 0, at, a), np.where(error < 0, b, at)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = at - error / slope
        newton, error = (step > a) & (step < b), np.abs(error)
        # a step within the roundings of the cdf may well leave the bracket
        done = (error <= 1e-15) & ((reach == np.inf) | (np.abs(step - at) <= reach))
        done |= (error <= 1e-9) & (error >= last / 2)
        done |= np.abs(step - at) <= 4e-16 * np.abs(at)
        done |= b - a <= 4e-16 * np.maximum(np.abs(a), np.abs(b))
        found[active] = np.where(done, at, np.where(newton, step, (a + b) / 2))
        active, last = active[~done], np.where(newton, error, np.inf)[~done]
        a, b = a[~done], b[~done]
    return found


def _sines(coefficients: Array, theta: Array) -> Array:
    """Σ_k c_k sin(k θ), k = 1, 2, ..., by Horner's rule in blocks of 64 powers of e^{iθ}."""
    size = 64
    blocks = np.zeros((size, -(-coefficients.size // size)))
    blocks.T.flat[: coefficients.size] = coefficients
    unit = np.exp(1j * theta)
    parts = np.exp(1j * np.multiply.outer(theta, np.arange(1, size + 1))) @ blocks
    total = np.zeros(theta.shape, complex)
    for part in np.moveaxis(parts, -1, 0)[::-1]:
        total = total * unit**size + part
    return np.asarray(total.imag)


@dataclass(frozen=True)
class AffineLaw(Law):
    """The law of scale X + offset:  m(z) = m_X((z - offset)/scale)/scale."""

    base: Law
    scale: Any
    offset: Any

    def __post_init__(self) -> None:
        check_finite("scale", self.scale, "the factor of the law")
        check_finite("offset", self.offset, "the shift of the law")
        if self.scale == 0:
            raise ValueError("scale must not be 0; the law of 0 X is an atom")

    @property
    def ensemble(self) -> str | None:  # type: ignore[override]
        return self.base.ensemble

    @property
    def finest(self) -> float:  # type: ignore[override]
        return self.base.finest

    @property
    def _reflects(self) -> bool:
        return bool(self.scale < 0)

    def _forward(self, x: Any) -> Any:
        return self.scale * x + self.offset

    def _back(self, x: Any) -> Any:
        return (x - self.offset) / self.scale

    @property
    def support(self) -> tuple[Interval, ...]:
        images = [tuple(self._forward(x) for x in interval) for interval in self.base.support]
        if self._reflects:
            images = [(right, left) for left, right in images[::-1]]
        return tuple(images)

    @property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        return tuple((self._forward(location), mass) for location, mass in self.base.atoms)

    @property
    def cusps(self) -> tuple[float, ...]:
        return tuple(sorted(float(self._forward(x)) for x in self.base.cusps))

    def stieltjes(self, z: Any) -> Any:
        point = self._back(arithmetic(z, self.scale, self.offset).point(z))
        if self._reflects:  # x + i0 goes to the lower half-plane: m(z̄) is the conjugate of m(z)
            return np.conjugate(self.base.stieltjes(np.conjugate(point))) / self.scale
        return self.base.stieltjes(point) / self.scale

    def stieltjes_and_slope(self, z: Any) -> tuple[Any, Any]:
        point = self._back(np.asarray(z, complex))
        if self._reflects:
            m, slope = map(np.conjugate, self.base.stieltjes_and_slope(np.conjugate(point)))
        else:
            m, slope = self.base.stieltjes_and_slope(point)
        return m / self.scale, slope / self.scale**2

    def density(self, x: Any) -> Any:
        real = arithmetic(x, self.scale, self.offset).real(x)
        return self.base.density(self._back(real)) / abs(self.scale)

    def quadrature(self, nodes: int) -> tuple[Array, Array]:
        x, w = self.base.quadrature(nodes)
        return self._forward(x), w

    def moment(self, order: int) -> Any:
        """Σ_j binom(order, j) scale^j offset^(order-j) E[X^j]."""
        k = check_order("order", order, least=0)
        return sum(
            comb(k, j) * self.scale**j * self.offset ** (k - j) * self.base.moment(j)
            for j in range(k + 1)
        )

    def free_cumulants(self, order: int) -> list[Any]:
        """κ_n = scale^n κ_n(X), the first one larger by offset."""
        inner = self.base.free_cumulants(order)
        scaled = [self.scale**n * kappa for n, kappa in enumerate(inner, start=1)]
        return [scaled[0] + self.offset, *scaled[1:]]

    def cdf(self, x: Any) -> Any:
        xp = arithmetic(x, self.scale, self.offset)
        back = self._back(xp.real(x))
        below = self.base.cdf(back)
        if not self._reflects:
            return below
        at = sum(mass * (back == location) for location, mass in self.base.atoms)
        return xp.clip(1 - below + at, 0, 1)

    def quantile(self, p: Any) -> Any:
        if self._reflects:  # sup{x : F(x-) <= 1 - p} of the base, which is no quantile of it
            return super().quantile(p)
        return self._forward(self.base.quantile(p))

    def r_transform(self, w: Any) -> Any:
        """R(w) = offset + scale R_X(scale w)."""
        return self.offset + self.scale * self.base.r_transform(self.scale * w)

    def equation(self, m: Any, z: Any) -> Any:
        return self.base.equation(self.scale * m, self._back(z))

    def jacobi(self, steps: int) -> Coefficients:
        a, b = self.base.jacobi(steps)
        return self._forward(a), abs(self.scale) * b

    def sample_jacobi(
        self, steps: int, dim: float, rng: np.random.Generator, probes: int = 1
    ) -> Coefficients:
        a, b = self.base.sample_jacobi(steps, dim, rng, probes)
        return self._forward(a), abs(self.scale) * b

    def mean_jacobi(self, steps: int, dim: float) -> Coefficients:
        a, b = self.base.mean_jacobi(steps, dim)
        return self._forward(a), abs(self.scale) * b

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        return np.sort(self._forward(self.base.sample(dim, rng)))

    def shift(self, c: Any) -> Law:
        return AffineLaw(self.base, self.scale, self.offset + c)

    def dilate(self, c: Any) -> Law:
        return AffineLaw(self.base, c * self.scale, c * self.offset)
