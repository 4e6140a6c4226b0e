"""The Marchenko–Pastur law of sample covariance matrices (theory/marchenko_pastur.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal
from scipy.optimize import brentq
from scipy.special import digamma

from rmthess import jacobi
from rmthess.arithmetic import arithmetic, check_positive, is_symbolic, plain
from rmthess.jacobi import Coefficients
from rmthess.laws.law import Interval, Law
from rmthess.measure import SpectralMeasure, check_order


@dataclass(frozen=True)
class MarchenkoPastur(Law):
    """ρ(x) = √((b-x)(x-a))/(2π q v x) on a, b = v(1 ∓ √q)²; atom 1 - 1/q at 0 where q > 1.

    m(z) = 2/(v(1-q) - z - √(z-a)√(z-b)). The limit spectrum of XᵀX/samples, X (samples, dim) with
    independent entries of mean 0 and variance v; ``ratio`` q = dim/samples > 0, ``variance`` v > 0.
    Marchenko & Pastur, Math. USSR Sb. 1 (1967).

    >>> MarchenkoPastur(ratio=0.25).support
    ((0.25, 2.25),)
    """

    ratio: Any
    variance: Any = 1

    ensemble: ClassVar[str | None] = "Wishart"
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "ratio": (0.0, np.inf),
        "variance": (0.0, np.inf),
    }

    def __post_init__(self) -> None:
        check_positive("ratio", self.ratio, "dim / samples")
        check_positive("variance", self.variance, "the variance of a data entry")

    @property
    def _wide(self) -> bool:
        """More dimensions than samples; a symbolic ratio is read as at most 1."""
        return not is_symbolic(self.ratio) and bool(self.ratio > 1)

    @property
    def _continuous(self) -> Any:
        """Mass of the continuous part."""
        return 1 / self.ratio if self._wide else 1

    @cached_property
    def support(self) -> tuple[Interval, ...]:
        root = arithmetic(self.ratio, self.variance).sqrt(self.ratio)
        left, right = self.variance * (1 - root) ** 2, self.variance * (1 + root) ** 2
        return ((plain(left), plain(right)),)

    @property
    def atoms(self) -> tuple[tuple[Any, Any], ...]:
        return ((0 * self.ratio, 1 - 1 / self.ratio),) if self._wide else ()

    def stieltjes(self, z: Any) -> Any:
        xp = arithmetic(z, self.ratio, self.variance)
        q, v, z = self.ratio, self.variance, xp.point(z)
        ((a, b),) = self.support
        gap = v * (q - 1) if self._wide else v * (1 - q)
        # the continuous part in the form that cancels neither at large |z| nor at 0
        smooth = xp.quotient(2, gap - z - xp.sqrt(z - a) * xp.sqrt(z - b))
        return smooth / q - xp.quotient(1 - 1 / q, z) if self._wide else smooth

    def stieltjes_and_slope(self, z: Any) -> tuple[Any, Any]:
        """m' = -m (q v m + 1)/(2 q v z m + z - v(1 - q))."""
        m, q, v = self.stieltjes(z), self.ratio, self.variance
        with np.errstate(divide="ignore", invalid="ignore"):
            return m, -m * (q * v * m + 1) / (2 * q * v * z * m + z - v * (1 - q))

    def equation(self, m: Any, z: Any) -> Any:
        """q v z m² + (z - v(1 - q)) m + 1."""
        q, v = self.ratio, self.variance
        return q * v * z * m**2 + (z - v * (1 - q)) * m + 1

    def density(self, x: Any) -> Any:
        xp = arithmetic(x, self.ratio, self.variance)
        x = xp.real(x)
        ((a, b),) = self.support
        if a == 0:  # the hard edge: infinite at 0
            root = xp.sqrt(xp.positive_part(xp.quotient(xp.positive_part(b - x), x)))
        else:
            root = xp.quotient(xp.sqrt(xp.positive_part((b - x) * (x - a))), x)
        return root / (2 * xp.pi * self.ratio * self.variance)

    def cdf(self, x: Any) -> Any:
        """(θ + sin θ/r - (1/r² - 1) φ)/π with x = v|1 - √q e^{iθ}|², tan φ = r sin θ/(1 - r cos θ).

        r² = min(q, 1/q); times min(1, 1/q), plus the atom (derived in the theory page).
        """
        xp = arithmetic(x, self.ratio, self.variance)
        x = xp.real(x)
        ((a, b),) = self.support
        y = xp.clip(x, a, b)  # an infinite x stays out of the quotients
        left, right = xp.positive_part(y - a), xp.positive_part(b - y)
        sine = 2 * xp.sqrt(left) * xp.sqrt(right) / (left + right)
        cosine = (right - left) / (left + right)
        r2 = 1 / self.ratio if self._wide else self.ratio
        r = xp.sqrt(r2)
        phi = xp.arctan2(r * sine, 1 - r * cosine)
        theta = xp.arctan2(sine, cosine)
        smooth = (theta + sine / r - (1 / r2 - 1) * phi) / xp.pi
        atom = (1 - self._continuous) * xp.step(x) if self._wide else 0
        return xp.clip((self._continuous * smooth + atom) * xp.real(1), 0, 1)

    def r_transform(self, w: Any) -> Any:
        """R(w) = v/(1 - q v w)."""
        return self.variance / (1 - self.ratio * self.variance * w)

    def s_transform(self, w: Any) -> Any:
        """S(w) = 1/(v(1 + q w))."""
        return 1 / (self.variance * (1 + self.ratio * w))

    def free_cumulants(self, order: int) -> list[Any]:
        """κ_n = v^n q^(n-1)."""
        count = check_order("order", order)
        return [self.variance**n * self.ratio ** (n - 1) for n in range(1, count + 1)]

    def moment(self, order: int) -> Any:
        """v^k Σ_j q^j binom(k, j) binom(k-1, j)/(j+1), the Narayana polynomial."""
        k = check_order("order", order, least=0)
        if k == 0:
            return 1
        return self.variance**k * sum(
            comb(k, j) * comb(k - 1, j) // (j + 1) * self.ratio**j for j in range(k)
        )

    def jacobi(self, steps: int) -> Coefficients:
        """a_0 = v, then a_k = v(1 + q); b_k = v √q."""
        q, v = float(self.ratio), float(self.variance)
        diagonal = np.full(check_order("steps", steps), v * (1 + q))
        diagonal[0] = v
        return diagonal, np.full(steps - 1, v * np.sqrt(q))

    def sample_jacobi(
        self, steps: int, dim: float, rng: np.random.Generator, probes: int = 1
    ) -> Coefficients:
        a, b = jacobi.laguerre_chains(steps, dim, dim / float(self.ratio), rng, probes)
        return float(self.variance) * a, float(self.variance) * b

    def mean_jacobi(self, steps: int, dim: float) -> Coefficients:
        a, b = jacobi.mean_laguerre_chain(steps, dim, dim / float(self.ratio))
        return float(self.variance) * a, float(self.variance) * b

    def sample(self, dim: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Eigenvalues (dim,) of XᵀX/samples; for q > 1 with samples = round(dim/q)."""
        if not self._wide:
            return super().sample(dim, rng)
        samples = max(1, round(check_order("dim", dim) / float(self.ratio)))
        a, b = jacobi.laguerre_chains(samples, samples, dim, rng)  # the companion matrix XXᵀ/dim
        values = np.asarray(eigvalsh_tridiagonal(a[0], b[0], lapack_driver="sterf"))
        scale = float(self.variance) * dim / samples
        return np.concatenate([np.zeros(dim - samples), scale * values])

    @classmethod
    def moment_estimate(cls, measure: SpectralMeasure) -> dict[str, float]:
        """v = mean, q v² = variance; v the standard deviation where the mean is not positive."""
        mean = measure.moment(1)
        variance = measure.integrate(lambda x: (x - mean) ** 2)
        scale = mean if mean > 0 else float(np.sqrt(variance)) or 1.0
        return {"ratio": max(variance / scale**2, 1e-12), "variance": scale}

    @classmethod
    def likelihood_estimate(cls, eigenvalues: NDArray[np.float64]) -> dict[str, float]:
        """Of a real Wishart matrix: v = mean, and Σ log λ = n log(2 v/s) + Σ_i ψ((s + 1 - i)/2).

        The second fixes the number of samples s = n/ratio: its sufficient statistic is log det. A
        singular matrix has rank s. Muirhead, *Aspects of Multivariate Statistical Theory* (1982),
        section 3.2.
        """
        n, v = eigenvalues.size, float(eigenvalues.mean())
        rank = int(np.count_nonzero(eigenvalues > n * np.finfo(float).eps * eigenvalues.max()))
        if rank < n:
            return {"ratio": n / rank, "variance": v}
        wanted = float(np.sum(np.log(eigenvalues / v)))
        index = np.arange(n)

        def excess(log_surplus: float) -> float:
            s = n - 1 + np.exp(log_surplus)
            return float(n * np.log(2 / s) + digamma((s - index) / 2).sum()) - wanted

        surplus = brentq(excess, np.log(1e-9), np.log(1e9 * n))
        return {"ratio": n / (n - 1 + float(np.exp(surplus))), "variance": v}

    def dilate(self, c: Any) -> Law:
        positive = not is_symbolic(c) and bool(c > 0)
        return MarchenkoPastur(self.ratio, self.variance * c) if positive else super().dilate(c)
