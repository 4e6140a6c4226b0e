"""Freely infinitely divisible laws with finitely many jumps (theory/free_compound_poisson.md)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmthess.arithmetic import check_finite, check_positive
from rmthess.laws.cumulants import moments_from_free_cumulants
from rmthess.laws.kernel import Kernel, Terms
from rmthess.laws.kernel_law import (
    KernelLaw,
    check_algebraic,
    cleared,
    coefficients,
    nodes_of,
    shares,
)
from rmthess.laws.law import Law
from rmthess.measure import DiscreteMeasure, SpectralMeasure, check_order

Array = NDArray[np.float64]
Levy = tuple[float, Array, Array]


class LevyLaw(KernelLaw):
    """R(w) = drift + Σ_j p_j w/(1 - t_j w): the free Lévy–Khintchine formula, p_j > 0.

    With ω = 1/G: z = ω + drift + Σ_j p_j/(ω - t_j), so m = -1/ω. A jump t = 0 is a semicircle of
    variance p. Bercovici & Voiculescu, Indiana Univ. Math. J. 42 (1993).
    """

    @property
    @abstractmethod
    def levy(self) -> Levy:
        """drift, t_j, p_j."""

    @cached_property
    def kernel(self) -> Kernel:
        drift, jumps, weights = self.levy
        return Kernel(jumps, weights, 1.0, drift, self._origin)

    @property
    def _origin(self) -> tuple[float, float] | None:
        """K(0) and K'(0), at the pole of m = -1/ω; None where a semicircle takes it away."""
        drift, jumps, weights = self.levy
        if (jumps == 0).any():
            return None
        terms = weights / jumps
        value, slope = drift - float(np.sum(terms)), 1 - float(np.sum(terms / jumps))
        noise = 4e-16 * jumps.size  # roundings of the sums
        size = abs(drift) + float(np.abs(terms).sum())
        return (
            0.0 if abs(value) <= 25 * noise * size else value,
            0.0 if abs(slope) <= noise else slope,
        )

    @property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        """G = 1/ω has a pole where ω = 0: of mass K'(0), if that is positive, at K(0)."""
        if self._origin is None:
            return ()
        location, mass = self._origin
        return ((location, mass),) if mass > 0 else ()

    def _transform(self, omega: Any, z: Any) -> Any:
        return -1 / omega

    def _partials(self, omega: Any, z: Any) -> tuple[Any, Any]:
        return 1 / omega**2, 0.0

    def _argument(self, omega: Any, x: Any) -> Any:
        """L = log ω + Σ p_j [(log(ω - t_j) - log ω)/t_j² + 1/(t_j(ω - t_j))], p/(2ω²) for t = 0.

        dL = dK/ω: what roundings of ω leave of Im K, which is 0, is taken off. Divided by the rate
        it would be 1e-8 of the cdf at a rate of 1e-9.
        """
        poles, residues = self.kernel.poles, self.kernel.residues
        moving = poles != 0
        t, p = poles[moving], residues[moving]
        total = np.angle(omega) * (1 - np.sum(p / t**2))
        total += np.angle(omega[..., None] - t) @ (p / t**2)
        pulls = np.imag(1 / (omega[..., None] - t))
        total += pulls @ (p / t)
        inverse = 1 / np.where(np.imag(omega) > 0, omega, 1.0)  # what follows is 0 on the axis
        p0 = residues[~moving].sum()
        rounding = np.imag(omega) + pulls @ p + p0 * np.imag(inverse)
        return total + p0 / 2 * np.imag(inverse**2) - np.real(inverse) * rounding

    def _terms(self) -> Terms:
        """As mpmath sees the doubles of the Lévy triple."""
        import mpmath

        drift, jumps, weights = self.levy
        return [*map(mpmath.mpf, jumps)], [*map(mpmath.mpf, weights)], 1, mpmath.mpf(drift)

    def r_transform(self, w: Any) -> Any:
        drift, jumps, weights = self.levy
        w = np.asarray(w)
        return (drift + (w[..., None] / (1 - jumps * w[..., None])) @ weights)[()]

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        """Eigenvalues (dim,) of c + W + Σ_j t_j X_j X_jᵀ: O(dim³).

        W is GOE of variance p_j where t_j = 0; X_j (dim, dim p_j/t_j²), the second side rounded,
        has entries of variance 1/dim; c = drift - Σ p_j/t_j.
        """
        side = check_order("dim", dim)
        drift, jumps, weights = self.levy
        total = np.zeros((side, side))
        for t, p in zip(jumps.tolist(), weights.tolist(), strict=True):
            if t == 0:
                noise = rng.standard_normal((side, side)) * np.sqrt(p / (2 * side))
                total += noise + noise.T
            else:
                total += t / side * _wishart(side, max(1, round(side * p / t**2)), rng)
                drift -= p / t
        return np.asarray(np.linalg.eigvalsh(total + drift * np.eye(side)), float)

    def free_cumulants(self, order: int) -> list[Any]:
        """drift, then Σ_j p_j t_j^(n-2)."""
        drift, jumps, weights = self.levy
        powers = [float(weights @ jumps**n) for n in range(check_order("order", order) - 1)]
        return [drift, *powers]

    def moment(self, order: int) -> Any:
        k = check_order("order", order, least=0)
        return 1.0 if k == 0 else moments_from_free_cumulants(self.free_cumulants(k))[-1]

    def equation(self, m: Any, z: Any) -> Any:
        """1 + (z - drift) m + Σ_j p_j m²/(1 + t_j m), times its denominators."""
        drift, jumps, weights = self.levy
        (drift,), t, p = (coefficients(part, m, z) for part in (drift, jumps, weights))
        terms = [(-pj * m**2, 1 + tj * m) for tj, pj in zip(t, p, strict=True)]
        return cleared(1 + (z - drift) * m, terms)

    def shift(self, c: Any) -> Law:
        drift, jumps, weights = self.levy
        return FreeLevy(drift + float(c), DiscreteMeasure(jumps, weights / weights.sum()),
                        float(weights.sum()))  # fmt: skip

    def dilate(self, c: Any) -> Law:
        drift, jumps, weights = self.levy
        c = float(c)
        check_finite("c", c, "the factor of the law")
        if c == 0:
            raise ValueError("c must not be 0; the law of 0 X is an atom")
        total = float(weights.sum())
        return FreeLevy(c * drift, DiscreteMeasure(c * jumps, weights / total), c**2 * total)


def _wishart(side: int, samples: int, rng: np.random.Generator) -> Array:
    """X Xᵀ, X (side, samples) standard normal; of many samples by Bartlett's triangular factor."""
    if samples < side:
        factor = rng.standard_normal((side, samples))
    else:
        factor = np.tril(rng.standard_normal((side, side)), -1)
        factor[np.diag_indices(side)] = np.sqrt(rng.chisquare(samples - np.arange(side)))
    return np.asarray(factor @ factor.T)


@dataclass(frozen=True)
class FreeLevy(LevyLaw):
    """R(w) = drift + variance E[w/(1 - t w)], t ~ jumps: free sum of semicircle and Poisson parts.

    ``jumps`` a measure of finitely many t, t = 0 for the semicircular part; ``variance`` that of
    the law. Free sums of semicircle, Marchenko–Pastur and free compound Poisson laws are of this
    kind.

    >>> FreeLevy(0.0, DiscreteMeasure([0.0], [1.0]), 1.0).support
    ((-2.0, 2.0),)
    """

    drift: float
    jumps: DiscreteMeasure
    variance: float

    def __post_init__(self) -> None:
        check_finite("drift", self.drift, "the mean of the law")
        check_positive("variance", self.variance, "the variance of the law")

    @property
    def levy(self) -> Levy:
        return float(self.drift), self.jumps.nodes, float(self.variance) * self.jumps.weights


@dataclass(frozen=True)
class FreeCompoundPoisson(LevyLaw):
    """R(w) = rate E[t/(1 - t w)], t ~ jumps; atom 1 - rate P(t ≠ 0) at 0 where that is positive.

    The limit spectrum of Σ_i t_i x_i x_iᵀ over rate·dim independent vectors x_i (dim,) with entries
    of variance 1/dim; κ_n = rate E[tⁿ]. ``rate`` > 0; ``jumps`` any measure, signed t allowed.
    Speicher, Mem. AMS 132 (1998).

    >>> FreeCompoundPoisson(4.0, DiscreteMeasure([0.25], [1.0])).support
    ((0.25, 2.25),)
    """

    rate: float
    jumps: SpectralMeasure

    def __post_init__(self) -> None:
        check_positive("rate", self.rate, "the number of vectors per dimension")

    @cached_property
    def _jumps(self) -> tuple[Array, Array]:
        rate = float(self.rate)
        return nodes_of(
            self.jumps, lambda t, w: Kernel(t, rate * w * t**2, 1.0, rate * float(w @ t))
        )

    @property
    def _origin(self) -> tuple[float, float] | None:
        """K(0) = 0 and K'(0) = 1 - rate P(t ≠ 0)."""
        t, w = self._jumps
        return 0.0, 1 - float(self.rate) * (1 - float(w[t == 0].sum()))

    @property
    def levy(self) -> Levy:
        t, w = self._jumps
        kept = t != 0
        t, w = t[kept], w[kept]
        if not t.size:
            raise ValueError("jumps must not all be 0; the law would be an atom at 0")
        return float(self.rate) * float(w @ t), t, float(self.rate) * w * t**2

    def _terms(self) -> Terms:
        import mpmath

        rate, (jumps, weights) = mpmath.mpmathify(self.rate), self._jumps
        pairs = list(zip(map(mpmath.mpf, jumps), shares(weights, mpmath.mpf(1)), strict=True))
        drift = rate * mpmath.fsum(t * w for t, w in pairs)
        return [t for t, _ in pairs], [rate * w * t**2 for t, w in pairs], 1, drift

    def sample(self, dim: int, rng: np.random.Generator) -> Array:
        """Eigenvalues (dim,) of Σ_i t_i x_i x_iᵀ, t_i the quantiles of the jumps: O(dim³)."""
        side = check_order("dim", dim)
        count = max(1, round(float(self.rate) * side))
        t = np.asarray(self.jumps.quantile((np.arange(count) + 0.5) / count), float)
        x = rng.standard_normal((side, count)) / np.sqrt(side)
        return np.linalg.eigvalsh((x * t) @ x.T)

    def equation(self, m: Any, z: Any) -> Any:
        """1 + z m - rate Σ_j w_j t_j m/(1 + t_j m), times its denominators."""
        check_algebraic(self, self.jumps)
        (rate,), t = (coefficients(part, m, z) for part in (self.rate, self._jumps[0]))
        w = shares(self._jumps[1], m, z)
        terms = [(rate * wj * tj * m, 1 + tj * m) for tj, wj in zip(t, w, strict=True) if tj != 0]
        return cleared(1 + z * m, terms)

    def dilate(self, c: Any) -> Law:
        if isinstance(self.jumps, DiscreteMeasure) and c != 0:
            return FreeCompoundPoisson(
                self.rate, DiscreteMeasure(float(c) * self.jumps.nodes, self.jumps.weights)
            )
        return super().dilate(c)
